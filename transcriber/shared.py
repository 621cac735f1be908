"""One worker for several servers of a machine, on a socket that all of them know.

`Supervisor` keeps it running (`python -m transcriber serve --socket PATH`); a server's
`SharedWorker` connects to it (`TRANSCRIBER__SOCKET`), and again when it has gone. The key that
both prove to have lies beside the socket, in a file that only this user can read.
"""

import asyncio
import fcntl
import logging
import os
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from transcriber.breaker import Breaker
from transcriber.child import HUNG_AFTER_S, WorkerChild
from transcriber.client import EngineClient, log
from transcriber.engines import EngineOptions
from transcriber.errors import EngineError, WorkerError
from transcriber.types import BatchReport, EngineState, EngineStatus
from transcriber.worker import EXIT_ENGINE

_KEY_BYTES = 32
_LONGEST_SOCKET = 107
# To knock costs nothing, and a worker that is replaced is back soon.
_TRY_AGAIN_S = 0.2
_MISSED_AFTER_S = 20.0


class SharedWorker(EngineClient):
    """A server's end of a worker that somebody else keeps running."""

    def __init__(
        self,
        socket: Path,
        options: EngineOptions,
        *,
        on_status: Callable[[EngineStatus], None] = lambda _status: None,
        on_batch: Callable[[BatchReport], None] = lambda _report: None,
    ) -> None:
        super().__init__(options, on_status=on_status, on_batch=on_batch)
        self._socket = socket

    async def run(self) -> None:
        """Stay connected until cancelled."""
        missing_since: float | None = None
        while True:
            try:
                await self._converse(self._socket, read_key(self._socket))
                log.warning("the worker ended the connection")
            except (OSError, WorkerError, TimeoutError, EOFError) as error:
                if missing_since is None:
                    reason = error.strerror if isinstance(error, OSError) else str(error)
                    log.warning(
                        "the shared worker is not there",
                        extra={"error": type(error).__name__, "reason": reason},
                    )
            now = time.monotonic()
            if self.ready.is_set() or missing_since is None:
                missing_since = now
            failed = now - missing_since >= _MISSED_AFTER_S
            known = EngineState.FAILED if failed else EngineState.RESTARTING
            if self.status.state is not known:
                told = "the shared engine is not there" if failed else ""
                self._gone(failed=failed, message=told)
            elif failed:
                self._note_lost(given_at_most=0)
            await asyncio.sleep(_TRY_AGAIN_S)


class Supervisor:
    """Keeps one worker on a socket."""

    def __init__(
        self, options: EngineOptions, socket: Path, hung_after_s: float = HUNG_AFTER_S
    ) -> None:
        if len(os.fsencode(socket)) > _LONGEST_SOCKET:
            raise EngineError("the path of the socket is too long: 107 bytes at most")
        self._socket = socket
        self._child = WorkerChild(options, hung_after_s)
        self._breaker = Breaker()
        self._log = logging.getLogger("roomscribe.worker")

    @property
    def pid(self) -> int | None:
        return self._child.pid

    async def run(self) -> None:
        """Keep a worker running until cancelled. Raises `EngineError` where another keeps one on
        this socket, or if the engine cannot start the first time: nobody need wait for it."""
        if self._socket.exists() and not self._socket.is_socket():
            raise EngineError(f"{self._socket} is there and no socket")
        with _kept(self._socket):
            try:
                key = make_key(self._socket)
            except OSError as error:
                raise EngineError(f"no key beside the socket: {error.strerror}") from None
            await self._keep(key)

    async def _keep(self, key: bytes) -> None:
        first = True
        while True:
            started = time.monotonic()
            self._socket.unlink(missing_ok=True)
            try:
                code = await self._child.run(self._socket, key)
            except (OSError, TimeoutError, EOFError) as error:
                code = 1
                self._log.warning("the worker failed", extra={"reason": type(error).__name__})
            finally:
                self._socket.unlink(missing_ok=True)
            if first and code == EXIT_ENGINE:
                raise EngineError("the engine cannot start; its reason is above")
            first = False
            if time.monotonic() - started > HUNG_AFTER_S:
                self._breaker.worked()
            wait_s = self._breaker.failed(time.monotonic())
            self._log.warning("the worker is replaced", extra={"reason": f"it ended with {code}"})
            await asyncio.sleep(wait_s)


@contextmanager
def _kept(socket: Path) -> Iterator[None]:
    """By one process alone, as long as it lives. The file of the lock stays: who waits for one
    that is removed has another than who comes then. Raises `EngineError`."""
    lock = None
    try:
        path = socket.with_name(socket.name + ".lock")
        # nobody else may hold it
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if lock is not None:
            os.close(lock)
        if isinstance(error, BlockingIOError):
            raise EngineError(f"another keeps a worker on {socket} already") from None
        raise EngineError(f"no lock beside the socket: {error.strerror}") from None
    try:
        yield
    finally:
        os.close(lock)


def key_file(socket: Path) -> Path:
    return socket.with_name(socket.name + ".key")


def read_key(socket: Path) -> bytes:
    """Raises `WorkerError` where there is none."""
    try:
        key = bytes.fromhex(key_file(socket).read_text(encoding="ascii"))
    except FileNotFoundError:
        raise WorkerError("there is no key beside the socket: is the worker running?") from None
    except ValueError:
        key = b""
    if len(key) != _KEY_BYTES:  # or who was killed while it was written leaves an empty one
        raise WorkerError("the key beside the socket is none")
    return key


def make_key(socket: Path) -> bytes:
    """The key that lies beside the socket, or a new one."""
    try:
        return read_key(socket)
    except WorkerError:
        key = secrets.token_bytes(_KEY_BYTES)
    path = key_file(socket)
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(key.hex())
    return key
