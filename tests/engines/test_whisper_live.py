"""The tiny model behind the real pipeline: voice activity, windows, the worker's process."""

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.speech import silence, write_wav
from tests.tiny import MODEL, say
from transcriber import calibrate
from transcriber import evaluate as evaluation
from transcriber.engines import EngineOptions
from transcriber.errors import EngineError
from transcriber.evaluate import evaluate
from transcriber.process import WorkerProcess
from transcriber.recordings import Recording, chunks, word_errors
from transcriber.stream import Hearing, SpeakerStream
from transcriber.types import SAMPLE_RATE, Caption, Gap, Samples, StreamId
from transcriber.vad import SileroVad

pytestmark = pytest.mark.slow

OPTIONS = EngineOptions("whisper", str(MODEL), auto_download=False)
SENTENCES = (
    ("please send the quick report", "slt"),
    ("robert will open the window on friday", "rms"),
    ("we meet in tokyo on monday at seven", "awb"),
    ("my paper is orange and your ticket is late", "kal16"),
)


@asynccontextmanager
async def worker() -> AsyncIterator[WorkerProcess]:
    engine = WorkerProcess(OPTIONS)
    running = asyncio.create_task(engine.run(), name="engine under test")
    try:
        async with asyncio.timeout(30):
            await engine.ready.wait()
        yield engine
    finally:
        running.cancel()
        await asyncio.wait({running})


class Reader:
    """One speaker, and what is read of them."""

    def __init__(self, engine: WorkerProcess, name: str, language: str = "en") -> None:
        self.captions: list[Caption] = []
        self.gaps: list[Gap] = []
        self.stream = SpeakerStream(
            StreamId(f"room/{name}"),
            engine,
            SileroVad(),
            Hearing(language, ("en", "fr")),
            self._note,
            asyncio.get_running_loop().time,
        )
        self._at = 0

    async def hear(self, samples: Samples) -> None:
        """At the pace of speech."""
        loop = asyncio.get_running_loop()
        for _, chunk in chunks(samples, SAMPLE_RATE // 10):
            self.stream.push(self._at, chunk, loop.time())
            self._at += len(chunk)
            await asyncio.sleep(len(chunk) / SAMPLE_RATE)

    @property
    def finals(self) -> list[str]:
        return [c.stable for c in self.captions if c.is_final]

    def _note(self, said: Caption | Gap) -> None:
        if isinstance(said, Caption):
            self.captions.append(said)
        else:
            self.gaps.append(said)


async def test_several_at_once_are_understood_and_all_of_their_audio_is_accounted_for() -> None:
    recordings = [
        Recording(voice, np.concatenate([silence(0.4), say(text, voice).samples]), text, "en")
        for text, voice in SENTENCES
    ]
    found, heard = await evaluate(recordings, OPTIONS, speed=1.0, speakers=4)
    assert found.word_error_rate <= 0.08, [(h.said, h.text) for h in heard]
    assert found.coverage.get("pending", 0.0) == 0.0
    assert sum(found.coverage.values()) == pytest.approx(1.0, abs=0.001)
    assert found.coverage["transcribed"] > 0.5
    assert all(h.first_text_s and h.final_s for h in heard)


async def test_a_worker_killed_in_mid_sentence_loses_no_final() -> None:
    async with worker() as engine:
        reader = Reader(engine, "ada")
        said = say(*SENTENCES[1])
        half = len(said.samples) // 2
        await reader.hear(np.concatenate([silence(0.4), said.samples[:half]]))
        assert engine.pid is not None
        os.kill(engine.pid, signal.SIGKILL)
        await reader.hear(np.concatenate([said.samples[half:], silence(1.0)]))
        async with asyncio.timeout(30):
            await reader.stream.drain()
        assert engine.restarts == 1
        (final,) = reader.finals
        errors, words = word_errors(said.text, final)
        assert errors <= words // 4
        assert reader.gaps == []
        assert reader.stream.fates.dropped == {}
        reader.stream.close()


async def test_a_speaker_whose_language_is_detected_is_written_in_it() -> None:
    async with worker() as engine:
        english, french = Reader(engine, "ada", "auto"), Reader(engine, "marie", "auto")
        one, other = say(*SENTENCES[0]), say("la voiture est rouge vendredi", "fr")
        await asyncio.gather(
            english.hear(np.concatenate([silence(0.4), one.samples, silence(1.0)])),
            french.hear(np.concatenate([silence(0.4), other.samples, silence(1.0)])),
        )
        for reader, language in ((english, "en"), (french, "fr")):
            async with asyncio.timeout(30):
                await reader.stream.drain()
            assert [c.language for c in reader.captions if c.is_final] == [language]
            reader.stream.close()
        assert word_errors(other.text, french.finals[0])[0] <= 1


def recorded(folder: Path) -> tuple[Path, Path]:
    """A recording of all sentences, with pauses that end each."""
    said = [say(text, voice).samples for text, voice in SENTENCES]
    sound = np.concatenate([piece for one in said for piece in (one, silence(0.8))])
    text = folder / "said.txt"
    text.write_text(" ".join(text for text, _ in SENTENCES), encoding="utf-8")
    return write_wav(folder / "said.wav", sound, SAMPLE_RATE), text


def test_a_calibration_says_what_a_short_context_costs_and_saves(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    audio, text = recorded(tmp_path)
    found = tmp_path / "found.json"
    assert calibrate.main(audio, text, OPTIONS, write_to=found) == 0
    rows = json.loads(found.read_text())
    assert [row["least_s"] for row in rows] == [None, 20.0, 12.0, 8.0, 5.0, 3.0, 2.0]
    full, *_, shortest = rows
    assert full["word_error_rate"] <= 0.08
    assert shortest["word_error_rate"] <= 0.08
    assert shortest["windows_per_s"] > full["windows_per_s"]
    told = capsys.readouterr().out
    assert "4 utterances" in told
    assert "TRANSCRIBER__WHISPER__SHORT_CONTEXT=on" in told


def test_a_recording_in_which_nobody_speaks_cannot_calibrate(tmp_path: Path) -> None:
    text = tmp_path / "said.txt"
    text.write_text("nothing")
    audio = write_wav(tmp_path / "said.wav", silence(2.0), SAMPLE_RATE)
    with pytest.raises(EngineError, match="nobody speaks"):
        calibrate.main(audio, text, OPTIONS, write_to=None)


def test_an_evaluation_is_a_table_for_people_and_json_for_machines(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    audio, _ = recorded(tmp_path)
    found = tmp_path / "found.json"
    options = replace(OPTIONS, short_context="on")
    assert evaluation.main(tmp_path, options, speed=4.0, speakers=4, write_to=found) == 0
    result = json.loads(found.read_text())
    assert result["recordings"] == 1
    assert result["word_error_rate"] <= 0.1
    assert result["final_s"][0] > 0
    assert result["each"][0]["name"] == audio.stem
    told = capsys.readouterr().out
    assert "word error rate" in told
    assert "first text" in told
