import asyncio
import errno
import functools
import logging
import os
import signal
import sys
import tempfile
import types
from collections.abc import AsyncIterator, Callable, Coroutine, Generator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import uvloop

from tests.clients import until
from tests.logs import logged
from tests.speech import tone
from tests.transcriber.builders import window
from tests.transcriber.workers import is_running
from transcriber import breaker as breaker_module
from transcriber import child as child_module
from transcriber import client as client_module
from transcriber.engines import EngineOptions
from transcriber.engines.scripted import word_at
from transcriber.errors import EngineUnavailable
from transcriber.process import WorkerProcess
from transcriber.types import (
    BatchReport,
    EngineState,
    EngineStatus,
    GapReason,
    Hypothesis,
    StreamId,
    Window,
)

ADA, BOB = StreamId("ada"), StreamId("bob")
TWO_WORDS = f"{word_at(0)} {word_at(1)}"


def two_words(
    stream: str = "ada", *, utterance: int = 1, revision: int = 1, final: bool = True
) -> Window:
    """Audio in which the scripted engine hears the words of two half seconds."""
    return window(stream, utterance=utterance, revision=revision, final=final, samples=tone(1.0))


class Server:
    """What a server does with a worker's process: keeps states, reports and answers."""

    def __init__(self, hung_after_s: float = 20.0) -> None:
        self.statuses: list[EngineStatus] = []
        self.reports: list[BatchReport] = []
        self.on_state: Callable[[EngineState], None] = lambda _state: None
        self._heard: dict[StreamId, list[Hypothesis]] = {}
        self._news = asyncio.Event()
        self.engine = WorkerProcess(
            EngineOptions("scripted"),
            on_status=self._note_status,
            on_batch=self._note_batch,
            hung_after_s=hung_after_s,
        )

    def attach(self, *streams: StreamId) -> None:
        for stream in streams:
            self._heard[stream] = []
            self.engine.attach(stream, self._note)

    def heard(self, stream: StreamId = ADA) -> list[Hypothesis]:
        return self._heard[stream]

    def texts(self, stream: StreamId = ADA) -> dict[int, str]:
        """By utterance; fails where one was answered twice."""
        utterances = [h.utterance for h in self.heard(stream)]
        assert len(set(utterances)) == len(utterances), f"answered twice: {utterances}"
        return {h.utterance: h.text for h in self.heard(stream)}

    @property
    def states(self) -> list[EngineState]:
        return [status.state for status in self.statuses]

    async def until(self, holds: Callable[[], object]) -> None:
        """Wait for news until something holds."""
        async with asyncio.timeout(60):
            while not holds():
                self._news.clear()
                await self._news.wait()

    async def ready(self) -> int:
        """Wait for a worker; its process."""
        async with asyncio.timeout(60):
            await self.engine.ready.wait()
        assert self.engine.pid is not None
        return self.engine.pid

    def _note_status(self, status: EngineStatus) -> None:
        self.statuses.append(status)
        self.on_state(status.state)
        self._news.set()

    def _note_batch(self, report: BatchReport) -> None:
        self.reports.append(report)
        self._news.set()

    def _note(self, hypothesis: Hypothesis) -> None:
        self._heard[hypothesis.stream].append(hypothesis)
        self._news.set()


@asynccontextmanager
async def serving(hung_after_s: float = 20.0) -> AsyncIterator[Server]:
    """A server whose worker process is kept running, `ada` attached."""
    server = Server(hung_after_s)
    server.attach(ADA)
    task = asyncio.create_task(server.engine.run(), name="engine under test")
    try:
        yield server
    finally:
        task.cancel()
        await asyncio.wait({task})
        assert task.cancelled()


# Windows and answers


async def test_a_final_is_answered() -> None:
    async with serving() as server:
        await server.ready()
        assert server.engine.offer(two_words(utterance=3))
        assert server.engine.pending == 1
        await server.until(server.heard)
        assert server.texts() == {3: TWO_WORDS}
        assert server.engine.pending == 0
        await server.until(lambda: server.reports)
        assert server.reports[0].windows == 1


async def test_a_final_offered_before_a_worker_is_ready_is_answered() -> None:
    async with serving() as server:
        assert server.engine.offer(two_words())
        await server.until(server.heard)
        assert server.texts() == {1: TWO_WORDS}


async def test_an_interim_is_refused_before_a_worker_is_ready() -> None:
    async with serving() as server:
        assert not server.engine.can_take_interim(ADA)
        assert not server.engine.offer(two_words(final=False))
        assert server.engine.pending == 0
        await server.ready()
        assert server.engine.can_take_interim(ADA)


async def test_one_interim_of_a_speaker_is_unanswered_at_a_time() -> None:
    async with serving() as server:
        server.attach(BOB)
        await server.ready()
        assert server.engine.offer(two_words(revision=1, final=False))
        assert not server.engine.can_take_interim(ADA)
        assert not server.engine.offer(two_words(revision=2, final=False))
        assert server.engine.can_take_interim(BOB)
        await server.until(server.heard)
        assert [h.revision for h in server.heard()] == [1]
        assert server.engine.can_take_interim(ADA)


async def test_interims_are_refused_while_a_worker_takes_nothing_and_finals_are_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(client_module, "_WRITE_CEILING_BYTES", 100_000)
    async with serving() as server:
        pid = await server.ready()
        os.kill(pid, signal.SIGSTOP)
        for utterance in range(1, 4):
            assert server.engine.offer(window(utterance=utterance, final=True, seconds=10.0))
        assert not server.engine.offer(two_words(utterance=4, final=False))
        os.kill(pid, signal.SIGCONT)
        await server.until(lambda: len(server.heard()) == 3)
        assert server.engine.offer(two_words(utterance=4, final=False))


async def test_an_interim_that_its_final_overtakes_does_not_block_the_next() -> None:
    async with serving() as server:
        await server.ready()
        # both come within the time in which the worker waits for more
        server.engine.offer(two_words(revision=1, final=False))
        server.engine.offer(two_words(revision=2, final=True))
        await server.until(lambda: len(server.heard()) == 2)
        assert server.engine.can_take_interim(ADA)
        assert server.engine.pending == 0


def growing(revision: int, *, final: bool = False) -> Window:
    """An utterance that is half a second longer at each revision."""
    said = tone(5.0)[: 8_000 * revision]
    return window(revision=revision, samples=said, final=final)


def has_heard(server: Server, count: int) -> bool:
    return len(server.heard()) == count


def words(count: int) -> str:
    return " ".join(word_at(n) for n in range(count))


async def test_a_final_after_interims_is_heard_whole() -> None:
    async with serving() as server:
        await server.ready()
        for revision in range(1, 5):
            server.engine.offer(growing(revision, final=revision == 4))
            await server.until(functools.partial(has_heard, server, revision))
    assert [h.text for h in server.heard()] == [words(n) for n in range(1, 5)]


async def test_a_new_worker_is_given_the_whole_utterance() -> None:
    async with serving() as server:
        pid = await server.ready()
        server.engine.offer(growing(1))
        await server.until(server.heard)
        os.kill(pid, signal.SIGKILL)
        await server.until(lambda: server.engine.restarts == 1)
        await server.ready()
        server.engine.offer(growing(2))
        await server.until(lambda: len(server.heard()) == 2)
        server.engine.offer(growing(3, final=True))
        await server.until(lambda: len(server.heard()) == 3)
        assert server.engine.restarts == 1
    assert [h.text for h in server.heard()] == [words(n) for n in range(1, 4)]


async def test_a_final_that_a_dead_worker_kept_is_given_whole_to_the_next() -> None:
    async with serving() as server:
        pid = await server.ready()
        server.engine.offer(growing(1))
        await server.until(server.heard)
        os.kill(pid, signal.SIGSTOP)
        server.engine.offer(growing(3, final=True))
        os.kill(pid, signal.SIGKILL)
        await server.until(lambda: len(server.heard()) == 2)
        assert server.engine.restarts == 1
    assert server.heard()[1].text == words(3)


async def test_a_speaker_that_comes_back_is_heard_whole() -> None:
    async with serving() as server:
        await server.ready()
        server.engine.offer(growing(1))
        await server.until(server.heard)
        server.engine.detach(ADA)
        server.attach(ADA)
        server.engine.offer(growing(2, final=True))
        await server.until(server.heard)
        assert server.engine.restarts == 0
    assert server.heard()[0].text == words(2)


async def test_the_status_says_which_engine_runs_from_the_first_moment() -> None:
    assert Server().engine.status.info.name == "scripted"
    assert Server().engine.status.state is EngineState.STARTING
    async with serving() as server:
        await server.ready()
        assert server.engine.status.info.note.startswith("A test engine")


def test_an_engine_that_does_not_exist_is_refused_at_once() -> None:
    with pytest.raises(EngineUnavailable, match="whispering"):
        WorkerProcess(EngineOptions("whispering"))


async def test_what_is_pending_of_a_detached_speaker_is_dropped() -> None:
    async with serving() as server:
        server.attach(BOB)
        pid = await server.ready()
        os.kill(pid, signal.SIGSTOP)
        server.engine.offer(two_words("ada", final=False))
        server.engine.offer(two_words("ada", utterance=2))
        server.engine.offer(two_words("bob"))
        server.engine.detach(ADA)
        assert server.engine.pending == 1
        os.kill(pid, signal.SIGCONT)
        await server.until(lambda: server.heard(BOB))
        assert server.heard(ADA) == []
        assert server.engine.pending == 0


async def test_a_speaker_can_be_detached_while_there_is_no_worker() -> None:
    async with serving() as server:
        server.engine.offer(two_words())
        server.engine.detach(ADA)
        assert server.engine.pending == 0
        await server.ready()


async def test_an_answer_for_a_speaker_who_left_is_dropped() -> None:
    async with serving() as server:
        server.attach(BOB)
        await server.ready()
        server.engine.offer(two_words("eve"))
        server.engine.offer(two_words("bob"))
        await server.until(lambda: server.heard(BOB) and not server.engine.pending)


# Bad days


async def test_a_worker_that_is_killed_is_replaced_and_no_final_is_lost() -> None:
    async with serving() as server:
        pid = await server.ready()
        server.engine.offer(two_words(utterance=1))
        await server.until(server.heard)
        os.kill(pid, signal.SIGSTOP)
        for utterance in (2, 3, 4):
            server.engine.offer(two_words(utterance=utterance))
        server.engine.offer(two_words(utterance=5, final=False))
        os.kill(pid, signal.SIGKILL)
        await server.until(lambda: len(server.heard()) == 4)
        assert server.texts() == dict.fromkeys((1, 2, 3, 4), TWO_WORDS)
        assert server.engine.pid != pid
        assert server.engine.restarts == 1
        assert server.engine.pending == 0
        # the interim went with the worker; another can be sent
        assert server.engine.can_take_interim(ADA)


def test_what_is_offered_as_its_worker_goes_waits_for_the_next() -> None:
    """On uvloop, as in the product: it raises where a lost connection is written to."""

    async def offered_in_each_turn() -> None:
        async with serving() as server:
            await server.ready()
            writer = server.engine._writer
            assert writer is not None
            server.attach(BOB)
            writer.transport.abort()
            offered = 0
            while server.engine._writer is writer:
                offered += 1
                assert server.engine.offer(two_words(utterance=offered))
                assert not server.engine.offer(two_words("bob", final=False))
                server.engine.detach(BOB)
                await asyncio.sleep(0)
            assert offered > 1
            await server.until(lambda: len(server.heard()) == offered)
            assert set(server.texts().values()) == {TWO_WORDS}

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(offered_in_each_turn())


async def test_the_state_goes_from_ready_over_restarting_to_ready() -> None:
    async with serving() as server:
        os.kill(await server.ready(), signal.SIGKILL)
        await server.until(lambda: server.states.count(EngineState.READY) == 2)
        loads = (EngineState.LOADING, EngineState.WARMING)
        told = [state for state in server.states if state not in loads]
        assert told == [EngineState.READY, EngineState.RESTARTING, EngineState.READY]
        assert server.engine.status.message == ""


async def test_finals_offered_while_there_is_no_worker_are_answered_by_the_next() -> None:
    async with serving() as server:
        os.kill(await server.ready(), signal.SIGKILL)
        await server.until(lambda: EngineState.RESTARTING in server.states)
        assert not server.engine.ready.is_set()
        assert not server.engine.can_take_interim(ADA)
        server.engine.offer(two_words(utterance=1))
        server.engine.offer(two_words(utterance=2))
        await server.until(lambda: len(server.heard()) == 2)
        assert server.texts() == {1: TWO_WORDS, 2: TWO_WORDS}


async def test_a_final_that_two_workers_died_with_is_answered_as_lost() -> None:
    async with serving() as server:
        pid = await server.ready()
        os.kill(pid, signal.SIGSTOP)
        server.engine.offer(two_words(utterance=1))

        def kill_the_next(state: EngineState) -> None:
            # it has just been given the final again, and waits for more before it starts
            if state is EngineState.READY and server.engine.restarts == 1:
                assert server.engine.pid is not None
                os.kill(server.engine.pid, signal.SIGKILL)

        server.on_state = kill_the_next
        os.kill(pid, signal.SIGKILL)
        await server.until(server.heard)
        (lost,) = server.heard()
        assert (lost.utterance, lost.is_final, lost.text) == (1, True, "")
        assert lost.lost is GapReason.ENGINE
        assert server.engine.pending == 0
        server.engine.offer(two_words(utterance=2))
        await server.until(lambda: len(server.heard()) == 2)
        assert server.texts()[2] == TWO_WORDS


async def test_a_worker_that_was_ready_and_dies_has_not_failed_to_start() -> None:
    async with serving() as server:
        for _ in range(3):
            os.kill(await server.ready(), signal.SIGKILL)
            await server.until(lambda: not server.engine.ready.is_set())
        assert EngineState.FAILED not in server.states


async def test_a_worker_that_hangs_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child_module, "_STOP_TIMEOUT_S", 60.0)  # killed, not waited for
    async with serving(hung_after_s=2.0) as server:
        pid = await server.ready()
        os.kill(pid, signal.SIGSTOP)
        server.engine.offer(two_words())
        await server.until(server.heard)
        assert server.texts() == {1: TWO_WORDS}
        assert not is_running(pid)
        assert server.engine.restarts == 1


async def test_a_worker_that_hangs_without_work_is_replaced_too() -> None:
    # or the first to speak would wait for it
    async with serving(hung_after_s=2.0) as server:
        pid = await server.ready()
        os.kill(pid, signal.SIGSTOP)
        await server.until(lambda: server.engine.restarts == 1)
        assert await server.ready() != pid


async def test_a_worker_that_dies_again_and_again_is_left_alone_for_a_while(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(breaker_module, "_COOL_S", 1.0)
    async with serving() as server:
        for _ in range(5):
            os.kill(await server.ready(), signal.SIGKILL)
            await server.until(lambda: not server.engine.ready.is_set())
        assert server.engine.status.state is EngineState.FAILED
        assert "next try in 1 s" in server.engine.status.message
        server.engine.offer(two_words())
        await server.until(server.heard)
        assert server.texts() == {1: TWO_WORDS}


# A worker that cannot start: what runs in its place is a script that ends


def worker_that(monkeypatch: pytest.MonkeyPatch, folder: Path, does: str) -> None:
    script = folder / "worker"
    script.write_text(f"#!/bin/sh\n{does}\n")
    script.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(script))


async def test_an_engine_that_cannot_start_is_said_to_have_failed_and_is_tried_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    python = sys.executable
    worker_that(monkeypatch, tmp_path, "exit 3")
    async with serving() as server:
        await server.until(lambda: server.states == [EngineState.FAILED] * 2)
        assert server.engine.status.message == "the engine cannot start; see the log"
        assert server.engine.status.info.name == "scripted"
        monkeypatch.setattr(sys, "executable", python)
        await server.ready()
        assert server.engine.status.message == ""


async def test_an_engine_whose_model_cannot_be_loaded_is_said_to_have_failed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "pocketsphinx.py").write_text(
        "def Decoder(**options): raise RuntimeError('no model')"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    server = Server()
    server.engine = WorkerProcess(EngineOptions("pocketsphinx"), on_status=server._note_status)
    task = asyncio.create_task(server.engine.run())
    await server.until(lambda: EngineState.FAILED in server.states)
    assert EngineState.READY not in server.states
    task.cancel()
    await asyncio.wait({task})


async def test_what_is_to_be_done_for_an_engine_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    server = Server()
    options = EngineOptions("whisper", "base", auto_download=False)
    server.engine = WorkerProcess(options, on_status=server._note_status)
    task = asyncio.create_task(server.engine.run())
    # as the worker says it, and still once that has ended
    await server.until(lambda: server.states.count(EngineState.FAILED) == 2)
    for status in server.statuses[-2:]:
        assert status.message.endswith("run python -m transcriber models --fetch base")
    task.cancel()
    await asyncio.wait({task})


async def test_a_worker_that_dies_at_every_start_has_failed_at_the_fifth(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(breaker_module, "_MOST_S", 0.01)
    monkeypatch.setattr(breaker_module, "_FIRST_S", 0.01)
    worker_that(monkeypatch, tmp_path, "exit 1")
    async with serving() as server:
        await server.until(lambda: len(server.states) == 5)
        assert server.states == [EngineState.RESTARTING] * 4 + [EngineState.FAILED]


async def test_finals_are_answered_as_lost_while_the_engine_cannot_start(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # or the audio of every speaker would be held for as long as that lasts
    worker_that(monkeypatch, tmp_path, "exit 3")
    async with serving() as server:
        server.engine.offer(two_words(utterance=1))
        await server.until(server.heard)
        server.engine.offer(two_words(utterance=2))
        await server.until(lambda: len(server.heard()) == 2)
        assert [h.lost for h in server.heard()] == [GapReason.ENGINE] * 2
        assert server.engine.pending == 0


async def test_a_worker_that_never_listens_is_given_up(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(child_module, "_START_TIMEOUT_S", 0.1)
    monkeypatch.setattr(child_module, "_STOP_TIMEOUT_S", 0.1)
    worker_that(monkeypatch, tmp_path, "exec sleep 60")
    async with serving() as server:
        await server.until(lambda: server.engine.restarts == 2)
        assert server.states[0] is EngineState.RESTARTING


async def test_a_worker_that_listens_nowhere_is_given_up(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    worker_that(monkeypatch, tmp_path, "echo listening; read _")
    async with serving() as server:
        await server.until(lambda: server.engine.restarts == 1)


# Its end


@types.coroutine
def cancelled_at(
    step: int, runs: Coroutine[Any, Any, None], stepped: Callable[[], None]
) -> Generator[Any, Any, None]:
    """Run a coroutine, and cancel the task around it at its n-th wait."""
    waits = 0
    result: Any = None
    error: BaseException | None = None
    while True:
        try:
            waited = runs.send(result) if error is None else runs.throw(error)
        except StopIteration:
            return
        waits += 1
        if waits == step:
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
        stepped()
        result = error = None
        try:
            result = yield waited
        except BaseException as thrown:  # a cancellation is passed on as all else is
            error = thrown


async def test_cancelled_at_any_wait_it_leaves_no_process_and_no_folder(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # of its own: other tests may run beside it, and a socket's path has at most 107 bytes
    with tempfile.TemporaryDirectory() as folder:
        monkeypatch.setattr(tempfile, "tempdir", folder)
        await cancel_at_each_wait(Path(folder))


async def cancel_at_each_wait(folder: Path) -> None:
    step, reached_ready = 0, False
    while not reached_ready:
        step += 1
        server = Server()
        pids = set[int]()

        def note(engine: WorkerProcess = server.engine, pids: set[int] = pids) -> None:
            if engine.pid is not None:
                pids.add(engine.pid)

        async def run(step: int = step, server: Server = server) -> None:
            await cancelled_at(step, server.engine.run(), note)

        task = asyncio.create_task(run())
        ready = asyncio.create_task(server.engine.ready.wait())
        await asyncio.wait({task, ready}, timeout=15, return_when=asyncio.FIRST_COMPLETED)
        for each in (task, ready):
            each.cancel()  # ready after fewer waits than this one was to be cancelled at
        await asyncio.wait({task, ready}, timeout=15)
        assert task.cancelled()
        assert not any(map(is_running, pids))
        assert os.listdir(folder) == []
        reached_ready = EngineState.READY in server.states
    assert step > 3


async def test_cancelled_while_it_ends_a_hung_worker_it_leaves_no_process(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server = Server()
    task = asyncio.create_task(server.engine.run())
    pid = await server.ready()
    os.kill(pid, signal.SIGSTOP)
    task.cancel()
    await asyncio.sleep(0.1)  # it closed the worker's standard input, and waits
    assert not task.done()
    task.cancel()
    await asyncio.wait({task}, timeout=20)
    assert task.cancelled()
    assert not is_running(pid)


async def test_a_hung_worker_is_killed_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child_module, "_STOP_TIMEOUT_S", 0.1)
    async with serving() as server:
        pid = await server.ready()
        os.kill(pid, signal.SIGSTOP)
    assert not is_running(pid)


async def test_it_can_be_run_from_any_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    async with serving() as server:
        await server.ready()


async def test_without_a_place_for_its_socket_the_engine_is_not_there_and_nothing_else_ends(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(**_: object) -> str:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("tempfile.TemporaryDirectory", full)
    states: list[EngineState] = []
    process = WorkerProcess(EngineOptions("scripted"), on_status=lambda s: states.append(s.state))
    running = asyncio.create_task(process.run(), name="process")
    with caplog.at_level(logging.WARNING, "roomscribe"):
        await until(lambda: EngineState.FAILED in states)
    running.cancel()
    await asyncio.wait({running})
    assert running.cancelled()
    reasons = {vars(r)["reason"] for r in logged(caplog) if r.levelno == logging.WARNING}
    assert reasons == {"No space left on device"}


async def test_a_temporary_folder_with_too_long_a_name_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    deep = tmp_path / ("x" * 100)
    deep.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(deep))
    process = WorkerProcess(EngineOptions("scripted"))
    running = asyncio.create_task(process.run(), name="process")
    with caplog.at_level(logging.WARNING, "roomscribe"):
        await until(lambda: bool(logged(caplog)))
    running.cancel()
    await asyncio.wait({running})
    assert "TMPDIR is too long" in vars(logged(caplog)[0])["reason"]


async def test_what_lies_in_the_current_folder_does_not_reach_the_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "json.py").write_text("raise SystemExit('shadowed')\n")
    monkeypatch.chdir(tmp_path)
    process = WorkerProcess(EngineOptions("scripted"))
    running = asyncio.create_task(process.run(), name="process")
    async with asyncio.timeout(20):
        await process.ready.wait()
    running.cancel()
    await asyncio.wait({running})
