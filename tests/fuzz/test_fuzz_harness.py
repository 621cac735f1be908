"""The harness itself: a parser that is broken is caught, and its input is kept."""

import asyncio
import json
import logging
import random
import subprocess
import sys
from pathlib import Path

import pytest
from aiortc import rtcsctptransport
from hypothesis import given
from hypothesis import strategies as st

import tests.fuzz.bench
from media import contained, reports
from server import routes
from signaling import hpb
from tests.fuzz import run, target
from tests.fuzz.bench import Unexpected, bench
from tests.fuzz.frames import LONGEST, frame, frames
from tests.fuzz.kept import keep, seeds_of
from tests.fuzz.mutation import mutate
from tests.fuzz.target import Hangs, not_for_ever, plain
from tests.fuzz.targets import TARGETS

ROOT = Path(__file__).parents[2]


def broken_by_its_corpus(name: str) -> None:
    with TARGETS[name]() as feed:
        for seed in seeds_of(name):
            with not_for_ever():
                feed(seed)


# A broken parser is caught


def test_an_error_that_is_not_documented_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hpb, "_MALFORMED", (ValueError,))
    with pytest.raises((KeyError, TypeError)):
        fuzzed_until_it_breaks("talk_backend")


def test_a_length_that_is_not_checked_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reports, "_packets", lambda data: iter([(203, 31, data)]))
    with pytest.raises(Exception, match="requires a buffer"):
        broken_by_its_corpus("rtcp")


def test_a_loop_without_an_end_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(target, "HANGS_AFTER_S", 1)
    monkeypatch.setattr(rtcsctptransport, "decode_params", contained._decode_params)
    with pytest.raises(Hangs):
        broken_by_its_corpus("sctp")


def test_a_request_that_fails_within_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_room: str) -> str:
        raise KeyError("room")

    monkeypatch.setattr(routes, "check_room", fail)
    with pytest.raises(AssertionError, match="it failed within"):
        broken_by_its_corpus("captions")


def fuzzed_until_it_breaks(name: str) -> None:
    chance, seeds = random.Random(1), seeds_of(name)
    with TARGETS[name]() as feed:
        for _ in range(2_000):
            feed(mutate(chance, chance.choice(seeds), seeds))


# What a bench notices


async def raise_it() -> None:
    raise ValueError("a fault")


async def fail(how: str) -> None:
    """In a way that nobody who awaits it sees."""
    log = logging.getLogger("roomscribe")
    match how:
        case "task":
            await asyncio.wait({asyncio.create_task(raise_it())})
        case "callback":
            asyncio.get_running_loop().call_soon(lambda: 1 / 0)
        case "logged":
            log.error("it failed")
        case "contained":
            try:
                await raise_it()
            except ValueError:
                log.warning("one of them", exc_info=True)
    await asyncio.sleep(0)


@pytest.mark.parametrize("how", ["task", "callback", "logged", "contained"])
def test_what_fails_unseen_is_told_of_once(how: str) -> None:
    with bench() as loop:
        with pytest.raises(Unexpected):
            loop.run(fail(how))
        loop.run(asyncio.sleep(0))


def test_a_task_that_stays_is_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tests.fuzz.bench, "_SETTLED_WITHIN_S", 0.05)
    stays: list[asyncio.Task[None]] = []

    async def begin() -> None:
        stays.append(asyncio.create_task(asyncio.sleep(3600)))

    async def end() -> None:
        stays[0].cancel()
        await asyncio.wait(stays)

    with bench() as loop:
        with pytest.raises(Unexpected, match="does not end"):
            loop.run(begin())
        loop.run(end())


# Inputs


@given(st.lists(st.tuples(st.integers(0, 31), st.binary(max_size=300))))
def test_frames_come_out_as_they_went_in(packets: list[tuple[int, bytes]]) -> None:
    assert list(frames(b"".join(frame(*each) for each in packets))) == packets


@given(st.binary())
def test_any_bytes_are_frames(data: bytes) -> None:
    assert all(kind < 32 and len(body) <= LONGEST for kind, body in frames(data))


@given(st.randoms(use_true_random=False), st.binary(max_size=50), st.lists(st.binary(), max_size=3))
def test_any_bytes_can_be_mutated(chance: random.Random, data: bytes, others: list[bytes]) -> None:
    assert isinstance(mutate(chance, data, others), bytes)


def test_a_mutated_input_is_near_its_seed_and_seldom_the_same() -> None:
    chance, seed = random.Random(1), json.dumps({"type": "hello", "version": 1}).encode()
    mutated = [mutate(chance, seed) for _ in range(200)]
    assert len(set(mutated)) > 150
    assert any(b"hello" in each for each in mutated)


# The long run


def test_what_breaks_a_target_is_kept_and_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse_all(_data: bytes) -> None:
        raise KeyError("broken")

    monkeypatch.setitem(TARGETS, "message", plain(refuse_all))
    monkeypatch.setattr(run, "keep", lambda name, data: keep(name, data, tmp_path))

    assert run._run_alone("message", 5.0) == 1

    (kept,) = (tmp_path / "message").iterdir()
    assert kept.name.startswith("crash-")
    assert "executions: 1\n" in capsys.readouterr().out


def test_a_run_counts_its_executions() -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "tests.fuzz.run", "rtcp", "--for", "1s"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
        check=True,
    )
    assert "rtcp: " in ended.stdout
    assert " executions in " in ended.stdout
    assert "? executions" not in ended.stdout


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90.0), ("1.5m", 90.0), ("2h", 7_200.0)])
def test_a_time_is_told_with_its_unit(text: str, seconds: float) -> None:
    assert run._seconds(text) == seconds


def test_each_target_can_be_named() -> None:
    assert set(run._targets()) == set(TARGETS)
