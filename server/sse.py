"""Captions over Server-Sent Events, resumed where a reader left off."""

import asyncio
import contextlib
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
        with contextlib.suppress(ConnectionError):
            if after is not None:
                async for event in _missed(room, after, live_from):
                    await _send(response, event.as_sse)
            await _live(response, outbox)
    except TimeoutError:
        if request.transport is not None:
            request.transport.abort()
    finally:
        room.unsubscribe(outbox)
    return response


async def _live(response: web.StreamResponse, outbox: Outbox) -> None:
    while True:
        try:
            async with asyncio.timeout(_COMMENT_S):
                text = await anext(outbox)
        except TimeoutError:
            await _send(response, ": still here\n\n")
            continue
        except StopAsyncIteration:
            break
        await _send(response, text)
    if outbox.reason is not None:
        await _send(response, f'event: bye\ndata: {{"reason":"{outbox.reason}"}}\n\n')


async def _send(response: web.StreamResponse, text: str) -> None:
    """Raises `TimeoutError` if the reader does not take it."""
    async with asyncio.timeout(_WRITE_S):
        await response.write(text.encode())


async def _missed(room: Room, after: int, until: int) -> AsyncIterator[Event]:
    """Events with a `seq` above `after`, at most `until`: from the store where memory ends."""
    if after > until:
        # an id of an earlier room of this name: all of this one is new to the reader
        after = 0
    # again and again: while these are sent, others may leave memory
    while older := await room.older_events(after, _PAGE):
        for event in older:
            after = event.seq
            yield event
    for event in room.events_after(after):
        if event.seq <= until:
            yield event


def _last_event_id(request: web.Request) -> int | None:
    given = request.headers.get("Last-Event-ID") or request.query.get("last_event_id")
    if not given:
        return None
    if not given.isdecimal() or len(given) > 15:
        raise Refused("bad_last_event_id", "Last-Event-ID is a number")
    return int(given)
