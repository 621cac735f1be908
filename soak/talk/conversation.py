"""A socket to Talk's signaling server, on the wire that Talk's web client speaks.

A `Conversation` keeps every message it got, also over sockets that follow one another.
"""

import asyncio
import itertools
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp

from soak.talk.heard import Heard, Message

_ANSWER_S = 15.0  # the signaling server itself waits up to 10 s for a publisher


class Refused(Exception):
    """The signaling server answered with an error."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


class Conversation(Heard):
    """What is said on a socket to the signaling server, and on those that follow it."""

    def __init__(self, http: aiohttp.ClientSession, url: str) -> None:
        super().__init__()
        self.is_closed = asyncio.Event()
        self._http = http
        self._url = url
        self._socket: aiohttp.ClientWebSocketResponse | None = None
        self._reading: asyncio.Task[None] | None = None
        self._numbers = itertools.count(1)

    @property
    def socket(self) -> aiohttp.ClientWebSocketResponse:
        assert self._socket is not None, "there is no socket"
        return self._socket

    async def connect(self) -> None:
        """Raises `aiohttp.ClientError` where nobody answers."""
        await self.close()
        self._socket = await self._http.ws_connect(self._url)
        self.is_closed = asyncio.Event()
        self._reading = asyncio.create_task(self._read(self._socket), name="talk-read")

    async def ask(self, kind: str, content: Message) -> Message:
        """Send a message and wait for what answers it. Raises `Refused`."""
        number = await self.tell(kind, content)
        answer = await self.wait_for(lambda m: m.get("id") == number)
        if answer["type"] == "error":
            raise Refused(answer["error"]["code"])
        return answer

    async def tell(self, kind: str, content: Message) -> str:
        """Returns the id that an answer would carry."""
        number = str(next(self._numbers))
        await self.socket.send_str(json.dumps({"id": number, "type": kind, kind: content}))
        return number

    async def tell_session(self, session: str, content: Message) -> str:
        """Send to one session of the room, or for one's own to the media server behind it."""
        recipient = {"type": "session", "sessionid": session}
        return await self.tell("message", {"recipient": recipient, "data": content})

    async def wait_for_event(
        self, target: str, kind: str, *, since: int = 0, within_s: float = _ANSWER_S
    ) -> Message:
        """What came with an event, such as `participants` `update`."""

        def is_wanted(message: Message) -> bool:
            event = message.get("event", {})
            return (event.get("target"), event.get("type")) == (target, kind)

        message = await self.wait_for(is_wanted, since=since, within_s=within_s)
        event: Message = message["event"]
        return event

    def lose(self) -> None:
        """The line is cut: nothing is said about it."""
        connection = self.socket._response.connection
        if connection is not None and connection.transport is not None:
            connection.transport.abort()

    async def close(self) -> None:
        if self._reading is not None:
            await self.socket.close()
            await asyncio.wait({self._reading})
            self._reading = None

    async def _read(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        async for message in socket:
            if message.type is aiohttp.WSMsgType.TEXT:
                await self.note(json.loads(message.data))
        self.is_closed.set()


@asynccontextmanager
async def conversation(url: str) -> AsyncIterator[Conversation]:
    """A socket on which nobody has said hello."""
    async with aiohttp.ClientSession() as http:
        talking = Conversation(http, url)
        await talking.connect()
        try:
            yield talking
        finally:
            await talking.close()


def is_from(message: Message, session: str, kind: str, sid: str | None = None) -> bool:
    """Whether it was sent by (or for) that session and is an offer, an answer, …"""
    if message["type"] != "message":
        return False
    told = message["message"]["data"]
    return bool(
        message["message"]["sender"].get("sessionid") == session
        and told.get("type") == kind
        and (sid is None or told.get("sid") == sid)
    )
