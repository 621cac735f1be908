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
from soak.calls import Calls
from soak.folder import Ends, Folder, Mark
from soak.load import Crowd, Load, crowd
from soak.pause import pause
from soak.samples import Doing, Reading, Sample, Sampler
from soak.sender import Network
from soak.server import OURS, CannotServe, Server, free_port, serving, settings
from soak.talk.stack import TalkStack, talk_stack
from soak.token import VARIABLE, headers_of
from soak.trouble import make_trouble

SAMPLE_S = 5.0
_SETTLE_S = 2.0
_AT_ONCE = 8
_LOOKS = 3
_LISTENS_S = 30.0
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

    def __init__(
        self, folder: Folder, tell: Callable[[Progress], None], token: str | None = None
    ) -> None:
        what = folder.what()
        before = folder.samples()
        self._folder = folder
        self._tell = tell
        self._scenario = folder.scenario
        self._url: str | None = what["url"]
        self._token = token  # kept in no file
        self._memray: bool = what["memray"]
        self._part = folder.begin_part(before)
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
        """Raises `CannotServe`, `CannotStart`; what happens to the server later is in the
        folder."""
        async with AsyncExitStack() as stack:
            talk = await self._talk(stack)
            server = await self._server(stack, talk)
            url = server.url if server is not None else str(self._url)
            pid = server.pid if server is not None else None
            session = await stack.enter_async_context(
                aiohttp.ClientSession(
                    connector=aiohttp.TCPConnector(limit=0),
                    timeout=aiohttp.ClientTimeout(total=30),
                    headers=headers_of(self._token),
                )
            )
            sampler = Sampler(session, url, pid)
            await _knock(session, url)
            before = await self._rehearse(sampler, url, talk)
            self._mark(before)
            self._began = time.monotonic()
            audience = self._audience(url)
            wanted = self._scenario
            calls = Calls(url, talk, wanted.calls, wanted.talkers, self._note)
            doing = await self._speak(server, sampler, url, audience, calls)
            if server is None or server.process.returncode is None:
                try:
                    after = await self._when_gone(
                        lambda: self._take(sampler, doing, audience.reading(), calls.reading())
                    )
                except _NO_SAMPLE:
                    self._note("the server ended")
                else:
                    self._folder.add_ends(Ends(self._part, before, after))

    async def _rehearse(self, sampler: Sampler, url: str, talk: TalkStack | None) -> Sample:
        """One speaker comes and goes, and one in a call, so that what the server makes once is
        there. Returns what is seen when nobody is."""
        self._phase = "one speaker, before the others"
        in_call = self._scenario.calls.model_copy(update={"count": 1, "speakers": 1})
        calls = Calls(url, talk, in_call, 1.0, self._note)
        alone = replace(self._load(url), speakers=1, cycles_per_minute=0)
        async with calls.going_on(), crowd(alone) as people:
            await people.gather()
            await asyncio.sleep(_SETTLE_S)
        if people.failed:
            raise CannotServe(f"the first speaker could not join: {people.why}")
        return await self._when_gone(lambda: self._take(sampler, Doing(), Reading(), Reading()))

    async def _talk(self, stack: AsyncExitStack) -> TalkStack | None:
        """Nothing of it where the scenario has no calls."""
        if not self._scenario.calls.count:
            return None
        return await stack.enter_async_context(talk_stack(self._folder.make_talk(self._part)))

    async def _server(self, stack: AsyncExitStack, talk: TalkStack | None) -> Server | None:
        if self._url is not None:
            return None
        more = {**self._scenario.server, **(talk.environment if talk is not None else {})}
        environment = settings(self._folder.path, free_port(), more)
        command = OURS
        if self._memray:
            python, *what = OURS
            capture = str(self._folder.capture(self._part))
            tracing = ("-m", "memray", "run", "--quiet", "--trace-python-allocators")
            command = (python, *tracing, "--output", capture, *what)
        return await stack.enter_async_context(serving(command, environment, self._folder.log()))

    def _audience(self, url: str) -> Audience:
        wanted = self._scenario
        rooms = self._load(url).room_names if wanted.speakers else []
        return Audience(url, rooms, wanted.listeners, wanted.slow_readers, self._token)

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
            token=self._token,
        )

    async def _speak(
        self, server: Server | None, sampler: Sampler, url: str, audience: Audience, calls: Calls
    ) -> Doing:
        """Everyone comes, speaks for the time that is left, and goes."""
        async with crowd(self._load(url)) as people:
            self._phase = "gathering"
            await people.gather()
            self._phase = "speaking"
            async with _meanwhile(audience.run()):
                await pause(audience.listens, _LISTENS_S)
                async with calls.going_on(), self._trouble(server):
                    await self._sample_until_over(server, sampler, people, audience, calls)
                    self._phase = "all leave"
                doing = self._doing(people, audience, calls)
                await people.disperse()
                await audience.last_words()
            return doing

    async def _sample_until_over(
        self,
        server: Server | None,
        sampler: Sampler,
        people: Crowd,
        audience: Audience,
        calls: Calls,
    ) -> None:
        due = time.monotonic()
        while not self._stop.is_set() and self.left_s > 0:
            try:
                await self._sample(sampler, people, audience, calls)
            except _NO_SAMPLE as error:
                self._note(f"no sample: {type(error).__name__}")
                if server is not None and server.process.returncode is not None:
                    self._note("the server ended")
                    return
            due += SAMPLE_S
            await pause(self._stop, min(self.left_s, due - time.monotonic()))

    async def _sample(
        self, sampler: Sampler, people: Crowd, audience: Audience, calls: Calls
    ) -> None:
        doing = self._doing(people, audience, calls)
        sample = await self._take(sampler, doing, audience.reading(), calls.reading())
        self._folder.add_sample(sample)
        self._tell(Progress(self.left_s, self._phase, sample))
        if self._at() - self._from_s >= self._scenario.warm_up:
            self._mark(sample)

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
            is_anyone_there = sample.rooms or sample.participants or sample.calls
            if not is_anyone_there or time.monotonic() > give_up:
                return await _at_rest(take)

    async def _take(
        self, sampler: Sampler, doing: Doing, reading: Reading, in_calls: Reading
    ) -> Sample:
        return await sampler.take(self._at(), self._part, doing, reading, in_calls)

    def _doing(self, people: Crowd, audience: Audience, calls: Calls) -> Doing:
        return Doing(
            people.joined,
            people.failed,
            people.left,
            audience.listeners,
            calls.opened,
            calls.failed,
        )

    def _mark(self, sample: Sample) -> None:
        if self._memray:
            mark = Mark(self._part, time.time(), sample.speakers, sample.doing.joins)
            self._folder.add_mark(mark)

    def _at(self) -> float:
        ran_s = 0.0 if self._began is None else time.monotonic() - self._began
        return self._from_s + ran_s

    def _note(self, what: str) -> None:
        self._folder.add_event(self._at(), self._part, what)


async def _knock(session: aiohttp.ClientSession, url: str) -> None:
    """Raises `CannotServe`: before hours are spent at a door that stays shut."""
    try:
        async with session.get(f"{url}/api/v1/rooms") as answer:
            answer.raise_for_status()
    except aiohttp.ClientResponseError as error:
        said = f"{url} answers {error.status} {error.message}"
        wants = f"; it wants a token for every room: --token or {VARIABLE}"
        raise CannotServe(said + (wants if error.status in (401, 403) else "")) from None
    except (aiohttp.ClientError, TimeoutError) as error:
        raise CannotServe(f"{url} does not answer: {error or 'for 30 s'}") from None


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
