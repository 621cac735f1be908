"""`Housekeeping`: what those who have gone leave behind.

A full collection of Python's stalls the loop for as long as there are objects to look at: here it
is said when there is one. Peers are freed as they go, what is left for a collection is little.
Memory that the allocator keeps goes back to the system once a crowd has left, and now and then: the
engine's absence leaves a peak, too.
"""

import asyncio
import gc
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from transcriber import allocator

FEW = 20  # speakers: a collection stalls the loop for 0.3 to 0.7 ms for each
COLLECT_EVERY_S = 60.0
COLLECT_AT_LAST_S = 600.0  # however many speak: nothing may grow for ever
# With 200 who speak it takes 6 to 60 ms of a thread, and the loop is no later for it.
GIVE_BACK_EVERY_S = 30.0

_LOOK_EVERY_S = 1.0
_NEVER = 1 << 30


@contextmanager
def collections_by_hand() -> Iterator[None]:
    """No full collection but those of `Housekeeping`, which need not look at what is here now."""
    before = gc.get_threshold()
    gc.collect()
    gc.freeze()
    gc.set_threshold(*before[:2], _NEVER)
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()


class Crowd:
    """Tells when it is worth giving memory back: the allocator keeps the peak."""

    LEAST = 20

    def __init__(self) -> None:
        self._most = self._before = 0

    def has_left(self, speakers: int) -> bool:
        """Whether half of the crowd has gone since this was last so, or everyone has, of the few
        as well, and nobody came since the count before."""
        self._most = max(self._most, speakers)
        half = self._most - speakers >= self.LEAST and speakers <= self._most // 2
        everyone = self._most > 0 and speakers == self._before == 0
        self._before = speakers
        if half or everyone:
            self._most = speakers
        return half or everyone


class Housekeeping:
    def __init__(self, speakers: Callable[[], int], now: float) -> None:
        self._speakers = speakers
        self._crowd = Crowd()
        self._collected_at = self._gave_back_at = now

    async def run(self) -> None:
        """Tidy each second, until cancelled."""
        while True:
            await asyncio.sleep(_LOOK_EVERY_S)
            await self.tidy(time.monotonic())

    async def tidy(self, now: float) -> None:
        """Collect cycles while few would notice, and give memory back."""
        speakers = self._speakers()
        has_left = self._crowd.has_left(speakers)
        is_few = speakers <= FEW
        waited_s = now - self._collected_at
        if (is_few and has_left) or waited_s >= (COLLECT_EVERY_S if is_few else COLLECT_AT_LAST_S):
            self._collected_at = now
            gc.collect()
        if has_left or now - self._gave_back_at >= GIVE_BACK_EVERY_S:
            self._gave_back_at = now
            # In a thread. The loop goes on until it wants of the allocator, whose lock it is done
            # under, more than a few small pieces.
            await asyncio.to_thread(allocator.give_back)
