"""One case of the media benchmark: a server of its own, a load on it, and what the kernel and
`/metrics` say of it.
"""

import asyncio
import math
import re
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from soak.host import Usage, usage
from soak.load import Load, crowd
from soak.server import OURS, Server, free_port, serving, settings

_SETTLE_S = 3.0
# The server collects, and gives memory back, two seconds after the last has left.
_GIVE_BACK_S = 5.0
# Until those who left without a word overlap as they do from then on: 30 s of them.
_WARM_CROWDS = 16


class NobodyJoined(Exception):
    """The server took not one speaker."""


@dataclass(frozen=True, slots=True)
class Case:
    server: str  # "usual", "pion" or "ours"
    speakers: int
    packet_ms: int
    wideband: bool
    talkers: float = 1.0
    vad: str = "energy"
    pion: Path | None = None  # its binary


@dataclass(frozen=True, slots=True)
class Row:
    """What a case came to. CPU in ms per second of audio and speaker."""

    case: Case
    joined: int
    cpu_ms: float
    core: float
    mb_per_speaker: float
    private_mb: float
    threads_per_speaker: float
    delivered: float
    lag_p50_ms: float
    lag_p99_ms: float
    lag_worst_ms: float
    join_cpu_ms: float


async def measure(case: Case, seconds: float) -> Row:
    """One run of one case. Raises `NobodyJoined`, `aiohttp.ClientError`, `TimeoutError`."""
    async with (
        _server(case) as server,
        crowd(
            Load(
                server.url,
                case.speakers,
                rooms=max(1, case.speakers // 5),
                packet_ms=case.packet_ms,
                wideband=case.wideband,
                talkers=case.talkers,
            )
        ) as people,
    ):
        pid, url = server.pid, server.url
        idle = usage(pid)
        await people.gather()
        joined = usage(pid)
        if not people.peers:
            raise NobodyJoined
        await asyncio.sleep(_SETTLE_S)
        before, lag_before = usage(pid), await _lag(url)
        heard_before = delivered_s(await _metrics(url))
        sent_before, began = people.audio_s, time.monotonic()
        await asyncio.sleep(seconds)
        after, took_s = usage(pid), time.monotonic() - began
        sent_s = people.audio_s - sent_before
        heard_s = delivered_s(await _metrics(url)) - heard_before
        lag = _difference(await _lag(url), lag_before)
        return _row(
            case, len(people.peers), idle, joined, before, after, took_s, lag, (heard_s, sent_s)
        )


def _row(
    case: Case,
    count: int,
    idle: Usage,
    joined: Usage,
    before: Usage,
    after: Usage,
    took_s: float,
    lag: list[tuple[float, float]],
    audio: tuple[float, float],
) -> Row:
    cpu_s = after.cpu_s - before.cpu_s
    heard_s, sent_s = audio
    return Row(
        case,
        count,
        1000 * cpu_s / took_s / count,
        cpu_s / took_s,
        (after.private_mb - idle.private_mb) / count,
        after.private_mb,
        (after.threads - idle.threads) / count,
        heard_s / sent_s,
        1000 * _quantile(lag, 0.5),
        1000 * _quantile(lag, 0.99),
        1000 * _quantile(lag, 1.0),
        1000 * (joined.cpu_s - idle.cpu_s) / count,
    )


@asynccontextmanager
async def _server(case: Case) -> AsyncIterator[Server]:
    port = free_port()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        environment = settings(
            folder,
            port,
            {
                "TRANSCRIBER__ENGINE": "scripted",
                "TRANSCRIBER__VAD": case.vad,
                # what a room keeps for those who come back goes with it; shorter than a minute,
                # so that what is left by then is seen
                "ROOMS__LINGER_S": "2",
            },
        )
        ready = "/readyz" if case.server == "ours" else "/metrics"
        async with serving(_command(case, port), environment, folder / "log", ready) as server:
            yield server


def _command(case: Case, port: int) -> list[str]:
    if case.server == "pion":
        return [str(case.pion), "-port", str(port)]
    if case.server == "usual":
        return [sys.executable, "-m", "soak.baseline", "--port", str(port)]
    return list(OURS)


async def _metrics(url: str) -> str:
    async with aiohttp.ClientSession() as session, session.get(f"{url}/metrics") as response:
        return await response.text()


def delivered_s(metrics: str) -> float:
    """Seconds of audio that arrived. Silence that nobody sent is among them, what was filled in
    for lost packets is not."""
    fates = re.findall(r'^roomscribe_audio_seconds_total\{fate="(\w+)"\} (\S+)', metrics, re.M)
    return sum(float(value) for fate, value in fates if fate in ("heard", "silence"))


async def _lag(url: str) -> list[tuple[float, float]]:
    text = await _metrics(url)
    found = re.findall(
        r'^roomscribe_event_loop_lag_seconds_bucket\{le="([^"]+)"\} (\S+)', text, re.M
    )
    return [(float(bound), float(count)) for bound, count in found]


def _difference(
    after: list[tuple[float, float]], before: list[tuple[float, float]]
) -> list[tuple[float, float]]:
    return [(bound, count - old) for (bound, count), (_, old) in zip(after, before, strict=True)]


def _quantile(buckets: list[tuple[float, float]], share: float) -> float:
    """The upper bound of the bucket in which it lies: never flattering. NaN without any."""
    if not buckets:
        return math.nan
    total = buckets[-1][1]
    return next(bound for bound, count in buckets if count >= share * total)


@dataclass(frozen=True, slots=True)
class Churn:
    """What is left after many joins and leaves."""

    joins: int
    before: Usage
    after: Usage


async def measure_churn(joins: int, abrupt: float = 0.2) -> Churn:
    """Let crowds of 50 join and leave, some of them without a word; compare after the first
    sixteen, when the allocator has what it needs, and at the end."""
    size = 50
    async with _server(Case("ours", size, 60, wideband=True)) as server:
        pid, url = server.pid, server.url
        for number in range(joins // size + _WARM_CROWDS):
            if number == _WARM_CROWDS:
                before = await _when_gone(pid, url)
            async with crowd(Load(url, size, rooms=10, abrupt=abrupt)) as people:
                await people.gather()
                await asyncio.sleep(1.0)
        return Churn(joins, before, await _when_gone(pid, url))


async def _when_gone(pid: int, url: str) -> Usage:
    """Once those who said nothing are missed, too, and memory was given back."""
    async with asyncio.timeout(90):
        # another process: no event of ours tells
        while not re.search(r"^roomscribe_speakers 0.0", await _metrics(url), re.M):  # noqa: ASYNC110
            await asyncio.sleep(1.0)
    await asyncio.sleep(_GIVE_BACK_S)
    return usage(pid)
