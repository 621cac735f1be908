"""What the server and the worker process say to each other, over a Unix socket.

A frame is the length of its header and of its body (4 bytes each, big endian), the header
as JSON with a `type`, and as the body of a window its samples, in the byte order of the
machine that both are on. The two sides prove that they share a key before anything else is
read. Sizes are bounded; what does not parse is a `WorkerError`.
"""

import asyncio
import dataclasses
import hashlib
import hmac
import json
import secrets
import struct
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from transcriber.errors import WorkerError
from transcriber.types import (
    BatchReport,
    EngineInfo,
    EngineState,
    EngineStatus,
    Evidence,
    GapReason,
    Hypothesis,
    StreamId,
    Window,
    Word,
)

_LENGTHS = struct.Struct("!II")
_MAX_HEADER = 1 << 20
_MAX_BODY = 8 << 20
_NONCE_BYTES = 32
_WINDOW_FIELDS = tuple(f.name for f in dataclasses.fields(Window) if f.name != "samples")
# A wrong type would show in the engine only, and end the worker for all servers.
_TYPES = {
    "stream": str,
    "utterance": int,
    "revision": int,
    "start_sample": int,
    "is_final": bool,
    "language": str,
    "prompt": str,
    "known": int,
    "glossary": str,
}


@dataclass(frozen=True, slots=True)
class Forget:
    """The speaker is gone."""

    stream: StreamId


@dataclass(frozen=True, slots=True)
class Tail:
    """A window without its first `known` samples: the worker has them from the window before
    of the same utterance. So every sample is sent once, however long the utterance."""

    window: Window
    known: int

    def complete(self, before: Window | None) -> Window:
        """The whole window. Raises `WorkerError` if `before` is not the one it goes on from."""
        rest = self.window
        if (
            before is None
            or (before.utterance, before.start_sample) != (rest.utterance, rest.start_sample)
            or not 0 <= self.known <= len(before.samples)
        ):
            raise WorkerError("a window goes on from one that was not sent")
        return replace(rest, samples=np.concatenate([before.samples[: self.known], rest.samples]))


@dataclass(frozen=True, slots=True)
class Sent:
    """What the worker has of an utterance."""

    utterance: int
    start_sample: int
    samples: int

    @classmethod
    def of(cls, window: Window) -> "Sent":
        return cls(window.utterance, window.start_sample, len(window.samples))

    def rest_of(self, window: Window) -> Window | Tail:
        """What is still to be sent of a window."""
        if (self.utterance, self.start_sample) != (window.utterance, window.start_sample):
            return window
        known = min(self.samples, len(window.samples))
        return Tail(replace(window, samples=window.samples[known:]), known)


Message = Window | Tail | Forget | Hypothesis | EngineStatus | BatchReport


def encode(message: Message) -> bytes:
    """One frame."""
    body = b""
    match message:
        case Window():
            header, body = _window_header(message), message.samples.tobytes()
        case Tail():
            header = {**_window_header(message.window), "known": message.known}
            body = message.window.samples.tobytes()
        case _:
            header = dataclasses.asdict(message)
    header.setdefault("type", type(message).__name__)
    text = json.dumps(header, separators=(",", ":")).encode()
    return _LENGTHS.pack(len(text), len(body)) + text + body


def _window_header(window: Window) -> dict[str, Any]:
    header = {name: getattr(window, name) for name in _WINDOW_FIELDS}
    return {**header, "type": "Window"}


async def read(reader: asyncio.StreamReader) -> Message:
    """The next message. Raises `EOFError` at a clean or torn end, `WorkerError` otherwise."""
    header_length, body_length = _LENGTHS.unpack(await reader.readexactly(_LENGTHS.size))
    if header_length > _MAX_HEADER or body_length > _MAX_BODY:
        raise WorkerError("a frame is too large")
    text = await reader.readexactly(header_length)
    body = await reader.readexactly(body_length)
    try:
        return _decode(json.loads(text), body)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise WorkerError("a frame does not parse") from error


def _decode(header: dict[str, Any], body: bytes) -> Message:
    kind = header.pop("type")
    for name, expected in _TYPES.items():
        if name in header and not isinstance(header[name], expected):
            raise TypeError(name)
    if not all(isinstance(utterance, int) for utterance in header.get("absorbed", ())):
        raise TypeError("absorbed")
    if not all(isinstance(language, str) for language in header.get("detect", ())):
        raise TypeError("detect")
    if kind == "Window":
        pcm = np.frombuffer(body, np.int16)
        known = header.pop("known", 0)
        window = Window(
            **{
                **header,
                "absorbed": tuple(header["absorbed"]),
                "detect": tuple(header["detect"]),
                "samples": pcm,
            }
        )
        return Tail(window, int(known)) if known else window
    if kind == "Forget":
        return Forget(**header)
    if kind == "Hypothesis":
        lost = header["lost"]
        return Hypothesis(
            **{
                **header,
                "words": tuple(Word(**w) for w in header["words"]),
                "absorbed": tuple(header["absorbed"]),
                "lost": None if lost is None else GapReason(lost),
                "evidence": Evidence(**header["evidence"]),
            }
        )
    if kind == "EngineStatus":
        info = header["info"]
        return EngineStatus(
            EngineState(header["state"]),
            EngineInfo(**{**info, "languages": tuple(info["languages"])}),
            header["progress"],
            header["message"],
        )
    if kind == "BatchReport":
        return BatchReport(**header)
    raise WorkerError("a frame of an unknown type")


async def admit(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, key: bytes) -> bool:
    """The worker's side of the proof: whether the other end knows the key."""
    nonce = secrets.token_bytes(_NONCE_BYTES)
    writer.write(nonce)
    try:
        proof = await reader.readexactly(hashlib.sha256().digest_size)
    except EOFError:
        return False
    return hmac.compare_digest(proof, _proof(key, nonce))


async def prove(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, key: bytes) -> None:
    """The server's side of the proof."""
    writer.write(_proof(key, await reader.readexactly(_NONCE_BYTES)))


def _proof(key: bytes, nonce: bytes) -> bytes:
    return hmac.digest(key, nonce, "sha256")
