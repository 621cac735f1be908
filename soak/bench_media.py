"""`python -m soak.bench_media`: what a speaker costs, ours beside the usual, in one run.

Starts the usual aiortc code, pion where Debian's Go packages are, and ours in turn (our engine
scripted), puts the same load on each, and reads processor time, private memory and threads from
the kernel, audio and lag from `/metrics`. Prints a table, writes JSON and draws it. Medians of
`--repeat` runs, but the worst lag of all. The full run takes about an hour, `--quick` some minutes.
"""

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import aiohttp
import pylibsrtp

from soak import pion
from soak.host import describe_machine
from soak.measure import Case, Churn, NobodyJoined, Row, measure, measure_churn
from soak.plot import draw
from soak.speech import decode_all, encode, load_speech

_SHAPES = ((20, False), (60, True))
_QUICK = {
    "speakers": "10,50",
    "baseline_speakers": "10,50",
    "pion_speakers": "50",
    "more": False,
    "churn": 0,
    "seconds": 5.0,
    "repeat": 1,
}


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


def median(rows: list[Row]) -> Row:
    """Of each column by itself; of the worst lag the worst, of those who joined the fewest."""

    def of(column: str) -> float:
        return float(statistics.median(getattr(row, column) for row in rows))

    return Row(
        case=rows[0].case,
        joined=min(row.joined for row in rows),
        cpu_ms=of("cpu_ms"),
        core=of("core"),
        mb_per_speaker=of("mb_per_speaker"),
        private_mb=of("private_mb"),
        threads_per_speaker=of("threads_per_speaker"),
        delivered=of("delivered"),
        lag_p50_ms=of("lag_p50_ms"),
        lag_p99_ms=of("lag_p99_ms"),
        lag_worst_ms=max(row.lag_worst_ms for row in rows),
        join_cpu_ms=of("join_cpu_ms"),
    )


def _people(case: Case, joined: int) -> str:
    silent = "" if case.talkers == 1.0 else f", {1 - case.talkers:.0%} silent"
    missing = "" if joined == case.speakers else f", {joined} joined"
    return f"{case.speakers}{silent}{missing}"


def _line(row: Row) -> str:
    return (
        f"{_head(row.case, row.joined)} "
        f"| {row.cpu_ms:.2f} | {row.core:.2f} | {row.mb_per_speaker:.2f} | {row.private_mb:.0f} "
        f"| {row.threads_per_speaker:.1f} | {100 * row.delivered:.1f} "
        f"| {row.lag_p50_ms:.0f} / {row.lag_p99_ms:.0f} / {row.lag_worst_ms:.0f} "
        f"| {row.join_cpu_ms:.1f} |"
    )


def _head(case: Case, joined: int) -> str:
    band = "wide" if case.wideband else "full"
    return f"| {case.server} | {_people(case, joined)} | {case.packet_ms} ms {band} | {case.vad}"


async def run(cases: list[Case], seconds: float, repeat: int) -> list[Row]:
    rows = []
    for case in cases:
        try:
            row = median([await measure(case, seconds) for _ in range(repeat)])
        except (NobodyJoined, aiohttp.ClientError, TimeoutError) as error:
            _say(f"{_head(case, 0)} | {type(error).__name__} |")
            continue
        _say(_line(row))
        rows.append(row)
    return rows


def cases(given: argparse.Namespace, binary: Path | None) -> list[Case]:
    def counts(text: str) -> list[int]:
        return [int(count) for count in text.split(",") if count]

    wanted = [("usual", given.baseline_speakers), ("ours", given.speakers)]
    if binary is not None:
        wanted.insert(1, ("pion", given.pion_speakers))
    found = [
        Case(server, count, *shape, pion=binary)
        for server, text in wanted
        for shape in _SHAPES
        for count in counts(text)
    ]
    if given.more:
        found.append(Case("ours", 50, 60, wideband=True, vad="silero"))
        found.append(Case("ours", 1000, 60, wideband=True, talkers=0.5))
    return found


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def _say_churn(churn: Churn) -> None:
    before, after = churn.before, churn.after
    _say(
        f"\n{churn.joins} joins and leaves, one in five without a word: "
        f"{before.private_mb:.1f} MB before, {after.private_mb:.1f} MB after; "
        f"sockets {before.sockets} and {after.sockets}, "
        f"threads {before.threads} and {after.threads}"
    )


def arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m soak.bench_media", description=__doc__)
    parser.add_argument("--quick", action="store_true", help=f"unless said: {_QUICK}")
    parser.add_argument("--speakers", default="10,50,100,200,500")
    parser.add_argument("--baseline-speakers", default="10,50,100,200,500")
    parser.add_argument("--pion-speakers", default="50,500")
    parser.add_argument("--more", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--churn", type=int, default=1000, help="joins and leaves; 0: none")
    parser.add_argument("--seconds", type=float, default=15.0)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--json", help="write the rows there too")
    parser.add_argument("--plot", help="draw them there")
    if parser.parse_args(words).quick:
        parser.set_defaults(**_QUICK)
    return parser.parse_args(words)


def pion_binary(folder: Path) -> Path | None:
    """Built into `folder`; None where it cannot be, and that is said."""
    reason = pion.why_not()
    if reason is None:
        try:
            return pion.build(folder)
        except pion.CannotBuild as error:
            reason = str(error)
    _say(f"without pion: {reason}")
    return None


def main() -> None:
    given = arguments()
    _say(f"{describe_machine()}\n")
    floors = {
        packet_ms: statistics.median(floor_ms(packet_ms, wideband) for _ in range(3))
        for packet_ms, wideband in _SHAPES
    }
    for packet_ms, floor in floors.items():
        _say(f"floor, {packet_ms} ms: {floor:.2f} ms")
    with tempfile.TemporaryDirectory() as folder:
        found = cases(given, pion_binary(Path(folder)))
        _say(
            "\n| server | speakers | packets | vad | ms CPU per s | cores | MB each | MB "
            "| threads each | delivered % | lag p50 / p99 / worst, ms | ms CPU per join |\n"
            + "|---" * 12
            + "|"
        )
        rows = asyncio.run(run(found, given.seconds, given.repeat))
    churn = asyncio.run(measure_churn(given.churn)) if given.churn else None
    if churn is not None:
        _say_churn(churn)
    if given.json:
        measured = {
            "machine": describe_machine(),
            "floor_ms": floors,
            "rows": [asdict(row) for row in rows],
            "churn": None if churn is None else asdict(churn),
        }
        Path(given.json).write_text(json.dumps(measured, default=str), encoding="utf-8")
    if given.plot:
        draw(rows, floors, describe_machine(), Path(given.plot))


if __name__ == "__main__":
    main()
