"""`make bench-asr`: many speakers on one engine, beside the usual ways, in one run.

Three questions. How many windows a second, and how late, for 1 to 32 who talk at once: ours
(the worker's process, its scheduler and batches) against one speaker after another behind a
lock, and, where it is installed, WhisperX's own pipeline behind one. How soon people read, with
eight who talk. And what becomes of interims and finals at three times the load that fits.
"""

import argparse
import asyncio
import importlib.util
import json
import os
import platform
import random
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from tools.random_whisper import TINY, make
from tools.tiny_whisper.synth import Voice, synthesise
from tools.tiny_whisper.words import distinct_sentences
from transcriber.engines import EngineOptions
from transcriber.engines.whisper import engine_threads
from transcriber.evaluate import Result, evaluate
from transcriber.process import WorkerProcess
from transcriber.recordings import Recording, chunks
from transcriber.segmenter import SPEECH
from transcriber.types import SAMPLE_RATE, Hypothesis, Samples, StreamId, Window
from transcriber.vad import SileroVad

_VOICES = ("slt", "rms", "awb", "kal16", "en-us", "en-us+f2", "en-us+m3")
_PAUSE_S = 0.35
_TALKERS = (1, 2, 4, 8, 16, 32)
_FINAL_EVERY = 4  # three interims, then the final of the utterance
_LENGTHS_S = (1.0, 2.0, 3.0, 4.0)
_LIVE_TALKERS = 8
_OVERLOAD = 3.0


@dataclass(frozen=True, slots=True)
class Row:
    model: str
    way: str
    talkers: int
    windows_per_s: float
    latency_s: tuple[float, float]  # median, 95th percentile


class Tally:
    """Latencies of what was answered within the time."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._began = time.perf_counter()
        self._latencies: list[float] = []

    @property
    def is_over(self) -> bool:
        return time.perf_counter() - self._began >= self._seconds

    def add(self, latency_s: float) -> None:
        self._latencies.append(latency_s)

    def row(self, model: str, way: str, talkers: int) -> Row:
        took_s = time.perf_counter() - self._began
        median, late = np.quantile(self._latencies, [0.5, 0.95])
        return Row(
            model,
            way,
            talkers,
            round(len(self._latencies) / took_s, 2),
            (round(float(median), 3), round(float(late), 3)),
        )


class Talk:
    """What one talker says, window by window: an utterance that grows, then its final."""

    def __init__(self, speech: Samples, number: int) -> None:
        self._speech = speech
        self._stream = StreamId(f"bench/{number}")
        self._count = number % _FINAL_EVERY  # not all at the same place

    def next(self) -> Window:
        step, utterance = self._count % _FINAL_EVERY, self._count // _FINAL_EVERY
        self._count += 1
        start = utterance * 5 * SAMPLE_RATE % max(1, len(self._speech) - 5 * SAMPLE_RATE)
        samples = self._speech[start : start + round(_LENGTHS_S[step] * SAMPLE_RATE)]
        is_final = step == _FINAL_EVERY - 1
        return Window(self._stream, utterance, self._count, start, samples, is_final, "en")


async def ours(model: str, options: EngineOptions, talkers: int, seconds: float) -> Row:
    """Each talker asks for the next window as soon as the one before is answered."""
    engine = WorkerProcess(options)
    running = asyncio.create_task(engine.run())
    speech = _speech(talkers)
    try:
        await engine.ready.wait()
        tally = Tally(seconds)
        over = asyncio.Event()

        def start(talk: Talk, number: int) -> None:
            asked = 0.0

            def ask() -> None:
                nonlocal asked
                asked = time.perf_counter()
                engine.offer(talk.next())

            def answered(_hypothesis: Hypothesis) -> None:
                if tally.is_over:
                    over.set()
                    return
                tally.add(time.perf_counter() - asked)
                ask()

            engine.attach(StreamId(f"bench/{number}"), answered)
            ask()

        for number in range(talkers):
            start(Talk(speech[number], number), number)
        await over.wait()
        way = "ours, short context" if options.short_context == "on" else "ours"
        return tally.row(model, way, talkers)
    finally:
        running.cancel()
        await asyncio.wait({running})


def behind_a_lock(
    model: str, way: str, hear: Callable[[Window], None], talkers: int, seconds: float
) -> Row:
    """A thread for each talker, and one call at a time."""
    lock = threading.Lock()
    speech = _speech(talkers)
    hear(Talk(speech[0], 0).next())  # what is made on first use
    tally = Tally(seconds)

    def run(number: int) -> None:
        talk = Talk(speech[number], number)
        while not tally.is_over:
            asked = time.perf_counter()
            window = talk.next()
            with lock:
                if tally.is_over:
                    return
                hear(window)
            tally.add(time.perf_counter() - asked)

    threads = [threading.Thread(target=run, args=(n,)) for n in range(talkers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return tally.row(model, way, talkers)


def faster_whisper_call(folder: Path, options: EngineOptions) -> Callable[[Window], None]:
    """As most servers call it."""
    from faster_whisper import WhisperModel

    loaded = WhisperModel(
        str(folder),
        device="cpu",
        compute_type="int8",
        cpu_threads=engine_threads(options),
        local_files_only=True,
    )

    def hear(window: Window) -> None:
        segments, _ = loaded.transcribe(
            window.samples.astype(np.float32) / 32_768,
            language="en",
            beam_size=options.beams if window.is_final else 1,
            word_timestamps=window.is_final,
            temperature=0.0,
            condition_on_previous_text=False,
            without_timestamps=True,
            # as many as ours takes: random weights would go on for ever
            max_new_tokens=16 + round(12 * len(window.samples) / SAMPLE_RATE),
        )
        for _segment in segments:
            pass

    return hear


def whisperx_call(folder: Path, options: EngineOptions) -> Callable[[Window], None]:
    """WhisperX's own pipeline, with its voice activity detection."""
    import whisperx

    pipeline = whisperx.load_model(
        str(folder),
        device="cpu",
        compute_type="int8",
        language="en",
        threads=engine_threads(options),
        local_files_only=True,
        asr_options={"beam_size": options.beams},
    )

    def hear(window: Window) -> None:
        pipeline.transcribe(window.samples.astype(np.float32) / 32_768, batch_size=8)

    return hear


def _speech(talkers: int) -> list[Samples]:
    """Half a minute for each; made once."""
    while len(_made) < talkers:
        number = len(_made)
        pieces = [r.samples for r in _recordings(1, 8, seed=number)]
        _made.append(np.concatenate(pieces))
    return _made[:talkers]


_made: list[Samples] = []


def _recordings(talkers: int, sentences: int, seed: int = 0) -> list[Recording]:
    """Sentences of the words that the tiny model knows, a voice for each talker."""
    rng = random.Random(seed)
    texts = distinct_sentences(talkers * sentences, 2 + seed, "en")
    recordings = []
    for number in range(talkers * sentences):
        voice = _VOICES[(number % talkers + seed) % len(_VOICES)]
        said = synthesise(texts[number], Voice(voice))
        pause = np.zeros(round(rng.uniform(0.5, 1.5) * _PAUSE_S * SAMPLE_RATE), np.int16)
        recordings.append(
            Recording(
                f"{voice} {number}", np.concatenate([pause, said.samples]), texts[number], "en"
            )
        )
    return recordings


def _say(row: Row) -> None:
    median, late = row.latency_s
    print(  # noqa: T201 - the answer to a command
        f"{row.model:14} {row.way:22} {row.talkers:7} {row.windows_per_s:10.2f} "
        f"{median:9.2f} {late:9.2f}",
        flush=True,
    )


def throughput(folder: Path, name: str, seconds: float, talkers: tuple[int, ...]) -> list[Row]:
    rows = []
    full = EngineOptions("whisper", str(folder), auto_download=False, short_context="off")
    short = EngineOptions(
        "whisper", str(folder), auto_download=False, short_context="on", short_context_min_s=5.0
    )
    calls = {"one by one": faster_whisper_call(folder, full)}
    if importlib.util.find_spec("whisperx") is not None:
        calls["WhisperX's pipeline"] = whisperx_call(folder, full)
    for count in talkers:
        for options in (short, full):
            rows.append(asyncio.run(ours(name, options, count, seconds)))
            _say(rows[-1])
        for way, hear in calls.items():
            rows.append(behind_a_lock(name, way, hear, count, seconds))
            _say(rows[-1])
    return rows


@dataclass(frozen=True, slots=True)
class Gate:
    """What the gate before Silero saves, and what it misses."""

    noise: str
    skipped: float  # share of all frames
    missed: float  # share of the frames in which Silero alone hears speech


def gate(noise_db: float | None) -> Gate:
    """Sentences with pauses, and noise so far below the speech."""
    rng = np.random.default_rng(3)
    pieces: list[Samples] = []
    for recording in _recordings(len(_VOICES), 3, seed=7):
        pause = np.zeros(round(rng.uniform(1.0, 3.0) * SAMPLE_RATE), np.int16)
        pieces += [recording.samples, pause]
    sound = np.concatenate(pieces).astype(np.float64)
    if noise_db is not None:
        level = np.sqrt(np.mean(sound[sound != 0] ** 2)) * 10 ** (-noise_db / 20)
        sound += rng.normal(0, level, len(sound))
    samples = np.clip(sound, -32_768, 32_767).astype(np.int16)
    behind, alone = SileroVad(), SileroVad(gate_rms=0.0)
    heard, spoken = 0, 0
    for _, chunk in chunks(samples, SAMPLE_RATE // 10):
        for gated, ungated in zip(behind.push(chunk), alone.push(chunk), strict=True):
            spoken += ungated >= SPEECH
            heard += ungated >= SPEECH and gated >= SPEECH
    noise = "none" if noise_db is None else f"{noise_db:.0f} dB below speech"
    skipped = behind.frames_skipped / behind.frames_seen
    return Gate(noise, round(skipped, 4), round(1 - heard / spoken, 4))


def _say_gate(found: Gate) -> None:
    print(  # noqa: T201
        f"gate before Silero, noise {found.noise}: {found.skipped:.1%} of all frames skipped, "
        f"{found.missed:.2%} of those with speech missed",
        flush=True,
    )


def live(talkers: int, sentences: int, short: str) -> Result:
    """Through the real pipeline at the pace of speech."""
    options = EngineOptions("whisper", str(TINY), auto_download=False, short_context=short)
    found, _ = asyncio.run(
        evaluate(_recordings(talkers, sentences), options, speed=1.0, speakers=talkers)
    )
    return found


def _say_live(what: str, found: Result) -> None:
    lost = {name: share for name, share in found.coverage.items() if share}
    print(  # noqa: T201
        f"{what}: {found.speakers} talkers, word error rate {found.word_error_rate:.1%}, "
        f"first text {found.first_text_s[0]:.2f} / {found.first_text_s[1]:.2f} s, "
        f"final {found.final_s[0]:.2f} / {found.final_s[1]:.2f} s after speech, "
        f"captions every {found.interim_every_s[0]:.2f} / {found.interim_every_s[1]:.2f} s, "
        f"audio {lost}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tools.bench_asr", description=__doc__)
    parser.add_argument("--seconds", type=float, default=15.0, help="for each line")
    parser.add_argument("--talkers", default=",".join(map(str, _TALKERS)))
    parser.add_argument("--sentences", type=int, default=6, help="of each talker, live")
    parser.add_argument("--sizes", default="tiny,base", help="random weights; empty for none")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    talkers = tuple(int(n) for n in given.talkers.split(","))

    print(f"{'model':14} {'way':22} {'talkers':>7} {'windows/s':>10} {'median s':>9} {'p95 s':>9}")  # noqa: T201
    rows = throughput(TINY, "trained tiny", given.seconds, talkers)
    with tempfile.TemporaryDirectory() as folder:
        for size in filter(None, given.sizes.split(",")):
            model = make(size, Path(folder) / size)
            few = tuple(n for n in talkers if n in (1, 8, 16))
            rows += throughput(model, f"random {size}", given.seconds, few)

    print()  # noqa: T201
    gates = [gate(noise_db) for noise_db in (None, 40.0, 30.0, 20.0, 10.0)]
    for each in gates:
        _say_gate(each)
    at_ease = live(_LIVE_TALKERS, given.sentences, "on")
    _say_live("\nlive, short context", at_ease)
    fits = max(r.windows_per_s for r in rows if (r.model, r.way) == ("trained tiny", "ours"))
    # a talker who is heard at the pace of speech asks for two interims a second, and finals
    many = max(2, round(_OVERLOAD * fits / 2.3))
    overloaded = live(many, given.sentences, "off")
    _say_live("three times what fits, full context", overloaded)

    if given.json is not None:
        found = {
            "machine": f"{os.cpu_count()} processors, {platform.platform()}",
            "rows": [asdict(row) for row in rows],
            "gate": [asdict(each) for each in gates],
            "live": asdict(at_ease),
            "overloaded": asdict(overloaded),
        }
        given.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
