"""Workers for tests: the real process, and one in this loop whose engine is held by hand."""

import asyncio
import contextlib
import json
import math
import os
import queue
import select
import subprocess
import sys
import tempfile
import threading
from collections.abc import AsyncIterator, Hashable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.transcriber.builders import hypothesis
from transcriber import protocol
from transcriber.engines import Tell
from transcriber.types import (
    BatchReport,
    EngineInfo,
    EngineState,
    EngineStatus,
    Hypothesis,
    Window,
)
from transcriber.worker import Worker

KEY = b"the key of this test's servers"


class Connection:
    """A server's end: windows out, hypotheses in."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self.writer = writer
        self.states: list[EngineState] = []
        self.reports: list[BatchReport] = []
        self.info: EngineInfo | None = None

    def send(self, *messages: protocol.Message) -> None:
        for message in messages:
            self.writer.write(protocol.encode(message))

    async def hypothesis(self) -> Hypothesis:
        """The next one. Raises `EOFError` where the worker ended the connection."""
        while True:
            match await self._read():
                case Hypothesis() as heard:
                    return heard

    async def hypotheses(self, count: int) -> list[Hypothesis]:
        return [await self.hypothesis() for _ in range(count)]

    async def until(self, state: EngineState) -> None:
        while state not in self.states:
            await self._read()

    async def report(self) -> BatchReport:
        while not self.reports:
            await self._read()
        return self.reports.pop(0)

    async def rest(self) -> list[Hypothesis]:
        """All until the worker ends the connection."""
        heard = []
        with contextlib.suppress(EOFError, ConnectionError):
            while True:
                heard.append(await self.hypothesis())
        return heard

    async def ended(self) -> None:
        """Until the worker ends the connection; it answers nothing before."""
        assert await self.rest() == []

    async def close(self) -> None:
        self.writer.close()
        with contextlib.suppress(ConnectionError):
            await self.writer.wait_closed()

    async def _read(self) -> protocol.Message:
        async with asyncio.timeout(30):
            message = await protocol.read(self._reader)
        match message:
            case EngineStatus():
                self.states.append(message.state)
                self.info = message.info
            case BatchReport():
                self.reports.append(message)
        return message


@dataclass(slots=True)
class Endpoint:
    """Where a worker listens."""

    path: Path

    async def listens(self) -> None:
        async with asyncio.timeout(30):
            while not self.path.exists():  # noqa: ASYNC110 - nothing tells of a socket file
                await asyncio.sleep(0)

    @asynccontextmanager
    async def connection(self, key: bytes = KEY) -> AsyncIterator[Connection]:
        reader, writer = await asyncio.open_unix_connection(self.path)
        connection = Connection(reader, writer)
        try:
            await protocol.prove(reader, writer, key)
            yield connection
        finally:
            await connection.close()


# The real process


@dataclass(slots=True)
class Serving(Endpoint):
    process: asyncio.subprocess.Process

    async def exit_code(self) -> int:
        async with asyncio.timeout(30):
            return await self.process.wait()

    async def logged(self) -> list[dict[str, str]]:
        """Everything it logged, once it has ended."""
        assert self.process.stderr is not None
        async with asyncio.timeout(30):
            return [json.loads(line) async for line in self.process.stderr]


def command(path: Path, engine: str = "scripted") -> list[str]:
    return [
        *(sys.executable, "-m", "transcriber", "work"),
        *("--socket", str(path), "--engine", engine),
    ]


@asynccontextmanager
async def serving(engine: str = "scripted") -> AsyncIterator[Serving]:
    """A worker process; it listens, where its engine exists."""
    # a socket's path has at most 107 bytes, and those of pytest are long
    with tempfile.TemporaryDirectory(prefix="worker-") as folder:
        path = Path(folder) / "s"
        process = await asyncio.create_subprocess_exec(
            *command(path, engine),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(KEY.hex().encode() + b"\n")
            async with asyncio.timeout(30):
                await process.stdout.readline()
            yield Serving(path, process)
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.communicate()


async def gone(pid: int) -> None:
    """Until a process has ended that is not a child of this one."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        loop, ended = asyncio.get_running_loop(), asyncio.Event()
        loop.add_reader(descriptor, ended.set)
        try:
            async with asyncio.timeout(30):
                await ended.wait()
        finally:
            loop.remove_reader(descriptor)
    finally:
        os.close(descriptor)


def is_running(pid: int) -> bool:
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return False
    try:
        return not select.select([descriptor], [], [], 0)[0]
    finally:
        os.close(descriptor)


# In this loop


class HandEngine:
    """Hears its text, a batch at a time, when it is told to."""

    info = EngineInfo("hand", "", ("en",), "")

    def __init__(
        self,
        batch_limit: int = 32,
        load_error: Exception | None = None,
        load_waits: bool = False,
    ) -> None:
        self.batch_limit = batch_limit
        self.batches: list[list[Window]] = []
        self.answers_short = False
        self.text = ""
        self._load_error = load_error
        self._load_waits = load_waits
        self._released: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._taken = threading.Semaphore(0)

    longest_s = 60.0

    def load(self, tell: Tell) -> None:
        if self._load_waits:
            self._released.get()
        if self._load_error is not None:
            raise self._load_error

    def warm_up(self) -> None:
        """Nothing is made on first use."""

    def kind(self, window: Window) -> Hashable:
        return None

    def transcribe(self, windows: Sequence[Window]) -> list[Hypothesis]:
        self.batches.append(list(windows))
        self._taken.release()
        self._released.get()
        heard = [hypothesis(w, self.text) for w in windows]
        return heard[1:] if self.answers_short else heard

    def close(self) -> None:
        """Nothing to close."""

    def release(self, batches: int = 1) -> None:
        """Let it answer that many batches, those to come included."""
        for _ in range(batches):
            self._released.put(None)

    async def taken(self) -> list[Window]:
        """The next batch it was given, as soon as it has it."""
        loop = asyncio.get_running_loop()
        assert await loop.run_in_executor(None, self._taken.acquire, True, 30)
        return self.batches[-1]


@asynccontextmanager
async def working(
    engine: HandEngine, *, first_batch: int = 0, deadline_s: float = math.inf
) -> AsyncIterator[Endpoint]:
    """A worker around the engine, in this loop. Raises what the worker fell over."""
    with tempfile.TemporaryDirectory(prefix="worker-") as folder:
        path = Path(folder) / "s"
        worker = Worker(engine, KEY, first_batch, deadline_s)
        task = asyncio.create_task(worker.run(path), name="worker under test")
        endpoint = Endpoint(path)
        try:
            await endpoint.listens()
            yield endpoint
        finally:
            engine.release(100)
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
