"""Speech for tests, and the times of its words."""

import numpy as np
import pytest

from tests.tools.tiny import said
from tools.tiny_whisper import synth
from tools.tiny_whisper.opus import round_trip

SENTENCE = "please open the green window in the garden"


@pytest.mark.parametrize("voice", ["slt", "rms", "awb", "kal16", "en-us", "en-us+f2"])
def test_words_lie_one_after_the_other_within_the_sound(voice: str) -> None:
    speech = said(SENTENCE, voice)
    assert " ".join(word.text for word in speech.words) == SENTENCE
    ends = [word.end for word in speech.words]
    assert all(word.start < word.end for word in speech.words)
    assert all(a.end <= b.start for a, b in zip(speech.words, speech.words[1:], strict=False))
    assert ends[-1] <= len(speech.samples)
    first, last = speech.words[0].start, speech.words[-1].end
    inside = np.abs(speech.samples[first:last].astype(int)).mean()
    outside = np.abs(np.delete(speech.samples, slice(first, last)).astype(int))
    assert inside > 5 * (outside.mean() if len(outside) else 0)


def test_french_is_spoken_too() -> None:
    assert [word.text for word in said("la fenêtre est verte", "fr").words] == [
        "la",
        "fenêtre",
        "est",
        "verte",
    ]


def test_a_faster_voice_takes_less_time() -> None:
    slow = said(SENTENCE)
    fast = synth.synthesise(SENTENCE, synth.Voice("slt", speed=1.3))
    assert len(fast.samples) < 0.9 * len(slow.samples)


def test_an_unknown_voice_is_told_of() -> None:
    said("one", "en-us")
    with pytest.raises(synth.SynthesiserMissing, match="en-nowhere"):
        synth.synthesise("one", synth.Voice("en-nowhere"))


def test_a_missing_library_is_told_of_with_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(synth.SynthesiserMissing, match="apt-get install flite"):
        synth._library("libflite_of_nowhere.so.1", "flite")


def test_opus_neither_delays_nor_shortens() -> None:
    samples = said(SENTENCE).samples
    heard = round_trip(samples, 24_000)
    assert len(heard) == len(samples)
    likeness = [np.corrcoef(np.roll(heard, by), samples)[0, 1] for by in range(-40, 41)]
    assert abs(int(np.argmax(likeness)) - 40) <= 2
    assert max(likeness) > 0.9
