"""`WorkerProcess`: a worker of this server's own; starts it and replaces it when it fails."""

import asyncio
import contextlib
import os
import secrets
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from transcriber.breaker import Breaker
from transcriber.child import HUNG_AFTER_S, WorkerChild
from transcriber.client import EngineClient, log
from transcriber.engines import EngineOptions
from transcriber.errors import WorkerError
from transcriber.types import BatchReport, EngineStatus
from transcriber.worker import EXIT_ENGINE

_LONGEST_DIRECTORY = 90  # a socket's path has 107 bytes at most


class WorkerProcess(EngineClient):
    def __init__(
        self,
        options: EngineOptions,
        *,
        on_status: Callable[[EngineStatus], None] = lambda _status: None,
        on_batch: Callable[[BatchReport], None] = lambda _report: None,
        hung_after_s: float = HUNG_AFTER_S,
    ) -> None:
        super().__init__(options, on_status=on_status, on_batch=on_batch)
        self._child = WorkerChild(options, hung_after_s)
        self._breaker = Breaker()

    @property
    def pid(self) -> int | None:
        return self._child.pid

    async def run(self) -> None:
        """Keep a worker running until cancelled."""
        while True:
            try:
                with _private_directory() as directory:
                    code = await self._run_once(directory / "worker.sock")
            except (OSError, WorkerError, TimeoutError, EOFError) as error:
                code = 1
                reason = error.strerror if isinstance(error, OSError) else str(error)
                log.warning(
                    "the worker failed",
                    extra={"error": type(error).__name__, "reason": reason},
                )
            await asyncio.sleep(self._failed(cannot_start=code == EXIT_ENGINE))

    def _failed(self, *, cannot_start: bool) -> float:
        """Say that the worker is gone, and how long to wait before the next is started."""
        now = time.monotonic()
        if self.ready.is_set():
            self._breaker.worked()
        wait_s = self._breaker.failed(now)
        if self._breaker.is_open(now):
            log.error("the engine fails again and again", extra={"next_try_s": wait_s})
            again = f"the engine fails again and again; next try in {wait_s:.0f} s"
            self._gone(failed=True, message=again)
        elif cannot_start:
            why = self._last_words or "the engine cannot start; see the log"
            self._gone(failed=True, message=why)
        else:
            self._gone(failed=False, message="")
        return wait_s

    async def _run_once(self, socket: Path) -> int:
        key = secrets.token_bytes(32)
        return await self._child.run(socket, key, lambda: self._converse(socket, key))


@contextlib.contextmanager
def _private_directory() -> Iterator[Path]:
    """For the socket. Raises `OSError`, or `WorkerError` if its path is too long for one."""
    with tempfile.TemporaryDirectory(prefix="roomscribe-", ignore_cleanup_errors=True) as name:
        if len(os.fsencode(name)) > _LONGEST_DIRECTORY:
            raise WorkerError("the path in TMPDIR is too long for a socket")
        yield Path(name)
