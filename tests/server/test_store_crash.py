import asyncio
import os
import random
import sqlite3
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from server.store import Store

SPEAKER = Path(__file__).with_name("store_speaker.py")
REPOSITORY = Path(__file__).parents[2]
FILES, KILLS_PER_FILE = 4, 5


@dataclass(slots=True)
class Life:
    room_id: str
    recorded_at: dict[int, float] = field(default_factory=dict)
    killed_at: float | None = None


async def live_and_die(path: Path, lifetime_s: float) -> Life:
    """Run a speaker, and kill it once it has been recording for that long."""
    speaker = await asyncio.create_subprocess_exec(
        sys.executable,
        str(SPEAKER),
        str(path),
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    )
    assert speaker.stdout is not None
    life = Life("")
    began_at = None
    async for line in speaker.stdout:
        if not line.endswith(b"\n"):
            break  # the kill came in the middle of it
        life.room_id, seq, at = line.decode().split()
        life.recorded_at[int(seq)] = float(at)
        began_at = began_at or float(at)
        if life.killed_at is None and float(at) - began_at >= lifetime_s:
            life.killed_at = time.monotonic()
            speaker.kill()
    await speaker.wait()
    return life


async def assert_survived(path: Path, life: Life) -> None:
    assert life.killed_at is not None, "the speaker ended by itself"
    with sqlite3.connect(path) as reader:
        assert reader.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    reader.close()
    async with Store.open(path) as store:
        stored = {event.seq for event in await store.finals_after(life.room_id, -1, 1_000_000)}
        transcript = await store.transcript(life.room_id)
    due = {seq for seq, at in life.recorded_at.items() if at < life.killed_at - 2.0}
    assert due, "too short a life to tell"
    assert due <= stored
    assert transcript is not None
    assert len(transcript.segments) == len(stored)
    assert transcript.ended_at is not None


@pytest.mark.slow
async def test_twenty_kills_lose_no_final_older_than_two_seconds(tmp_path: Path) -> None:
    chance = random.Random()

    async def kill_repeatedly(path: Path) -> None:
        for _ in range(KILLS_PER_FILE):
            life = await live_and_die(path, lifetime_s=chance.uniform(2.1, 3.1))
            await assert_survived(path, life)

    async with asyncio.TaskGroup() as lanes:
        for n in range(FILES):
            lanes.create_task(kill_repeatedly(tmp_path / f"{n}.sqlite3"))
