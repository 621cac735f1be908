"""Captions over Server-Sent Events, resumed where a reader left off."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator

from aiohttp import web

from server.outbox import Outbox
from server.replay import Event
from server.room import Room
from signaling.errors import Refused

_COMMENT_S = 15.0
_PAGE = 200
# A reader that takes nothing for so long is let go: nothing else ends a write to a connection
# that is open and not read.
_WRITE_S = 20.0
_UNSENT_BYTES = 16 * 1024


async def serve_captions(
    request: web.Request, room: Room, token_id: str | None = None
) -> web.StreamResponse:
    """Serve `GET …/captions` until the room ends or the reader is gone. Raises `Refused`."""
    after = _last_event_id(request)
    response = web.StreamResponse(
        headers={
            "Content-Type": "text/event-stream; charset=utf-8",
            "Cache-Control": "no-store",
            "X-Accel-Buffering": "no",
        }
    )
    outbox = Outbox()
    room.subscribe(outbox, token_id)
    try:
        # Subscribed first: what is published while the past is sent waits in the outbox.
        live_from = room.seq
        await response.prepare(request)
        _keep_little_unsent(request)
        with contextlib.suppress(ConnectionError):
            if after is not None:
                async for event in _missed(room, after, live_from):
                    await _send(request, response, event.as_sse)
            await _live(request, response, outbox)
    except TimeoutError:
        outbox.end("slow_reader")
        if request.transport is not None:
            request.transport.abort()
    finally:
        if outbox.reason == "slow_reader":
            room.house.metrics.listeners_dropped.inc()
        room.unsubscribe(outbox)
    return response


def _keep_little_unsent(request: web.Request) -> None:
    """What a reader does not take is to wait in the `Outbox`, which sees it, and neither in the
    kernel, which takes megabytes, nor before it. A page's socket is found dead by its pings."""
    transport = request.transport
    if transport is None:
        return
    transport.set_write_buffer_limits(_UNSENT_BYTES)
    connected = transport.get_extra_info("socket")
    if connected is not None and connected.family in (socket.AF_INET, socket.AF_INET6):
        with contextlib.suppress(OSError):  # a kernel that does not know it
            connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, _UNSENT_BYTES)


async def _live(request: web.Request, response: web.StreamResponse, outbox: Outbox) -> None:
    while True:
        try:
            async with asyncio.timeout(_COMMENT_S):
                text = await anext(outbox)
        except TimeoutError:
            await _send(request, response, ": still here\n\n")
            continue
        except StopAsyncIteration:
            break
        await _send(request, response, text)
    if outbox.reason is not None:
        await _send(request, response, f'event: bye\ndata: {{"reason":"{outbox.reason}"}}\n\n')


async def _send(request: web.Request, response: web.StreamResponse, text: str) -> None:
    """Raises `TimeoutError` if the reader does not take it."""
    async with asyncio.timeout(_WRITE_S):
        await response.write(text.encode())
        await request.writer.drain()  # `write` lets 64 kB wait first


async def _missed(room: Room, after: int, until: int) -> AsyncIterator[Event]:
    """Events with a `seq` above `after`, at most `until`: from the store where memory ends."""
    if after > until:
        # an id of an earlier room of this name: all of this one is new to the reader
        after = 0
    # again and again: while these are sent, others may leave memory
    while older := await room.history.older(after, _PAGE):
        for event in older:
            if event.seq > until:
                return  # memory has moved on: that one waits in the outbox
            after = event.seq
            yield event
    for event in room.history.after(after):
        if event.seq <= until:
            yield event


def _last_event_id(request: web.Request) -> int | None:
    given = request.headers.get("Last-Event-ID") or request.query.get("last_event_id")
    if not given:
        return None
    if not given.isdecimal() or len(given) > 15:
        raise Refused("bad_last_event_id", "Last-Event-ID is a number")
    return int(given)
