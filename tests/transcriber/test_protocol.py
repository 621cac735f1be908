import asyncio
import json
import math
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.transcriber.builders import hypothesis, tail_of, window
from transcriber import protocol
from transcriber.errors import WorkerError
from transcriber.protocol import Forget, Message, Tail, encode
from transcriber.types import (
    BatchReport,
    EngineInfo,
    EngineState,
    EngineStatus,
    GapReason,
    Hypothesis,
    Samples,
    StreamId,
    Window,
    Word,
)

STREAM = StreamId("ada")
STATUS = EngineStatus(EngineState.READY, EngineInfo("scripted", "m", ("en",), "note"), 0.5, "hm")

words_of_any_kind = st.text(max_size=20)
streams = words_of_any_kind.map(StreamId)
positions = st.integers(0, 1 << 53)
numbers = st.integers(0, 1 << 31)
seconds = st.floats(0, 1e6)
spoken_words = st.builds(Word, words_of_any_kind, positions, positions, st.floats(0, 1))
absorbed = st.lists(numbers, max_size=3).map(tuple)
levels = st.lists(st.integers(-32_768, 32_767), max_size=50)
samples = levels.map(lambda values: np.array(values, np.int16))
infos = st.builds(
    EngineInfo,
    words_of_any_kind,
    words_of_any_kind,
    st.lists(words_of_any_kind, max_size=3).map(tuple),
    words_of_any_kind,
)
without_audio = st.one_of(
    st.builds(Forget, streams),
    st.builds(
        Hypothesis,
        streams,
        numbers,
        numbers,
        st.booleans(),
        words_of_any_kind,
        words_of_any_kind,
        st.lists(spoken_words, max_size=3).map(tuple),
        absorbed,
        st.none() | st.sampled_from(GapReason),
    ),
    st.builds(
        EngineStatus,
        st.sampled_from(EngineState),
        infos,
        st.none() | st.floats(0, 1),
        words_of_any_kind,
    ),
    st.builds(BatchReport, numbers, seconds, seconds, seconds, numbers),
)
windows = st.builds(
    Window,
    streams,
    numbers,
    numbers,
    positions,
    samples,
    st.booleans(),
    words_of_any_kind,
    words_of_any_kind,
    absorbed,
)


def frame(header: bytes, body: bytes = b"") -> bytes:
    return struct.pack("!II", len(header), len(body)) + header + body


def said(message: Message, /, **changes: object) -> bytes:
    """A frame whose header says something else than the message."""
    return frame(json.dumps({**header_of(message), **changes}).encode())


def header_of(message: Message) -> dict[str, object]:
    went = encode(message)
    (length,) = struct.unpack("!I", went[:4])
    header: dict[str, object] = json.loads(went[8 : 8 + length])
    return header


def read_all(data: bytes) -> list[Message]:
    """What stands in the bytes, then whatever `read` raises but a clean end."""

    async def read() -> list[Message]:
        reader = asyncio.StreamReader()
        reader.feed_data(data)
        reader.feed_eof()
        messages = []
        while not reader.at_eof():
            messages.append(await protocol.read(reader))
        return messages

    return asyncio.run(read())


@given(st.lists(without_audio, max_size=3))
def test_every_message_without_audio_comes_back_as_it_went(messages: list[Message]) -> None:
    assert read_all(b"".join(map(encode, messages))) == messages


@given(windows)
def test_a_window_comes_back_as_it_went(went: Window) -> None:
    (came,) = read_all(encode(went))
    assert isinstance(came, Window)
    for name in ("stream", "utterance", "revision", "start_sample", "is_final", "language"):
        assert getattr(came, name) == getattr(went, name)
    assert (came.prompt, came.absorbed) == (went.prompt, went.absorbed)
    assert came.samples.dtype == np.int16
    assert np.array_equal(came.samples, went.samples)


@given(windows, numbers.filter(bool))
def test_a_tail_comes_back_as_it_went(rest: Window, known: int) -> None:
    (came,) = read_all(encode(Tail(rest, known)))
    assert isinstance(came, Tail)
    assert came.known == known
    assert replace(came.window, samples=rest.samples) == replace(rest, samples=rest.samples)
    assert np.array_equal(came.window.samples, rest.samples)


@given(samples, st.lists(st.integers(0, 50), min_size=1, max_size=6))
def test_what_is_sent_by_tails_is_the_whole_window(audio: Samples, ends: list[int]) -> None:
    """Whatever windows of an utterance follow each other, shorter ones too."""
    before = known = None
    for revision, end in enumerate(ends):
        whole = window(revision=revision, samples=audio[:end], start_s=1.0)
        (came,) = read_all(encode(tail_of(whole, before)))
        assert isinstance(came, Window | Tail)
        known = came.complete(known) if isinstance(came, Tail) else came
        assert known.revision == revision
        assert np.array_equal(known.samples, whole.samples)
        before = whole


def test_only_what_is_new_is_sent() -> None:
    before = window(seconds=10.0)
    now = window(seconds=10.5, revision=2, final=True)
    assert len(encode(tail_of(now, before))) < 0.6 * 2 * 16_000
    assert tail_of(now, None) is now


@pytest.mark.parametrize("other", [window(utterance=2), window(start_s=0.5)])
def test_another_utterance_or_another_start_is_sent_whole(other: Window) -> None:
    assert tail_of(other, window()) is other


@pytest.mark.parametrize(
    ("known", "before"),
    [
        (16_000, None),
        (16_000, window(utterance=2)),
        (16_000, window(start_s=0.5)),
        (16_001, window()),
        (1 << 80, window()),
        (-1, window()),
    ],
)
def test_a_tail_that_does_not_fit_is_a_worker_error(known: int, before: Window | None) -> None:
    (came,) = read_all(encode(Tail(window(seconds=0.5), known)))
    assert isinstance(came, Tail)
    with pytest.raises(WorkerError, match="not sent"):
        came.complete(before)


@pytest.mark.parametrize("cut", [0, 1, 7, 8, 20, -1])
async def test_a_torn_frame_is_an_end(cut: int) -> None:
    reader = asyncio.StreamReader()
    reader.feed_data(encode(window(seconds=0.1))[:cut])
    reader.feed_eof()
    with pytest.raises(EOFError):
        await protocol.read(reader)


@pytest.mark.parametrize(("header", "body"), [((1 << 20) + 1, 0), (0, (8 << 20) + 1)])
async def test_a_frame_that_is_too_large_is_refused_before_it_is_read(
    header: int, body: int
) -> None:
    reader = asyncio.StreamReader()
    reader.feed_data(struct.pack("!II", header, body))
    with pytest.raises(WorkerError, match="too large"):
        await protocol.read(reader)


@pytest.mark.parametrize(
    "garbage",
    [
        frame(b""),
        frame(b"\xff\xfe"),
        frame(b"no json"),
        frame(b"{}"),
        frame(b"[]"),
        frame(b"3"),
        frame(b'"Window"'),
        frame(b'{"type": 1}'),
        frame(b'{"type": "Shutdown"}'),
        frame(b'{"type": "Forget"}'),
        frame(b'{"type": "Forget", "stream": "a", "more": 1}'),
        frame(b"[" * 500_000),
        said(STATUS, state="asleep"),
        said(STATUS, info=None),
        said(hypothesis(window(), "text"), lost="no reason"),
        said(hypothesis(window(), "text"), words=[{"text": "half"}]),
        said(window(), absorbed=None),
        said(window(), utterance="one"),
        said(window(), revision=1.5),
        said(window(), start_sample=None),
        said(window(), is_final="yes"),
        said(window(), stream=["ada"]),
        said(window(), language=7),
        said(window(), prompt=None),
        said(window(), absorbed=["one"]),
        said(Forget(STREAM), stream={}),
        said(Tail(window(), 1), known="1"),
        said(Tail(window(), 1), known=math.inf),
        said(Tail(window(), 1), known=1.5),
        said(Tail(window(), 1), known=None),
        # half a sample
        frame(json.dumps(header_of(window())).encode(), b"\x00"),
    ],
)
def test_a_frame_that_does_not_parse_is_a_worker_error(garbage: bytes) -> None:
    with pytest.raises(WorkerError):
        read_all(garbage)


@given(st.binary(max_size=200))
def test_any_bytes_end_in_a_message_an_end_or_a_worker_error(data: bytes) -> None:
    with suppress(WorkerError, EOFError):
        read_all(data)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)


@given(
    st.sampled_from(
        [
            window(seconds=0),
            Tail(window(seconds=0), 7),
            hypothesis(window(), "text"),
            STATUS,
            Forget(STREAM),
        ]
    ),
    st.data(),
)
def test_any_value_in_any_field_ends_in_a_message_or_a_worker_error(
    message: Message, data: st.DataObject
) -> None:
    field = data.draw(st.sampled_from(sorted(header_of(message))))
    try:
        (came,) = read_all(said(message, **{field: data.draw(json_values)}))
    except WorkerError:
        return
    # nothing known is the whole window
    assert type(came) is type(message) or (field == "known" and isinstance(came, Window))


# The key


@asynccontextmanager
async def both_ends() -> AsyncIterator[
    tuple[
        tuple[asyncio.StreamReader, asyncio.StreamWriter],
        tuple[asyncio.StreamReader, asyncio.StreamWriter],
    ]
]:
    one, other = socket.socketpair()
    worker, server = (
        await asyncio.open_connection(sock=one),
        await asyncio.open_connection(sock=other),
    )
    try:
        yield worker, server
    finally:
        for _, writer in (worker, server):
            writer.close()
            await writer.wait_closed()


async def admitted(worker_key: bytes, server_key: bytes) -> bool:
    async with both_ends() as (worker, server), asyncio.timeout(20):
        asked, _ = await asyncio.gather(
            protocol.admit(*worker, worker_key), protocol.prove(*server, server_key)
        )
        return asked


async def test_who_knows_the_key_is_let_in() -> None:
    assert await admitted(b"key", b"key")


async def test_who_has_a_wrong_key_is_refused() -> None:
    assert not await admitted(b"key", b"kex")


async def test_who_leaves_before_the_proof_is_refused() -> None:
    async with both_ends() as (worker, (_, writer)), asyncio.timeout(20):
        writer.write_eof()
        assert not await protocol.admit(*worker, b"key")


async def test_a_proof_is_of_no_use_a_second_time() -> None:
    async with both_ends() as (worker, (reader, writer)), asyncio.timeout(20):
        first = asyncio.ensure_future(protocol.admit(*worker, b"key"))
        nonce = await reader.readexactly(32)
        proof = protocol._proof(b"key", nonce)
        writer.write(proof)
        assert await first
        second = asyncio.ensure_future(protocol.admit(*worker, b"key"))
        assert await reader.readexactly(32) != nonce
        writer.write(proof)
        assert not await second


async def test_a_worker_that_ends_before_its_question_is_an_end() -> None:
    async with both_ends() as ((_, writer), server), asyncio.timeout(20):
        writer.close()
        with pytest.raises(EOFError):
            await protocol.prove(*server, b"key")


def test_not_a_number_does_not_break_a_report() -> None:
    (came,) = read_all(encode(BatchReport(1, 1.0, math.inf, 0.0, 0)))
    assert came == BatchReport(1, 1.0, math.inf, 0.0, 0)
