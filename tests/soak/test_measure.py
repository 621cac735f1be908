"""What the benchmark makes of what it reads: it must not flatter."""

import math
from dataclasses import replace
from pathlib import Path

import pytest

from soak import bench_media, pion
from soak.bench_media import arguments, cases, median
from soak.measure import Case, NobodyJoined, Row, delivered_s

CASE = Case("ours", 10, 60, wideband=True)
ROW = Row(CASE, 10, 1.0, 0.01, 0.3, 90.0, 0.0, 1.0, 2.0, 5.0, 10.0, 3.0)


def test_only_what_was_heard_or_never_sent_is_delivered() -> None:
    fates = {"heard": 50, "silence": 30, "concealed": 7, "network": 5, "overload": 3}
    text = "".join(
        f'roomscribe_audio_seconds_total{{fate="{fate}"}} {seconds}.0\n'
        for fate, seconds in fates.items()
    )
    assert delivered_s(text + "roomscribe_speakers 4.0\n") == 80


def test_each_column_has_its_own_median() -> None:
    rows = [
        replace(ROW, cpu_ms=1.0, delivered=0.9, lag_p99_ms=50.0),
        replace(ROW, cpu_ms=2.0, delivered=1.0, lag_p99_ms=10.0),
        replace(ROW, cpu_ms=3.0, delivered=0.8, lag_p99_ms=20.0),
    ]
    assert median(rows) == replace(ROW, cpu_ms=2.0, delivered=0.9, lag_p99_ms=20.0)


def test_of_the_worst_lag_the_worst_is_told_and_of_those_who_joined_the_fewest() -> None:
    rows = [replace(ROW, lag_worst_ms=lag, joined=n) for lag, n in [(5, 10), (250, 9), (10, 10)]]
    assert (median(rows).lag_worst_ms, median(rows).joined) == (250, 9)


def test_what_a_server_does_not_tell_stays_unknown() -> None:
    assert math.isnan(median([replace(ROW, lag_p50_ms=math.nan)] * 3).lag_p50_ms)


@pytest.mark.parametrize("server", ["usual", "ours"])
def test_the_full_run_has_every_count_with_both_packets(server: str) -> None:
    found = {
        (case.packet_ms, case.speakers)
        for case in cases(arguments([]), None)
        if (case.server, case.vad, case.talkers) == (server, "energy", 1.0)
    }
    assert found == {(ms, count) for ms in (20, 60) for count in (10, 50, 100, 200, 500)}


def test_a_quick_run_is_short_and_takes_other_options() -> None:
    quick = arguments(["--quick", "--seconds", "2"])
    assert (quick.seconds, quick.repeat, quick.churn) == (2.0, 1, 0)
    assert all(case.speakers <= 50 for case in cases(quick, None))


async def test_a_case_in_which_nobody_joins_ends_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def measure(case: Case, _seconds: float) -> Row:
        if case.speakers == 500:
            raise NobodyJoined
        return replace(ROW, case=case)

    monkeypatch.setattr(bench_media, "measure", measure)
    others = [replace(CASE, speakers=count) for count in (100, 500, 200)]
    rows = await bench_media.run(others, 1.0, 2)

    assert [row.case.speakers for row in rows] == [100, 200]
    assert "500" in capsys.readouterr().out


def test_a_receiver_that_cannot_be_built_is_left_out(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def build(_folder: Path) -> Path:
        raise pion.CannotBuild("no such package\nand more")

    monkeypatch.setattr(pion, "why_not", lambda: None)
    monkeypatch.setattr(pion, "build", build)

    assert bench_media.pion_binary(tmp_path) is None
    assert "without pion: no such package" in capsys.readouterr().out
