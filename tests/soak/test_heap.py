import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from soak.folder import Folder, Mark
from soak.heap import (
    BUDGET,
    PARTS,
    Budget,
    Heap,
    Site,
    judge_captures,
    judge_heap,
    read_heap,
    site_of,
)
from soak.scenario import load_scenario
from soak.verdict import Check, Outcome

ROOT = Path(__file__).parents[2]
BUDGETS = Budget({"media": 1000, "room": 500}, 100, 50, sure_within=200)
DECODER = Site("media", "media/opus.py:61")
EVENT = Site("room", "server/room.py:289")
JOINS_EACH = 20
MOMENTS = 16
SOME_SPEAKERS = [10, 13, 9, 12, 14, 8, 11, 10, 13, 9, 12, 15, 8, 11, 12, 10]


def heap(live: Callable[[int, int], dict[Site, float]], moments: int = MOMENTS) -> Heap:
    """`live` tells what is, of so many joins and speakers."""
    warm = [
        Mark(0, 60.0 + number, SOME_SPEAKERS[number], (number + 1) * JOINS_EACH)
        for number in range(moments)
    ]
    marks = [Mark(0, 0.0, 0, 0), *warm]
    held = [live(mark.joins, mark.speakers) for mark in marks]
    return Heap(marks, {site: [round(of[site]) for of in held] for site in held[0]})


def check(checks: list[Check], what: str) -> Check:
    (found,) = [check for check in checks if what in check.what]
    return found


def ours(name: str, line: int = 7) -> tuple[str, str, int]:
    return ("f", str(ROOT / name), line)


def test_the_budget_is_for_parts_that_there_are() -> None:
    assert set(Budget.read(BUDGET.read_text()).per_speaker) <= set(PARTS)


@pytest.mark.parametrize(
    ("stack", "site"),
    [
        ([("new", "/x/numpy/core.py", 3), ours("media/opus.py", 61)], DECODER),
        ([ours("server/room.py", 289), ours("media/track.py")], EVENT),
        ([ours("signaling/ws.py")], Site("room", "signaling/ws.py:7")),
        (
            [("f", "/x/aioice/ice.py", 9), ("f", "/x/uvloop.py", 1), ours("server/__main__.py")],
            Site("media", "aioice/ice.py:9"),
        ),
        ([("f", "/x/threading.py", 5)], Site("elsewhere", "threading.py:5")),
        ([], Site("elsewhere", "the interpreter")),
    ],
)
def test_who_answers_for_an_allocation(stack: list[tuple[str, str, int]], site: Site) -> None:
    assert site_of(stack) == site


def test_what_a_speaker_takes_is_what_is_there_beside_the_empty_server() -> None:
    checks = judge_heap(heap(lambda _, speakers: {DECODER: 5000 + 900 * speakers}), BUDGETS)
    assert check(checks, "memory of media").found == "0.9 kB a speaker"
    assert {c.outcome for c in checks} == {Outcome.PASSED}


def test_what_is_over_the_budget_is_named_by_its_place() -> None:
    found = heap(lambda _, speakers: {EVENT: 510 * speakers, DECODER: speakers})
    checks = judge_heap(found, BUDGETS)
    over = check(checks, "memory of room")
    assert over.outcome is Outcome.FAILED
    assert "server/room.py:289 510 B" in over.found
    assert "opus" not in over.found
    assert check(checks, "memory of media").outcome is Outcome.PASSED


def test_what_grows_with_joins_is_named_by_its_place() -> None:
    found = heap(lambda joins, speakers: {DECODER: 900 * speakers, EVENT: 53 * joins})
    left = check(judge_heap(found, BUDGETS), "left of a join")
    assert left.outcome is Outcome.FAILED
    assert left.found.startswith("+53 B of each of 300")
    assert left.found.endswith("server/room.py:289 53 B")


def test_many_places_that_each_grow_a_little_are_over_in_all() -> None:
    many = [Site("room", f"server/room.py:{line}") for line in range(4)]
    found = heap(lambda joins, _: dict.fromkeys(many, 30 * joins))
    assert check(judge_heap(found, BUDGETS), "left of a join").outcome is Outcome.FAILED


def test_who_comes_and_goes_is_no_growth_also_beside_what_stays_as_it_is() -> None:
    found = heap(lambda _, speakers: {DECODER: 90_000 * speakers, EVENT: 950_000})
    left = check(judge_heap(found, BUDGETS), "left of a join")
    assert left.found.startswith(("+0 B", "-0 B"))
    assert left.outcome is Outcome.PASSED


def test_a_single_moment_at_which_more_was_held_is_no_growth() -> None:
    last = MOMENTS * JOINS_EACH
    found = heap(lambda joins, _: {EVENT: 5_000 if joins == last else 0})
    assert check(judge_heap(found, BUDGETS), "left of a join").outcome is Outcome.PASSED


def test_what_is_not_sure_does_not_pass() -> None:
    found = heap(lambda joins, _: {DECODER: 80_000 * (joins // JOINS_EACH % 2)})
    assert check(judge_heap(found, BUDGETS), "left of a join").outcome is Outcome.UNKNOWN


def test_of_few_moments_nothing_is_known() -> None:
    found = heap(lambda joins, _: {EVENT: 1000 * joins}, moments=5)
    assert check(judge_heap(found, BUDGETS), "left of a join").outcome is Outcome.UNKNOWN


_HOLDS = """
import time
held = []
def hold(size): held.append(bytearray(size))
time.sleep(0.3); print(time.time(), flush=True)
time.sleep(0.1); hold(1_000_000)
time.sleep(0.3); print(time.time(), flush=True)
time.sleep(0.1); held.clear(); hold(3_000_000)
time.sleep(0.3); print(time.time(), flush=True)
time.sleep(0.3)
"""


def captured(program: str, capture: Path) -> list[float]:
    """What it writes, numbers, while memray looks on."""
    script = capture.with_name("holds.py")
    script.write_text(program)
    command = [sys.executable, "-m", "memray", "run", "--trace-python-allocators", "-q", "-f"]
    done = subprocess.run(
        [*command, "-o", str(capture), str(script)], check=True, capture_output=True, text=True
    )
    return [float(line) for line in done.stdout.split() if line.replace(".", "").isdigit()]


@pytest.mark.slow
def test_a_flamegraph_is_drawn_anew_when_more_was_captured(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "run")
    folder.begin(load_scenario("short"), 60.0, None, memray=True)
    empty, *_, last = captured(_HOLDS, folder.capture(0))
    for number in range(12):
        folder.add_mark(Mark(0, last if number else empty, 0, number))
    page = folder.path / "flamegraph-0.html"
    page.write_text("of the beginning")
    os.utime(page, (0, 0))
    judge_captures(folder)
    drawn = page.read_text()
    assert "memray" in drawn
    page.write_text("of all")
    judge_captures(folder)
    assert page.read_text() == "of all"


@pytest.mark.slow
def test_what_memray_cannot_read_is_said(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "run")
    folder.begin(load_scenario("short"), 60.0, None, memray=True)
    folder.capture(0).write_bytes(b"no capture")
    for number in range(12):
        folder.add_mark(Mark(0, time.time(), 0, number))
    (found,) = judge_captures(folder)
    assert found.outcome is Outcome.UNKNOWN
    assert "memray-0.bin" in found.found
    assert list(folder.path.glob("flamegraph*")) == []


@pytest.mark.slow
def test_a_capture_tells_what_was_live_at_each_moment(tmp_path: Path) -> None:
    capture = tmp_path / "capture.bin"
    began = time.time()
    moments = captured(_HOLDS, capture)
    assert len(moments) == 3
    assert all(moment > began for moment in moments)
    found = read_heap(capture, [Mark(0, moment, 0, 0) for moment in moments])

    held = [0, 0, 0]
    for site, live in found.live.items():
        if "holds.py" in site.where:
            held = [sum(both) for both in zip(held, live, strict=True)]
    assert [size // 1_000_000 for size in held] == [0, 1, 3]
