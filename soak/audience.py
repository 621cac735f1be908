"""Those who read: pages on WebSockets, one reader of each room's SSE, and some who never read.

Each final that one of them is told is noted with its room's `Delivery`. Who loses the line comes
back where it broke off, as a browser does.
"""

import asyncio
import contextlib
import json
import math
import time
from functools import partial
from typing import Any

import aiohttp

from soak.delivery import Delivery
from soak.samples import Reading
from soak.sse import LOST, SseReader, again_and_again, captions_of

_NOT_READ_FOR_S = 60.0  # the server lets go of who does not read for 20 s
_QUIET_S = 5.0
_TIMEOUT = aiohttp.ClientTimeout(total=30)
_LOOKS = 12


class Audience:
    def __init__(
        self,
        url: str,
        rooms: list[str],
        listeners: int,
        slow_readers: int = 0,
    ) -> None:
        self._url = url
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
            aiohttp.ClientSession(connector=connector, timeout=_TIMEOUT) as session,
            asyncio.TaskGroup() as tasks,
        ):
            for room, delivery in self._deliveries.items():
                reader = self._sse(session, room, delivery)
                tasks.create_task(again_and_again(reader.once), name="soak-sse")
            for room, name in self._pages:
                url = f"{self._url}/api/v1/rooms/{room}/ws"
                page = _Page(session, url, name, self._deliveries[room])
                tasks.create_task(again_and_again(page.once), name="soak-page")
            for room in self._slow:
                sleeper = partial(_read_nothing, session, captions_of(self._url, room))
                tasks.create_task(again_and_again(sleeper), name="soak-slow")

    @property
    def readers(self) -> int:
        return len(self._deliveries) + len(self._pages) + len(self._slow)

    def reading(self) -> Reading:
        """What was told by now."""
        now = time.monotonic()
        for delivery in self._deliveries.values():
            delivery.judge(now)
        return Reading.of(self._deliveries.values())

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


async def _read_nothing(session: aiohttp.ClientSession, url: str) -> None:
    async with session.get(url) as answer:
        answer.raise_for_status()
        await asyncio.sleep(_NOT_READ_FOR_S)


class _Page:
    """A page that reads and does not speak."""

    def __init__(
        self, session: aiohttp.ClientSession, url: str, name: str, delivery: Delivery
    ) -> None:
        self._session = session
        self._url = url
        self._name = name
        self._delivery = delivery
        self._resume = ""
        self._last_seq = 0
        self._times = 0

    async def once(self) -> None:
        hello: dict[str, object] = {"type": "hello", "version": 1, "name": self._name}
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
