"""`python -m transcriber calibrate AUDIO TEXT`: whether a short context does for a model.

Hears the same windows with the full context of 30 s and with ever shorter ones, and says what
each costs in words and in time; so that `TRANSCRIBER__WHISPER__SHORT_CONTEXT` can be decided.
"""

import json
import logging
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from transcriber.engines import EngineOptions, tell_nobody
from transcriber.engines.whisper import WhisperEngine
from transcriber.errors import EngineError
from transcriber.recordings import Recording, read, word_errors
from transcriber.segmenter import Segmenter
from transcriber.types import StreamId, Window
from transcriber.vad import FRAME_SAMPLES, SileroVad

_LEAST_S = (20.0, 12.0, 8.0, 5.0, 3.0, 2.0)


@dataclass(frozen=True, slots=True)
class Row:
    """`least_s` is None for the full context."""

    least_s: float | None
    word_error_rate: float
    windows_per_s: float


def main(audio: Path, text: Path, options: EngineOptions, *, write_to: Path | None) -> int:
    """Raises `TranscriberError`."""
    if options.engine not in ("auto", "whisper"):
        raise EngineError("only Whisper has a context to shorten: --engine whisper")
    logging.getLogger().setLevel(logging.WARNING)
    options = replace(options, engine="whisper")
    recording = read(audio, text, options.language)
    windows = cut(recording)
    rows = []
    print(f"{len(windows)} utterances\n{'least context':>14} {'word errors':>12} {'windows/s':>10}")  # noqa: T201
    for least_s in (None, *_LEAST_S):
        row = measure(recording, windows, options, least_s)
        rows.append(row)
        context = "full (30 s)" if least_s is None else f"{least_s:.0f} s"
        times = row.windows_per_s / rows[0].windows_per_s
        print(  # noqa: T201
            f"{context:>14} {row.word_error_rate:12.1%} {row.windows_per_s:10.2f}"
            + (f"  {times:.1f} times the full one's" if least_s else ""),
            flush=True,
        )
    print(advice(rows))  # noqa: T201
    if write_to is not None:
        write_to.write_text(json.dumps([asdict(row) for row in rows], indent=2) + "\n")
    return 0


def cut(recording: Recording) -> list[Window]:
    """The utterances of a recording, as a speaker's would be cut. Raises `EngineError`."""
    segmenter, vad = Segmenter(), SileroVad()
    cuts = segmenter.restart(0)
    for start in range(0, len(recording.samples), FRAME_SAMPLES):
        piece = recording.samples[start : start + FRAME_SAMPLES]
        cuts += segmenter.push(piece, vad.push(piece))
    cuts += segmenter.finish()
    if not cuts:
        raise EngineError("nobody speaks in this recording")
    return [
        Window(
            StreamId(f"calibrate/{number}"),
            each.utterance,
            1,
            each.start_sample,
            each.samples,
            is_final=True,
            language=recording.language,
        )
        for number, each in enumerate(cuts)
    ]


def measure(
    recording: Recording, windows: list[Window], options: EngineOptions, least_s: float | None
) -> Row:
    """Raises `EngineError`."""
    engine = WhisperEngine(
        replace(
            options,
            short_context="off" if least_s is None else "on",
            short_context_min_s=least_s or options.short_context_min_s,
        )
    )
    engine.load(tell_nobody)
    engine.warm_up()
    texts: dict[int, str] = {}
    began = time.perf_counter()
    waiting = sorted(windows, key=lambda w: len(w.samples))
    while waiting:
        kind = engine.kind(waiting[0])
        batch = [w for w in waiting if engine.kind(w) == kind][: engine.batch_limit]
        taken = {w.stream for w in batch}
        waiting = [w for w in waiting if w.stream not in taken]
        for window, heard in zip(batch, engine.transcribe(batch), strict=True):
            texts[window.start_sample] = heard.text
    took_s = time.perf_counter() - began
    engine.close()
    heard_text = " ".join(texts[start] for start in sorted(texts))
    errors, count = word_errors(recording.text, heard_text)
    return Row(least_s, round(errors / count, 4), round(len(windows) / took_s, 3))


def advice(rows: list[Row]) -> str:
    """The shortest context that costs at most one word in a hundred more."""
    full, *short = rows
    good = [r for r in short if r.word_error_rate <= full.word_error_rate + 0.01]
    if not good or good[-1].least_s is None:
        return "Leave TRANSCRIBER__WHISPER__SHORT_CONTEXT off: every shorter context costs words."
    best = good[-1]
    return (
        "At most one word in a hundred more is wrong with TRANSCRIBER__WHISPER__SHORT_CONTEXT=on "
        f"and TRANSCRIBER__WHISPER__SHORT_CONTEXT_MIN_S={best.least_s:.0f}"
    )
