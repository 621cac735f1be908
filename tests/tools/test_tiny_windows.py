"""Windows of the small model's training: joined, cut, and what is right for each."""

import numpy as np
import pytest

from tools.tiny_whisper.synth import Speech, Word
from tools.tiny_whisper.windows import cut, frames, join, territories


def speech(*words: tuple[str, int, int], length: int = 16_000) -> Speech:
    return Speech(np.arange(length, dtype=np.int16), tuple(Word(*word) for word in words))


def test_joined_words_stand_where_they_sound() -> None:
    one = speech(("two", 0, 4_000), length=5_000)
    both = join([one, one], [100, 200, 300])
    assert [(w.start, w.end) for w in both.words] == [(100, 4_100), (5_300, 9_300)]
    assert len(both.samples) == 2 * 5_000 + 600
    assert both.samples[5_300 + 7] == one.samples[7]


def test_join_wants_a_gap_around_each() -> None:
    with pytest.raises(ValueError, match="one gap more"):
        join([speech()], [0])


def test_a_word_that_is_cut_belongs_to_no_window() -> None:
    said = speech(("one", 1_000, 4_000), ("two", 4_000, 8_000), ("three", 8_000, 12_000))
    window = cut(said, 2_000, 9_000)
    assert [(w.text, w.start, w.end) for w in window.speech.words] == [("two", 2_000, 6_000)]
    assert [(w.text, w.start, w.end) for w in window.cut_words] == [
        ("one", 0, 2_000),
        ("three", 6_000, 7_000),
    ]
    assert window.speech.samples[0] == 2_000


def test_a_word_that_lacks_next_to_nothing_is_whole() -> None:
    window = cut(speech(("one", 0, 4_000)), 0, 3_900)
    assert [w.text for w in window.speech.words] == ["one"]
    assert window.speech.words[0].end == 3_900


def test_a_window_between_words_holds_none() -> None:
    window = cut(speech(("one", 0, 4_000), ("two", 8_000, 9_000)), 4_000, 8_000)
    assert window.speech.words == window.cut_words == ()


def test_a_word_has_a_frame_at_least() -> None:
    assert frames(Word("a", 640, 650)) == (2, 3)
    assert frames(Word("one", 640, 1_600)) == (2, 5)


def test_a_pause_belongs_to_the_word_before_it() -> None:
    words = (Word("one", 3_200, 6_400), Word("two", 9_600, 12_800))
    # the silence before the first word is the first's; behind the last the text ends
    assert territories(words, 50) == [(0, 30), (30, 40)]
    assert territories((), 50) == []
