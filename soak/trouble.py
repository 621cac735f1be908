"""What is done to a server's worker while people speak: it is killed, or stands still.

At even distances, so that two runs of a scenario meet the same.
"""

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable

from soak.host import worker_of
from soak.scenario import Troubles

Note = Callable[[str], None]


async def make_trouble(server: int, troubles: Troubles, note: Note) -> None:
    """Until cancelled. `note` is told what was done."""
    async with asyncio.TaskGroup() as tasks:
        if troubles.worker_kills_per_hour:
            every_s = 3600 / troubles.worker_kills_per_hour
            tasks.create_task(_kill_every(server, every_s, note), name="soak-kill")
        if troubles.engine_stalls_per_hour:
            every_s = 3600 / troubles.engine_stalls_per_hour
            stall = _stall_every(server, every_s, troubles.stall, note)
            tasks.create_task(stall, name="soak-stall")


async def _kill_every(server: int, every_s: float, note: Note) -> None:
    await asyncio.sleep(every_s / 2)  # between two stalls
    while True:
        pid = worker_of(server)
        if pid is not None:
            with contextlib.suppress(ProcessLookupError):  # it died by itself
                os.kill(pid, signal.SIGKILL)
            note("worker killed")
        await asyncio.sleep(every_s)


async def _stall_every(server: int, every_s: float, stall_s: float, note: Note) -> None:
    while True:
        await asyncio.sleep(every_s)
        pid = worker_of(server)
        if pid is not None:
            note(f"worker stopped for {stall_s:g} s")
            await _stall(pid, stall_s)


async def _stall(pid: int, stall_s: float) -> None:
    # it may die by itself, or the server gives it up meanwhile
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGSTOP)
        try:
            await asyncio.sleep(stall_s)
        finally:
            os.kill(pid, signal.SIGCONT)
