"""What a server under memray holds, and where: by part of the house, by line of code.

Several moments of a run are compared: nobody is there; then, since all are there and warm, each
time that a sample was taken. What a speaker takes is what is live beside the empty server; what is
left of a join is what grows with the joins while the speakers are as many. Both are held to
`budget.toml`. A line of the house answers for all that is allocated below it.
"""

import subprocess
import sys
import tomllib
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from statistics import fmean

import numpy as np
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
_MOST_MOMENTS = 40
_LEAST_MOMENTS = 8
_SURELY = 3.0  # standard errors

Frame = tuple[str, str, int]  # function, file, line: the innermost first


@dataclass(frozen=True, slots=True, order=True)
class Site:
    part: str
    where: str  # file:line of the house, or of what the loop called


@dataclass(frozen=True, slots=True)
class Budget:
    per_speaker: dict[str, float]  # bytes, by part
    per_join: float  # bytes that may be left of each join, in all
    per_join_and_site: float
    sure_within: float  # a figure in all that is less sure tells nothing

    @classmethod
    def read(cls, text: str) -> "Budget":
        told = tomllib.loads(text)
        left = told["bytes_left_of_a_join"]
        return cls(
            told["bytes_of_a_speaker"], left["in_all"], left["at_one_place"], left["sure_within"]
        )


@dataclass(frozen=True, slots=True)
class Heap:
    """Bytes that were live at each moment: when nobody is there; several times when all are."""

    moments: Sequence[Mark]
    live: dict[Site, list[int]]


@dataclass(frozen=True, slots=True)
class Left:
    """Bytes that a join leaves, and how sure that is."""

    mean: float
    reach: float


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
    moments = _some(marks)
    with FileReader(capture) as reader:
        times = [snapshot.time for snapshot in reader.get_memory_snapshots()]
    # the last snapshot before each
    numbers = [bisect_right(times, mark.at_unix * 1000) - 1 for mark in moments]
    changes: defaultdict[Site, list[int]] = defaultdict(lambda: [0] * (len(numbers) + 1))
    with FileReader(capture) as reader:
        for record in reader.get_temporal_allocation_records(merge_threads=True):
            spans = []
            for span in record.intervals:
                freed = span.deallocated_before_snapshot
                first = bisect_left(numbers, span.allocated_before_snapshot)
                behind = len(numbers) if freed is None else bisect_left(numbers, freed)
                if first < behind:
                    spans.append((first, behind, span.n_bytes))
            if spans:
                change = changes[site_of(record.stack_trace())]
                for first, behind, size in spans:
                    change[first] += size
                    change[behind] -= size
    return Heap(moments, {site: list(accumulate(of[:-1])) for site, of in changes.items()})


def judge_heap(heap: Heap, budget: Budget) -> list[Check]:
    """Against the budget; what is over it is named by where it was allocated."""
    checks = []
    empty, *warm = heap.moments
    for part, limit in budget.per_speaker.items():
        of_part = {
            site: fmean(
                (bytes_ - live[0]) / max(1, mark.speakers - empty.speakers)
                for bytes_, mark in zip(live[1:], warm, strict=True)
            )
            for site, live in heap.live.items()
            if site.part == part
        }
        each = sum(of_part.values())
        found = f"{_kb(each)} a speaker"
        outcome = Outcome.PASSED
        if each > limit:
            found += f"; {_most(of_part)}"
            outcome = Outcome.FAILED
        checks.append(Check(f"memory of {part}", found, f"at most {_kb(limit)}", outcome))
    return [*checks, _judge_left(heap, budget)]


def _judge_left(heap: Heap, budget: Budget) -> Check:
    what = "memory left of a join"
    limit = f"at most {budget.per_join:.0f} B, of one place {budget.per_join_and_site:.0f} B"
    warm = heap.moments[1:]
    joins = warm[-1].joins - warm[0].joins if warm else 0
    if len(warm) < _LEAST_MOMENTS or not joins:
        return Check(what, f"{joins} joins in {len(warm)} moments", limit, Outcome.UNKNOWN)
    by_site = dict(zip(heap.live, _left([of[1:] for of in heap.live.values()], warm), strict=True))
    (in_all,) = _left([[sum(column) for column in zip(*heap.live.values(), strict=True)][1:]], warm)
    found = f"{in_all.mean:+.0f} B of each of {joins}, surely within {in_all.reach:.0f} B of that"
    over = {
        site: left.mean
        for site, left in by_site.items()
        if left.mean - left.reach > budget.per_join_and_site
    }
    if over or in_all.mean - in_all.reach > budget.per_join:
        grown = over or {site: left.mean for site, left in by_site.items()}
        return Check(what, f"{found}; {_most(grown)}", limit, Outcome.FAILED)
    is_sure = in_all.reach <= budget.sure_within
    return Check(what, found, limit, Outcome.PASSED if is_sure else Outcome.UNKNOWN)


def _left(lives: Sequence[Sequence[float]], warm: Sequence[Mark]) -> list[Left]:
    """Of each row: what grows with the joins, beside what comes and goes with the speakers."""
    held = np.array(lives, dtype=float).T
    causes = np.array([[mark.joins, mark.speakers] for mark in warm], dtype=float)
    held -= held.mean(axis=0)
    causes -= causes.mean(axis=0)
    inverse = np.linalg.pinv(causes.T @ causes)
    slopes = inverse @ causes.T @ held
    spare = len(warm) - 3
    errors = np.sqrt(((held - causes @ slopes) ** 2).sum(axis=0) / spare * inverse[0, 0])
    return [
        Left(float(mean), float(_SURELY * error))
        for mean, error in zip(slopes[0], errors, strict=True)
    ]


def _some(marks: Sequence[Mark]) -> list[Mark]:
    """The empty server and, of a long run, some of the others, evenly."""
    empty, *warm = marks
    step = max(1, -(-len(warm) // _MOST_MOMENTS))
    return [empty, *warm[::step]]


def judge_captures(folder: Folder) -> list[Check]:
    """Of every part of a run under memray that was warm for a while; draws their flamegraphs where
    there are none yet, or of less. One that cannot be read, as of a server that was killed, tells
    nothing."""
    budget = Budget.read(BUDGET.read_text(encoding="utf-8"))
    checks: list[Check] = []
    for part, marks in folder.marks().items():
        capture = folder.capture(part)
        if len(marks) <= _LEAST_MOMENTS or not capture.is_file():
            continue
        try:
            with _flamegraph(capture, folder.path / f"flamegraph-{part}.html"):
                checks += judge_heap(read_heap(capture, marks), budget)
        except (OSError, subprocess.CalledProcessError) as error:
            told = f"{capture.name}: {error}"
            checks.append(Check("memory by memray", told, "by the budget", Outcome.UNKNOWN))
    if not checks:
        told = "ended before it was warm"
        checks.append(Check("memory by memray", told, "by the budget", Outcome.UNKNOWN))
    return checks


@contextmanager
def _flamegraph(capture: Path, page: Path) -> Iterator[None]:
    """Drawn meanwhile, by another process: of the whole run, with a slider for the time. It needs
    no host to look at. Raises `CalledProcessError`."""
    if page.is_file() and page.stat().st_mtime >= capture.stat().st_mtime:
        yield
        return
    unfinished = page.with_suffix(".part")
    command = [sys.executable, "-m", "memray", "flamegraph", "--temporal", "--no-web", "--force"]
    try:
        with subprocess.Popen(
            [*command, "--output", str(unfinished), str(capture)], stdout=subprocess.DEVNULL
        ) as drawing:
            yield
        if drawing.returncode:
            raise subprocess.CalledProcessError(drawing.returncode, command)
        unfinished.replace(page)
    finally:
        unfinished.unlink(missing_ok=True)


def _most(of: dict[Site, float]) -> str:
    most = sorted(of.items(), key=lambda item: -item[1])[:_MOST_SITES]
    return ", ".join(f"{site.where} {size:.0f} B" for site, size in most)


def _kb(size: float) -> str:
    return f"{size / 1000:.1f} kB"
