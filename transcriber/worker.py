"""The engine's own process: windows in over an authenticated Unix socket, hypotheses out.

One event loop owns the scheduler and the connections; one thread runs the engine, a batch
at a time. Several servers may connect. The process ends when its standard input does: so
it never outlives the server that started it, however that one died.
"""

import asyncio
import logging
import os
import socket
import struct
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from transcriber import protocol
from transcriber.engines import Engine
from transcriber.errors import EngineError, WorkerError
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

LISTENING = "listening"
EXIT_ENGINE = 3  # the engine cannot start; its reason was printed as the last line
_BATCH_WINDOW_S = 0.015
# A server that does not read its answers is dropped beyond this, not waited for.
_WRITE_CEILING_BYTES = 8 << 20

log = logging.getLogger("roomscribe.worker")


class Worker:
    def __init__(self, engine: Engine, key: bytes) -> None:
        self._engine = engine
        self._key = key
        self._scheduler = Scheduler(engine.batch_limit)
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
        try:
            loop = asyncio.get_running_loop()
            await loop.run_in_executor(self._thread, self._engine.load)
            self._set_status(EngineState.READY)
            await self._transcribe_forever()
        finally:
            # not `async with server`: from Python 3.12 on that waits for the others to leave
            server.close()
            for writer in self._connections:
                writer.close()
            self._thread.shutdown(wait=False, cancel_futures=True)

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
        loop = asyncio.get_running_loop()
        hypotheses = await loop.run_in_executor(self._thread, self._engine.transcribe, batch)
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
        )
        self._tell_all(report)

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

    def _set_status(self, state: EngineState) -> None:
        self._status = EngineStatus(state, self._engine.info)
        self._tell_all(self._status)

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


async def serve(engine: Engine, key: bytes, path: Path) -> int:
    """Run until standard input ends. Returns an exit code."""
    worker = asyncio.create_task(Worker(engine, key).run(path), name="worker")
    parent = asyncio.create_task(_parent_gone(), name="parent")
    await asyncio.wait({worker, parent}, return_when=asyncio.FIRST_COMPLETED)
    if not worker.done():
        return 0
    error = worker.exception()
    if isinstance(error, EngineError):
        log.error("the engine cannot start", extra={"reason": str(error)})
        return EXIT_ENGINE
    if error is not None:
        log.error("the worker failed", exc_info=error)
    return 1


async def _parent_gone() -> None:
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while await reader.read(1024):
        pass
