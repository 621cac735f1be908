"""Speakers in the rooms of a server of their own, those who read, and what is seen of them."""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp

from soak.audience import Audience
from soak.delivery import SETTLE_S
from soak.host import usage, worker_of
from soak.load import Crowd, Load, crowd
from soak.samples import Doing, Sample, Sampler, grown, quantile
from soak.server import OURS, Server, free_port, serving, settings
from tests.clients import until

WATCH_S = 8.0
# Those who spoke meanwhile waited for their first text: they are not the ones of after.
CATCH_UP_S = 5.0
MEMORY_WITHIN_S = 60.0


@dataclass(frozen=True, slots=True)
class Watched:
    """Some seconds of it."""

    first_text_p95_s: float
    finals: int
    memory_mb: float


@dataclass(slots=True)
class Arena:
    folder: Path
    session: aiohttp.ClientSession
    environment: dict[str, str]
    server: Server
    people: Crowd
    audience: Audience
    _reading: asyncio.Task[None] | None = field(default=None)

    @property
    def url(self) -> str:
        return self.server.url

    @property
    def worker(self) -> int:
        pid = worker_of(self.server.pid)
        assert pid is not None, "there is no worker"
        return pid

    async def look(self) -> Sample:
        sampler = Sampler(self.session, self.url, self.server.pid)
        doing = Doing(self.people.joined, self.people.failed, self.people.left)
        return await sampler.take(0, 0, doing, self.audience.reading())

    async def watch(self, seconds: float = WATCH_S) -> Watched:
        before = await self.look()
        await asyncio.sleep(seconds)
        after = await self.look()
        first = grown(after.first_text, before.first_text)
        return Watched(quantile(first, 0.95), after.finals - before.finals, after.server_mb)

    async def finals_go_on(self, within_s: float = 40.0) -> None:
        """Someone reads a final that was not there yet."""
        told = self.audience.reading().delivered
        await until(lambda: self.audience.reading().delivered > told, within_s)

    async def assert_unharmed(self, before: Watched, after: Watched) -> None:
        """The others are served as before, all audio is accounted for, memory is back, and no
        final was missed or came twice."""
        assert after.finals > 0
        assert after.first_text_p95_s <= 1.5 * before.first_text_p95_s
        await self.assert_nothing_lost()
        await self.assert_memory_is_back(before)

    async def assert_nothing_lost(self) -> None:
        await until(lambda: self.audience.is_settled, SETTLE_S)
        seen = await self.look()
        assert seen.ledger_wrong == 0
        assert (seen.reading.missing, seen.reading.twice) == (0, 0)

    async def assert_memory_is_back(self, before: Watched) -> None:
        give_up = time.monotonic() + MEMORY_WITHIN_S
        while (now_mb := usage(self.server.pid).private_mb) > 1.05 * before.memory_mb:
            assert time.monotonic() < give_up, f"{now_mb:.1f} MB after {before.memory_mb:.1f} MB"
            await asyncio.sleep(1.0)


@asynccontextmanager
async def arena_in(
    folder: Path, more: Mapping[str, str], *, speakers: int, rooms: int, listeners: int
) -> AsyncIterator[Arena]:
    given = {"TRANSCRIBER__ENGINE": "scripted", "TRANSCRIBER__VAD": "energy", **more}
    environment = settings(folder, free_port(), given)
    async with (
        serving(OURS, environment, folder / "server.log") as server,
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session,
        crowd(Load(server.url, speakers, rooms)) as people,
    ):
        await people.gather()
        assert (len(people.peers), people.why) == (speakers, None)
        audience = Audience(server.url, people.load.room_names, listeners)
        arena = Arena(folder, session, environment, server, people, audience)
        reading = asyncio.create_task(audience.run(), name="arena-audience")
        try:
            await arena.finals_go_on()
            yield arena
        finally:
            reading.cancel()
            await asyncio.wait({reading})
