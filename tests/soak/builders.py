"""Samples of a run, with only what a test is about."""

from dataclasses import replace

from soak.samples import Doing, Reading, Sample

EMPTY = Sample(
    at=0.0,
    part=0,
    server_pid=10,
    worker_pid=20,
    server_mb=100.0,
    worker_mb=20.0,
    server_cpu_s=0.0,
    worker_cpu_s=0.0,
    threads=5,
    files=30,
    sockets=10,
    tasks=12,
    rooms=0,
    participants=0,
    speakers=0,
    feed_fullness=0.0,
    windows_pending=0,
    windows_queued=0,
    store_pending=0,
    audio_s=0.0,
    chunks_dropped=0,
    speakers_failed=0,
    finals=0,
    ledger_wrong=0,
    first_text=((0.5, 0.0), (1.0, 0.0), (float("inf"), 0.0)),
    final=((0.5, 0.0), (1.0, 0.0), (float("inf"), 0.0)),
    doing=Doing(),
    reading=Reading(),
)


def sample(at: float, **more: object) -> Sample:
    return replace(EMPTY, at=at, **more)  # type: ignore[arg-type]  # names of fields


def steady(hours: float, every_s: float = 5.0) -> list[Sample]:
    """A run in which all is as it should be."""
    return [
        sample(
            at,
            audio_s=at * 25,
            speech_s=at * 10,
            doing=Doing(joins=100 + int(at)),
            reading=Reading(finals=int(at), delivered=3 * int(at)),
        )
        for at in (every_s * number for number in range(int(hours * 3600 / every_s) + 1))
    ]
