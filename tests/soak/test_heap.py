import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from soak.folder import Mark
from soak.heap import BUDGET, PARTS, Budget, Heap, Site, judge_heap, read_heap, site_of
from soak.verdict import Check, Outcome

ROOT = Path(__file__).parents[2]
BUDGETS = Budget({"media": 1000, "room": 500}, per_join=100, per_join_and_site=50)
MARKS = [Mark(0, 0.0, 0, 0), Mark(0, 60.0, 10, 10), Mark(0, 120.0, 10, 30)]
DECODER = Site("media", "media/opus.py:61")
EVENT = Site("room", "server/room.py:289")


def heap(empty: dict[Site, int], warm: dict[Site, int], end: dict[Site, int]) -> Heap:
    return Heap(Counter(empty), Counter(warm), Counter(end))


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


def test_what_a_speaker_takes_is_what_came_since_the_server_was_empty() -> None:
    found = heap({DECODER: 5000}, {DECODER: 14_000}, {DECODER: 14_000})
    checks = judge_heap(found, MARKS, BUDGETS)
    assert check(checks, "memory of media").found == "0.9 kB a speaker"
    assert {c.outcome for c in checks} == {Outcome.PASSED}


def test_what_is_over_the_budget_is_named_by_its_place() -> None:
    found = heap({}, {EVENT: 5100, DECODER: 10}, {EVENT: 5100, DECODER: 10})
    checks = judge_heap(found, MARKS, BUDGETS)
    over = check(checks, "memory of room")
    assert over.outcome is Outcome.FAILED
    assert "server/room.py:289" in over.found
    assert "opus" not in over.found
    assert check(checks, "memory of media").outcome is Outcome.PASSED


def test_what_grows_with_joins_is_named_by_its_place() -> None:
    found = heap({}, {DECODER: 1000}, {DECODER: 1000, EVENT: 51 * 20})
    grown = check(judge_heap(found, MARKS, BUDGETS), "left of a join")
    assert grown.outcome is Outcome.FAILED
    assert "server/room.py:289 51 B" in grown.found


def test_many_places_that_each_grow_a_little_are_over_in_all() -> None:
    many = {Site("room", f"server/room.py:{line}"): 30 * 20 for line in range(4)}
    grown = check(judge_heap(heap({}, {}, many), MARKS, BUDGETS), "left of a join")
    assert grown.outcome is Outcome.FAILED


def test_who_is_there_besides_is_no_growth() -> None:
    marks = [MARKS[0], Mark(0, 60.0, 10, 10), Mark(0, 120.0, 20, 30)]
    found = heap({}, {DECODER: 9000}, {DECODER: 18_000})
    assert check(judge_heap(found, marks, BUDGETS), "left of a join").outcome is Outcome.PASSED


def test_without_joins_growth_is_not_known() -> None:
    marks = [MARKS[0], MARKS[1], Mark(0, 120.0, 10, 10)]
    grown = check(judge_heap(heap({}, {}, {}), marks, BUDGETS), "left of a join")
    assert grown.outcome is Outcome.UNKNOWN


_HOLDS = """
import time
held = []
def hold(size): held.append(bytearray(size))
time.sleep(0.3); print(time.time(), flush=True)
hold(1_000_000)
time.sleep(0.3); print(time.time(), flush=True)
held.clear(); hold(3_000_000)
time.sleep(0.3); print(time.time(), flush=True)
time.sleep(0.3)
"""


@pytest.mark.slow
def test_a_capture_tells_what_was_live_at_each_moment(tmp_path: Path) -> None:
    script = tmp_path / "holds.py"
    script.write_text(_HOLDS)
    capture = tmp_path / "capture.bin"
    command = [sys.executable, "-m", "memray", "run", "--trace-python-allocators", "-q"]
    done = subprocess.run(
        [*command, "-o", str(capture), str(script)], check=True, capture_output=True, text=True
    )
    began = time.time() - 60
    moments = [float(line) for line in done.stdout.split() if line.replace(".", "").isdigit()]
    assert len(moments) == 3
    assert all(moment > began for moment in moments)
    found = read_heap(capture, [Mark(0, moment, 0, 0) for moment in moments])

    def large(live: Counter[Site]) -> dict[str, int]:
        return {site.where: size for site, size in live.items() if size > 500_000}

    held = [
        large(Counter({s: n for s, n in live.items() if "holds.py" in s.where}))
        for live in (found.empty, found.warm, found.end)
    ]
    assert [sum(sizes.values()) // 1_000_000 for sizes in held] == [0, 1, 3]
