"""The engine's own process: windows in over an authenticated Unix socket, hypotheses out.

One event loop owns the scheduler and the connections; one thread runs the engine, a batch
at a time. Several servers may connect. The process ends when its standard input does: so
it never outlives the server that started it, however that one died. On its standard output
it says that it listens, and then that it is alive, with how large its batches may be once
the engine is ready.
"""

import asyncio
import gc
import logging
import math
import os
import socket
import struct
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from transcriber import protocol
from transcriber.allocator import give_back
from transcriber.engines import Engine
from transcriber.errors import (
    EngineError,
    EngineUnavailable,
    OutOfMemory,
    OverDeadline,
    WorkerError,
)
from transcriber.scheduler import Scheduler
from transcriber.types import (
    SAMPLE_RATE,
    BatchReport,
    EngineState,
    EngineStatus,
    GapReason,
    Hypothesis,
    StreamId,
    Window,
)

LISTENING, ALIVE = "listening", "alive"
EXIT_ENGINE = 3  # the engine cannot start; its reason was logged
EXIT_OUT_OF_MEMORY = 4
EXIT_DEADLINE = 5  # a batch took longer than any should
_BATCH_WINDOW_S = 0.015
# After so many batches in a row that memory was enough for, they may be twice as large.
_GROW_AFTER = 50
# For a server that is just connecting to hear why there is no engine.
_LAST_WORDS_S = 0.5
# Of progress, that is worth telling.
_PROGRESS_STEP = 0.01
# A server that does not read its answers is dropped beyond this, not waited for.
_WRITE_CEILING_BYTES = 8 << 20

# What waited while the engine could not would be kept for ever.
_TIDY_EVERY_S = 30.0

log = logging.getLogger("roomscribe.worker")


class Worker:
    def __init__(
        self, engine: Engine, key: bytes, first_batch: int = 0, deadline_s: float = math.inf
    ) -> None:
        """`first_batch` is how large batches may be at first; 0: as the engine sees fit."""
        self._engine = engine
        self._key = key
        self._first_batch = first_batch
        self._deadline_s = deadline_s
        self._batches = 0  # since their limit grew
        self._busy_since: float | None = None
        self._scheduler = Scheduler(engine.batch_limit, engine.kind, engine.longest_s)
        self._status = EngineStatus(EngineState.LOADING, engine.info)
        self._connections: set[asyncio.StreamWriter] = set()
        self._owners: dict[StreamId, asyncio.StreamWriter] = {}
        self._newest: dict[StreamId, Window] = {}  # what the next one goes on from
        self._work = asyncio.Event()
        # One thread: an engine takes one call at a time.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="engine")

    async def run(self, path: Path) -> None:
        """Listen on `path` until cancelled."""
        server = await asyncio.start_unix_server(self._serve, path)
        os.chmod(path, 0o600)
        print(LISTENING, flush=True)  # noqa: T201 - tells the parent that it can connect
        work = (self._beat(), self._work_forever(), _tidy_now_and_then())
        tasks = [asyncio.create_task(each) for each in work]
        try:
            await asyncio.gather(*tasks)  # neither ends but by failing
        finally:
            for task in tasks:
                task.cancel()
            # not `async with server`: from Python 3.12 on that waits for the others to leave
            server.close()
            for writer in self._connections:
                writer.close()
            gc.unfreeze()
            self._thread.shutdown(wait=False, cancel_futures=True)

    async def _work_forever(self) -> None:
        try:
            await self._load()
        except EngineUnavailable as error:
            # its words are for people: they read on every page what is to be done
            self._set_status(EngineState.FAILED, message=str(error))
            await asyncio.sleep(_LAST_WORDS_S)
            raise
        await self._transcribe_forever()

    async def _load(self) -> None:
        loop = asyncio.get_running_loop()

        def tell(state: EngineState, progress: float | None, message: str) -> None:
            loop.call_soon_threadsafe(self._set_status, state, progress, message)

        await loop.run_in_executor(self._thread, self._engine.load, tell)
        self._set_status(EngineState.WARMING)
        await loop.run_in_executor(self._thread, self._engine.warm_up)
        gc.collect()
        gc.freeze()  # a model is no garbage: what is collected later need not be looked for in it
        limit = self._engine.batch_limit
        self._scheduler.batch_limit = min(limit, self._first_batch or limit)
        self._scheduler.longest_s = self._engine.longest_s
        self._set_status(EngineState.READY)
        self._say_alive()  # at once: what ended the last worker may end this one in a moment

    async def _beat(self) -> None:
        """Say that the worker lives, unless it is at one batch for too long."""
        while True:
            self._say_alive()
            await asyncio.sleep(min(1.0, self._deadline_s / 4))
            since = self._busy_since
            if since is not None and time.monotonic() - since > self._deadline_s:
                raise OverDeadline(f"a batch took more than {self._deadline_s:.0f} s")

    def _say_alive(self) -> None:
        """To the parent; with how large batches may be, once that is known."""
        is_ready = self._status.state is EngineState.READY
        limit = [str(self._scheduler.batch_limit)] if is_ready else []
        print(ALIVE, *limit, flush=True)  # noqa: T201

    async def _transcribe_forever(self) -> None:
        while True:
            await self._work.wait()
            await asyncio.sleep(_BATCH_WINDOW_S)  # others may come for the same batch
            self._work.clear()
            while True:
                oldest = self._scheduler.oldest_since()
                batch = self._scheduler.next_batch(time.monotonic())
                if not batch:
                    break
                await self._transcribe(batch, time.monotonic() - (oldest or time.monotonic()))

    async def _transcribe(self, batch: Sequence[Window], queue_age_s: float) -> None:
        started = time.monotonic()
        self._busy_since = started
        loop = asyncio.get_running_loop()
        hypotheses = await loop.run_in_executor(self._thread, self._engine.transcribe, batch)
        self._busy_since = None
        if len(hypotheses) != len(batch):
            raise WorkerError("the engine answered for other windows than it was given")
        engine_s = time.monotonic() - started
        for window, hypothesis in zip(batch, hypotheses, strict=True):
            self._scheduler.complete(window)
            self._answer(hypothesis)
        report = BatchReport(
            len(batch),
            sum(len(w.samples) for w in batch) / SAMPLE_RATE,
            engine_s,
            queue_age_s,
            self._scheduler.waiting,
            self._scheduler.batch_limit,
        )
        self._tell_all(report)
        self._maybe_grow()

    def _maybe_grow(self) -> None:
        """Batches that were made smaller for want of memory grow again."""
        self._batches += 1
        limit = self._engine.batch_limit
        if self._scheduler.batch_limit < limit and self._batches >= _GROW_AFTER:
            self._batches = 0
            self._scheduler.batch_limit = min(limit, 2 * self._scheduler.batch_limit)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # The containment of one server: whatever it sends ends its own connection only.
        try:
            if not _is_same_user(writer) or not await protocol.admit(reader, writer, self._key):
                log.warning("refused a connection")
                return
            self._connections.add(writer)
            writer.write(protocol.encode(self._status))
            while True:
                self._receive(await protocol.read(reader), writer)
        except (EOFError, ConnectionError):
            pass
        except asyncio.CancelledError:
            # The loop ends. asyncio.streams of Python 3.11 logs a handler that says so as an
            # error, with paths of this host.
            pass
        except WorkerError:
            log.warning("a server sent a frame that does not parse")
        finally:
            self._connections.discard(writer)
            for stream in [s for s, owner in self._owners.items() if owner is writer]:
                self._forget(stream)
            writer.close()

    def _receive(self, message: protocol.Message, writer: asyncio.StreamWriter) -> None:
        match message:
            case Window() | protocol.Tail():
                window = self._complete(message)
                self._owners[window.stream] = writer
                for lost in self._scheduler.offer(window, time.monotonic()):
                    self._answer(given_up(lost, GapReason.OVERLOAD))
                self._work.set()
            case protocol.Forget():
                self._forget(message.stream)
            case _:
                raise WorkerError("a message that only a worker sends")

    def _complete(self, message: Window | protocol.Tail) -> Window:
        if isinstance(message, Window):
            window = message
        else:
            window = message.complete(self._newest.get(message.window.stream))
        if window.is_final:
            self._newest.pop(window.stream, None)  # the next is of another utterance
        else:
            self._newest[window.stream] = window
        return window

    def _forget(self, stream: StreamId) -> None:
        self._owners.pop(stream, None)
        self._newest.pop(stream, None)
        self._scheduler.forget(stream)

    def _answer(self, hypothesis: Hypothesis) -> None:
        writer = self._owners.get(hypothesis.stream)
        if writer is not None:
            self._write(writer, protocol.encode(hypothesis))

    def _set_status(
        self, state: EngineState, progress: float | None = None, message: str = ""
    ) -> None:
        before = self._status
        self._status = EngineStatus(state, self._engine.info, progress, message)
        is_step = abs((progress or 0.0) - (before.progress or 0.0)) >= _PROGRESS_STEP
        if state is not before.state or is_step:
            self._tell_all(self._status)
        else:
            self._status = replace(self._status, progress=before.progress)

    def _tell_all(self, message: EngineStatus | BatchReport) -> None:
        frame = protocol.encode(message)
        for writer in list(self._connections):
            self._write(writer, frame)

    def _write(self, writer: asyncio.StreamWriter, frame: bytes) -> None:
        if writer.transport.get_write_buffer_size() > _WRITE_CEILING_BYTES:
            log.warning("a server does not read its answers")
            writer.transport.abort()
            return
        writer.write(frame)


async def _tidy_now_and_then() -> None:
    """Give back what is kept for later. So little is left to Python's collector here that by
    itself it never makes a full collection; that alone empties its lists of free tuples, which
    grow to 2,000 of each length."""
    while True:
        await asyncio.sleep(_TIDY_EVERY_S)
        gc.collect()
        await asyncio.to_thread(give_back)


def given_up(window: Window, reason: GapReason) -> Hypothesis:
    """The answer for a window that will not be transcribed."""
    return Hypothesis(
        window.stream,
        window.utterance,
        window.revision,
        window.is_final,
        "",
        window.language,
        absorbed=window.absorbed,
        lost=reason,
    )


def _is_same_user(writer: asyncio.StreamWriter) -> bool:
    credentials = writer.get_extra_info("socket").getsockopt(
        socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")
    )
    _pid, uid, _gid = struct.unpack("3i", credentials)
    return bool(uid == os.getuid())


async def serve(worker: Worker, path: Path) -> int:
    """Run until standard input ends. Returns an exit code."""
    running = asyncio.create_task(worker.run(path), name="worker")
    parent = asyncio.create_task(_parent_gone(), name="parent")
    await asyncio.wait({running, parent}, return_when=asyncio.FIRST_COMPLETED)
    if not running.done():
        return 0
    error = running.exception()
    match error:
        case OutOfMemory():
            log.error("out of memory", extra={"reason": str(error)})
            return EXIT_OUT_OF_MEMORY
        case OverDeadline():
            log.error("the engine hangs", extra={"reason": str(error)})
            return EXIT_DEADLINE
        case EngineError():
            log.error("the engine cannot start", extra={"reason": str(error)})
            return EXIT_ENGINE
        case None:
            pass
        case _:
            log.error("the worker failed", exc_info=error)
    return 1


async def _parent_gone() -> None:
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while await reader.read(1024):
        pass
