"""`Turns`: the work of many speakers, spread over turns of the event loop.

The chunks of all speakers come at once, with a sweep of the sockets. What is done with them in
one turn is limited; the others go on in the next ones, in the order they came, so that sockets,
timers and answers come between.
"""

import asyncio
import time
from collections import deque

STRETCH_S = 0.002
_WEIGHT = 0.05  # of the newest piece of work in what one is expected to take


class Turns:
    def __init__(self) -> None:
        self._began = self._spent_s = self._each_s = 0.0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._called = 0  # those who waited, and are next
        self._is_scheduled = False

    async def take(self) -> None:
        """Wait until there is time for one piece of work."""
        is_free = not self._waiting and not self._called
        if is_free and self._spent_s + self._each_s <= STRETCH_S:
            return
        future = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        self._schedule()
        try:
            await future
        finally:
            if future.done() and not future.cancelled():
                self._called -= 1

    def measured(self) -> "Turns":
        """Around a piece of work, which does not wait."""
        return self

    def __enter__(self) -> None:
        self._began = time.perf_counter()

    def __exit__(self, *_error: object) -> None:
        took_s = time.perf_counter() - self._began
        self._spent_s += took_s
        self._each_s += _WEIGHT * (took_s - self._each_s)
        self._schedule()

    def _schedule(self) -> None:
        if not self._is_scheduled:
            self._is_scheduled = True
            asyncio.get_running_loop().call_soon(self._next_turn)

    def _next_turn(self) -> None:
        self._is_scheduled = False
        self._spent_s = 0.0
        fit = max(1, int(STRETCH_S / self._each_s)) if self._each_s else len(self._waiting)
        while self._waiting and fit:
            future = self._waiting.popleft()
            if not future.done():  # else its speaker was cancelled meanwhile
                future.set_result(None)
                self._called += 1
                fit -= 1
        if self._waiting:
            self._schedule()
