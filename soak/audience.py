"""Those who read: pages on WebSockets, one reader of each room's SSE, and some who never read.

Each final that one of them is told is noted with its room's `Delivery`. Who loses the line comes
back where it broke off, as a browser does.
"""

import asyncio
import contextlib
import json
import math
import socket
import time
from functools import partial
from typing import Any

import aiohttp

from soak.delivery import Delivery
from soak.samples import Reading
from soak.sse import LOST, SseReader, again_and_again, captions_of
from soak.token import headers_of

_QUIET_S = 5.0
_TIMEOUT = aiohttp.ClientTimeout(total=30)
_NEVER = aiohttp.ClientTimeout(total=None)
# The server lets go of them before, as soon as more waits than it lets wait; they are not told.
_NOT_READ_FOR_S = 120.0
_LOOKS = 12


class Audience:
    def __init__(
        self,
        url: str,
        rooms: list[str],
        listeners: int,
        slow_readers: int = 0,
        token: str | None = None,
    ) -> None:
        self._url = url
        self._token = token
        self._pages = [(rooms[n % len(rooms)], f"Listener {n}") for n in range(listeners)]
        self._slow = [rooms[n % len(rooms)] for n in range(slow_readers)]
        self._deliveries = {room: Delivery() for room in rooms}
        self._unheard = set(rooms)
        self.listens = asyncio.Event()  # to every room
        if not rooms:
            self.listens.set()

    async def run(self) -> None:
        """Read until cancelled, over connections that then are closed."""
        connector = aiohttp.TCPConnector(limit=0)
        async with (
            aiohttp.ClientSession(
                connector=connector, timeout=_TIMEOUT, headers=headers_of(self._token)
            ) as session,
            asyncio.TaskGroup() as tasks,
        ):
            for room, delivery in self._deliveries.items():
                reader = self._sse(session, room, delivery)
                tasks.create_task(again_and_again(reader.once), name="soak-sse")
            for room, name in self._pages:
                url = f"{self._url}/api/v1/rooms/{room}/ws"
                page = _Page(session, url, name, self._token, self._deliveries[room])
                tasks.create_task(again_and_again(page.once), name="soak-page")
            for room in self._slow:
                sleeper = partial(read_nothing, captions_of(self._url, room), self._token)
                tasks.create_task(again_and_again(sleeper), name="soak-slow")

    @property
    def listeners(self) -> int:
        """Who was let in, and is told of what is said: without those who never read."""
        return sum(delivery.listeners for delivery in self._deliveries.values())

    def reading(self) -> Reading:
        """What was told by now."""
        now = time.monotonic()
        for delivery in self._deliveries.values():
            delivery.judge(now)
        return Reading.of(self._deliveries.values())

    def begin_anew(self) -> None:
        """The server is another: its rooms are, too, and all of them are new to everyone."""
        now = time.monotonic()
        for delivery in self._deliveries.values():
            delivery.begin_anew()
            delivery.came("sse", now)

    @property
    def is_settled(self) -> bool:
        """Whether all have been told all by now."""
        return all(delivery.is_settled for delivery in self._deliveries.values())

    async def last_words(self) -> None:
        """Once nobody speaks any more: until nothing has come for a while. What was not told by
        then is missing."""
        before = self.reading().finals
        for _ in range(_LOOKS):
            await asyncio.sleep(_QUIET_S)
            now = self.reading().finals
            if now == before:
                break
            before = now
        for delivery in self._deliveries.values():
            delivery.judge(math.inf)

    def _sse(self, session: aiohttp.ClientSession, room: str, delivery: Delivery) -> SseReader:
        def came() -> None:
            delivery.came("sse", time.monotonic())
            self._unheard.discard(room)
            if not self._unheard:
                self.listens.set()

        def take(told: dict[str, Any]) -> None:
            delivery.told("sse", told["seq"], time.monotonic())

        return SseReader(session, captions_of(self._url, room), came, take)


async def read_nothing(url: str, token: str | None = None, for_s: float = _NOT_READ_FOR_S) -> None:
    """Open a stream of captions and take nothing of it."""
    connector = aiohttp.TCPConnector(socket_factory=_takes_little)
    async with (
        aiohttp.ClientSession(
            connector=connector, timeout=_NEVER, headers=headers_of(token), read_bufsize=1024
        ) as session,
        session.get(url) as answer,
    ):
        answer.raise_for_status()
        await asyncio.sleep(for_s)


def _takes_little(address: aiohttp.AddrInfoType) -> socket.socket:
    family, kind, protocol, _, _ = address
    made = socket.socket(family, kind, protocol)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    return made


class _Page:
    """A page that reads and does not speak."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        url: str,
        name: str,
        token: str | None,
        delivery: Delivery,
    ) -> None:
        self._session = session
        self._url = url
        self._name = name
        self._token = token
        self._delivery = delivery
        self._resume = ""
        self._last_seq = 0
        self._times = 0

    async def once(self) -> None:
        hello: dict[str, object] = {"type": "hello", "version": 1, "name": self._name}
        if self._token:
            hello["token"] = self._token
        if self._resume:
            hello |= {"resume": self._resume, "last_seq": self._last_seq}
        async with self._session.ws_connect(self._url, heartbeat=10) as socket:
            await socket.send_json(hello)
            try:
                async for message in socket:
                    if message.type is aiohttp.WSMsgType.TEXT:
                        self._take(message.data)
            except asyncio.CancelledError:
                with contextlib.suppress(*LOST):
                    await socket.send_json({"type": "bye"})
                raise

    @property
    def _me(self) -> str:
        return f"{self._name}/{self._times}"

    def _take(self, text: str) -> None:
        told = json.loads(text)
        if told["type"] == "welcome":
            self._welcome(told)
        elif told["type"] == "caption":
            self._last_seq = told["seq"]
            if told["final"]:
                self._delivery.told(self._me, told["seq"], time.monotonic())

    def _welcome(self, welcome: dict[str, object]) -> None:
        self._resume = str(welcome["resume"])
        if not welcome["resumed"]:
            self._delivery.left(self._me)
            self._times += 1
            self._delivery.came(self._me, time.monotonic())
