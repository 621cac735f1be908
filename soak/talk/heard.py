"""What came on a line, kept in its order, to be waited for."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

Message = dict[str, Any]


class Heard:
    """`seen` holds every message, `arrived` the loop's time of each."""

    def __init__(self) -> None:
        self.seen: list[Message] = []
        self.arrived: list[float] = []
        self._news = asyncio.Condition()

    async def note(self, message: Message) -> None:
        """It has come."""
        async with self._news:
            self.seen.append(message)
            self.arrived.append(asyncio.get_running_loop().time())
            self._news.notify_all()

    async def wait_for(
        self, wanted: Callable[[Message], bool], *, since: int = 0, within_s: float = 20.0
    ) -> Message:
        """The first message from `since` on that is wanted, seen already or to come."""
        at = since
        async with asyncio.timeout(within_s), self._news:
            while True:
                for message in self.seen[at:]:
                    if wanted(message):
                        return message
                at = len(self.seen)
                await self._news.wait()

    async def each(self) -> AsyncIterator[Message]:
        """Every message, seen already or to come, without an end."""
        at = 0
        while True:
            async with self._news:
                while len(self.seen) <= at:
                    await self._news.wait()
            yield self.seen[at]
            at += 1
