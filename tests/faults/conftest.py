"""Fifty speakers in ten rooms, and as many who read."""

from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest_asyncio

from tests.arena import Arena, arena_in

SPEAKERS, ROOMS, LISTENERS = 50, 10, 50
INJECT = Path(__file__).with_name("inject")


def fifty(folder: Path, more: Mapping[str, str] = {}) -> AbstractAsyncContextManager[Arena]:
    """With what a test may put into the server's process."""
    given = {"PYTHONPATH": str(INJECT), "FAULTS_GARBAGE": str(folder / "garbage"), **more}
    return arena_in(folder, given, speakers=SPEAKERS, rooms=ROOMS, listeners=LISTENERS)


@pytest_asyncio.fixture
async def arena(tmp_path: Path) -> AsyncIterator[Arena]:
    async with fifty(tmp_path) as started:
        yield started
