"""The server itself is hindered, or ended, while fifty speak."""

import asyncio
import os
import signal
import time
from pathlib import Path

import pytest

from soak.load import Load, crowd
from soak.server import OURS, serving
from tests.arena import CATCH_UP_S, Arena
from tests.clients import until
from tests.faults.conftest import ROOMS, SPEAKERS, fifty

pytestmark = [pytest.mark.faults, pytest.mark.slow, pytest.mark.timeout(300)]

FAKETIME = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), None)


async def server_time(arena: Arena) -> str:
    async with arena.session.get(f"{arena.url}/healthz") as answer:
        told: str = (await answer.json())["timestamp"]
        return told


def iso(unix: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(unix))


async def test_an_event_loop_that_is_blocked_for_2_s_catches_up(arena: Arena) -> None:
    before = await arena.watch()
    arena.server.process.send_signal(signal.SIGUSR1)
    await asyncio.sleep(4.0)
    await arena.assert_unharmed(before, await arena.watch())


@pytest.mark.skipif(FAKETIME is None, reason="faketime is not installed")
async def test_a_clock_that_steps_back_an_hour_is_not_noticed(tmp_path: Path) -> None:
    clock = tmp_path / "clock"
    clock.write_text("+0\n")
    faked = {
        "LD_PRELOAD": str(FAKETIME),
        "FAKETIME_TIMESTAMP_FILE": str(clock),
        "FAKETIME_CACHE_DURATION": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }
    async with fifty(tmp_path, faked) as arena:
        before = await arena.watch()
        clock.write_text("-3600\n")
        async with asyncio.timeout(10):
            # another process: no event tells
            while await server_time(arena) > iso(time.time() - 3000):  # noqa: ASYNC110
                await asyncio.sleep(0.1)
        await arena.assert_unharmed(before, await arena.watch())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
async def test_readers_come_back_to_a_server_that_was_ended(
    arena: Arena, number: signal.Signals
) -> None:
    before = await arena.watch()
    told = arena.audience.reading()
    arena.server.process.send_signal(number)
    await arena.server.process.wait()
    ended = arena.audience.reading()
    if number is signal.SIGTERM:
        assert arena.server.process.returncode == 0
        assert ended.delivered > told.delivered  # the last words of who was speaking
    assert (ended.missing, ended.twice) == (0, 0)
    arena.audience.begin_anew()
    async with (
        serving(OURS, arena.environment, arena.folder / "server.log") as again,
        crowd(Load(again.url, SPEAKERS, ROOMS)) as people,
    ):
        await people.gather()
        arena.server, arena.people = again, people
        await until(lambda: arena.audience.reading().delivered > ended.delivered, 40)
        await asyncio.sleep(CATCH_UP_S)
        after = await arena.watch()
        assert after.finals > 0
        assert after.first_text_p95_s <= 1.5 * before.first_text_p95_s
        await arena.assert_nothing_lost()
        async with arena.session.get(f"{again.url}/api/v1/rooms") as answer:
            rooms = (await answer.json())["rooms"]
        kept = [room for room in rooms if room["ended_at"] is not None]
        assert len(kept) == ROOMS
        assert all(room["segments"] > 0 for room in kept)


async def test_a_stopped_process_goes_on_where_it_was(arena: Arena) -> None:
    before = await arena.watch()
    os.kill(arena.server.pid, signal.SIGSTOP)
    await asyncio.sleep(2.0)
    os.kill(arena.server.pid, signal.SIGCONT)
    await asyncio.sleep(2.0)
    await arena.assert_unharmed(before, await arena.watch())
