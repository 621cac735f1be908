"""`python -m transcriber evaluate DIR`: how well and how soon an engine understands.

Streams recordings through the real pipeline, several speakers at once: voice activity, windows,
the worker's process, agreement, filters. Reports what people would have read, and when.
"""

import asyncio
import json
import logging
import math
import sys
import time
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from transcriber.account import Fates
from transcriber.engines import EngineOptions
from transcriber.errors import EngineError
from transcriber.process import WorkerProcess
from transcriber.recordings import Recording, chunks, read_folder, word_errors
from transcriber.stream import Hearing, SpeakerStream
from transcriber.types import (
    SAMPLE_RATE,
    Caption,
    EngineState,
    EngineStatus,
    Gap,
    Samples,
    StreamId,
)
from transcriber.vad import SileroVad

_CHUNK_S = 0.1
_PAUSE_S = 1.0  # of silence between recordings, so that each ends
_LOADED_WITHIN_S = 3600.0  # a model may have to be fetched
_FLUSHED_WITHIN_S = 60.0


@dataclass(slots=True)
class Heard:
    """What came of one recording."""

    name: str
    said: str
    text: str = ""
    errors: int = 0
    words: int = 0
    first_text_s: list[float] = field(default_factory=list)
    final_s: list[float] = field(default_factory=list)
    interim_every_s: list[float] = field(default_factory=list)
    shown: int = 0
    taken_back: int = 0


@dataclass(frozen=True, slots=True)
class Result:
    engine: str
    model: str
    speed: float
    speakers: int
    recordings: int
    audio_s: float
    word_error_rate: float
    first_text_s: tuple[float, float]  # median, 95th percentile
    final_s: tuple[float, float]
    interim_every_s: tuple[float, float]  # between captions of one utterance
    taken_back_per_word: float
    coverage: dict[str, float]  # share of the audio by fate; sums to 1
    never_said: dict[str, int]
    vad_skipped: float  # share of frames that the gate kept from Silero


def main(
    folder: Path, options: EngineOptions, *, speed: float, speakers: int, write_to: Path | None
) -> int:
    """Raises `TranscriberError`."""
    logging.getLogger().setLevel(logging.WARNING)
    recordings = read_folder(folder, options.language)
    result, heard = asyncio.run(evaluate(recordings, options, speed=speed, speakers=speakers))
    print(table(result, heard))  # noqa: T201 - the answer to a command
    if write_to is not None:
        everything = {**asdict(result), "each": [asdict(one) for one in heard]}
        write_to.write_text(json.dumps(everything, indent=2) + "\n", encoding="utf-8")
    return 0


async def evaluate(
    recordings: list[Recording], options: EngineOptions, *, speed: float, speakers: int
) -> tuple[Result, list[Heard]]:
    """Raises `EngineError`."""
    loading = _Loading()
    engine = WorkerProcess(options, on_status=loading.note)
    running = asyncio.create_task(engine.run(), name="engine")
    try:
        await loading.done(engine)
        turns = [_Speaker(n, engine, options, speed) for n in range(min(speakers, len(recordings)))]
        shares = [recordings[n :: len(turns)] for n in range(len(turns))]
        progress = _Progress(sum(len(r.samples) for r in recordings))
        await asyncio.gather(
            *(turn.run(share, progress) for turn, share in zip(turns, shares, strict=True))
        )
        progress.end()
    finally:
        running.cancel()
        await asyncio.wait({running})
    heard = [one for turn in turns for one in turn.heard]
    return _result(engine, options, speed, turns, recordings), heard


class _Speaker:
    """Speaks recordings one after the other, and notes what is read of them."""

    def __init__(
        self, number: int, engine: WorkerProcess, options: EngineOptions, speed: float
    ) -> None:
        self._engine = engine
        self._speed = speed
        self.heard: list[Heard] = []
        self.never_said: Counter[str] = Counter()
        self._at = 0
        self._shown: tuple[int, float] = (0, 0.0)  # utterance, and when it was shown last
        self._languages = engine.status.info.languages
        self._stream = SpeakerStream(
            StreamId(f"evaluate/{number}"),
            engine,
            SileroVad(),
            Hearing(options.language, self._languages),
            self._note,
            time.monotonic,
            on_never_said=lambda reason: self.never_said.update([reason.value]),
        )

    @property
    def fates(self) -> Fates:
        return self._stream.fates

    @property
    def frames(self) -> tuple[int, int]:
        return self._stream.frames

    async def run(self, recordings: list[Recording], progress: "_Progress") -> None:
        silence = np.zeros(round(_PAUSE_S * SAMPLE_RATE), np.int16)
        for recording in recordings:
            self.heard.append(Heard(recording.name, recording.text))
            self._stream.set_language(recording.language)
            await self._speak(np.concatenate([recording.samples, silence]))
            async with asyncio.timeout(_FLUSHED_WITHIN_S):
                await self._stream.drain()
            heard = self.heard[-1]
            heard.errors, heard.words = word_errors(recording.text, heard.text)
            progress.add(len(recording.samples))
        self._stream.close()

    async def _speak(self, samples: Samples) -> None:
        began, spoken_s = time.monotonic(), 0.0
        for _, chunk in chunks(samples, round(_CHUNK_S * SAMPLE_RATE)):
            spoken_s += len(chunk) / SAMPLE_RATE / self._speed
            # as a packet does, a chunk comes when its last sample was spoken
            await asyncio.sleep(max(0.0, began + spoken_s - time.monotonic()))
            self._stream.push(self._at, chunk, time.monotonic())
            self._at += len(chunk)

    def _note(self, said: Caption | Gap) -> None:
        if isinstance(said, Gap):
            return
        heard = self.heard[-1]
        if said.is_final:
            heard.text = f"{heard.text} {said.stable}".strip()
        if said.timing.first_text_s is not None:
            heard.first_text_s.append(said.timing.first_text_s)
        if said.timing.final_s is not None and said.is_final:
            heard.final_s.append(said.timing.final_s)
        now, (utterance, before) = time.monotonic(), self._shown
        if utterance == said.utterance and not said.is_final:
            heard.interim_every_s.append(now - before)
        self._shown = said.utterance, now
        heard.shown += said.timing.words_shown
        heard.taken_back += said.timing.words_taken_back


class _Loading:
    """Says what the engine is at until it is ready."""

    def __init__(self) -> None:
        self._changed = asyncio.Event()
        self._is_tty = sys.stderr.isatty()

    def note(self, status: EngineStatus) -> None:
        self._changed.set()
        if self._is_tty and status.state is not EngineState.READY:
            share = "" if status.progress is None else f" {status.progress:.0%}"
            print(f"engine: {status.state.value}{share}", file=sys.stderr)  # noqa: T201

    async def done(self, engine: WorkerProcess) -> None:
        """Raises `EngineError` where it will not get ready."""
        async with asyncio.timeout(_LOADED_WITHIN_S):
            while not engine.ready.is_set():
                self._changed.clear()
                if engine.status.state is EngineState.FAILED:
                    raise EngineError("the engine cannot start; its reason is above")
                await self._changed.wait()


class _Progress:
    def __init__(self, samples: int) -> None:
        self._all, self._done = samples, 0
        self._is_tty = sys.stderr.isatty()

    def add(self, samples: int) -> None:
        self._done += samples
        if self._is_tty:
            sys.stderr.write(f"\r{self._done / self._all:4.0%} of the audio")

    def end(self) -> None:
        if self._is_tty:
            sys.stderr.write("\n")


def _result(
    engine: WorkerProcess,
    options: EngineOptions,
    speed: float,
    turns: list[_Speaker],
    recordings: list[Recording],
) -> Result:
    heard = [one for turn in turns for one in turn.heard]
    fates = Fates()
    for turn in turns:
        fates = fates.plus(turn.fates)
    named = {
        "transcribed": fates.transcribed,
        "silence": fates.silence,
        "pending": fates.pending,
        **{reason.value: samples for reason, samples in fates.dropped.items()},
    }
    seen = sum(turn.frames[0] for turn in turns)
    skipped = sum(turn.frames[1] for turn in turns)
    info = engine.status.info
    return Result(
        info.name,
        info.model,
        speed,
        len(turns),
        len(recordings),
        round(sum(len(r.samples) for r in recordings) / SAMPLE_RATE, 1),
        _share(sum(h.errors for h in heard), sum(h.words for h in heard)),
        _quantiles([s for h in heard for s in h.first_text_s]),
        _quantiles([s for h in heard for s in h.final_s]),
        _quantiles([s for h in heard for s in h.interim_every_s]),
        _share(sum(h.taken_back for h in heard), sum(h.shown for h in heard)),
        {name: _share(samples, fates.received) for name, samples in named.items()},
        dict(sum((turn.never_said for turn in turns), Counter[str]())),
        _share(skipped, seen),
    )


def _share(part: int, whole: int) -> float:
    return round(part / whole, 4) if whole else 0.0


def _quantiles(values: list[float]) -> tuple[float, float]:
    if not values:
        return math.nan, math.nan
    median, late = np.quantile(values, [0.5, 0.95])
    return round(float(median), 3), round(float(late), 3)


def table(result: Result, heard: list[Heard]) -> str:
    """For a person to read."""
    lines = [f"{'recording':24} {'words':>6} {'wrong':>6}"]
    lines += [f"{h.name[:24]:24} {h.words:6} {h.errors:6}" for h in heard]
    coverage = ", ".join(f"{name} {share:.1%}" for name, share in result.coverage.items() if share)
    rows = {
        "engine": f"{result.engine} {result.model}",
        "audio": f"{result.audio_s} s by {result.speakers} at once, {result.speed:g} times as fast",
        "word error rate": f"{result.word_error_rate:.1%}",
        "first text": "{:.2f} s, 95th percentile {:.2f} s".format(*result.first_text_s),
        "speech end to final": "{:.2f} s, 95th percentile {:.2f} s".format(*result.final_s),
        "captions every": "{:.2f} s, 95th percentile {:.2f} s".format(*result.interim_every_s),
        "words taken back": f"{result.taken_back_per_word:.3f} for each shown",
        "where the audio went": coverage,
        "text never said": str(sum(result.never_said.values())),
        "frames not judged": f"{result.vad_skipped:.1%} were too quiet to ask Silero",
    }
    return "\n".join([*lines, "", *(f"{name:22} {value}" for name, value in rows.items())])
