"""Whether a run is in order: each thing it is held to, and what the samples say of it. Pure.

Growth of memory is the slope of a line through the samples after the warm-up, with the interval in
which it lies with 95 %. A run passes if that lies below the limit and reaches no further from the
slope than the limit; one that is too short to tell says so.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import pairwise
from statistics import NormalDist, fmean

from soak.samples import Buckets, Reading, Sample, grown, quantile, together
from soak.scenario import Limits

# The samples of a block have one mean: what one sample says of the next does not make the interval
# look narrower than it is.
_BLOCKS = 24
_BLOCKS_OF_A_LINE = 8
_BLOCK_AT_LEAST_S = 60.0
# A worker that hangs is given up after 20 s, and the next has to load its model.
_LONGEST_PAUSE_S = 120.0
# The loop of a server that does not answer for so long stands still.
_LONGEST_UNSEEN_S = 30.0
_LET_IN_S = 30.0
# A join that fails, or takes its time, is none of these: many are under way at once.
_JOINS_AT_LEAST = 0.8
_MOST_ALIKE = 0.95
_FEW = 3  # blocks more than lines, below which no interval means anything


class Outcome(Enum):
    PASSED = "passed"
    FAILED = "failed"
    UNKNOWN = "too short to tell"


@dataclass(frozen=True, slots=True)
class Check:
    what: str
    found: str
    limit: str
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class Slope:
    """MB per hour; the two ends of the interval are its 95 %."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Figures:
    """What a run came to, after the warm-up."""

    hours: float
    speakers: float  # mean
    joins: int
    server_mb: float  # at the end: the mean of the last tenth
    worker_mb: float
    server_cores: float
    first_text_p50_s: float
    first_text_p95_s: float
    final_p50_s: float
    final_p95_s: float
    finals: int
    delivered: int
    calls: int  # opened
    delivered_in_calls: int
    worker_restarts: int


def judge(samples: Sequence[Sample], limits: Limits, warm_up_s: float) -> list[Check]:
    """While people speak. What is left when they have gone is `judge_leaving`."""
    checks: list[Check] = []
    if limits.memory_slope_mb_per_h:
        limit = limits.memory_slope_mb_per_h
        checks.append(_judge_slope("growth of the server", memory_slope(samples, warm_up_s), limit))
        if any(sample.worker_pid for sample in samples):
            grows = slope(_memory(samples, _of_worker, warm_up_s))
            checks.append(_judge_slope("growth of the worker", grows, limit))
    speech_s = increase(samples, lambda s: s.speech_s)
    lost_s = increase(samples, lambda s: s.lost_s)
    tried = done(samples, lambda s: s.doing.joins + s.doing.failed)
    tried += done(samples, lambda s: s.doing.calls + s.doing.calls_failed)
    failed = done(samples, lambda s: s.doing.failed + s.doing.calls_failed)
    failed += increase(samples, lambda s: s.speakers_failed)
    return [
        *checks,
        _judge_share("seconds of speech dropped", lost_s, speech_s, limits.dropped),
        _judge_share("joins, calls and speakers that failed", failed, tried, limits.errors),
        _judge_finals("finals, to each listener once", samples, _reading),
        _judge_pause("longest time without a final", samples, _reading),
        _judge_sight(samples),
        _judge_count("samples in which audio was not accounted for", _wrong(samples)),
    ]


def judge_calls(samples: Sequence[Sample]) -> list[Check]:
    """What those in calls were told, in a run that has some."""
    return [
        _judge_finals("finals, to each in a call once", samples, _in_calls),
        _judge_pause("longest time without a final in calls", samples, _in_calls),
    ]


def judge_joins(samples: Sequence[Sample], speakers: int, joins_per_minute: float) -> Check:
    """Whether as many came as should: a crowd that stands still tells nothing of joins."""
    parts = {sample.part for sample in samples}
    minutes = sum(after.at - before.at for before, after in _pairs(samples)) / 60
    wanted = len(parts) * speakers + joins_per_minute * minutes
    came = done(samples, lambda s: s.doing.joins)
    outcome = Outcome.PASSED if came >= _JOINS_AT_LEAST * wanted else Outcome.FAILED
    return Check("joins", f"{came:.0f}", f"{_JOINS_AT_LEAST:.0%} of {wanted:.0f}", outcome)


def judge_listeners(samples: Sequence[Sample], wanted: int) -> Check:
    """Whether all who were to read were let in: who was not is owed nothing, and misses nothing."""
    settled = after_warm_up(samples, _LET_IN_S) or samples[-1:]
    fewest = min((sample.doing.listeners for sample in settled), default=0)
    outcome = Outcome.PASSED if fewest >= wanted else Outcome.FAILED
    return Check("listeners let in", f"{fewest}", f"{wanted}", outcome)


def judge_unheard(samples: Sequence[Sample]) -> Check:
    """What the server counts and no listener was told, though each room has one all the time."""
    made = increase(samples, lambda s: s.finals)
    heard = increase(samples, lambda s: s.reading.finals)
    return _judge_count("finals that nobody was told", max(0, round(made - heard)))


def judge_leaving(before: Sample, after: Sample, pool: int) -> list[Check]:
    """What is left once the last has gone, beside what was there before the first came. `pool`
    threads and no more does a loop keep for files and names; the store's connections have a thread
    and two files each."""
    more_threads = max(0, after.threads - before.threads)
    left = {
        "calls": after.calls,
        "rooms": after.rooms,
        "participants": after.participants,
        "speakers": after.speakers,
        "tasks": max(0, after.tasks - before.tasks),
        "sockets": max(0, after.sockets - before.sockets),
        "files": max(0, after.files - before.files - 2 * min(more_threads, pool)),
        "threads": max(0, more_threads - pool),
    }
    found = ", ".join(f"{count} {what}" for what, count in left.items() if count)
    outcome = Outcome.FAILED if found else Outcome.PASSED
    return [Check("left when the last has gone", found or "nothing", "nothing", outcome)]


def figures(samples: Sequence[Sample], warm_up_s: float) -> Figures:
    """Raises `ValueError` without samples after the warm-up."""
    warm = after_warm_up(samples, warm_up_s)
    if len(warm) < 2:
        raise ValueError("the run ended before its warm-up")
    seconds = sum(b.at - a.at for a, b in _pairs(warm))
    tail = warm[-max(1, len(warm) // 10) :]
    first, final = (
        together([grown(read(b), read(a)) for a, b in _pairs(warm)])
        for read in (_first_text, _final)
    )
    return Figures(
        seconds / 3600,
        fmean(s.speakers for s in warm),
        int(increase(warm, lambda s: s.doing.joins)),
        fmean(s.server_mb for s in tail),
        fmean(s.worker_mb for s in tail),
        increase(warm, lambda s: s.server_cpu_s) / seconds if seconds else math.nan,
        quantile(first, 0.5),
        quantile(first, 0.95),
        quantile(final, 0.5),
        quantile(final, 0.95),
        int(increase(warm, lambda s: s.finals)),
        int(increase(warm, lambda s: s.reading.delivered)),
        int(increase(warm, lambda s: s.doing.calls)),
        int(increase(warm, lambda s: s.in_calls.delivered)),
        sum(a.worker_pid != b.worker_pid for a, b in _pairs([s for s in warm if s.worker_pid])),
    )


def memory_slope(samples: Sequence[Sample], warm_up_s: float) -> Slope | None:
    """Of the server."""
    return slope(_memory(samples, _of_server, warm_up_s))


def after_warm_up(samples: Sequence[Sample], warm_up_s: float) -> list[Sample]:
    """Of each part, what came after its warm-up."""
    began: dict[int, float] = {}
    for sample in samples:
        began.setdefault(sample.part, sample.at)
    return [s for s in samples if s.at - began[s.part] >= warm_up_s]


def increase(samples: Sequence[Sample], count: Callable[[Sample], float]) -> float:
    """Of something that is counted; it begins anew with each part."""
    return sum(max(0.0, count(b) - count(a)) for a, b in _pairs(samples))


def done(samples: Sequence[Sample], count: Callable[[Sample], float]) -> float:
    """Of something that the soak itself counts, from nothing in each part; at the end of each."""
    last = {sample.part: count(sample) for sample in samples}
    return sum(last.values())


def slope(groups: Iterable[Sequence[tuple[float, float]]]) -> Slope | None:
    """Of (hours, MB), over several processes one after the other, each of which begins where it
    likes. None where there is too little of it."""
    given = [list(group) for group in groups if group]
    hours = [group[-1][0] - group[0][0] for group in given]
    # of a long run with processes that were replaced none has many of the whole's blocks
    block_h = min(sum(hours) / _BLOCKS, max(hours, default=0.0) / _BLOCKS_OF_A_LINE)
    block_h = max(block_h, _BLOCK_AT_LEAST_S / 3600)
    lines = [_centred(line) for group in given if len(line := _blocks(group, block_h)) > 1]
    points = [point for line in lines for point in line]
    spare = len(points) - len(lines) - 1
    if spare < _FEW:
        return None
    along = sum(x * x for x, _ in points)
    mean = sum(x * y for x, y in points) / along
    rests = [[y - mean * x for x, y in line] for line in lines]
    error = math.sqrt(sum(rest * rest for line in rests for rest in line) / spare / along)
    reach = _student(spare) * error * _wider(rests)
    return Slope(mean, mean - reach, mean + reach)


def _wider(rests: list[list[float]]) -> float:
    """By how much the interval is wider, because a block still vouches for the next: what lies
    above the line is followed by more of it. As for a series that forgets by the same share with
    each step; where it is short the share seems smaller than it is."""
    squares = sum(rest * rest for line in rests for rest in line)
    if not squares:
        return 1.0
    share = sum(a * b for line in rests for a, b in pairwise(line)) / squares
    share += (2 + 4 * share) / fmean(map(len, rests))
    share = min(max(share, 0.0), _MOST_ALIKE)
    return math.sqrt((1 + share) / (1 - share))


def _blocks(group: Sequence[tuple[float, float]], block_h: float) -> list[tuple[float, float]]:
    """Means of blocks of like length: one of a few samples would weigh as much as a full one."""
    began, length = group[0][0], group[-1][0] - group[0][0]
    count = max(1, int(length / block_h + 1e-6))
    blocks: defaultdict[int, list[tuple[float, float]]] = defaultdict(list)
    for hour, mb in group:
        number = int((hour - began) / length * count) if length else 0
        blocks[min(number, count - 1)].append((hour, mb))
    return [(fmean(h for h, _ in block), fmean(mb for _, mb in block)) for block in blocks.values()]


def _centred(line: list[tuple[float, float]]) -> list[tuple[float, float]]:
    middle_x, middle_y = fmean(x for x, _ in line), fmean(y for _, y in line)
    return [(x - middle_x, y - middle_y) for x, y in line]


def _student(freedom: int) -> float:
    """The 97.5 % point of Student's t (Cornish and Fisher; within 0.01 from 3 on)."""
    z = NormalDist().inv_cdf(0.975)
    return (
        z
        + (z**3 + z) / (4 * freedom)
        + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)
        + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * freedom**3)
    )


def _of_server(sample: Sample) -> tuple[int, float]:
    return sample.server_pid, sample.server_mb


def _of_worker(sample: Sample) -> tuple[int, float]:
    return sample.worker_pid, sample.worker_mb


def _memory(
    samples: Sequence[Sample], read: Callable[[Sample], tuple[int, float]], warm_up_s: float
) -> list[list[tuple[float, float]]]:
    """By process, after its warm-up: one that came in place of another begins anew."""
    groups: defaultdict[tuple[int, int], list[tuple[float, float]]] = defaultdict(list)
    for sample in samples:
        pid, mb = read(sample)
        if not math.isnan(mb):
            groups[sample.part, pid].append((sample.at / 3600, mb))
    warm_up_h = warm_up_s / 3600
    return [[each for each in of if each[0] - of[0][0] >= warm_up_h] for of in groups.values()]


def _judge_slope(what: str, found: Slope | None, limit: float) -> Check:
    told = f"below {limit:g} MB/h"
    if found is None:
        return Check(what, "too few samples", told, Outcome.UNKNOWN)
    text = f"{found.mean:+.2f} MB/h, with 95 % from {found.low:+.2f} to {found.high:+.2f}"
    if found.low > limit:
        return Check(what, text, told, Outcome.FAILED)
    # an interval wider than the limit may lie below it by chance
    is_sharp = found.high - found.low <= 2 * limit
    enough = is_sharp and found.high < limit
    return Check(what, text, told, Outcome.PASSED if enough else Outcome.UNKNOWN)


def _judge_share(what: str, part: float, whole: float, limit: float) -> Check:
    told = f"below {limit:.1%}"
    if not whole:
        return Check(what, "nothing came", told, Outcome.UNKNOWN)
    text = f"{part:.0f} of {whole:.0f}, {part / whole:.3%}"
    enough = not part or part < limit * whole
    return Check(what, text, told, Outcome.PASSED if enough else Outcome.FAILED)


def _judge_finals(what: str, samples: Sequence[Sample], read: Callable[[Sample], Reading]) -> Check:
    told = done(samples, lambda s: read(s).delivered)
    missing = done(samples, lambda s: read(s).missing)  # without those that came late
    twice = done(samples, lambda s: read(s).twice)
    text = f"{told:.0f} delivered, {missing:.0f} missing, {twice:.0f} twice"
    if missing or twice:
        return Check(what, text, "all", Outcome.FAILED)
    if not told:
        return Check(what, "none came", "all", Outcome.UNKNOWN)
    return Check(what, text, "all", Outcome.PASSED)


def _judge_pause(what: str, samples: Sequence[Sample], read: Callable[[Sample], Reading]) -> Check:
    """The longest time in which nobody was told a final, though some talk all the time."""
    longest_s, since = 0.0, {s.part: s.at for s in reversed(samples)}
    for before, after in _pairs(samples):
        if read(after).finals > read(before).finals:
            since[after.part] = after.at
        longest_s = max(longest_s, after.at - since[after.part])
    outcome = Outcome.PASSED if longest_s <= _LONGEST_PAUSE_S else Outcome.FAILED
    limit = f"at most {_LONGEST_PAUSE_S:.0f} s"
    return Check(what, f"{longest_s:.0f} s", limit, outcome)


def _judge_sight(samples: Sequence[Sample]) -> Check:
    longest_s = max((after.at - before.at for before, after in _pairs(samples)), default=0.0)
    outcome = Outcome.PASSED if longest_s <= _LONGEST_UNSEEN_S else Outcome.FAILED
    limit = f"at most {_LONGEST_UNSEEN_S:.0f} s"
    return Check("longest time without a sample", f"{longest_s:.0f} s", limit, outcome)


def _judge_count(what: str, count: int) -> Check:
    return Check(what, str(count), "none", Outcome.FAILED if count else Outcome.PASSED)


def _wrong(samples: Sequence[Sample]) -> int:
    return sum(sample.ledger_wrong > 0 for sample in samples)


def _pairs(samples: Sequence[Sample]) -> list[tuple[Sample, Sample]]:
    return [(a, b) for a, b in pairwise(samples) if a.part == b.part]


def _reading(sample: Sample) -> Reading:
    return sample.reading


def _in_calls(sample: Sample) -> Reading:
    return sample.in_calls


def _first_text(sample: Sample) -> Buckets:
    return sample.first_text


def _final(sample: Sample) -> Buckets:
    return sample.final
