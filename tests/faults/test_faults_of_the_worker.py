"""The engine fails while fifty speak: finals wait, nothing is lost unsaid, and it goes on."""

import asyncio
import os
import resource
import signal
from collections.abc import Callable

import pytest

from soak.host import worker_of
from tests.arena import CATCH_UP_S, Arena
from tests.clients import until

pytestmark = [pytest.mark.faults, pytest.mark.slow, pytest.mark.timeout(300)]


async def replaced(arena: Arena, pid: int, within_s: float = 60.0) -> None:
    await until(lambda: worker_of(arena.server.pid) not in (None, pid), within_s)
    await arena.finals_go_on()
    await asyncio.sleep(CATCH_UP_S)


def kill(arena: Arena) -> None:
    os.kill(arena.worker, signal.SIGKILL)


def hang(arena: Arena) -> None:
    os.kill(arena.worker, signal.SIGSTOP)


def take_memory_away(arena: Arena) -> None:
    resource.prlimit(arena.worker, resource.RLIMIT_AS, (1 << 20, 1 << 20))


def garble(arena: Arena) -> None:
    (arena.folder / "garbage").touch()


# What the log has of it.
WHY: dict[Callable[[Arena], None], bytes] = {take_memory_away: b"MemoryError"}


@pytest.mark.parametrize("fault", [kill, hang, take_memory_away, garble])
async def test_a_worker_that_fails_is_replaced(
    arena: Arena, fault: Callable[[Arena], None]
) -> None:
    before = await arena.watch()
    lost_s = (await arena.look()).lost_s
    worker = arena.worker
    fault(arena)
    if fault is garble:
        await until(lambda: b"the worker failed" in (arena.folder / "server.log").read_bytes(), 30)
        (arena.folder / "garbage").unlink()
    await replaced(arena, worker)
    if (reason := WHY.get(fault)) is not None:
        assert reason in (arena.folder / "server.log").read_bytes()
    await arena.assert_unharmed(before, await arena.watch())
    # what was said meanwhile waited
    assert (await arena.look()).lost_s == lost_s
