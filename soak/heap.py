"""What a server under memray holds, and where: by part of the house, by line of code.

Three moments of a run are compared: nobody is there, all are there and warm, the end. What a
speaker takes is the end less the empty server; what grew is the end less the warm one. Both are
held to `budget.toml`. A line of the house answers for all that is allocated below it.
"""

import math
import subprocess
import sys
import tomllib
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from memray import FileReader

from soak.folder import Folder, Mark
from soak.verdict import Check, Outcome

BUDGET = Path(__file__).with_name("budget.toml")
PARTS = ("media", "transcriber", "room", "elsewhere")
_ROOT = Path(__file__).resolve().parent.parent
_OURS = {"media": "media", "transcriber": "transcriber", "server": "room", "signaling": "room"}
_RUNS_ALL = "server/__main__.py"  # what the event loop calls is below its line
# Called by the event loop, with no line of ours between.
_LIBRARIES = {"aiortc": "media", "aioice": "media", "pylibsrtp": "media", "aiohttp": "room"}
_MOST_SITES = 5

Frame = tuple[str, str, int]  # function, file, line: the innermost first


@dataclass(frozen=True, slots=True, order=True)
class Site:
    part: str
    where: str  # file:line of the house, or of what the loop called


Live = Counter[Site]  # bytes


@dataclass(frozen=True, slots=True)
class Budget:
    per_speaker: dict[str, float]  # bytes, by part
    per_join: float  # bytes that may be left of each join, in all
    per_join_and_site: float

    @classmethod
    def read(cls, text: str) -> "Budget":
        told = tomllib.loads(text)
        growth = told["bytes_left_of_a_join"]
        return cls(told["bytes_of_a_speaker"], growth["in_all"], growth["at_one_place"])


@dataclass(frozen=True, slots=True)
class Heap:
    """What was live at each of the three moments."""

    empty: Live
    warm: Live
    end: Live


def site_of(stack: Iterable[Frame]) -> Site:
    """Who answers for an allocation: the innermost line of the house, else a library of ours."""
    library: Site | None = None
    other: Site | None = None
    for _function, file, line in stack:
        path = Path(file)
        if path.is_relative_to(_ROOT):
            own = path.relative_to(_ROOT)
            if own.parts[0] in _OURS and str(own) != _RUNS_ALL:
                return Site(_OURS[own.parts[0]], f"{own}:{line}")
        named = next((name for name in _LIBRARIES if f"/{name}/" in file), None)
        if library is None and named is not None:
            library = Site(_LIBRARIES[named], f"{named}/{path.name}:{line}")
        other = other or Site("elsewhere", f"{path.name}:{line}")
    return library or other or Site("elsewhere", "the interpreter")


def read_heap(capture: Path, marks: Sequence[Mark]) -> Heap:
    """Raises `OSError` where there is no capture, or only the beginning of one."""
    with FileReader(capture) as reader:
        times = [snapshot.time for snapshot in reader.get_memory_snapshots()]
    # the last snapshot before each
    moments = [bisect_right(times, mark.at_unix * 1000) - 1 for mark in marks]
    lives: list[Live] = [Counter() for _ in moments]
    with FileReader(capture) as reader:
        for record in reader.get_temporal_allocation_records(merge_threads=True):
            held = [0] * len(moments)
            for span in record.intervals:
                end = span.deallocated_before_snapshot
                gone = math.inf if end is None else end
                for number, moment in enumerate(moments):
                    if span.allocated_before_snapshot <= moment < gone:
                        held[number] += span.n_bytes
            if any(held):
                site = site_of(record.stack_trace())
                for live, size in zip(lives, held, strict=True):
                    live[site] += size
    return Heap(*lives)


def judge_heap(heap: Heap, marks: Sequence[Mark], budget: Budget) -> list[Check]:
    """Against the budget; what is over it is named by where it was allocated."""
    empty, warm, end = marks
    checks = []
    taken = _minus(heap.end, heap.empty)
    for part, limit in budget.per_speaker.items():
        of_part = Counter({site: size for site, size in taken.items() if site.part == part})
        each = of_part.total() / max(1, end.speakers - empty.speakers)
        found = f"{_kb(each)} a speaker"
        over = each > limit
        if over:
            found += f"; {_most(of_part, end.speakers)}"
        outcome = Outcome.FAILED if over else Outcome.PASSED
        checks.append(Check(f"memory of {part}", found, f"at most {_kb(limit)}", outcome))
    return [*checks, *_judge_growth(heap, warm, end, taken, budget)]


def _judge_growth(heap: Heap, warm: Mark, end: Mark, taken: Live, budget: Budget) -> list[Check]:
    joins = end.joins - warm.joins
    told = f"at most {budget.per_join:.0f} B, of one place {budget.per_join_and_site:.0f} B"
    if joins <= 0:
        return [Check("memory left of a join", "nobody joined", told, Outcome.UNKNOWN)]
    grown = _minus(heap.end, heap.warm)
    # who came besides is no growth, and who went hides none: they are held to the budget above
    more = (end.speakers - warm.speakers) / max(1, end.speakers)
    grown = Counter({site: size - more * taken[site] for site, size in grown.items()})
    left = sum(grown.values()) / joins
    over = {s: size for s, size in grown.items() if size / joins > budget.per_join_and_site}
    found = f"{left:+.0f} B of each of {joins}"
    if over or left > budget.per_join:
        found += f"; {_most(Counter(over or grown), joins)}"
        return [Check("memory left of a join", found, told, Outcome.FAILED)]
    return [Check("memory left of a join", found, told, Outcome.PASSED)]


def judge_captures(folder: Folder) -> list[Check]:
    """Of every part of a run under memray; draws their flamegraphs where there are none yet."""
    budget = Budget.read(BUDGET.read_text(encoding="utf-8"))
    checks = []
    for part, marks in folder.marks().items():
        capture = folder.capture(part)
        if len(marks) != 3 or not capture.is_file():
            told = "ended before it was warm"
            checks.append(Check("memory by memray", told, "by the budget", Outcome.UNKNOWN))
            continue
        with _flamegraph(capture, folder.path / f"flamegraph-{part}.html"):
            checks += judge_heap(read_heap(capture, marks), marks, budget)
    return checks


@contextmanager
def _flamegraph(capture: Path, page: Path) -> Iterator[None]:
    """Drawn meanwhile, by another process: of the whole run, with a slider for the time. It needs
    no host to look at. Raises `CalledProcessError`."""
    if page.is_file():
        yield
        return
    command = [sys.executable, "-m", "memray", "flamegraph", "--temporal", "--no-web"]
    with subprocess.Popen(
        [*command, "--output", str(page), str(capture)], stdout=subprocess.DEVNULL
    ) as drawing:
        yield
    if drawing.returncode:
        raise subprocess.CalledProcessError(drawing.returncode, command)


def _minus(after: Live, before: Live) -> Live:
    """With what became less, too."""
    difference = Counter(after)
    difference.subtract(before)
    return difference


def _most(of: Live, share: int) -> str:
    most = sorted(of.items(), key=lambda item: -item[1])[:_MOST_SITES]
    return ", ".join(f"{site.where} {size / max(1, share):.0f} B" for site, size in most)


def _kb(size: float) -> str:
    return f"{size / 1000:.1f} kB"
