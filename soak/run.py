"""One part of a run, from an empty server to an empty server: a crowd, an audience, trouble.

Everything is noted in the run's folder as it comes.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import aiohttp

from soak.audience import Audience
from soak.folder import Ends, Folder, Mark
from soak.load import Crowd, Load, crowd
from soak.samples import Doing, Reading, Sample, Sampler
from soak.sender import Network
from soak.server import OURS, Server, free_port, serving, settings
from soak.trouble import make_trouble

SAMPLE_S = 5.0
_SETTLE_S = 2.0
_AT_ONCE = 8
_LOOKS = 3
_NO_SAMPLE = (aiohttp.ClientError, TimeoutError, FileNotFoundError, ProcessLookupError)
# Who vanished is missed after 35 s, a room lingers for a minute.
_GONE_S = 180.0


@dataclass(frozen=True, slots=True)
class Progress:
    """Told with every sample."""

    left_s: float
    phase: str
    sample: Sample


class Run:
    """A part of a run, from an empty server to an empty server."""

    def __init__(self, folder: Folder, tell: Callable[[Progress], None]) -> None:
        what = folder.what()
        before = folder.samples()
        self._folder = folder
        self._tell = tell
        self._scenario = folder.scenario
        self._url: str | None = what["url"]
        self._memray: bool = what["memray"]
        self._part = before[-1].part + 1 if before else 0
        self._from_s = before[-1].at if before else 0.0
        self._for_s = float(what["for_s"])
        self._began: float | None = None  # monotonic
        self._stop = asyncio.Event()
        self._phase = "starting"

    @property
    def left_s(self) -> float:
        return max(0.0, self._for_s - self._at())

    def stop(self) -> None:
        """End it before its time: everyone leaves, and what is left is looked at."""
        self._note("told to stop")
        self._stop.set()

    async def go(self) -> None:
        """Raises `CannotServe`; what happens to the server later is in the folder."""
        async with AsyncExitStack() as stack:
            server = await self._server(stack)
            url = server.url if server is not None else str(self._url)
            pid = server.pid if server is not None else None
            session = await stack.enter_async_context(
                aiohttp.ClientSession(
                    connector=aiohttp.TCPConnector(limit=0),
                    timeout=aiohttp.ClientTimeout(total=30),
                )
            )
            sampler = Sampler(session, url, pid)
            before = await self._rehearse(sampler, url)
            self._mark(before)
            self._began = time.monotonic()
            audience = self._audience(session, url)
            doing = await self._speak(server, sampler, url, audience)
            if server is None or server.process.returncode is None:
                told = audience.reading
                try:
                    after = await self._when_gone(lambda: self._take(sampler, doing, told()))
                except _NO_SAMPLE:
                    self._note("the server ended")
                else:
                    self._folder.add_ends(Ends(self._part, before, after))

    async def _rehearse(self, sampler: Sampler, url: str) -> Sample:
        """One speaker comes and goes, so that what the server makes once is there. Returns what is
        seen when nobody is."""
        self._phase = "one speaker, before the others"
        async with crowd(replace(self._load(url), speakers=1, cycles_per_minute=0)) as people:
            await people.gather()
            await asyncio.sleep(_SETTLE_S)
        return await self._when_gone(lambda: self._take(sampler, Doing(), Reading()))

    async def _server(self, stack: AsyncExitStack) -> Server | None:
        if self._url is not None:
            return None
        environment = settings(self._folder.path, free_port(), self._scenario.server)
        command = OURS
        if self._memray:
            python, *what = OURS
            capture = str(self._folder.capture(self._part))
            tracing = ("-m", "memray", "run", "--quiet", "--trace-python-allocators")
            command = (python, *tracing, "--output", capture, *what)
        return await stack.enter_async_context(serving(command, environment, self._folder.log()))

    def _audience(self, session: aiohttp.ClientSession, url: str) -> Audience:
        wanted = self._scenario
        rooms = self._load(url).room_names if wanted.speakers else []
        return Audience(session, url, rooms, wanted.listeners, wanted.slow_readers)

    def _load(self, url: str) -> Load:
        wanted = self._scenario
        way = wanted.network
        return Load(
            url,
            wanted.speakers,
            wanted.rooms,
            talkers=wanted.talkers,
            at_once=_AT_ONCE,
            cycles_per_minute=wanted.joins_per_minute,
            abrupt=wanted.abrupt,
            network=Network(way.loss, way.jitter_ms, way.reorder),
        )

    async def _speak(
        self, server: Server | None, sampler: Sampler, url: str, audience: Audience
    ) -> Doing:
        """Everyone comes, speaks for the time that is left, and goes."""
        async with crowd(self._load(url)) as people:
            self._phase = "gathering"
            await people.gather()
            self._phase = "speaking"
            async with _meanwhile(audience.run()), self._trouble(server):
                await self._sample_until_over(server, sampler, people, audience)
            self._phase = "all leave"
            return self._doing(people, audience)

    async def _sample_until_over(
        self, server: Server | None, sampler: Sampler, people: Crowd, audience: Audience
    ) -> None:
        due = time.monotonic()
        while not self._stop.is_set() and self.left_s > 0:
            doing = self._doing(people, audience)
            try:
                sample = await self._take(sampler, doing, audience.reading())
            except _NO_SAMPLE as error:
                self._note(f"no sample: {type(error).__name__}")
                if server is not None and server.process.returncode is not None:
                    self._note("the server ended")
                    return
            else:
                self._folder.add_sample(sample)
                self._tell(Progress(self.left_s, self._phase, sample))
                if self._at() - self._from_s >= self._scenario.warm_up:
                    self._mark(sample)
            due += SAMPLE_S
            await _wait(self._stop, min(self.left_s, due - time.monotonic()))

    def _trouble(self, server: Server | None) -> AbstractAsyncContextManager[None]:
        """To the worker of our own server alone."""
        if server is None:
            return nullcontext()
        return _meanwhile(make_trouble(server.pid, self._scenario.faults, self._note))

    async def _when_gone(self, take: Callable[[], Awaitable[Sample]]) -> Sample:
        """Once nobody and nothing is there, or time is up."""
        give_up = time.monotonic() + _GONE_S
        while True:
            await asyncio.sleep(_SETTLE_S)
            sample = await take()
            self._tell(Progress(self.left_s, self._phase, sample))
            if not (sample.rooms or sample.participants) or time.monotonic() > give_up:
                return await _at_rest(take)

    async def _take(self, sampler: Sampler, doing: Doing, reading: Reading) -> Sample:
        return await sampler.take(self._at(), self._part, doing, reading)

    def _doing(self, people: Crowd, audience: Audience) -> Doing:
        return Doing(people.joined, people.failed, people.left, audience.readers)

    def _mark(self, sample: Sample) -> None:
        if self._memray:
            mark = Mark(self._part, time.time(), sample.speakers, sample.doing.joins)
            self._folder.add_mark(mark)

    def _at(self) -> float:
        ran_s = 0.0 if self._began is None else time.monotonic() - self._began
        return self._from_s + ran_s

    def _note(self, what: str) -> None:
        self._folder.add_event(self._at(), self._part, what)


@asynccontextmanager
async def _meanwhile(work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Something else for as long as the context; its failure is the context's."""
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(work)
        yield
        task.cancel()


async def _at_rest(take: Callable[[], Awaitable[Sample]]) -> Sample:
    """What is there all the time: a server opens a file now and then, to look at its memory."""
    seen = []
    for _ in range(_LOOKS):
        await asyncio.sleep(1.0)
        seen.append(await take())
    held = ("tasks", "sockets", "files", "threads")
    return replace(seen[-1], **{name: min(getattr(s, name) for s in seen) for name in held})


async def _wait(event: asyncio.Event, at_most_s: float) -> None:
    try:
        async with asyncio.timeout(max(0.0, at_most_s)):
            await event.wait()
    except TimeoutError:
        pass
