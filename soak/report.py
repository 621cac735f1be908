"""A run as a page and as JSON: what it came to, whether it is in order, and how it went.

The page needs nothing but itself: its plots are SVG within it.
"""

import html
import io
import json
import math
import os
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any, TextIO

from matplotlib.figure import Figure

from soak.folder import Ends, Folder
from soak.heap import judge_captures
from soak.run import SAMPLE_S
from soak.samples import Sample, grown, quantile
from soak.verdict import (
    Check,
    Figures,
    Outcome,
    figures,
    judge,
    judge_calls,
    judge_joins,
    judge_leaving,
    judge_listeners,
    judge_unheard,
)

_MARKS = {Outcome.PASSED: "✓", Outcome.FAILED: "✗", Outcome.UNKNOWN: "?"}
_MOST_POINTS = 2000  # a plot has no more pixels
_LATENCY_OVER = 12  # samples: a minute
# what a loop keeps for files and names
_POOL = min(32, (os.cpu_count() or 1) + 4)


def write_report(folder: Folder, out: TextIO) -> bool:
    """Write both, say the verdict, and return whether all is in order."""
    what = folder.what()
    samples = folder.samples()
    checks = _checks(folder, samples)
    passed = all(check.outcome is Outcome.PASSED for check in checks)
    try:
        found = figures(samples, folder.scenario.warm_up)
    except ValueError:
        found = None
    _write_json(folder, what, checks, found, passed)
    page = _page(what, samples, folder.events(), checks, found, passed)
    (folder.path / "report.html").write_text(page, encoding="utf-8")
    for check in checks:
        out.write(f"{_MARKS[check.outcome]} {check.what}: {check.found} ({check.limit})\n")
    out.write(f"{'in order' if passed else 'not in order'}; {folder.path}/report.html\n")
    return passed


def _checks(folder: Folder, samples: list[Sample]) -> list[Check]:
    what, scenario, ends = folder.what(), folder.scenario, folder.ends()
    samples = _to_the_last_word(samples, ends)
    return [
        _judge_length(samples, what["for_s"]),
        _judge_life(folder.events()),
        *judge(samples, scenario.limits, scenario.warm_up),
        *(judge_calls(samples) if scenario.calls.count else []),
        # a server elsewhere has other people, too; a call goes on before its reader comes
        *([] if what["url"] or scenario.calls.count else [judge_unheard(samples)]),
        judge_listeners(samples, scenario.readers),
        judge_joins(samples, scenario.speakers, scenario.joins_per_minute),
        *(check for end in ends for check in judge_leaving(end.before, end.after, _POOL)),
        *([] if ends else [Check("left at the end", "not seen", "nothing", Outcome.UNKNOWN)]),
        *(judge_captures(folder) if what["memray"] else []),
    ]


def _to_the_last_word(samples: list[Sample], ends: list[Ends]) -> list[Sample]:
    """The last of each part has what was told until it was over. Of one that was cut off, what was
    made since the sample before was still on its way."""
    last = {sample.part: number for number, sample in enumerate(samples)}
    whole = list(samples)
    for part in last.keys() - {end.part for end in ends}:
        at = last[part]
        made = samples[at - 1].finals if at and samples[at - 1].part == part else 0
        whole[at] = replace(whole[at], finals=made)
    for end in ends:
        if end.part in last:
            at, told = last[end.part], end.after
            whole[at] = replace(
                whole[at], finals=told.finals, reading=told.reading, in_calls=told.in_calls
            )
    return whole


def _judge_length(samples: list[Sample], for_s: float) -> Check:
    ran_s = samples[-1].at if samples else 0.0
    enough = ran_s >= for_s - 2 * SAMPLE_S
    found = f"{ran_s / 3600:.2f} of {for_s / 3600:.2f} h"
    return Check("length of the run", found, "all", Outcome.PASSED if enough else Outcome.UNKNOWN)


def _judge_life(events: list[dict[str, Any]]) -> Check:
    ended = sum(event["what"] == "the server ended" for event in events)
    outcome = Outcome.FAILED if ended else Outcome.PASSED
    return Check("the server ended by itself", f"{ended} times", "never", outcome)


def _write_json(
    folder: Folder,
    what: dict[str, Any],
    checks: list[Check],
    found: Figures | None,
    passed: bool,
) -> None:
    told = {
        **what,
        "passed": passed,
        "checks": [{**asdict(check), "outcome": check.outcome.value} for check in checks],
        "figures": None if found is None else _plain(asdict(found)),
        "events": folder.events(),
    }
    text = json.dumps(told, indent=2)
    (folder.path / "report.json").write_text(text, encoding="utf-8")


def _plain(figures: dict[str, Any]) -> dict[str, Any]:
    """JSON has no NaN."""
    return {n: None if isinstance(v, float) and math.isnan(v) else v for n, v in figures.items()}


def _page(
    what: dict[str, Any],
    samples: list[Sample],
    events: list[dict[str, Any]],
    checks: list[Check],
    found: Figures | None,
    passed: bool,
) -> str:
    rows = "".join(
        f'<tr class="{check.outcome.name.lower()}"><td>{_MARKS[check.outcome]} '
        f"{html.escape(check.what)}</td><td>{html.escape(check.found)}</td>"
        f"<td>{html.escape(check.limit)}</td><td>{check.outcome.value}</td></tr>"
        for check in checks
    )
    figures_rows = "".join(
        f"<tr><td>{html.escape(name.replace('_', ' '))}</td><td>{_number(value)}</td></tr>"
        for name, value in (asdict(found) if found is not None else {}).items()
    )
    return _PAGE.format(
        title=html.escape(what["scenario"]["title"]),
        verdict="In order" if passed else "Not in order",
        verdict_class="passed" if passed else "failed",
        machine=html.escape(what["machine"]),
        checks=rows,
        figures=figures_rows,
        plots=_plots(samples, events) if samples else "<p>No samples.</p>",
        scenario=html.escape(json.dumps(what["scenario"], indent=2)),
    )


def _number(value: float) -> str:
    return (
        "–" if math.isnan(value) else f"{value:,.3g}" if isinstance(value, float) else f"{value:,}"
    )


def _plots(samples: list[Sample], events: list[dict[str, Any]]) -> str:
    thinned = samples[:: max(1, len(samples) // _MOST_POINTS)]
    hours = [sample.at / 3600 for sample in thinned]
    lines: list[tuple[str, dict[str, Callable[[Sample], float]]]] = [
        ("private memory, MB", {"server": lambda s: s.server_mb, "worker": lambda s: s.worker_mb}),
        ("people", {"speakers": lambda s: s.speakers, "participants": lambda s: s.participants}),
        (
            "held by the server",
            {
                "tasks": lambda s: s.tasks,
                "sockets": lambda s: s.sockets,
                "files": lambda s: s.files,
                "threads": lambda s: s.threads,
            },
        ),
        (
            "queues",
            {
                "windows pending": lambda s: s.windows_pending,
                "windows queued": lambda s: s.windows_queued,
                "records to write": lambda s: s.store_pending,
            },
        ),
        (
            "lost, so far",
            {
                "seconds of audio": lambda s: s.lost_s,
                "finals missing": lambda s: s.reading.missing,
                "joins failed": lambda s: s.doing.failed,
                "finals missing in calls": lambda s: s.in_calls.missing,
                "calls failed": lambda s: s.doing.calls_failed,
            },
        ),
    ]
    figure = Figure(figsize=(11, 3 * (len(lines) + 2)), layout="constrained")
    plots = figure.subplots(len(lines) + 2, 1, sharex=True)
    for axes, (label, series) in zip(plots, lines, strict=False):
        for name, read in series.items():
            axes.plot(hours, [read(sample) for sample in thinned], label=name, linewidth=1)
        axes.set_ylabel(label)
        axes.legend(loc="upper left", fontsize=8)
    _draw_latency(plots[-2], samples)
    _draw_cores(plots[-1], samples)
    for axes in plots:
        axes.set_ylim(bottom=0)
        axes.grid(visible=True, alpha=0.3)
        for event in events:
            axes.axvline(event["at"] / 3600, color="tab:red", linewidth=0.5, alpha=0.5)
    plots[-1].set_xlabel("hours; red: what was done to the server")
    svg = io.StringIO()
    figure.savefig(svg, format="svg")
    text = svg.getvalue()
    return text[text.index("<svg") :]


def _draw_latency(axes: Any, samples: list[Sample]) -> None:
    ends = samples[_LATENCY_OVER::_LATENCY_OVER]
    pairs = list(zip(samples[::_LATENCY_OVER], ends, strict=False))
    hours = [after.at / 3600 for _, after in pairs]
    for name, share in (("p50", 0.5), ("p95", 0.95)):
        first = [quantile(grown(b.first_text, a.first_text), share) for a, b in pairs]
        final = [quantile(grown(b.final, a.final), share) for a, b in pairs]
        axes.plot(hours, first, label=f"first text {name}", linewidth=1)
        axes.plot(hours, final, label=f"end to final {name}", linewidth=1)
    axes.set_ylabel("seconds, by the minute")
    axes.legend(loc="upper left", fontsize=8)


def _draw_cores(axes: Any, samples: list[Sample]) -> None:
    pairs = [
        (a, b)
        for a, b in zip(
            samples[::_LATENCY_OVER], samples[_LATENCY_OVER::_LATENCY_OVER], strict=False
        )
        if a.part == b.part and b.at > a.at
    ]
    hours = [b.at / 3600 for _, b in pairs]
    server = [(b.server_cpu_s - a.server_cpu_s) / (b.at - a.at) for a, b in pairs]
    worker = [
        (b.worker_cpu_s - a.worker_cpu_s) / (b.at - a.at)
        if a.worker_pid == b.worker_pid
        else math.nan
        for a, b in pairs
    ]
    axes.plot(hours, server, label="server", linewidth=1)
    axes.plot(hours, worker, label="worker", linewidth=1)
    axes.set_ylabel("cores")
    axes.legend(loc="upper left", fontsize=8)


_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>Soak: {title}</title>
<style>
body {{ font: 15px/1.5 system-ui, sans-serif; max-width: 70rem }}
body {{ margin: 2rem auto; padding: 0 1rem }}
table {{ border-collapse: collapse; margin: 1rem 0 }}
td, th {{ padding: .3rem .8rem; border-bottom: 1px solid #ddd; text-align: left }}
.failed td:first-child, strong.failed {{ color: #b00020 }}
.passed td:first-child, strong.passed {{ color: #1b6e2d }}
.unknown td:first-child {{ color: #8a5a00 }}
svg {{ max-width: 100%; height: auto }}
</style>
<h1>{title}</h1>
<p><strong class="{verdict_class}">{verdict}</strong>. {machine}</p>
<h2>Verdict</h2>
<table><tr><th>what</th><th>found</th><th>limit</th><th></th></tr>{checks}</table>
<h2>Figures</h2>
<table>{figures}</table>
<h2>How it went</h2>
{plots}
<h2>Scenario</h2>
<pre>{scenario}</pre>
</html>
"""
