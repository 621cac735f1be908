"""`Feed`: a bounded queue between one producer and one consumer that never makes the
producer wait.

When full, the oldest item goes, is handed back to the producer to be counted, and the
consumer sees what follows it. `end` lets the consumer drain what is there and stop.
"""

import asyncio
from collections import deque
from typing import Generic, TypeVar

T = TypeVar("T")


class FeedEnded(Exception):
    """Raised by `get` when the feed has ended and is drained."""


class Feed(Generic[T]):
    def __init__(self, bound: int) -> None:
        self._bound = bound
        self._items: deque[T] = deque()
        self._ended = False
        self._is_roused = False
        self._waiter: asyncio.Future[None] | None = None
        self.dropped = 0

    def __len__(self) -> int:
        return len(self._items)

    @property
    def fullness(self) -> float:
        return len(self._items) / self._bound

    @property
    def is_ended(self) -> bool:
        return self._ended

    def put(self, item: T) -> T | None:
        """Append; return the oldest item if it had to go. After `end`, a no-op."""
        if self._ended:
            return None
        dropped = None
        if len(self._items) >= self._bound:
            dropped = self._items.popleft()
            self.dropped += 1
        self._items.append(item)
        self._wake()
        return dropped

    def rouse(self) -> None:
        """Let `get` return None once it is drained: there is something else to look at."""
        self._is_roused = True
        self._wake()

    def end(self) -> None:
        """No more will come; what is there can still be taken."""
        self._ended = True
        self._wake()

    async def get(self) -> T | None:
        """Take the oldest item; None after `rouse`. Raises `FeedEnded` at the end. Safe to
        cancel."""
        while not self._items:
            if self._ended:
                raise FeedEnded
            if self._is_roused:
                self._is_roused = False
                return None
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        return self._items.popleft()

    def __aiter__(self) -> "Feed[T]":
        return self

    async def __anext__(self) -> T:
        try:
            while (item := await self.get()) is None:
                pass
        except FeedEnded:
            raise StopAsyncIteration from None
        return item

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
