import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.speech import pcm, silence, tone
from tests.transcriber.builders import window
from transcriber.engines import EngineOptions, expected_info, make_engine, tell_nobody
from transcriber.engines.scripted import (
    LOUD_RMS,
    QUIET_RMS,
    SLOT_SAMPLES,
    WORDS,
    ScriptedEngine,
    word_at,
)
from transcriber.errors import EngineUnavailable
from transcriber.types import SAMPLE_RATE, Hypothesis, Samples, Window


def level(seconds: float, rms: float) -> Samples:
    return pcm(np.full(int(seconds * SAMPLE_RATE), rms))


def hear(*windows: Window) -> list[Hypothesis]:
    engine = ScriptedEngine()
    engine.load(tell_nobody)
    try:
        return engine.transcribe(windows)
    finally:
        engine.close()


def text_of(samples: Samples, start_s: float = 0.0) -> str:
    return hear(window(start_s=start_s, samples=samples))[0].text


def words(first: int, last: int) -> str:
    return " ".join(word_at(slot) for slot in range(first, last))


def test_each_half_second_has_a_word_of_its_own() -> None:
    assert len(set(WORDS)) == len(WORDS)
    assert text_of(tone(2.0)) == "amber birch cedar delta"
    assert text_of(tone(2.0), start_s=1.0) == "cedar delta ember fjord"


def test_words_come_round_again() -> None:
    assert word_at(len(WORDS)) == word_at(0)


def test_the_same_window_always_gives_the_same_text() -> None:
    asked = window(samples=tone(5.0))
    assert hear(asked) == hear(asked)


@given(st.integers(0, 40_000), st.integers(0, 40_000))
def test_two_windows_over_the_same_audio_agree(cut: int, other_cut: int) -> None:
    sound = tone(5.0)
    heard = [
        set(hear(window(start_s=at / SAMPLE_RATE, samples=sound[at:], final=True))[0].words)
        for at in (cut, other_cut)
    ]
    shorter, longer = sorted(heard, key=len)
    assert shorter <= longer


def test_an_interim_and_the_longer_one_after_it_agree_from_the_start() -> None:
    sound = tone(6.0)
    texts = [text_of(sound[: int(s * SAMPLE_RATE)], start_s=0.3) for s in (1.7, 2.2, 5.9)]
    for shorter, longer in itertools.pairwise(texts):
        assert longer.startswith(shorter)
        assert len(longer) > len(shorter)


def test_the_level_shows() -> None:
    sound = np.concatenate(
        [level(0.5, 2 * QUIET_RMS), level(0.5, QUIET_RMS / 2), level(0.5, 1.1 * LOUD_RMS)]
    )
    assert text_of(sound) == "amber CEDAR"
    assert text_of(silence(3.0)) == ""


def test_a_missing_or_moved_piece_of_audio_shows() -> None:
    sound = np.concatenate([tone(1.0), silence(0.5), tone(1.0)])
    assert text_of(sound) == f"{words(0, 2)} {words(3, 5)}"
    assert text_of(sound, start_s=0.5) == f"{words(1, 3)} {words(4, 6)}"


def test_a_half_second_that_is_not_whole_has_no_word() -> None:
    assert text_of(tone(0.49)) == ""
    assert text_of(tone(0.99)) == "amber"
    assert text_of(tone(0.99), start_s=0.01) == "birch"


def test_a_final_has_its_words_at_their_positions_and_an_interim_has_none() -> None:
    interim, final = hear(
        window(start_s=1.0, samples=tone(1.0)), window(start_s=1.0, samples=tone(1.0), final=True)
    )
    assert interim.words == ()
    assert [(w.text, w.start_sample // SLOT_SAMPLES) for w in final.words] == [
        ("cedar", 2),
        ("delta", 3),
    ]
    for word in final.words:
        assert word.end_sample - word.start_sample == SLOT_SAMPLES


def test_each_hypothesis_is_of_its_window() -> None:
    heard = hear(
        window("ada", utterance=3, revision=2, language="de", samples=tone(0.5)),
        window("bob", utterance=5, revision=4, final=True, absorbed=(6,)),
    )
    assert [(h.stream, h.utterance, h.revision, h.is_final, h.language) for h in heard] == [
        ("ada", 3, 2, False, "de"),
        ("bob", 5, 4, True, "en"),
    ]
    assert heard[1].absorbed == (6,)
    assert heard[1].text == ""


def test_engines_are_chosen_by_name() -> None:
    for name in ("scripted", "pocketsphinx", "whisper", "whisperx", "auto"):
        assert make_engine(EngineOptions(name)).info.name == name
        assert expected_info(EngineOptions(name)).name == name
    with pytest.raises(EngineUnavailable, match="'whispering'"):
        make_engine(EngineOptions("whispering"))
    with pytest.raises(EngineUnavailable, match="'whispering'"):
        expected_info(EngineOptions("whispering"))


def test_a_slow_engine_can_be_played(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr("time.sleep", slept.append)
    ScriptedEngine(seconds_per_batch=0.7).transcribe([window(), window()])
    assert slept == [0.7]
