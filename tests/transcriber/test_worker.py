import asyncio
import gc
import itertools
import os
import signal
import stat
import subprocess
import sys
import tempfile
import weakref
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from tests.clients import until
from tests.logs import logged
from tests.speech import tone
from tests.transcriber.builders import tail_of, window
from tests.transcriber.workers import (
    KEY,
    Connection,
    Endpoint,
    HandEngine,
    command,
    gone,
    serving,
    working,
)
from transcriber import worker as worker_module
from transcriber.engines import Tell
from transcriber.engines.scripted import word_at
from transcriber.errors import (
    EngineError,
    EngineUnavailable,
    OutOfMemory,
    OverDeadline,
    WorkerError,
)
from transcriber.protocol import Forget, Message, Tail, encode
from transcriber.types import (
    EngineState,
    EngineStatus,
    GapReason,
    Hypothesis,
    StreamId,
    Window,
)
from transcriber.worker import (
    EXIT_DEADLINE,
    EXIT_ENGINE,
    EXIT_OUT_OF_MEMORY,
    Worker,
    given_up,
    serve,
)


def two_words(stream: str = "ada", *, utterance: int = 1, final: bool = True) -> Window:
    """Audio in which the scripted engine hears the words of two half seconds."""
    return window(stream, utterance=utterance, final=final, samples=tone(1.0))


TWO_WORDS = f"{word_at(0)} {word_at(1)}"

# The process


async def test_hypotheses_come_back_for_windows() -> None:
    async with serving() as worker, worker.connection() as server:
        server.send(two_words(utterance=3))
        heard = await server.hypothesis()
        assert (heard.stream, heard.utterance, heard.is_final) == ("ada", 3, True)
        assert heard.text == TWO_WORDS
        assert [word.start_sample for word in heard.words] == [0, 8000]
        assert server.states[-1] is EngineState.READY
        report = await server.report()
        assert (report.windows, report.audio_s, report.waiting) == (1, 1.0, 0)
        assert report.queue_age_s >= 0
        assert report.engine_s >= 0


async def test_a_server_with_another_key_is_refused() -> None:
    async with serving() as worker:
        async with worker.connection(b"another key") as stranger:
            stranger.send(two_words())
            await stranger.ended()
            assert stranger.states == []
        async with worker.connection() as server:
            server.send(two_words())
            assert (await server.hypothesis()).text == TWO_WORDS


async def test_only_this_user_can_reach_the_socket() -> None:
    async with serving() as worker:
        assert stat.S_IMODE(worker.path.stat().st_mode) == 0o600


async def test_a_process_of_another_user_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    uid = os.getuid()
    async with working(HandEngine()) as worker:
        monkeypatch.setattr(os, "getuid", lambda: uid + 1)
        reader, writer = await asyncio.open_unix_connection(worker.path)
        async with asyncio.timeout(10):
            # not even asked for the key
            assert await reader.read() == b""
        writer.close()
        await writer.wait_closed()


async def test_servers_get_the_answers_to_their_own_windows_only() -> None:
    async with serving() as worker, worker.connection() as one, worker.connection() as other:
        one.send(two_words("ada"), two_words("ada", utterance=2))
        other.send(two_words("bob"))
        assert [h.stream for h in await one.hypotheses(2)] == ["ada", "ada"]
        assert (await other.hypothesis()).stream == "bob"
        # the next answer of either is its own too: nothing of the other's stood between
        one.send(two_words("ada", utterance=3))
        other.send(two_words("bob", utterance=2))
        assert (await other.hypothesis()).utterance == 2
        assert (await one.hypothesis()).utterance == 3


@pytest.mark.parametrize(
    "garbage",
    [
        b"\xff" * 100,
        b"GET / HTTP/1.1\r\nHost: worker\r\n\r\n",
        b"\x00\x00\x00\x02\x00\x00\x00\x00{}",
        b"\x00\x00\x00\x0a\x00\x00\x00\x00" + b"[" * 10,
        encode(two_words()).replace(b'"is_final":true', b'"is_final":1234'),
        encode(given_up(two_words(), GapReason.ENGINE)),
    ],
    ids=["too large", "http", "no type", "torn JSON", "wrong type", "not for a server"],
)
async def test_a_server_that_sends_garbage_ends_its_own_connection_only(garbage: bytes) -> None:
    async with serving() as worker, worker.connection() as server, worker.connection() as vandal:
        vandal.writer.write(garbage)
        await vandal.ended()
        server.send(two_words())
        assert (await server.hypothesis()).text == TWO_WORDS
        worker.process.kill()
        (line,) = await worker.logged()
        assert line["message"] == "a server sent a frame that does not parse"


async def test_a_server_that_is_torn_away_leaves_the_others() -> None:
    async with serving() as worker, worker.connection() as server:
        async with worker.connection() as torn:
            torn.writer.write(encode(two_words("bob"))[:-10])
            await torn.writer.drain()
            torn.writer.transport.abort()
        server.send(two_words())
        assert (await server.hypothesis()).text == TWO_WORDS


async def test_the_worker_ends_with_its_standard_input() -> None:
    async with serving() as worker, worker.connection() as server:
        await server.until(EngineState.READY)
        assert worker.process.stdin is not None
        worker.process.stdin.close()
        assert await worker.exit_code() == 0
        await server.ended()
        assert await worker.logged() == []


async def test_the_worker_ignores_ctrl_c() -> None:
    async with serving() as worker, worker.connection() as server:
        await server.until(EngineState.READY)
        worker.process.send_signal(signal.SIGINT)
        server.send(two_words())
        assert (await server.hypothesis()).text == TWO_WORDS


PARENT = """
import subprocess, sys, time
worker = subprocess.Popen(sys.argv[2:], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
worker.stdin.write(sys.argv[1].encode() + b"\\n")
worker.stdin.flush()
assert worker.stdout.readline() == b"listening\\n"
print(worker.pid, flush=True)
time.sleep(60)
"""


async def test_the_worker_ends_when_its_parent_is_killed() -> None:
    with tempfile.TemporaryDirectory(prefix="worker-") as folder:
        parent = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", PARENT, KEY.hex(), *command(Path(folder) / "s")),
            stdout=subprocess.PIPE,
        )
        assert parent.stdout is not None
        async with asyncio.timeout(10):
            pid = int(await parent.stdout.readline())
        parent.kill()
        await parent.communicate()
        await gone(pid)


async def test_an_engine_that_does_not_exist_ends_the_worker_with_its_reason() -> None:
    async with serving("whispering") as worker:
        assert await worker.exit_code() == EXIT_ENGINE
        (line,) = await worker.logged()
        assert line["reason"] == "there is no engine named 'whispering'"
        assert (line["level"], line["component"]) == ("error", "worker")


async def test_an_engine_whose_model_cannot_be_loaded_ends_the_worker_with_its_reason(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "pocketsphinx.py").write_text("def Decoder(**_): raise RuntimeError('no model')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    async with serving("pocketsphinx") as worker:
        assert await worker.exit_code() == EXIT_ENGINE
        (line,) = await worker.logged()
        assert line["reason"] == "pocketsphinx could not load its model"


async def test_each_step_to_an_engine_is_logged_with_its_reason(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    async with serving("auto") as worker, worker.connection() as server:
        await server.until(EngineState.READY)
        assert worker.process.stdin is not None
        worker.process.stdin.close()
        assert await worker.exit_code() == 0
        steps = await worker.logged()
        assert [(step["message"], step["engine"]) for step in steps] == [
            ("engine not chosen", "whisperx"),
            ("engine not chosen", "whisper"),
            ("engine chosen", "pocketsphinx"),
        ]
        assert "HF_HUB_OFFLINE" in steps[1]["reason"]
        assert server.info is not None
        assert server.info.name == "pocketsphinx"


async def test_a_socket_that_cannot_be_made_ends_the_worker_with_an_error() -> None:
    process = await asyncio.create_subprocess_exec(
        *command(Path("/proc/no/such/folder/s")),
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    _, logged = await process.communicate(KEY.hex().encode() + b"\n")
    assert process.returncode == 1
    assert b'"error": "FileNotFoundError"' in logged


# In this loop, with an engine held by hand


async def sent(server: Connection, stream: str, utterance: int = 1) -> None:
    """Send a final, and wait until the worker has it and all that was sent before."""
    server.send(window(stream, utterance=utterance))
    server.send(window(stream, utterance=utterance, revision=2, final=True))
    assert (await server.hypothesis()).lost is not None  # the interim that the final dropped


async def test_windows_of_several_speakers_share_a_batch() -> None:
    engine = HandEngine()
    async with working(engine) as worker, worker.connection() as server:
        server.send(*(window(name, final=True) for name in ("ada", "bob", "eve")))
        assert {w.stream for w in await engine.taken()} == {"ada", "bob", "eve"}
        engine.release()
        assert {h.stream for h in await server.hypotheses(3)} == {"ada", "bob", "eve"}
        assert (await server.report()).windows == 3


async def test_what_comes_during_a_batch_is_in_the_next() -> None:
    engine = HandEngine()
    async with working(engine) as worker, worker.connection() as server:
        server.send(window("ada", utterance=1, final=True))
        await engine.taken()
        server.send(window("ada", utterance=2))
        await sent(server, "bob")
        engine.release(2)
        assert (await server.hypothesis()).utterance == 1
        batch = await engine.taken()
        assert [(w.stream, w.is_final) for w in batch] == [("bob", True), ("ada", False)]
        assert (await server.report()).waiting == 2
        assert (await server.report()).queue_age_s > 0


async def test_a_waiting_interim_that_its_final_drops_is_answered_as_lost() -> None:
    # without an answer its server would send no other interim of this speaker, ever
    engine = HandEngine()
    async with working(engine) as worker, worker.connection() as server:
        server.send(window("bob", final=True))
        await engine.taken()
        server.send(window("ada", revision=1), window("ada", revision=2, final=True))
        dropped = await server.hypothesis()
        assert (dropped.stream, dropped.revision, dropped.is_final) == ("ada", 1, False)
        assert dropped.lost is GapReason.OVERLOAD
        engine.release(2)
        assert [h.stream for h in await server.hypotheses(2)] == ["bob", "ada"]


async def test_finals_that_do_not_fit_are_answered_as_lost_to_overload() -> None:
    engine = HandEngine()
    async with working(engine) as worker, worker.connection() as server:
        server.send(window("bob", final=True))
        await engine.taken()
        for utterance in range(1, 7):
            server.send(window("ada", utterance=utterance, final=True, seconds=28.0))
        lost = await server.hypothesis()
        assert (lost.stream, lost.utterance, lost.absorbed) == ("ada", 4, (5,))
        assert (lost.is_final, lost.text, lost.lost) == (True, "", GapReason.OVERLOAD)
        engine.release(2)
        heard = (await server.hypotheses(5))[1:]
        assert [h.utterance for h in heard] == [1, 2, 3, 6]


async def test_a_joined_final_says_whose_words_stand_in_it() -> None:
    engine = HandEngine()
    async with working(engine) as worker, worker.connection() as server:
        server.send(window("bob", final=True))
        await engine.taken()
        server.send(*(window("ada", utterance=n, final=True) for n in range(1, 5)))
        await sent(server, "ada", utterance=5)
        engine.release(2)
        heard = (await server.hypotheses(5))[1:]
        assert [(h.utterance, h.absorbed) for h in heard] == [(1, ()), (2, ()), (3, ()), (4, (5,))]


async def test_what_waits_of_a_forgotten_speaker_is_not_transcribed() -> None:
    engine = HandEngine()
    async with working(engine) as worker, worker.connection() as server:
        server.send(window("bob", final=True))
        await engine.taken()
        server.send(window("ada", final=True), Forget(StreamId("ada")))
        await sent(server, "eve")
        engine.release(2)
        assert [h.stream for h in await server.hypotheses(2)] == ["bob", "eve"]
        assert [w.stream for batch in engine.batches for w in batch] == ["bob", "eve"]


async def test_what_waits_of_a_server_that_left_is_not_transcribed() -> None:
    engine = HandEngine()
    async with working(engine) as worker, worker.connection() as server:
        async with worker.connection() as other:
            other.send(window("ada", final=True))
            await engine.taken()
            other.send(window("ada", utterance=2, final=True))
            other.send(Forget(StreamId("nobody")))
            other.writer.write(encode(given_up(window(), GapReason.ENGINE)))
            await other.ended()
        server.send(window("bob", final=True))
        engine.release(2)
        assert (await server.hypothesis()).stream == "bob"
        assert [w.stream for batch in engine.batches for w in batch] == ["ada", "bob"]


async def test_a_server_that_does_not_read_its_answers_is_dropped() -> None:
    engine = HandEngine()
    async with working(engine) as worker, worker.connection() as server:
        engine.text = "never read " * 50_000
        async with worker.connection() as deaf:
            deaf.send(*(window(f"speaker {n}", final=True, seconds=0.01) for n in range(32)))
            engine.release(100)
            await engine.taken()
            await server.report()
            assert len(await deaf.rest()) < 32
        engine.text = ""
        server.send(window("bob", final=True))
        assert (await server.hypothesis()).stream == "bob"


async def test_a_server_that_connects_while_the_engine_works_is_told_its_state() -> None:
    engine = HandEngine()
    async with working(engine) as worker, worker.connection() as server:
        server.send(window("ada", final=True))
        await engine.taken()
        async with worker.connection() as other:
            await other.until(EngineState.READY)
        engine.release()
        await server.hypothesis()


async def test_an_engine_that_cannot_load_ends_the_worker_with_its_error(tmp_path: Path) -> None:
    worker = Worker(HandEngine(load_error=EngineUnavailable("no model")), KEY)
    with pytest.raises(EngineError, match="no model"):
        await worker.run(tmp_path / "s")


async def test_a_server_that_stays_connected_does_not_keep_a_worker_that_cannot_load(
    tmp_path: Path,
) -> None:
    # seen to hang on Python 3.12 and 3.13
    engine = HandEngine(load_error=EngineError("no model"), load_waits=True)
    running = asyncio.create_task(Worker(engine, KEY).run(tmp_path / "s"))
    async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
        endpoint = Endpoint(tmp_path / "s")
        await endpoint.listens()
        async with endpoint.connection() as server:
            await server.until(EngineState.LOADING)
            ended = tasks.create_task(server.ended())
            engine.release()
            with pytest.raises(EngineError, match="no model"):
                await running
            await ended


async def test_an_engine_that_answers_for_other_windows_ends_the_worker() -> None:
    engine = HandEngine()
    engine.answers_short = True
    engine.release()

    async def offer() -> None:
        async with working(engine) as worker, worker.connection() as server:
            server.send(window("ada", final=True))
            await server.ended()

    with pytest.raises(WorkerError, match="other windows"):
        await offer()


# Memory, time, and what is told meanwhile


class FailingEngine(HandEngine):
    """Fails at its batches."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self._error = error

    def transcribe(self, windows: Sequence[Window]) -> list[Hypothesis]:
        raise self._error


class SlowStart(HandEngine):
    """Tells how far it is, as often as it can; warms up until it is released."""

    def load(self, tell: Tell) -> None:
        self._released.get()
        for share in range(1001):
            tell(EngineState.DOWNLOADING, share / 1000, "fetching the model tiny")
        tell(EngineState.LOADING, None, "")

    def warm_up(self) -> None:
        self._released.get()


async def test_a_batch_that_memory_is_not_enough_for_ends_the_worker() -> None:
    async def offer() -> None:
        async with (
            working(FailingEngine(OutOfMemory("no memory"))) as worker,
            worker.connection() as server,
        ):
            server.send(window("ada", final=True))
            await server.ended()

    with pytest.raises(OutOfMemory):
        await offer()


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (OutOfMemory("no memory for a batch of 2"), EXIT_OUT_OF_MEMORY, "out of memory"),
        (OverDeadline("a batch took more than 20 s"), EXIT_DEADLINE, "the engine hangs"),
        (EngineUnavailable("no model"), EXIT_ENGINE, "the engine cannot start"),
        (ValueError("secret"), 1, "the worker failed"),
    ],
)
async def test_each_end_of_a_worker_has_a_code_of_its_own(
    error: Exception,
    code: int,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def parent_stays() -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(worker_module, "_parent_gone", parent_stays)
    engine = HandEngine(load_error=error)
    async with asyncio.timeout(10):
        assert await serve(Worker(engine, KEY), tmp_path / "s") == code
    told = [record.message for record in logged(caplog)]
    assert told == [message]
    for task in asyncio.all_tasks() - {asyncio.current_task()}:
        if task.get_name() == "parent":
            task.cancel()


async def test_a_batch_over_its_deadline_ends_the_worker() -> None:
    engine = HandEngine()

    async def offer() -> None:
        async with working(engine, deadline_s=0.1) as worker, worker.connection() as server:
            server.send(window("ada", final=True))
            await engine.taken()
            await server.ended()

    with pytest.raises(OverDeadline, match="a batch took more than"):
        await offer()


async def test_a_worker_without_work_is_never_over_its_deadline() -> None:
    engine = HandEngine()
    async with working(engine, deadline_s=1.0) as worker, worker.connection() as server:
        for utterance in (1, 2):
            await asyncio.sleep(1.2)
            server.send(window("ada", utterance=utterance, final=True))
            await engine.taken()
            engine.release()
            assert (await server.hypothesis()).utterance == utterance


async def batch_sizes(engine: HandEngine, first_batch: int, batches: int) -> list[int]:
    """How large batches may be, after each."""
    engine.release(batches)
    async with (
        working(engine, first_batch=first_batch) as worker,
        worker.connection() as server,
    ):
        limits = []
        for utterance in range(batches):
            server.send(window("ada", utterance=utterance, final=True, seconds=0.01))
            limits.append((await server.report()).batch_limit)
        return limits


async def test_batches_begin_as_small_as_they_are_told_and_grow_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(worker_module, "_GROW_AFTER", 3)
    monkeypatch.setattr(worker_module, "_BATCH_WINDOW_S", 0.0)
    # the report of a batch comes before the growth
    assert await batch_sizes(HandEngine(batch_limit=10), 3, 8) == [3, 3, 3, 6, 6, 6, 10, 10]


async def test_batches_are_never_larger_than_the_engine_takes() -> None:
    assert await batch_sizes(HandEngine(batch_limit=4), 32, 1) == [4]
    assert await batch_sizes(HandEngine(batch_limit=4), 0, 1) == [4]


async def test_a_batch_has_no_more_windows_than_it_may() -> None:
    engine = HandEngine(batch_limit=8)
    async with working(engine, first_batch=2) as worker, worker.connection() as server:
        server.send(*(window(name, final=True) for name in ("ada", "bob", "eve")))
        engine.release(2)
        await server.hypotheses(3)
        assert [len(batch) for batch in engine.batches] == [2, 1]


async def test_the_parent_learns_how_large_batches_are_as_soon_as_the_worker_is_ready(
    capfd: pytest.CaptureFixture[str],
) -> None:
    # the finals that ended the last one come at once, and may end this one
    engine = HandEngine(batch_limit=8, load_waits=True)
    async with working(engine, first_batch=2) as worker, worker.connection() as server:
        before = capfd.readouterr().out.split("\n")
        engine.release()
        await server.until(EngineState.READY)
        assert "alive 2\n" in capfd.readouterr().out
    # what the engine takes is not known before it is loaded
    assert set(before) <= {"listening", "alive", ""}


async def test_progress_is_told_in_steps_and_warming_up_is_a_state() -> None:
    engine = SlowStart()
    async with working(engine) as worker, worker.connection() as server:
        await server.until(EngineState.LOADING)
        engine.release()
        told = list[EngineStatus]()
        while EngineState.WARMING not in server.states:
            message = await server._read()
            assert isinstance(message, EngineStatus)
            told.append(message)
        engine.release()
        await server.until(EngineState.READY)
    fetching = [s for s in told if s.state is EngineState.DOWNLOADING]
    shares = [s.progress or 0.0 for s in fetching]
    assert {s.message for s in fetching} == {"fetching the model tiny"}
    assert 90 <= len(shares) <= 101
    assert all(after - before >= 0.0099 for before, after in itertools.pairwise(shares))
    assert shares[-1] >= 0.98
    assert [s.state for s in told[len(fetching) :]] == [EngineState.LOADING, EngineState.WARMING]


async def test_nothing_is_transcribed_before_the_engine_is_warm() -> None:
    engine = SlowStart()
    async with working(engine) as worker, worker.connection() as server:
        server.send(window("ada", final=True))
        engine.release()
        await server.until(EngineState.WARMING)
        assert engine.batches == []
        engine.release(2)
        assert (await server.hypothesis()).stream == "ada"


# Tails


async def test_a_window_that_goes_on_from_the_one_before_is_heard_whole() -> None:
    engine = HandEngine()
    said = tone(3.0)
    interim = window(samples=said[:16_000])
    longer = window(revision=2, samples=said[:40_000])
    final = window(revision=3, final=True, samples=said)
    async with working(engine) as worker, worker.connection() as server:
        for now, before in ((interim, None), (longer, interim), (final, longer)):
            server.send(tail_of(now, before))
            engine.release()
            assert (await server.hypothesis()).revision == now.revision
            ((heard,),) = engine.batches[-1:]
            assert (heard.is_final, heard.start_sample) == (now.is_final, now.start_sample)
            assert np.array_equal(heard.samples, now.samples)


@pytest.mark.parametrize(
    "before",
    [
        (),
        (window(utterance=2),),
        (window(start_s=3.0),),
        (window(seconds=0.5),),
        (window(stream="eve"),),
        (window(), Forget(StreamId("ada"))),
        (window(), window(revision=2, final=True)),
    ],
    ids=["nothing", "utterance", "start", "too short", "stream", "forgotten", "final"],
)
async def test_a_tail_that_fits_nothing_ends_its_own_server_only(
    before: tuple[Message, ...],
) -> None:
    engine = HandEngine()
    engine.release(100)
    async with working(engine) as worker, worker.connection() as server:
        async with worker.connection() as vandal:
            vandal.send(*before, Tail(window(revision=3, seconds=0.1), 16_000))
            await vandal.rest()
        server.send(window("bob", final=True))
        assert (await server.hypothesis()).stream == "bob"


async def test_a_window_of_a_server_that_left_is_forgotten() -> None:
    engine = HandEngine()
    engine.release(100)
    async with working(engine) as worker:
        async with worker.connection() as server:
            server.send(window())
            await server.hypothesis()
        async with worker.connection() as other:
            other.send(Tail(window(seconds=0.1), 16_000))
            await other.ended()


def test_what_is_given_up_says_why_and_for_whom() -> None:
    lost = given_up(
        window("ada", utterance=4, revision=2, final=True, absorbed=(5,)), GapReason.ENGINE
    )
    assert (lost.stream, lost.utterance, lost.revision) == ("ada", 4, 2)
    assert (lost.is_final, lost.absorbed, lost.lost) == (True, (5,), GapReason.ENGINE)
    assert (lost.text, lost.words) == ("", ())


async def test_memory_goes_back_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    times = 0

    def count() -> None:
        nonlocal times
        times += 1

    monkeypatch.setattr("transcriber.worker.give_back", count)
    monkeypatch.setattr("transcriber.worker._TIDY_EVERY_S", 0.01)
    async with working(HandEngine()):
        await until(lambda: times > 2)


async def test_there_is_a_full_collection_now_and_then(
    monkeypatch: pytest.MonkeyPatch, no_collection: None
) -> None:
    """By itself Python makes none: the lists of free tuples would grow for hours."""

    class Ring:
        def __init__(self) -> None:
            self.own = self

    monkeypatch.setattr("transcriber.worker._TIDY_EVERY_S", 0.01)
    async with working(HandEngine()) as worker, worker.connection() as server:
        await server.until(EngineState.READY)
        ring = weakref.ref(Ring())
        await until(lambda: ring() is None)


async def test_what_is_collected_is_not_looked_for_in_a_loaded_model() -> None:
    frozen = gc.get_freeze_count()
    async with working(HandEngine()) as worker, worker.connection() as server:
        await server.until(EngineState.READY)
        assert gc.get_freeze_count() > frozen
    assert gc.get_freeze_count() == 0


@pytest.fixture
def no_collection() -> Iterator[None]:
    gc.disable()
    yield
    gc.enable()
