import asyncio
import contextlib
import logging
import os
import signal
import socket
import stat
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.clients import until
from tests.transcriber.test_process import TWO_WORDS, Server, two_words
from tests.transcriber.workers import gone, is_running
from transcriber import shared as shared_module
from transcriber.engines import EngineOptions
from transcriber.errors import EngineError, WorkerError
from transcriber.shared import SharedWorker, Supervisor, key_file, make_key, read_key
from transcriber.types import EngineState, GapReason, StreamId

ADA, BOB = StreamId("ada"), StreamId("bob")


class Sharing(Server):
    """A server that shares its worker with others."""

    def __init__(self, socket: Path) -> None:
        super().__init__()
        self.shared = SharedWorker(
            socket,
            EngineOptions("scripted"),
            on_status=self._note_status,
            on_batch=self._note_batch,
        )

    async def connected(self) -> None:
        async with asyncio.timeout(60):
            await self.shared.ready.wait()


@pytest.fixture
def folder() -> Iterator[Path]:
    # a socket's path has at most 107 bytes, and those of pytest are long
    with tempfile.TemporaryDirectory(prefix="shared-") as name:
        yield Path(name)


@asynccontextmanager
async def running(*runs: Supervisor | SharedWorker) -> AsyncIterator[None]:
    tasks = [asyncio.create_task(each.run()) for each in runs]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        assert all(task.cancelled() for task in tasks)


@asynccontextmanager
async def sharing(folder: Path) -> AsyncIterator[tuple[Supervisor, Sharing, Sharing]]:
    """A worker, and two servers that are connected to it."""
    supervisor = Supervisor(EngineOptions("scripted"), folder / "s")
    one, other = Sharing(folder / "s"), Sharing(folder / "s")
    async with running(supervisor):
        await until((folder / "s").exists)
        async with running(one.shared, other.shared):
            await one.connected()
            await other.connected()
            yield supervisor, one, other


def attach(server: Sharing, *streams: StreamId) -> None:
    for stream in streams:
        server._heard[stream] = []
        server.shared.attach(stream, server._note)


async def test_each_of_two_servers_gets_its_own_answers_only(folder: Path) -> None:
    async with sharing(folder) as (_, one, other):
        attach(one, ADA)
        attach(other, BOB)
        for utterance in range(1, 5):  # a fifth may be joined
            one.shared.offer(two_words("ada", utterance=utterance))
            other.shared.offer(two_words("bob", utterance=utterance + 10))
        await one.until(lambda: len(one.heard(ADA)) == 4)
        await other.until(lambda: len(other.heard(BOB)) == 4)
        assert one.texts(ADA) == dict.fromkeys(range(1, 5), TWO_WORDS)
        assert other.texts(BOB) == dict.fromkeys(range(11, 15), TWO_WORDS)
        assert one.shared.pending == other.shared.pending == 0


async def test_a_server_that_leaves_takes_nothing_from_the_other(folder: Path) -> None:
    async with sharing(folder) as (supervisor, one, _):
        attach(one, ADA)
        guest = Sharing(folder / "s")
        attach(guest, BOB)
        async with running(guest.shared):
            await guest.connected()
            guest.shared.offer(two_words("bob"))
        one.shared.offer(two_words("ada"))
        await one.until(lambda: one.heard(ADA))
        assert one.shared.restarts == 0
        assert supervisor.pid is not None


async def test_killing_the_worker_loses_no_final_of_either(folder: Path) -> None:
    async with sharing(folder) as (supervisor, one, other):
        attach(one, ADA)
        attach(other, BOB)
        pid = supervisor.pid
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
        for utterance in (1, 2, 3):
            one.shared.offer(two_words("ada", utterance=utterance))
            other.shared.offer(two_words("bob", utterance=utterance))
        os.kill(pid, signal.SIGKILL)
        await one.until(lambda: len(one.heard(ADA)) == 3)
        await other.until(lambda: len(other.heard(BOB)) == 3)
        assert one.texts(ADA) == other.texts(BOB) == dict.fromkeys((1, 2, 3), TWO_WORDS)
        assert supervisor.pid not in (None, pid)
        for server in (one, other):
            assert EngineState.RESTARTING in server.states
            assert EngineState.FAILED not in server.states
            assert server.shared.status.state is EngineState.READY


async def test_a_server_waits_for_a_worker_that_is_not_there_yet(folder: Path) -> None:
    server = Sharing(folder / "s")
    attach(server, ADA)
    async with running(server.shared):
        server.shared.offer(two_words())
        await server.until(lambda: EngineState.RESTARTING in server.states)
        assert not server.shared.ready.is_set()
        async with running(Supervisor(EngineOptions("scripted"), folder / "s")):
            await server.until(lambda: server.heard(ADA))
            assert server.texts(ADA) == {1: TWO_WORDS}
            assert server.shared.status.state is EngineState.READY


async def test_while_no_worker_comes_finals_are_answered_as_lost(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_module, "_MISSED_AFTER_S", 1.0)
    server = Sharing(folder / "s")
    attach(server, ADA)
    async with running(server.shared):
        server.shared.offer(two_words())
        await server.until(lambda: server.heard(ADA))
    assert [h.lost for h in server.heard(ADA)] == [GapReason.ENGINE]
    assert server.states == [EngineState.RESTARTING, EngineState.FAILED]


async def test_a_server_with_another_key_is_refused_and_tries_again_with_the_right_one(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(Supervisor(EngineOptions("scripted"), folder / "s")):
        await until((folder / "s").exists)
        right = key_file(folder / "s").read_text()
        key_file(folder / "s").write_text("00" * 32)
        server = Sharing(folder / "s")
        with caplog.at_level(logging.WARNING, "roomscribe.engine"):
            async with running(server.shared):
                await server.until(lambda: server.shared.restarts == 1)
                assert not server.shared.ready.is_set()
                assert set(server.states) == {EngineState.RESTARTING}
                key_file(folder / "s").write_text(right)
                await server.connected()


async def test_a_worker_with_another_key_is_not_trusted(folder: Path) -> None:
    """Somebody else who listens where the worker should gets no audio."""
    make_key(folder / "s")
    received = bytearray()

    async def pretend(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            writer.write(bytes(64))
            while piece := await reader.read(1 << 16):
                received.extend(piece)
        writer.close()

    listening = await asyncio.start_unix_server(pretend, folder / "s")
    server = Sharing(folder / "s")
    attach(server, ADA)
    async with running(server.shared):
        server.shared.offer(two_words())
        # it tries again, and again proves itself before it sends anything
        await until(lambda: len(received) >= 2 * 32)
        assert not server.shared.ready.is_set()
        assert len(received) < 1000
    listening.close()
    await listening.wait_closed()


# The key


def test_a_key_is_made_once_and_read_by_this_user_only(folder: Path) -> None:
    key = make_key(folder / "s")
    assert len(key) == 32
    assert make_key(folder / "s") == key == read_key(folder / "s")
    assert stat.S_IMODE(key_file(folder / "s").stat().st_mode) == 0o600


def test_without_a_key_it_is_told_what_to_look_at(folder: Path) -> None:
    with pytest.raises(WorkerError, match="is the worker running"):
        read_key(folder / "s")
    key_file(folder / "s").write_text("no key")
    with pytest.raises(WorkerError, match="is none"):
        read_key(folder / "s")


@pytest.mark.parametrize("content", [b"no key", b"", b"\xff\xfe"])
def test_a_key_that_is_none_is_replaced(folder: Path, content: bytes) -> None:
    key_file(folder / "s").write_bytes(content)
    key = make_key(folder / "s")
    assert len(key) == 32
    assert read_key(folder / "s") == key


# The supervisor


async def test_an_engine_that_cannot_start_ends_the_supervisor(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "pocketsphinx.py").write_text("def Decoder(**_): raise RuntimeError('no model')")
    monkeypatch.setenv("PYTHONPATH", str(folder))
    async with asyncio.timeout(60):
        with pytest.raises(EngineError, match="cannot start"):
            await Supervisor(EngineOptions("pocketsphinx"), folder / "s").run()
    assert not (folder / "s").exists()


def test_a_socket_with_too_long_a_path_is_told() -> None:
    with pytest.raises(EngineError, match="107 bytes"):
        Supervisor(EngineOptions("scripted"), Path("/tmp") / ("x" * 103))
    Supervisor(EngineOptions("scripted"), Path("/tmp") / ("x" * 102))


async def test_a_socket_that_a_dead_worker_left_is_replaced(folder: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(folder / "s"))
    server = Sharing(folder / "s")
    async with running(Supervisor(EngineOptions("scripted"), folder / "s"), server.shared):
        await server.connected()


async def test_a_file_that_is_no_socket_is_left_alone(folder: Path) -> None:
    (folder / "s").write_text("precious")
    with pytest.raises(EngineError, match="no socket"):
        await Supervisor(EngineOptions("scripted"), folder / "s").run()
    assert (folder / "s").read_text() == "precious"


async def test_a_socket_has_one_who_keeps_it(folder: Path) -> None:
    server = Sharing(folder / "s")
    async with running(Supervisor(EngineOptions("scripted"), folder / "s"), server.shared):
        await server.connected()
        with pytest.raises(EngineError, match="another"):
            await Supervisor(EngineOptions("scripted"), folder / "s").run()
        assert (folder / "s").is_socket()
    # whoever comes after them takes over
    again = Sharing(folder / "s")
    async with running(Supervisor(EngineOptions("scripted"), folder / "s"), again.shared):
        await again.connected()


# The command


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@asynccontextmanager
async def served(folder: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "transcriber", "serve"),
        *("--socket", str(folder / "s"), "--engine", "scripted"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.communicate()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_the_command_ends_when_it_is_asked_to_and_leaves_no_socket(
    folder: Path, number: signal.Signals
) -> None:
    async with served(folder) as process:
        server = Sharing(folder / "s")
        attach(server, ADA)
        async with running(server.shared):
            server.shared.offer(two_words())
            await server.until(lambda: server.heard(ADA))
            workers = children(process.pid)
            process.send_signal(number)
            async with asyncio.timeout(10):
                assert await process.wait() == 0
        assert not (folder / "s").exists()
        assert not any(map(is_running, workers))


async def test_the_worker_ends_when_the_command_is_killed(folder: Path) -> None:
    async with served(folder) as process:
        await until((folder / "s").exists)
        (pid,) = children(process.pid)
        process.kill()
        await gone(pid)


async def test_the_command_says_in_one_line_why_its_engine_is_none(folder: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "transcriber", "serve"),
        *("--socket", str(folder / "s"), "--engine", "whispering"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    _, told = await process.communicate()
    assert process.returncode == 2
    assert b"transcriber: the engine cannot start; its reason is above\n" in told
    assert b"there is no engine named 'whispering'" in told
