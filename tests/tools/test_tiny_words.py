"""The small model's words, ids, sentences and positions."""

import math

import pytest

from tools.tiny_whisper import vocabulary
from tools.tiny_whisper.positions import sinusoids
from tools.tiny_whisper.words import (
    ENGLISH,
    FRENCH,
    HOMOPHONES,
    WORDS,
    distinct_sentences,
    other_sentences,
)


def test_no_word_comes_twice() -> None:
    assert len(set(WORDS)) == len(WORDS)
    assert set(ENGLISH) | set(FRENCH) | set(HOMOPHONES.values()) == set(WORDS)


@pytest.mark.parametrize(("language", "words"), [("en", ENGLISH), ("fr", FRENCH)])
def test_sentences_are_of_known_words(language: str, words: tuple[str, ...]) -> None:
    sentences = distinct_sentences(300, 5, language)
    assert len(set(sentences)) == 300
    assert {word for sentence in sentences for word in sentence.split()} <= set(words)


def test_training_never_hears_a_held_out_sentence() -> None:
    held_out = frozenset(distinct_sentences(100, 2, "fr"))
    assert not held_out & set(other_sentences(2_000, 1, "fr", held_out))


def test_the_ids_are_those_of_whisper() -> None:
    names = vocabulary.tokens()
    assert len(names) == len(set(names)) == 51_865
    assert names[50_256:50_260] == ("", "<|endoftext|>", "<|startoftranscript|>", "<|en|>")
    assert names[vocabulary.language_id("fr")] == "<|fr|>"
    assert vocabulary.language_id("su") + 1 == vocabulary.TRANSLATE
    assert names[vocabulary.TRANSLATE : vocabulary.FIRST_TIMESTAMP + 2] == (
        "<|translate|>",
        "<|transcribe|>",
        "<|startoflm|>",
        "<|startofprev|>",
        "<|nospeech|>",
        "<|notimestamps|>",
        "<|0.00|>",
        "<|0.02|>",
    )


def test_a_word_is_one_token_and_anything_else_its_bytes() -> None:
    assert vocabulary.encode(" please") == [vocabulary.word_id("please")]
    assert len(vocabulary.encode(" la réunion")) == 2
    assert len(vocabulary.encode("please")) == len("please")
    assert vocabulary.decode(vocabulary.encode(" Ünknown, 42")) == "Ünknown, 42"


def test_the_used_ids_have_places_of_their_own() -> None:
    places = vocabulary.compact()
    assert sorted(places.values()) == list(range(len(vocabulary.used())))
    assert all(vocabulary.word_id(word) in places for word in WORDS)


def test_positions_are_sines_and_cosines() -> None:
    positions = sinusoids(1500, 128)
    assert positions.shape == (1500, 128)
    assert positions[0].tolist() == [0.0] * 64 + [1.0] * 64
    # the fastest turns one radian a step, the slowest ten thousand times slower
    assert positions[3, 0] == pytest.approx(math.sin(3))
    assert positions[1000, 63] == pytest.approx(math.sin(0.1), rel=1e-4)
