"""What is read of a server every few seconds, and how it is kept.

The kernel tells of a server on this machine: memory, threads, files. `/metrics` and the room list
tell the rest. Samples go to a file as they come, one JSON object a line.
"""

import json
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import MISSING, asdict, dataclass, fields, replace
from functools import partial
from pathlib import Path

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

from soak.host import Usage, usage, worker_of

_LOST = ("overload", "engine")

Buckets = tuple[tuple[float, float], ...]  # upper bound, count up to it, since the server began

_NO_PROCESS = Usage(math.nan, math.nan, 0, 0, 0)


@dataclass(frozen=True, slots=True)
class Reading:
    """What the listeners of the soak were told by now."""

    finals: int = 0
    delivered: int = 0
    missing: int = 0
    twice: int = 0
    late: int = 0

    @classmethod
    def of(cls, counts: Iterable[object]) -> "Reading":
        """All of them together; each counts under the same names."""
        every = list(counts)
        names = [field.name for field in fields(cls)]
        return cls(**{name: sum(getattr(each, name) for each in every) for name in names})


@dataclass(frozen=True, slots=True)
class Doing:
    """What the soak did by now."""

    joins: int = 0
    failed: int = 0
    left: int = 0
    listeners: int = 0  # who were let in and read, beside those in calls
    calls: int = 0  # opened
    calls_failed: int = 0


@dataclass(frozen=True, slots=True)
class Sample:
    at: float  # seconds of the run; where it was interrupted the clock stood
    part: int  # grows each time it is resumed
    server_pid: int  # 0: it is elsewhere
    worker_pid: int
    server_mb: float  # private; of a server elsewhere what it says: resident
    worker_mb: float  # private; NaN where there is none, or it is elsewhere
    server_cpu_s: float
    worker_cpu_s: float
    threads: int
    files: int
    sockets: int
    tasks: int
    rooms: int
    participants: int
    speakers: int
    feed_fullness: float
    windows_pending: int
    windows_queued: int
    store_pending: int
    audio_s: float  # what became of speakers' audio, all fates
    chunks_dropped: int
    speakers_failed: int
    finals: int  # as the server counts
    ledger_wrong: int  # participants whose audio does not add up
    first_text: Buckets
    final: Buckets
    doing: Doing
    reading: Reading
    in_calls: Reading = Reading()  # what those in calls were told who asked
    calls: int = 0  # that the server is in
    lost_s: float = 0.0  # of the speech, what nobody could read and somebody should have
    speech_s: float = 0.0  # what became of speech, all fates: the audio without silence

    @property
    def as_line(self) -> str:
        # JSON has no NaN
        told = {
            name: None if isinstance(value, float) and math.isnan(value) else value
            for name, value in asdict(self).items()
        }
        return json.dumps(told, separators=(",", ":"))

    @classmethod
    def of_line(cls, line: str) -> "Sample":
        """Raises `ValueError` where a run was killed while it wrote."""
        told = json.loads(line)
        names = {field.name for field in fields(cls)}
        needed = {field.name for field in fields(cls) if field.default is MISSING}
        # of before there were calls, too; and of before speech was counted apart from silence
        if not isinstance(told, dict) or not needed <= set(told) <= names:
            raise ValueError("is no sample")
        told.setdefault("speech_s", told["audio_s"])
        for name in ("server_mb", "worker_mb", "server_cpu_s", "worker_cpu_s"):
            told[name] = math.nan if told[name] is None else told[name]
        for name in ("first_text", "final"):
            told[name] = tuple((bound, count) for bound, count in told[name])
        told["doing"] = Doing(**told["doing"])
        for name in {"reading", "in_calls"} & set(told):
            told[name] = Reading(**told[name])
        return cls(**told)


def read_samples(file: Path) -> Iterator[Sample]:
    """Those of a run, but for a last line that was cut off."""
    for line in file.read_text(encoding="utf-8").splitlines():
        try:
            yield Sample.of_line(line)
        except ValueError:
            continue


class Sampler:
    def __init__(self, session: aiohttp.ClientSession, url: str, pid: int | None) -> None:
        self._session = session
        self._url = url
        self._pid = pid

    async def take(
        self,
        at: float,
        part: int,
        doing: Doing,
        reading: Reading,
        in_calls: Reading = Reading(),
    ) -> Sample:
        """Raises `aiohttp.ClientError`, `TimeoutError` where the server does not answer."""
        scraped = Scraped(await self._text("/metrics"))
        ledger_wrong = _wrong(json.loads(await self._text("/api/v1/rooms")))
        server = replace(_NO_PROCESS, private_mb=scraped.sum("memory_bytes") / 2**20)
        worker_pid, worker = 0, _NO_PROCESS
        if self._pid is not None:
            server = usage(self._pid)
            worker_pid, worker = _worker(self._pid)
        speech = partial(scraped.sum, "speech_seconds_total")
        return Sample(
            round(at, 1),
            part,
            self._pid or 0,
            worker_pid,
            server.private_mb,
            worker.private_mb,
            server.cpu_s,
            worker.cpu_s,
            server.threads,
            server.files,
            server.sockets,
            int(scraped.sum("tasks")),
            int(scraped.sum("rooms")),
            int(scraped.sum("participants")),
            int(scraped.sum("speakers")),
            scraped.sum("feed_fullness"),
            int(scraped.sum("windows_pending")),
            int(scraped.sum("windows_queued")),
            int(scraped.sum("store_pending")),
            scraped.sum("audio_seconds_total"),
            int(scraped.sum("chunks_dropped_total")),
            int(scraped.sum("speakers_failed_total")),
            int(scraped.sum("captions_total", kind="final")),
            ledger_wrong,
            scraped.buckets("first_text_seconds"),
            scraped.buckets("final_seconds"),
            doing,
            reading,
            in_calls,
            int(scraped.sum("talk_calls")),
            sum(speech(fate=fate) for fate in _LOST),
            speech() - speech(fate="silence"),
        )

    async def _text(self, path: str) -> str:
        async with self._session.get(self._url + path) as answer:
            answer.raise_for_status()
            return await answer.text()


class Scraped:
    """An answer of `/metrics`."""

    def __init__(self, text: str) -> None:
        self._samples: dict[str, list[tuple[dict[str, str], float]]] = {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                self._samples.setdefault(sample.name, []).append((sample.labels, sample.value))

    def sum(self, name: str, **labels: str) -> float:
        """Of all series of that name which have these labels."""
        series = self._samples.get(f"roomscribe_{name}", ())
        return sum(value for has, value in series if labels.items() <= has.items())

    def buckets(self, name: str) -> Buckets:
        series = self._samples.get(f"roomscribe_{name}_bucket", ())
        return tuple((float(labels["le"]), count) for labels, count in series)


def quantile(buckets: Buckets, share: float) -> float:
    """As Prometheus reckons it: within a bucket evenly spread. NaN of nothing."""
    total = buckets[-1][1] if buckets else 0
    if not total:
        return math.nan
    wanted, below, bound_below = share * total, 0.0, 0.0
    for bound, count in buckets:
        if count >= wanted:
            if math.isinf(bound):
                return bound_below
            return bound_below + (bound - bound_below) * (wanted - below) / (count - below)
        below, bound_below = count, bound
    return bound_below


def grown(after: Buckets, before: Buckets) -> Buckets:
    """What came between the two; all of it, where the server is another."""
    if not before or after[-1][1] < before[-1][1]:
        return after
    both = zip(after, before, strict=True)
    return tuple((bound, count - old) for (bound, count), (_, old) in both)


def together(several: Sequence[Buckets]) -> Buckets:
    """One histogram of all."""
    if not several:
        return ()
    return tuple((column[0][0], sum(c for _, c in column)) for column in zip(*several, strict=True))


def _worker(server_pid: int) -> tuple[int, Usage]:
    """One that has just been killed is as good as none."""
    pid = worker_of(server_pid)
    if pid is None:
        return 0, _NO_PROCESS
    try:
        return pid, usage(pid)
    except (FileNotFoundError, ProcessLookupError):
        return 0, _NO_PROCESS


def _wrong(told: dict[str, list[dict[str, object]]]) -> int:
    """How many participants have audio that is not accounted for."""
    wrong = 0
    for room in told["rooms"]:
        people = room["participants"]
        assert isinstance(people, list)
        for person in people:
            audio = person.get("audio")  # of ended rooms there are names alone
            if audio is not None:
                named = audio["transcribed"] + audio["silence"] + audio["pending"]
                wrong += audio["received"] != named + sum(audio["dropped"].values())
    return wrong
