"""What comes over HTTP and WebSockets, to the real application over a socket."""

import asyncio
import contextlib
import re
import socket
import tempfile
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

from aiohttp import web

from server.config import Settings
from server.lobby import Lobby
from server.observer import Observer
from server.routes import Routes
from server.settings import MediaSettings, TranscriberSettings
from server.talk import Talk
from tests.fuzz.bench import bench
from tests.fuzz.peers import process_wide, without_names
from tests.fuzz.target import Feed
from tests.server.rooms import caption, join, open_lobby, room_of

NEXT = b"\n----\n"  # between the requests of one input
ROOM = "standup"
_MOST_REQUESTS, _MOST_MESSAGES = 4, 40
# For a request that says it is longer than it is: nothing comes of it, and none is judged by it.
_ANSWERED_WITHIN_S = 0.3
_PIECE = 65_536
_SESSION = b"{session}"
_UPGRADE = (
    b"GET /api/v1/rooms/standup/ws HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\n"
    b"Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
_STATUS = re.compile(rb"HTTP/1\.[01] (\d{3}) ")
_CLOSE = b"\x88\x80\0\0\0\0"

Reach = Callable[[], Coroutine[Any, Any, tuple[asyncio.StreamReader, asyncio.StreamWriter]]]


@asynccontextmanager
async def _serving(folder: Path) -> AsyncIterator[tuple[Lobby, Reach]]:
    """A lobby whose routes are reached over pairs of sockets. In its room someone spoke."""
    settings = Settings(
        media=MediaSettings(host_addresses=("127.0.0.1",)),
        transcriber=TranscriberSettings(engine="scripted", vad="energy"),
        data_dir=folder,
        app_secret="s3cret",
    )
    async with _opened(settings) as (lobby, runner):
        ada = await join(lobby, room=ROOM)
        for utterance in range(3):
            room_of(lobby, ROOM).publish(ada, caption(ada, utterance=utterance))

        async def reach() -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
            theirs, ours = socket.socketpair()
            assert runner.server is not None
            loop = asyncio.get_running_loop()
            await loop.connect_accepted_socket(runner.server, theirs)
            return await asyncio.open_connection(sock=ours)

        yield lobby, reach


@asynccontextmanager
async def _opened(settings: Settings) -> AsyncIterator[tuple[Lobby, web.AppRunner]]:
    async with open_lobby(settings) as lobby:
        routes = Routes(lobby, Observer(lobby), Talk(settings.talk, lobby))
        runner = web.AppRunner(
            routes.application(),
            access_log=None,
            shutdown_timeout=1.0,
            lingering_time=0.2,  # for the rest of a body, also of a client that went
        )
        await runner.setup()
        try:
            yield lobby, runner
        finally:
            await lobby.close()
            await runner.cleanup()


@contextmanager
def requests() -> Iterator[Feed]:
    """Requests, one after the other: a line of method and path, headers, an empty line, a body.
    What every client gets right, its length among it, is added. `{session}` is where the latest
    answer said that its session is."""

    async def ask(lobby: Lobby, reach: Reach, data: bytes) -> None:
        session = b"/whip/standup/nobody"
        for request in data.split(NEXT)[:_MOST_REQUESTS]:
            answer = await _ask(reach, request.replace(_SESSION, session))
            if found := re.search(rb"\r\nLocation: (\S+)", answer):
                session = found[1]
        _send_away(lobby)

    with _house() as (run, lobby, reach):
        yield lambda data: run(ask(lobby, reach, without_names(data)))


@contextmanager
def socket_messages() -> Iterator[Feed]:
    """Text messages over a WebSocket, one a line; after a line `!`, bytes instead of frames."""

    async def talk(lobby: Lobby, reach: Reach, data: bytes) -> None:
        texts, _, rest = data.partition(b"\n!\n")
        framed = b"".join(_frame(text) for text in texts.split(b"\n")[:_MOST_MESSAGES])
        answer = await _exchange(reach, _UPGRADE + framed + rest + _CLOSE)
        assert answer.startswith(b"HTTP/1.1 101 "), answer[:80]
        _send_away(lobby)

    with _house() as (run, lobby, reach):
        yield lambda data: run(talk(lobby, reach, without_names(data)))


@contextmanager
def _house() -> Iterator[tuple[Callable[[Coroutine[Any, Any, None]], None], Lobby, Reach]]:
    with (
        tempfile.TemporaryDirectory() as folder,
        process_wide(),
        bench() as loop,
        loop.held(_serving(Path(folder))) as (lobby, reach),
    ):
        yield loop.run, lobby, reach


def _send_away(lobby: Lobby) -> None:
    """All but the one who spoke."""
    for name, room in list(lobby.rooms.items()):
        if name != ROOM:
            room.end()
            del lobby.rooms[name]
    for outbox in room_of(lobby, ROOM)._sse:
        outbox.end("left")  # a reader who went is noticed with the next comment
    for participant in list(room_of(lobby, ROOM).participants.values())[1:]:
        participant.leave("left")


async def _ask(reach: Reach, request: bytes) -> bytes:
    head, _, body = request.partition(b"\n\n")
    first, *headers = head.split(b"\n")
    lines = [first + b" HTTP/1.1", *headers, b"Host: localhost", b"Connection: close"]
    if not any(line.lower().startswith((b"content-length", b"transfer-")) for line in headers):
        lines.append(b"Content-Length: %d" % len(body))
    answer = await _exchange(reach, b"\r\n".join(lines) + b"\r\n\r\n" + body)
    status = _STATUS.match(answer)
    assert not answer or status, f"no answer of HTTP: {answer[:80]!r}"
    assert status is None or int(status[1]) not in (500, 502, 504), "it failed within"
    return answer


async def _exchange(reach: Reach, sent: bytes) -> bytes:
    """What comes back until the other end closes, or streams."""
    reader, writer = await reach()
    answer = b""
    with contextlib.suppress(TimeoutError, ConnectionError):
        async with asyncio.timeout(_ANSWERED_WITHIN_S):
            writer.write(sent)
            while piece := await reader.read(_PIECE):
                answer += piece
                if b"text/event-stream" in answer and b"data:" in answer:
                    break
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()
    return answer


def _frame(text: bytes) -> bytes:
    """A text message as a client masks it, with a mask of zeros."""
    size = len(text)
    told = bytes([0x80 | size]) if size < 126 else b"\xfe" + size.to_bytes(2, "big")
    return b"\x81" + told + bytes(4) + text
