"""Calls of Nextcloud Talk beside a soak's rooms: so many go on, each ends and begins anew.

One that cannot be opened, or ended, is counted and tried again.
"""

import asyncio
import itertools
import math
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager

import aiohttp
import numpy as np

from soak.delivery import CallDelivery
from soak.pause import pause
from soak.samples import Reading
from soak.scenario import TalkCalls
from soak.speech import load_speech
from soak.talk.call import NotTaken, call
from soak.talk.conversation import Refused
from soak.talk.stack import TalkStack
from soak.talk.voice import Samples

_AGAIN_S = 2.0
_TIMEOUT = aiohttp.ClientTimeout(total=30)
_TROUBLE = (aiohttp.ClientError, ConnectionError, TimeoutError, Refused, NotTaken)


class Calls:
    """`stack` is None where the scenario has no calls; `note` is told why one failed."""

    def __init__(
        self,
        url: str,
        stack: TalkStack | None,
        wanted: TalkCalls,
        talkers: float,
        note: Callable[[str], None],
    ) -> None:
        self.opened = 0
        self.failed = 0
        self._url = url
        self._stack = stack
        self._wanted = wanted
        self._talkers = math.ceil(talkers * wanted.speakers)
        self._note = note
        self._ending = asyncio.Event()
        self._past = Reading()
        self._now: set[CallDelivery] = set()

    @asynccontextmanager
    async def going_on(self) -> AsyncIterator[None]:
        """For as long as the context; what is said last in them is waited for."""
        if self._stack is None:
            yield
            return
        speech = _speech()
        async with aiohttp.ClientSession(timeout=_TIMEOUT) as http, asyncio.TaskGroup() as tasks:
            for number in range(self._wanted.count):
                lengths = lengths_of(number, self._wanted)
                goes_on = self._go_on(http, self._stack, f"soak{number}", speech, lengths)
                tasks.create_task(goes_on, name="soak-calls")
            try:
                yield
            finally:
                self._ending.set()

    def reading(self) -> Reading:
        """What those in calls were told by now."""
        now = time.monotonic()
        for delivery in self._now:
            delivery.judge(now)
        return Reading.of([self._past, *self._now])

    async def _go_on(
        self,
        http: aiohttp.ClientSession,
        stack: TalkStack,
        token: str,
        speech: Samples,
        lengths: Iterator[float],
    ) -> None:
        for number, length_s in enumerate(lengths, start=1):
            names = [f"Caller {number}.{who}" for who in range(self._wanted.speakers)]
            try:
                await self._hold(
                    http, stack, token, names, speech, length_s, for_all=number % 2 == 0
                )
            except* _TROUBLE as failure:
                self.failed += 1
                self._note(f"a call failed: {_why(failure)}")
            await pause(self._ending, _AGAIN_S)
            if self._ending.is_set():
                return

    async def _hold(
        self,
        http: aiohttp.ClientSession,
        stack: TalkStack,
        token: str,
        names: list[str],
        speech: Samples,
        length_s: float,
        *,
        for_all: bool,
    ) -> None:
        async with call(http, self._url, stack, token, names, self._talkers, speech) as one:
            self.opened += 1
            self._now.add(one.delivery)
            try:
                await pause(self._ending, length_s)
                await one.end(for_all=for_all)
            finally:
                self._now.discard(one.delivery)
                self._past = Reading.of([self._past, one.delivery])


def lengths_of(call: int, wanted: TalkCalls) -> Iterator[float]:
    """Of a call and of those that follow it: the first ones are cut, so that they do not all end
    together."""
    yield wanted.length * (1 - call / (2 * wanted.count))
    yield from itertools.repeat(wanted.length)


def _why(failure: BaseExceptionGroup[BaseException]) -> str:
    """The first of what happened; the others follow from it."""
    first: BaseException = failure
    while isinstance(first, BaseExceptionGroup):
        first = first.exceptions[0]
    return f"{type(first).__name__} {first}".strip()


def _speech() -> Samples:
    return np.rint(load_speech() * np.iinfo(np.int16).max).astype(np.int16)
