"""`python -m soak.bench_media`: what a speaker costs, ours beside the usual, in one run.

Starts the baseline server and ours in turn (our engine scripted, `TRANSCRIBER__VAD=energy`),
puts the same load on each, and reads processor time, private memory and threads from the
kernel, audio and lag from `/metrics`. Prints a table and JSON. Medians of `--repeat` runs.
"""

import argparse
import asyncio
import json
import os
import re
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass

import aiohttp
import pylibsrtp

from soak.host import Usage, describe_machine, usage
from soak.load import Load, crowd
from soak.speech import decode_all, encode, load_speech

_SETTLE_S = 3.0


@dataclass(frozen=True, slots=True)
class Case:
    server: str  # "usual" or "ours"
    speakers: int
    packet_ms: int
    wideband: bool
    talkers: float = 1.0
    vad: str = "energy"


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
    """One run of one case."""
    async with (
        _server(case) as (pid, url),
        crowd(
            Load(
                url,
                case.speakers,
                rooms=max(1, case.speakers // 5),
                packet_ms=case.packet_ms,
                wideband=case.wideband,
                talkers=case.talkers,
            )
        ) as people,
    ):
        idle = usage(pid)
        await people.gather()
        joined = usage(pid)
        await asyncio.sleep(_SETTLE_S)
        before, lag_before, heard_before = usage(pid), await _lag(url), await _audio_s(url)
        sent_before, began = people.audio_s, time.monotonic()
        await asyncio.sleep(seconds)
        after, took_s = usage(pid), time.monotonic() - began
        sent_s = people.audio_s - sent_before
        heard_s = await _audio_s(url) - heard_before
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
        min(1.0, heard_s / sent_s),
        1000 * _quantile(lag, 0.5),
        1000 * _quantile(lag, 0.99),
        1000 * _quantile(lag, 1.0),
        1000 * (joined.cpu_s - idle.cpu_s) / count,
    )


def floor_ms(packet_ms: int, wideband: bool) -> float:
    """SRTP and Opus in a tight loop, without a socket or a loop: ms per second of audio."""
    speech = encode(load_speech(), packet_ms, wideband=wideband)
    key = bytes(range(30))
    sender = pylibsrtp.Session(
        pylibsrtp.Policy(key=key, ssrc_type=pylibsrtp.Policy.SSRC_ANY_OUTBOUND)
    )
    receiver = pylibsrtp.Session(
        pylibsrtp.Policy(key=key, ssrc_type=pylibsrtp.Policy.SSRC_ANY_INBOUND)
    )
    protected = [
        sender.protect(bytes((0x80, 111)) + number.to_bytes(2, "big") + bytes(8) + packet.payload)
        for number, packet in enumerate(speech.packets)
    ]
    began = time.process_time()
    payloads = [receiver.unprotect(packet)[12:] for packet in protected]
    seconds = decode_all(payloads)
    return 1000 * (time.process_time() - began) / seconds


@asynccontextmanager
async def _server(case: Case) -> AsyncIterator[tuple[int, str]]:
    port = 8090
    with tempfile.TemporaryDirectory() as folder:
        environment = {
            **os.environ,
            "SERVER__PORT": str(port),
            "SERVER__LOG_LEVEL": "warning",
            "DATA_DIR": folder,
            "TRANSCRIBER__ENGINE": "scripted",
            "TRANSCRIBER__VAD": case.vad,
            # the benchmark asks how many fit; the answer must not be a limit
            "ADMISSION__MAX_CPU": "1",
            "ADMISSION__MAX_LOOP_LAG_MS": "10000",
        }
        module = "server" if case.server == "ours" else "soak.baseline"
        arguments = [] if case.server == "ours" else ["--port", str(port)]
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            module,
            *arguments,
            env=environment,
            stdout=asyncio.subprocess.DEVNULL,
        )
        try:
            url = f"http://127.0.0.1:{port}"
            await _until_up(url, "/readyz" if case.server == "ours" else "/metrics")
            yield process.pid, url
        finally:
            if process.returncode is None:
                process.terminate()
            await process.wait()


async def _until_up(url: str, path: str) -> None:
    async with asyncio.timeout(30), aiohttp.ClientSession() as session:
        while True:
            try:
                async with session.get(url + path) as response:
                    if response.status == 200:
                        return
            except aiohttp.ClientError:
                pass
            await asyncio.sleep(0.1)


async def _metrics(url: str) -> str:
    async with aiohttp.ClientSession() as session, session.get(f"{url}/metrics") as response:
        return await response.text()


async def _audio_s(url: str) -> float:
    """Everything but what was dropped: silence that nobody sent counts as delivered."""
    text = await _metrics(url)
    fates = re.findall(r'^roomscribe_audio_seconds_total\{fate="(\w+)"\} (\S+)', text, re.M)
    return sum(float(value) for fate, value in fates if fate not in ("overload", "network"))


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
    """The upper bound of the bucket in which it lies: never flattering."""
    total = buckets[-1][1]
    return next(bound for bound, count in buckets if count >= share * total)


def _median(rows: list[Row]) -> Row:
    return sorted(rows, key=lambda row: row.cpu_ms)[len(rows) // 2]


def _line(row: Row) -> str:
    case = row.case
    band = "wide" if case.wideband else "full"
    return (
        f"| {case.server} | {case.speakers} | {case.packet_ms} ms {band} | {case.vad} "
        f"| {row.cpu_ms:.2f} | {row.core:.2f} | {row.mb_per_speaker:.2f} | {row.private_mb:.0f} "
        f"| {row.threads_per_speaker:.1f} | {100 * row.delivered:.1f} "
        f"| {row.lag_p50_ms:.0f} / {row.lag_p99_ms:.0f} / {row.lag_worst_ms:.0f} "
        f"| {row.join_cpu_ms:.1f} |"
    )


async def run(cases: list[Case], seconds: float, repeat: int) -> list[Row]:
    rows = []
    for case in cases:
        row = _median([await measure(case, seconds) for _ in range(repeat)])
        sys.stdout.write(_line(row) + "\n")
        sys.stdout.flush()
        rows.append(row)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m soak.bench_media", description=__doc__)
    parser.add_argument("--speakers", default="10,50,100,200,500")
    parser.add_argument("--baseline-speakers", default="10,50,100")
    parser.add_argument("--seconds", type=float, default=15.0)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--json", help="write the rows there too")
    given = parser.parse_args()
    shapes = ((20, False), (60, True))
    cases = [
        Case("usual", int(count), 20, False)
        for count in given.baseline_speakers.split(",")
        if count
    ] + [
        Case("ours", int(count), packet_ms, wideband)
        for packet_ms, wideband in shapes
        for count in given.speakers.split(",")
        if count
    ]
    sys.stdout.write(f"{describe_machine()}\n\n")
    for packet_ms, wideband in shapes:
        sys.stdout.write(
            f"floor, {packet_ms} ms {'wide' if wideband else 'full'}: "
            f"{statistics.median(floor_ms(packet_ms, wideband) for _ in range(3)):.2f} ms\n"
        )
    sys.stdout.write(
        "\n| server | speakers | packets | vad | ms CPU per s | cores | MB each | MB "
        "| threads each | delivered % | lag p50 / p99 / worst, ms | ms CPU per join |\n"
        + "|---" * 12
        + "|\n"
    )
    rows = asyncio.run(run(cases, given.seconds, given.repeat))
    if given.json:
        with open(given.json, "w", encoding="utf-8") as file:
            json.dump({"machine": describe_machine(), "rows": [asdict(r) for r in rows]}, file)


if __name__ == "__main__":
    main()
