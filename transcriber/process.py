"""`WorkerProcess`: starts the worker, gives it windows, and replaces it when it fails.

Holds every final until it is answered, so that a worker that dies loses none: the next one
gets them again. A final that is given twice without an answer is answered as lost to the
engine, and so is each while the engine cannot start. Interims are not repeated; newer audio
will bring a newer one.
"""

import asyncio
import contextlib
import logging
import os
import secrets
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from transcriber import protocol
from transcriber.engines import EngineOptions, make_engine
from transcriber.errors import WorkerError
from transcriber.types import (
    BatchReport,
    EngineInfo,
    EngineState,
    EngineStatus,
    GapReason,
    Hypothesis,
    StreamId,
    Window,
)
from transcriber.worker import EXIT_ENGINE, LISTENING, given_up

_GIVEN_AT_MOST = 2
_FIRST_BACKOFF_S, _MAX_BACKOFF_S = 0.1, 10.0
_FAILED_AFTER = 5  # starts in a row that never became ready
_START_TIMEOUT_S = 20.0
_STOP_TIMEOUT_S = 2.0
# A worker that says nothing for so long while windows wait is hung. One batch of a slow
# engine over a long utterance takes some seconds.
HUNG_AFTER_S = 20.0
_WRITE_CEILING_BYTES = 64 << 20
# Each costs the server about 0.4 ms, from the cut to the caption.
_INTERIMS_PER_S = 40
_LONGEST_DIRECTORY = 90  # a socket's path has 107 bytes at most
_OURS_ALONE = ("MEDIA__TURN_SECRET",)  # settings that the worker has no need to know

log = logging.getLogger("roomscribe.engine")


@dataclass(slots=True)
class _Held:
    window: Window
    given: int = 0


class WorkerProcess:
    """`run` it in a task of its own; `offer` and `attach` from the same event loop."""

    def __init__(
        self,
        options: EngineOptions,
        *,
        on_status: Callable[[EngineStatus], None] = lambda _status: None,
        on_batch: Callable[[BatchReport], None] = lambda _report: None,
        hung_after_s: float = HUNG_AFTER_S,
    ) -> None:
        self._options = options
        self._on_status = on_status
        self._on_batch = on_batch
        self._hung_after_s = hung_after_s
        self._receivers: dict[StreamId, Callable[[Hypothesis], None]] = {}
        self._finals: dict[tuple[StreamId, int], _Held] = {}
        self._interims: set[StreamId] = set()
        # The last interim of each: the next window goes on from it.
        self._sent: dict[StreamId, protocol.Sent] = {}
        self._writer: asyncio.StreamWriter | None = None
        self._heard_at = 0.0
        self._watching: asyncio.TimerHandle | None = None
        self._failures = 0
        self.restarts = 0
        self.pid: int | None = None
        self.ready = asyncio.Event()
        self.status = EngineStatus(EngineState.STARTING, _expected_info(options))

    @property
    def pending(self) -> int:
        """Windows given to the worker, or waiting for one."""
        return len(self._finals) + len(self._interims)

    def attach(self, stream: StreamId, receive: Callable[[Hypothesis], None]) -> None:
        """Hypotheses of `stream` go to `receive`, in this event loop."""
        self._receivers[stream] = receive

    def detach(self, stream: StreamId) -> None:
        """The speaker is gone; what is pending of them is dropped."""
        self._receivers.pop(stream, None)
        self._interims.discard(stream)
        self._sent.pop(stream, None)
        for key in [key for key in self._finals if key[0] == stream]:
            del self._finals[key]
        if self._writer is not None:
            self._writer.write(protocol.encode(protocol.Forget(stream)))

    def offer(self, window: Window) -> bool:
        """Give a window to the worker; never waits.

        A final is kept until it is answered. An interim is refused (False) while one of its
        stream is unanswered or no worker is ready.
        """
        if not self.pending:
            self._heard_at = time.monotonic()
        if window.is_final:
            held = _Held(window)
            self._finals[window.stream, window.utterance] = held
            if self._writer is not None:
                self._give(held)
            return True
        if self._writer is None or window.stream in self._interims:
            return False
        if self._writer.transport.get_write_buffer_size() > _WRITE_CEILING_BYTES:
            return False
        self._interims.add(window.stream)
        self._send(self._writer, window)
        return True

    @property
    def cadence_s(self) -> float:
        """So that those who speak ask for no more interims a second than this process can
        carry beside their audio."""
        return len(self._sent) / _INTERIMS_PER_S

    def can_take_interim(self, stream: StreamId) -> bool:
        return self._writer is not None and stream not in self._interims

    async def run(self) -> None:
        """Keep a worker running until cancelled."""
        backoff = _FIRST_BACKOFF_S
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
            if self.ready.is_set():
                self._failures, backoff = 0, _FIRST_BACKOFF_S
            self._failures += 1
            self.restarts += 1
            failed = code == EXIT_ENGINE or self._failures >= _FAILED_AFTER
            self._note_lost(given_at_most=0 if failed else _GIVEN_AT_MOST)
            self._set_status(
                EngineState.FAILED if failed else EngineState.RESTARTING,
                "the engine cannot start; see the log" if failed else "",
            )
            await asyncio.sleep(backoff)
            backoff = min(_MAX_BACKOFF_S, backoff * 2)

    async def _run_once(self, socket: Path) -> int:
        key = secrets.token_bytes(32)
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-P",  # nothing that lies in the current folder
            "-m",
            "transcriber",
            "serve",
            "--socket",
            str(socket),
            "--engine",
            self._options.engine,
            "--model",
            self._options.model,
            "--language",
            self._options.language,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env=_worker_environment(),
        )
        self.pid = process.pid
        try:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(key.hex().encode() + b"\n")
            async with asyncio.timeout(_START_TIMEOUT_S):
                line = (await process.stdout.readline()).decode().strip()
            if line == LISTENING:
                await self._converse(socket, key)
            return await self._wait(process)
        finally:
            self.pid = None
            await _end(process)

    async def _wait(self, process: asyncio.subprocess.Process) -> int:
        async with asyncio.timeout(_STOP_TIMEOUT_S):
            return await process.wait()

    async def _converse(self, socket: Path, key: bytes) -> None:
        reader, writer = await asyncio.open_unix_connection(socket)
        self._heard_at = time.monotonic()
        self._watch(writer)
        try:
            async with asyncio.timeout(_START_TIMEOUT_S):
                await protocol.prove(reader, writer, key)
            with contextlib.suppress(EOFError, ConnectionError):
                while True:
                    message = await protocol.read(reader)
                    self._heard_at = time.monotonic()
                    self._receive(message, writer)
        finally:
            if self._watching is not None:
                self._watching.cancel()
            self._writer = None
            writer.close()

    def _receive(self, message: protocol.Message, writer: asyncio.StreamWriter) -> None:
        match message:
            case EngineStatus():
                self.status = message
                if message.state is EngineState.READY:
                    self._writer = writer
                    self.ready.set()
                    for held in list(self._finals.values()):
                        self._give(held)
                self._on_status(message)
            case Hypothesis():
                self._settle(message)
            case BatchReport():
                self._on_batch(message)
            case _:
                raise WorkerError("a message that only a server sends")

    def _settle(self, hypothesis: Hypothesis) -> None:
        if hypothesis.is_final:
            for utterance in (hypothesis.utterance, *hypothesis.absorbed):
                self._finals.pop((hypothesis.stream, utterance), None)
        else:
            self._interims.discard(hypothesis.stream)
        receive = self._receivers.get(hypothesis.stream)
        if receive is not None:
            receive(hypothesis)

    def _give(self, held: _Held) -> None:
        assert self._writer is not None
        held.given += 1
        self._send(self._writer, held.window)

    def _send(self, writer: asyncio.StreamWriter, window: Window) -> None:
        before = self._sent.pop(window.stream, None)
        if not window.is_final:
            self._sent[window.stream] = protocol.Sent.of(window)
        writer.write(protocol.encode(window if before is None else before.rest_of(window)))

    def _watch(self, writer: asyncio.StreamWriter) -> None:
        """Drop a worker that has work and says nothing."""
        silent_s = time.monotonic() - self._heard_at
        if self.ready.is_set() and self.pending and silent_s > self._hung_after_s:
            log.warning("the worker hangs")
            writer.transport.abort()
            if self.pid is not None:
                os.kill(self.pid, signal.SIGKILL)
            return
        loop = asyncio.get_running_loop()
        self._watching = loop.call_later(self._hung_after_s / 4, self._watch, writer)

    def _note_lost(self, given_at_most: int) -> None:
        """The worker is gone: finals wait for the next, interims do not."""
        self.ready.clear()
        self._interims.clear()
        self._sent.clear()
        for held in [h for h in self._finals.values() if h.given >= given_at_most]:
            self._settle(given_up(held.window, GapReason.ENGINE))

    def _set_status(self, state: EngineState, message: str = "") -> None:
        self.status = replace(self.status, state=state, message=message)
        self._on_status(self.status)


def _expected_info(options: EngineOptions) -> EngineInfo:
    """What the pages read while the worker starts."""
    engine, _ = make_engine(options)
    return engine.info


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


@contextlib.contextmanager
def _private_directory() -> Iterator[Path]:
    """For the socket. Raises `OSError`, or `WorkerError` if its path is too long for one."""
    with tempfile.TemporaryDirectory(prefix="roomscribe-", ignore_cleanup_errors=True) as name:
        if len(os.fsencode(name)) > _LONGEST_DIRECTORY:
            raise WorkerError("the path in TMPDIR is too long for a socket")
        yield Path(name)
