"""The server itself is hindered, or ended, while fifty speak."""

import asyncio
import contextlib
import math
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from soak.delivery import SETTLE_S
from soak.load import Load, crowd
from soak.server import OURS, serving
from soak.sse import LOST, SseReader, captions_of
from tests.arena import CATCH_UP_S, Arena
from tests.clients import until
from tests.faults.conftest import ROOMS, SPEAKERS, fifty

pytestmark = [pytest.mark.faults, pytest.mark.slow, pytest.mark.timeout(300)]

# Of a server that is killed, as docs/operations.md has it.
LOST_OF_TRANSCRIPTS_S = 2.0
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
    written = [Written(room) for room in arena.people.load.room_names]
    async with asyncio.TaskGroup() as readers:
        for each in written:
            readers.create_task(each.read(arena))
        before = await arena.watch()
        told = arena.audience.reading()
        ended_at = time.monotonic()
        arena.server.process.send_signal(number)
        await arena.server.process.wait()
    if number is signal.SIGTERM:
        assert arena.server.process.returncode == 0
        # the last words of who was speaking, to everyone
        await until(lambda: arena.audience.is_settled, SETTLE_S)
        assert arena.audience.reading().delivered > told.delivered
    ended = arena.audience.reading()
    assert (ended.missing, ended.twice) == (0, 0)
    arena.audience.begin_anew()
    async with (
        serving(OURS, arena.environment, arena.folder / "server.log") as again,
        crowd(Load(again.url, SPEAKERS, ROOMS)) as people,
    ):
        kept_until = math.inf if number is signal.SIGTERM else ended_at - LOST_OF_TRANSCRIPTS_S
        for each in written:
            finals = each.until(kept_until)
            kept = await transcript(arena, each.room)
            assert finals
            assert finals.items() <= kept.items()
        await people.gather()
        arena.server, arena.people = again, people
        await until(lambda: arena.audience.reading().delivered > ended.delivered, 40)
        await asyncio.sleep(CATCH_UP_S)
        after = await arena.watch()
        assert after.finals > 0
        assert after.first_text_p95_s <= 1.5 * before.first_text_p95_s
        await arena.assert_nothing_lost()
        await arena.assert_memory_is_back(before)


class Written:
    """The finals of a room, as a reader has them."""

    def __init__(self, room: str) -> None:
        self.room = room
        self._finals: dict[str, tuple[float, str]] = {}

    async def read(self, arena: Arena) -> None:
        """Until the server ends."""
        reader = SseReader(
            arena.session, captions_of(arena.url, self.room), lambda: None, self._take
        )
        with contextlib.suppress(*LOST):
            await reader.once()

    def until(self, end: float) -> dict[str, str]:
        """By their segments. One without words only takes back what was tentative."""
        return {name: text for name, (at, text) in self._finals.items() if text and at <= end}

    def _take(self, told: dict[str, Any]) -> None:
        self._finals[told["segment"]] = (time.monotonic(), told["stable"])


async def transcript(arena: Arena, room: str) -> dict[str, str]:
    async with arena.session.get(f"{arena.url}/api/v1/rooms/{room}/transcript.json") as answer:
        said = await answer.json()
    return {segment["segment"]: segment["text"] for segment in said["segments"]}


async def test_a_stopped_process_goes_on_where_it_was(arena: Arena) -> None:
    before = await arena.watch()
    os.kill(arena.server.pid, signal.SIGSTOP)
    await asyncio.sleep(2.0)
    os.kill(arena.server.pid, signal.SIGCONT)
    await asyncio.sleep(2.0)
    await arena.assert_unharmed(before, await arena.watch())
