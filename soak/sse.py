"""A reader of one room's captions over SSE, who comes back where the line broke off."""

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp

LOST = (aiohttp.ClientError, ConnectionError, TimeoutError)
_AGAIN_S = 0.5
_READ_S = 30.0  # the server says every 15 s that it is still there


class SseReader:
    """`came` is told once, when there is a line; `take` every final caption."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        url: str,
        came: Callable[[], None],
        take: Callable[[dict[str, Any]], None],
    ) -> None:
        self._session = session
        self._url = url
        self._came = came
        self._final = take
        self._last_id = ""

    async def once(self) -> None:
        headers = {"Last-Event-ID": self._last_id} if self._last_id else {}
        timeout = aiohttp.ClientTimeout(total=None, sock_read=_READ_S)
        async with self._session.get(self._url, headers=headers, timeout=timeout) as answer:
            answer.raise_for_status()
            if not self._last_id:
                self._came()
            async for line in answer.content:
                self._take(line.decode())

    def _take(self, line: str) -> None:
        if line.startswith("id: "):
            self._last_id = line[4:].strip()
        elif line.startswith("data: ") and (told := json.loads(line[6:])).get("final"):
            self._final(told)


def captions_of(url: str, room: str) -> str:
    return f"{url}/api/v1/rooms/{room}/captions"


async def again_and_again(once: Callable[[], Awaitable[None]]) -> None:
    """Over lost lines, until cancelled."""
    while True:
        with contextlib.suppress(*LOST):
            await once()
        await asyncio.sleep(_AGAIN_S)
