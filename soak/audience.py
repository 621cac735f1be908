"""Those who read: pages on WebSockets, one reader of each room's SSE, and some who never read.

Each final that one of them is told is noted with its room's `Delivery`. Who loses the line comes
back where it broke off, as a browser does.
"""

import asyncio
import contextlib
import json
import time
from collections.abc import Awaitable, Callable
from dataclasses import fields
from functools import partial

import aiohttp

from soak.delivery import Delivery
from soak.samples import Reading

_AGAIN_S = 0.5
_NOT_READ_FOR_S = 60.0  # the server lets go of who does not read for 20 s
_LOST = (aiohttp.ClientError, ConnectionError, TimeoutError)


class Audience:
    def __init__(
        self,
        session: aiohttp.ClientSession,
        url: str,
        rooms: list[str],
        listeners: int,
        slow_readers: int = 0,
    ) -> None:
        self._session = session
        self._url = url
        self._pages = [(rooms[n % len(rooms)], f"Listener {n}") for n in range(listeners)]
        self._slow = [rooms[n % len(rooms)] for n in range(slow_readers)]
        self._deliveries = {room: Delivery() for room in rooms}

    async def run(self) -> None:
        """Read until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for room in self._deliveries:
                sse = _Sse(self._session, self._captions(room), self._deliveries[room])
                tasks.create_task(self._again(sse.once), name="soak-sse")
            for room, name in self._pages:
                url = f"{self._url}/api/v1/rooms/{room}/ws"
                page = _Page(self._session, url, name, self._deliveries[room])
                tasks.create_task(self._again(page.once), name="soak-page")
            for room in self._slow:
                sleeper = partial(self._read_nothing, self._captions(room))
                tasks.create_task(self._again(sleeper), name="soak-slow")

    @property
    def readers(self) -> int:
        return len(self._deliveries) + len(self._pages) + len(self._slow)

    def reading(self) -> Reading:
        """What was told by now."""
        now = time.monotonic()
        for delivery in self._deliveries.values():
            delivery.judge(now)
        names = [field.name for field in fields(Reading)]
        every = self._deliveries.values()
        return Reading(**{name: sum(getattr(d, name) for d in every) for name in names})

    async def _again(self, once: Callable[[], Awaitable[None]]) -> None:
        while True:
            with contextlib.suppress(*_LOST):
                await once()
            await asyncio.sleep(_AGAIN_S)

    def _captions(self, room: str) -> str:
        return f"{self._url}/api/v1/rooms/{room}/captions"

    async def _read_nothing(self, url: str) -> None:
        async with self._session.get(url) as answer:
            answer.raise_for_status()
            await asyncio.sleep(_NOT_READ_FOR_S)


class _Sse:
    """A reader of a room's captions; it has one place, which it keeps over lost lines."""

    def __init__(self, session: aiohttp.ClientSession, url: str, delivery: Delivery) -> None:
        self._session = session
        self._url = url
        self._delivery = delivery
        self._last_id = ""

    async def once(self) -> None:
        headers = {"Last-Event-ID": self._last_id} if self._last_id else {}
        timeout = aiohttp.ClientTimeout(total=None, sock_read=30)
        async with self._session.get(self._url, headers=headers, timeout=timeout) as answer:
            answer.raise_for_status()
            if not self._last_id:
                self._delivery.came("sse", time.monotonic())
            async for line in answer.content:
                self._take(line.decode())

    def _take(self, line: str) -> None:
        if line.startswith("id: "):
            self._last_id = line[4:].strip()
        elif line.startswith("data: ") and (told := json.loads(line[6:])).get("final"):
            self._delivery.told("sse", told["seq"], time.monotonic())


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
                with contextlib.suppress(*_LOST):
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
