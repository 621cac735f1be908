"""What pages and the Talk backend say, to the state machines that read it."""

import asyncio
import contextlib
import json
import random

from signaling import hpb, messages, session
from signaling.errors import Refused
from tests.fuzz.target import lines
from transcriber import protocol
from transcriber.errors import WorkerError

_LANGUAGES = ("en", "de")


def message(data: bytes) -> None:
    """A page's messages, one a line, to its session. An empty line is a binary one."""
    page = session.Session(0.0)
    for at, text in enumerate(lines(data)):
        closed = page.state is session.State.CLOSED
        decisions = page.receive(text) if text else page.receive_binary()
        assert not (closed and decisions)
        for decision in decisions:
            _carry_out(page, decision)
        page.expire(at * 0.1)


def _carry_out(page: session.Session, decision: session.Decision) -> None:
    match decision:
        case session.Join(hello):
            try:
                messages.check_name(hello.name).encode()
                if hello.language is not None:
                    messages.check_language(hello.language, _LANGUAGES)
                page.joined()
            except Refused as error:
                page.refused(messages.error_of(error))
        case session.SetLanguage(language):
            with contextlib.suppress(Refused):
                messages.check_language(language, _LANGUAGES, detects=True)
        case session.Send(told):
            messages.encode(told).encode()


def talk_backend(data: bytes) -> None:
    """The signaling server's messages, one a line. A line `!` and a word is what else happens
    to a call: `!connected`, `!disconnected`, `!answered`, `!lost`, `!leave`, `!wait`."""
    call, now = hpb.HpbCall("abc123", "s3cret", "https://cloud.example", random.Random(1)), 100.0
    offers: list[hpb.Answer] = []
    for line in lines(data):
        now += 0.25
        decisions = _happened(call, line, offers, now)
        decisions += call.tick(now + (60.0 if line == "!wait" else 0.0))
        offers += [d for d in decisions if isinstance(d, hpb.Answer)]
        for decision in decisions:
            if isinstance(decision, hpb.Send):
                assert json.loads(decision.text.encode())["type"]
    if call.state is hpb.State.ENDED:
        assert call.received("{}", now) == []


def _happened(
    call: hpb.HpbCall, line: str, offers: list[hpb.Answer], now: float
) -> list[hpb.Decision]:
    match line:
        case "!connected" if call.state is hpb.State.CONNECTING:
            return call.connected(now)
        case "!disconnected":
            return call.disconnected(now)
        case "!answered" if offers:
            return call.answered(offers[-1].speaker, offers[-1].sid, "v=0")
        case "!lost" if offers:
            return call.lost(offers[-1].speaker, offers[-1].sid, now)
        case "!leave":
            return call.leave()
    return call.received(line, now)


def worker(data: bytes) -> None:
    """Frames of the worker's socket."""

    async def read() -> None:
        reader = asyncio.StreamReader()
        reader.feed_data(data)
        reader.feed_eof()
        while True:
            protocol.encode(await protocol.read(reader))

    # There is nothing to wait for: all is there.
    with contextlib.suppress(EOFError, WorkerError):
        asyncio.run(read())
