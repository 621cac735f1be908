"""Every message on the wire, parsed and validated once. Pure.

From a client: `parse`. To a client: the models here, encoded with `encode`. Field names
are those of the wire; docs/wire.md describes them for those who write clients.
"""

import re
import unicodedata
from collections.abc import Callable
from typing import Annotated, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    TypeAdapter,
    ValidationError,
    model_serializer,
)

from signaling.bounds import Bounds
from signaling.errors import BadMessage, Refused

MAX_MESSAGE_BYTES = 64 * 1024

_ROOM = re.compile(r"[A-Za-z0-9_-]{1,64}")
_LANGUAGE = re.compile(r"[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8})*")
_MAX_NAME = 64


class _Wire(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class Hello(_Wire):
    type: Literal["hello"] = "hello"
    version: Literal[1]
    name: str
    language: str | None = None
    token: str | None = None
    resume: str | None = None
    # The last event the client has seen: what came after it is sent again on a resume.
    last_seq: Annotated[int, Field(ge=0)] | None = None


class Offer(_Wire):
    type: Literal["offer"] = "offer"
    sdp: str


class Candidate(_Wire):
    type: Literal["candidate"] = "candidate"
    candidate: str
    sdpMid: str | None = None  # noqa: N815 - the browsers' name


class Language(_Wire):
    type: Literal["language"] = "language"
    language: str


class Mute(_Wire):
    type: Literal["mute"] = "mute"
    muted: bool


class ClientBye(_Wire):
    type: Literal["bye"] = "bye"


ClientMessage = Hello | Offer | Candidate | Language | Mute | ClientBye
_CLIENT: TypeAdapter[ClientMessage] = TypeAdapter(
    Annotated[ClientMessage, Field(discriminator="type")]
)


def parse(text: str) -> ClientMessage:
    """Raises `BadMessage`, which names the field but never quotes the message."""
    if len(text.encode("utf-8", "surrogatepass")) > MAX_MESSAGE_BYTES:
        raise BadMessage("the message is larger than 64 KiB")
    try:
        return _CLIENT.validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        if first["type"] == "json_invalid":
            raise BadMessage("the message is not JSON") from None
        if first["type"].startswith("union_tag"):
            raise BadMessage("the message's type is not known") from None
        raise BadMessage(f"{where or 'the message'}: {first['msg']}") from None


def check_room(room: str) -> str:
    """Raises `Refused` with `bad_room`."""
    if not _ROOM.fullmatch(room):
        raise Refused("bad_room", "a room is named by 1 to 64 of A-Z a-z 0-9 - _")
    return room


def check_name(name: str) -> str:
    """The name as it is shown. Raises `Refused` with `bad_name`."""
    trimmed = name.strip()
    has_control = any(unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") for c in trimmed)
    if not 1 <= len(trimmed) <= _MAX_NAME or has_control:
        raise Refused("bad_name", "a name has 1 to 64 characters, none of them control characters")
    return trimmed


def check_sdp(sdp: str, bounds: Bounds, hit: Callable[[str], None]) -> None:
    """Before anything reads it; `hit` is told of a bound that it is beyond. Raises `Refused`."""
    if len(sdp.encode("utf-8", "surrogatepass")) > bounds.sdp_bytes:
        hit("sdp_bytes")
        raise Refused("too_large", "the offer is too long", status=413)
    if sdp.count("\n") >= bounds.sdp_lines:
        hit("sdp_lines")
        raise Refused("too_large", "the offer has too many lines", status=413)


DETECT = "auto"


def check_language(language: str, offered: tuple[str, ...], *, detects: bool = False) -> str:
    """The engine's name of a language; `auto`, that it be detected, stays as it is. Raises
    `Refused` with `bad_language`."""
    if language == DETECT:
        if detects:
            return language
        raise Refused("bad_language", "the engine does not detect languages")
    if not _LANGUAGE.fullmatch(language):
        raise Refused("bad_language", "a language is a tag such as en or pt-BR")
    short = language.split("-")[0].lower()
    for candidate in (language.lower(), short):
        if candidate in offered:
            return candidate
    raise Refused("bad_language", "the engine does not know this language")


class RosterEntry(_Wire):
    participant: str
    name: str
    muted: bool
    speaking: bool
    muted_by_owner: bool = False  # left out where they are not

    @model_serializer(mode="wrap")
    def _dump(self, dump: SerializerFunctionWrapHandler) -> dict[str, object]:
        values: dict[str, object] = dump(self)
        if not self.muted_by_owner:
            del values["muted_by_owner"]
        return values


class EngineSummary(_Wire):
    name: str
    state: str
    model: str
    languages: tuple[str, ...]
    language: str  # the participant's
    note: str
    detects: bool = False  # takes `auto` for a language


class IceServerEntry(_Wire):
    urls: tuple[str, ...]
    username: str | None = None
    credential: str | None = None


class Welcome(_Wire):
    type: Literal["welcome"] = "welcome"
    participant: str
    resume: str
    room: str
    participants: tuple[RosterEntry, ...]
    ice_servers: tuple[IceServerEntry, ...]
    engine: EngineSummary
    resumed: bool = False
    rights: tuple[str, ...] = ()


class Answer(_Wire):
    type: Literal["answer"] = "answer"
    sdp: str


class Joined(RosterEntry):
    type: Literal["joined"] = "joined"


class Updated(RosterEntry):
    type: Literal["updated"] = "updated"


class Left(_Wire):
    type: Literal["left"] = "left"
    participant: str
    reason: str


class EngineMessage(_Wire):
    type: Literal["engine"] = "engine"
    state: str
    progress: float | None = None
    message: str = ""
    # an engine may turn out to be another than was expected
    name: str = ""
    model: str = ""
    languages: tuple[str, ...] = ()
    note: str = ""
    detects: bool = False


class Load(_Wire):
    type: Literal["load"] = "load"
    state: Literal["ok", "catching_up"]
    lag_s: float


class WordEntry(_Wire):
    word: str
    start: float
    end: float
    confidence: float
    voice: str = ""  # of several at one microphone; left out where nobody told them apart

    @model_serializer(mode="wrap")
    def _dump(self, dump: SerializerFunctionWrapHandler) -> dict[str, object]:
        values: dict[str, object] = dump(self)
        if not self.voice:
            del values["voice"]
        return values


class CaptionMessage(_Wire):
    type: Literal["caption"] = "caption"
    seq: int
    room: str
    participant: str
    name: str
    segment: str
    revision: int
    stable: str
    tentative: str
    final: bool
    start: float
    end: float
    language: str
    words: tuple[WordEntry, ...]
    latency_ms: int
    spoken_at: str  # wall clock of `start`


class GapMessage(_Wire):
    type: Literal["gap"] = "gap"
    seq: int
    room: str
    participant: str
    name: str
    start: float
    end: float
    reason: str


class Error(_Wire):
    type: Literal["error"] = "error"
    code: str
    message: str
    retryable: bool


class Ping(_Wire):
    """Lets a page notice a dead socket: scripts do not see WebSocket pings."""

    type: Literal["ping"] = "ping"


class Bye(_Wire):
    type: Literal["bye"] = "bye"
    reason: str


ServerMessage = (
    Welcome
    | Answer
    | Joined
    | Updated
    | Left
    | EngineMessage
    | Load
    | CaptionMessage
    | GapMessage
    | Error
    | Ping
    | Bye
)


def encode(message: ServerMessage) -> str:
    return message.model_dump_json()


def error_of(error: BadMessage | Refused) -> Error:
    return Error(code=error.code, message=error.message, retryable=error.retryable)
