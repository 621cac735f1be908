"""CMU pocketsphinx: English, its model inside its wheel, no download.

Decodes window by window at about a tenth of real time on one core. Good on clear
sentences, poor on free speech.
"""

import re
from collections.abc import Hashable, Sequence
from typing import Any

from transcriber.engines import Tell
from transcriber.errors import EngineError, EngineUnavailable
from transcriber.types import SAMPLE_RATE, EngineInfo, Hypothesis, Window, Word
from transcriber.vad import SILENCE_RMS, rms

_FRAME_SAMPLES = SAMPLE_RATE // 100  # its frame rate is 100 a second
_VARIANT = re.compile(r"\(\d+\)$")  # "and(2)": another pronunciation of "and"
_NO_WORD = re.compile(r"^(<.*>|\[.*\]|\+\+.*\+\+)$")


class PocketsphinxEngine:
    info = EngineInfo(
        "pocketsphinx",
        "en-us",
        ("en",),
        "English only, offline. Clear sentences come out well, free speech often does not.",
    )
    batch_limit = 1  # it decodes one by one; a larger batch would only delay the finals
    longest_s = 60.0

    def __init__(self) -> None:
        self._decoder: Any = None

    def load(self, tell: Tell) -> None:
        try:
            from pocketsphinx import Decoder
        except ImportError as error:
            raise EngineUnavailable("pocketsphinx is not installed") from error
        try:
            self._decoder = Decoder(samprate=float(SAMPLE_RATE), loglevel="FATAL")
        except RuntimeError as error:
            raise EngineError("pocketsphinx could not load its model") from error

    def warm_up(self) -> None:
        """Nothing is made on first use."""

    def kind(self, window: Window) -> Hashable:
        return None

    def transcribe(self, windows: Sequence[Window]) -> list[Hypothesis]:
        return [self._decode(window) for window in windows]

    def close(self) -> None:
        self._decoder = None

    def _decode(self, window: Window) -> Hypothesis:
        # It hears words in digital silence, and does not recover from a window without audio.
        words = self._hear(window) if rms(window.samples) >= SILENCE_RMS else ()
        return Hypothesis(
            window.stream,
            window.utterance,
            window.revision,
            window.is_final,
            " ".join(word.text for word in words),
            "en",
            words if window.is_final else (),
            window.absorbed,
        )

    def _hear(self, window: Window) -> tuple[Word, ...]:
        decoder = self._decoder
        decoder.start_utt()
        # the whole window at once: its cepstral mean is then the window's own
        decoder.process_raw(window.samples.tobytes(), no_search=False, full_utt=True)
        decoder.end_utt()
        return self._words(window) if decoder.hyp() is not None else ()

    def _words(self, window: Window) -> tuple[Word, ...]:
        return tuple(
            Word(
                _VARIANT.sub("", segment.word),
                window.start_sample + segment.start_frame * _FRAME_SAMPLES,
                min(
                    window.start_sample + (segment.end_frame + 1) * _FRAME_SAMPLES,
                    window.end_sample,
                ),
                round(min(1.0, float(segment.prob)), 3),
            )
            for segment in self._decoder.seg()
            if not _NO_WORD.match(segment.word)
        )
