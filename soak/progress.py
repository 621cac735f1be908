"""What a person sees of a run while it goes: a table in a terminal, a line a minute elsewhere."""

import math
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.live import Live
from rich.table import Table

from soak.run import Progress
from soak.samples import Sample, grown, quantile
from soak.scenario import Scenario
from soak.verdict import memory_slope

_LINE_EVERY_S = 60.0
_RECENT = 12  # samples: a minute


class Board:
    """Keeps what it shows, thinned out: memory for days."""

    _MOST = 1000

    def __init__(self, scenario: Scenario, samples: list[Sample]) -> None:
        self._scenario = scenario
        self._samples = samples[-self._MOST :]

    def rows(self, progress: Progress) -> list[tuple[str, str]]:
        self._samples.append(progress.sample)
        if len(self._samples) > self._MOST:
            del self._samples[: -_RECENT * 2 : 2]
        now, before = progress.sample, self._samples[-min(len(self._samples), _RECENT)]
        first = grown(now.first_text, before.first_text)
        final = grown(now.final, before.final)
        told = now.reading
        return [
            ("time left", f"{_duration(progress.left_s)}, {progress.phase}"),
            ("speakers", f"{now.speakers} in {now.rooms} rooms; {now.doing.listeners} read"),
            ("joined", f"{now.doing.joins}, {now.doing.failed} failed, {now.doing.left} left"),
            ("memory", f"server {_mb(now.server_mb)}, worker {_mb(now.worker_mb)}"),
            ("its slope", self._slope()),
            ("first text", f"p50 {_s(first, 0.5)}, p95 {_s(first, 0.95)} over a minute"),
            ("end to final", f"p50 {_s(final, 0.5)}, p95 {_s(final, 0.95)}"),
            ("finals", f"{told.delivered} told, {told.missing} missing, {told.twice} twice"),
            *self._calls(now),
            ("dropped", f"{now.lost_s:.0f} s; {now.ledger_wrong} ledgers do not add up"),
        ]

    def _calls(self, now: Sample) -> list[tuple[str, str]]:
        if not self._scenario.calls.count:
            return []
        told, doing = now.in_calls, now.doing
        return [
            ("calls", f"{now.calls} go on; {doing.calls} opened, {doing.calls_failed} failed"),
            (
                "finals in them",
                f"{told.delivered} told, {told.missing} missing, {told.twice} twice",
            ),
        ]

    def _slope(self) -> str:
        slope = memory_slope(self._samples, self._scenario.warm_up)
        if slope is None:
            return "too early to tell"
        return f"{slope.mean:+.2f} MB/h, from {slope.low:+.2f} to {slope.high:+.2f}"


@contextmanager
def shown(board: Board) -> Iterator["Shown"]:
    console = Console(stderr=True)
    if console.is_terminal:
        with Live(console=console, auto_refresh=False) as live:
            yield Shown(board, live)
    else:
        yield Shown(board, None)


class Shown:
    def __init__(self, board: Board, live: Live | None) -> None:
        self._board = board
        self._live = live
        self._line_at = -math.inf

    def tell(self, progress: Progress) -> None:
        rows = self._board.rows(progress)
        if self._live is not None:
            table = Table(show_header=False, box=None)
            for row in rows:
                table.add_row(*row)
            self._live.update(table, refresh=True)
        elif time.monotonic() - self._line_at >= _LINE_EVERY_S:
            self._line_at = time.monotonic()
            line = "; ".join(f"{name} {value}" for name, value in rows)
            sys.stderr.write(f"soak: {line}\n")


def _duration(seconds: float) -> str:
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    days, hour = divmod(hours, 24)
    return (
        f"{days} d {hour:02}:{minute:02}:{second:02}" if days else f"{hour}:{minute:02}:{second:02}"
    )


def _mb(megabytes: float) -> str:
    return "not known" if math.isnan(megabytes) else f"{megabytes:.1f} MB"


def _s(buckets: tuple[tuple[float, float], ...], share: float) -> str:
    found = quantile(buckets, share)
    return "–" if math.isnan(found) else f"{found:.2f} s"
