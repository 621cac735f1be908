"""`WorkerChild`: starts a worker's process, watches that it lives, and ends it.

The process says on its standard output that it listens, and then, again and again, that it
goes on; one that ceases to is killed. After one that ran out of memory the next begins with
batches half as large.
"""

import asyncio
import contextlib
import dataclasses
import logging
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

from transcriber.engines import EngineOptions
from transcriber.worker import ALIVE, EXIT_DEADLINE, EXIT_OUT_OF_MEMORY, LISTENING

# A worker that is silent for so long, or at one batch, is hung. One batch of a slow engine over
# a long utterance takes some seconds.
HUNG_AFTER_S = 20.0
_START_TIMEOUT_S = 20.0
_STOP_TIMEOUT_S = 2.0
_OURS_ALONE = ("MEDIA__TURN_SECRET",)  # settings that the worker has no need to know

log = logging.getLogger("roomscribe.engine")


class WorkerChild:
    def __init__(self, options: EngineOptions, hung_after_s: float = HUNG_AFTER_S) -> None:
        self._options = options
        self._hung_after_s = hung_after_s
        self._batch_limit = 0  # what the last one said; 0: as the engine sees fit
        self.pid: int | None = None

    async def run(
        self, socket: Path, key: bytes, meanwhile: Callable[[], Awaitable[None]] | None = None
    ) -> int:
        """Start a process, do `meanwhile` once it listens, and wait until it has ended."""
        process = await asyncio.create_subprocess_exec(
            *self._command(socket),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env=_worker_environment(),
        )
        self.pid = process.pid
        try:
            assert process.stdin is not None
            assert process.stdout is not None
            # one that is gone already: uvloop raises where a pipe is written to that is lost
            if not process.stdin.is_closing():
                process.stdin.write(key.hex().encode() + b"\n")
            async with asyncio.timeout(_START_TIMEOUT_S):
                line = await process.stdout.readline()
            if line.decode().strip() == LISTENING:
                await self._while_alive(process, meanwhile)
            async with asyncio.timeout(_STOP_TIMEOUT_S):
                code = await process.wait()
            if code in (EXIT_OUT_OF_MEMORY, EXIT_DEADLINE, -signal.SIGKILL):
                # too large for the memory, or for the time; the last is how the system ends who
                # takes too much
                # down to 1: without a limit the next would begin with the engine's own again
                self._batch_limit = max(min(1, self._batch_limit), self._batch_limit // 2)
            return code
        finally:
            self.pid = None
            await _end(process)

    async def _while_alive(
        self,
        process: asyncio.subprocess.Process,
        meanwhile: Callable[[], Awaitable[None]] | None,
    ) -> None:
        watch = asyncio.create_task(self._watch(process), name="worker-watch")
        try:
            await (watch if meanwhile is None else meanwhile())
        finally:
            watch.cancel()

    async def _watch(self, process: asyncio.subprocess.Process) -> None:
        """Kill a worker that says nothing any more."""
        assert process.stdout is not None
        while True:
            try:
                async with asyncio.timeout(self._hung_after_s):
                    line = await process.stdout.readline()
            except TimeoutError:
                log.warning("the worker hangs")
                process.kill()
                return
            if not line:
                return
            said, _, limit = line.decode().strip().partition(" ")
            if said == ALIVE and limit.isdigit():
                self._batch_limit = int(limit)

    def _command(self, socket: Path) -> list[str]:
        options = [
            f"--{name.replace('_', '-')}={value}"
            for name, value in dataclasses.asdict(self._options).items()
        ]
        return [
            sys.executable,
            "-P",  # nothing that lies in the current folder
            *("-m", "transcriber", "work", f"--socket={socket}"),
            f"--deadline-s={self._hung_after_s}",
            f"--first-batch={self._batch_limit}",
            *options,
        ]


async def _end(process: asyncio.subprocess.Process) -> None:
    """End of standard input asks the worker to go; it must."""
    if process.stdin is not None:
        process.stdin.close()
    try:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_STOP_TIMEOUT_S):
                await process.wait()
    finally:
        # cancelled or out of time
        if process.returncode is None:
            process.kill()
            await process.wait()


def _worker_environment() -> dict[str, str]:
    """Ours, with the place of this package: the server may run from any folder."""
    root = str(Path(__file__).resolve().parent.parent)
    path = os.environ.get("PYTHONPATH")
    inherited = {name: value for name, value in os.environ.items() if name not in _OURS_ALONE}
    return {**inherited, "PYTHONPATH": f"{root}{os.pathsep}{path}" if path else root}
