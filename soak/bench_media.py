"""`python -m soak.bench_media`: what a speaker costs, ours beside the usual, in one run.

Starts the usual aiortc code, pion where Debian's Go packages are, and ours in turn (our engine
scripted), puts the same load on each, and reads processor time, private memory and threads from
the kernel, audio and lag from `/metrics`. Prints a table, writes JSON and draws it. Medians of
`--repeat` runs.
"""

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

import pylibsrtp

from soak import pion
from soak.host import describe_machine
from soak.measure import Case, Churn, Row, measure, measure_churn
from soak.plot import draw
from soak.speech import decode_all, encode, load_speech

_SHAPES = ((20, False), (60, True))


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


def _median(rows: list[Row]) -> Row:
    return sorted(rows, key=lambda row: row.cpu_ms)[len(rows) // 2]


def _people(case: Case) -> str:
    silent = "" if case.talkers == 1.0 else f", {1 - case.talkers:.0%} silent"
    return f"{case.speakers}{silent}"


def _line(row: Row) -> str:
    case = row.case
    band = "wide" if case.wideband else "full"
    return (
        f"| {case.server} | {_people(case)} | {case.packet_ms} ms {band} | {case.vad} "
        f"| {row.cpu_ms:.2f} | {row.core:.2f} | {row.mb_per_speaker:.2f} | {row.private_mb:.0f} "
        f"| {row.threads_per_speaker:.1f} | {100 * row.delivered:.1f} "
        f"| {row.lag_p50_ms:.0f} / {row.lag_p99_ms:.0f} / {row.lag_worst_ms:.0f} "
        f"| {row.join_cpu_ms:.1f} |"
    )


async def run(cases: list[Case], seconds: float, repeat: int) -> list[Row]:
    rows = []
    for case in cases:
        row = _median([await measure(case, seconds) for _ in range(repeat)])
        _say(_line(row))
        rows.append(row)
    return rows


def _cases(given: argparse.Namespace, binary: Path | None) -> list[Case]:
    def counts(text: str) -> list[int]:
        return [int(count) for count in text.split(",") if count]

    cases = [Case("usual", count, 20, wideband=False) for count in counts(given.baseline_speakers)]
    if binary is not None:
        cases += [
            Case("pion", count, *shape, pion=binary)
            for shape in _SHAPES
            for count in counts(given.pion_speakers)
        ]
    cases += [Case("ours", count, *shape) for shape in _SHAPES for count in counts(given.speakers)]
    if given.more:
        cases.append(Case("ours", 50, 60, wideband=True, vad="silero"))
        cases.append(Case("ours", 1000, 60, wideband=True, talkers=0.5))
    return cases


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


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m soak.bench_media", description=__doc__)
    parser.add_argument("--speakers", default="10,50,100,200,500")
    parser.add_argument("--baseline-speakers", default="10,50,100")
    parser.add_argument("--pion-speakers", default="50,500")
    parser.add_argument("--more", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--churn", type=int, default=1000, help="joins and leaves; 0: none")
    parser.add_argument("--seconds", type=float, default=15.0)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--json", help="write the rows there too")
    parser.add_argument("--plot", help="draw them there")
    given = parser.parse_args()
    _say(f"{describe_machine()}\n")
    for packet_ms, wideband in _SHAPES:
        floor = statistics.median(floor_ms(packet_ms, wideband) for _ in range(3))
        _say(f"floor, {packet_ms} ms {'wide' if wideband else 'full'}: {floor:.2f} ms")
    with tempfile.TemporaryDirectory() as folder:
        binary = None
        if (reason := pion.why_not()) is None:
            binary = pion.build(Path(folder))
        else:
            _say(f"without pion: {reason}")
        _say(
            "\n| server | speakers | packets | vad | ms CPU per s | cores | MB each | MB "
            "| threads each | delivered % | lag p50 / p99 / worst, ms | ms CPU per join |\n"
            + "|---" * 12
            + "|"
        )
        rows = asyncio.run(run(_cases(given, binary), given.seconds, given.repeat))
    churn = asyncio.run(measure_churn(given.churn)) if given.churn else None
    if churn is not None:
        _say_churn(churn)
    if given.json:
        found = {
            "machine": describe_machine(),
            "rows": [asdict(row) for row in rows],
            "churn": None if churn is None else asdict(churn),
        }
        Path(given.json).write_text(json.dumps(found, default=str), encoding="utf-8")
    if given.plot:
        draw(rows, describe_machine(), Path(given.plot))


if __name__ == "__main__":
    main()
