import itertools
import sys
from collections.abc import Iterator
from types import ModuleType

import numpy as np
import pytest

from tests.speech import OPEN_THE_MEETING, Samples, pcm, silence, spoken, words_right
from tests.transcriber.builders import window
from transcriber.engines import tell_nobody
from transcriber.engines.pocketsphinx import PocketsphinxEngine
from transcriber.errors import EngineError, EngineUnavailable
from transcriber.types import SAMPLE_RATE, Hypothesis


@pytest.fixture(scope="module")
def engine() -> Iterator[PocketsphinxEngine]:
    engine = PocketsphinxEngine()
    engine.load(tell_nobody)
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def sentence() -> Samples:
    """As the segmenter cuts it: with a little silence on both sides."""
    return np.concatenate([silence(0.3), spoken(OPEN_THE_MEETING), silence(0.2)])


@pytest.fixture(scope="module")
def heard(engine: PocketsphinxEngine, sentence: Samples) -> Hypothesis:
    (heard,) = engine.transcribe([window(start_s=5.0, samples=sentence, final=True)])
    return heard


def noise(seconds: float, level: float) -> Samples:
    samples = np.random.default_rng(7).normal(0.0, level, int(seconds * SAMPLE_RATE))
    return pcm(samples)


def test_a_clear_sentence_is_understood(heard: Hypothesis) -> None:
    assert words_right(heard.text, OPEN_THE_MEETING) >= 0.9
    assert len(heard.text.split()) <= len(OPEN_THE_MEETING.split()) + 1


def test_the_text_has_no_marks_of_the_dictionary(heard: Hypothesis) -> None:
    # "and(2)" is another pronunciation of "and", "<sil>" and "[NOISE]" are no words
    assert all(word.isalpha() for word in heard.text.replace("'", "").split())


def test_words_stand_in_order_within_the_window(heard: Hypothesis, sentence: Samples) -> None:
    assert " ".join(word.text for word in heard.words) == heard.text
    start, end = 5 * SAMPLE_RATE, 5 * SAMPLE_RATE + len(sentence)
    for word in heard.words:
        assert start <= word.start_sample < word.end_sample <= end
        assert 0.0 <= word.confidence <= 1.0
    for before, after in itertools.pairwise(heard.words):
        assert before.end_sample <= after.start_sample
    # the first word is where the speech is, not in the silence before
    assert heard.words[0].start_sample - start > 0.15 * SAMPLE_RATE


def test_a_word_reaches_no_further_than_its_window(engine: PocketsphinxEngine) -> None:
    cut = spoken(OPEN_THE_MEETING)[: int(1.005 * SAMPLE_RATE)]
    (heard,) = engine.transcribe([window(samples=cut, final=True)])
    assert heard.words
    assert heard.words[-1].end_sample <= len(cut)


def test_an_interim_has_text_and_no_words(engine: PocketsphinxEngine, sentence: Samples) -> None:
    (heard,) = engine.transcribe([window(samples=sentence)])
    assert words_right(heard.text, OPEN_THE_MEETING) >= 0.9
    assert heard.words == ()


def test_what_was_heard_before_does_not_change_what_is_heard(
    engine: PocketsphinxEngine, sentence: Samples, heard: Hypothesis
) -> None:
    engine.transcribe([window(samples=noise(1.0, 0.2))])
    again, and_again = engine.transcribe(
        [window(start_s=5.0, samples=sentence, final=True), window(samples=sentence)]
    )
    assert again.text == and_again.text == heard.text


@pytest.mark.parametrize("samples", [silence(2.0), silence(0.01), silence(0.0)])
def test_silence_gives_no_text(engine: PocketsphinxEngine, samples: Samples) -> None:
    (heard,) = engine.transcribe([window(samples=samples, final=True)])
    assert (heard.text, heard.words) == ("", ())


def test_whoever_asks_for_another_language_reads_that_it_is_english(
    engine: PocketsphinxEngine, sentence: Samples
) -> None:
    (heard,) = engine.transcribe([window(samples=sentence, language="de", final=True)])
    assert heard.language == "en"
    assert engine.info.languages == ("en",)


def test_each_hypothesis_is_of_its_window(engine: PocketsphinxEngine) -> None:
    one, other = engine.transcribe(
        [
            window("ada", utterance=3, revision=2, samples=silence(0.2)),
            window("bob", utterance=4, final=True, absorbed=(5,), samples=silence(0.2)),
        ]
    )
    assert (one.stream, one.utterance, one.revision, one.is_final) == ("ada", 3, 2, False)
    assert (other.stream, other.utterance, other.is_final, other.absorbed) == (
        "bob",
        4,
        True,
        (5,),
    )


def test_where_it_is_not_installed_it_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pocketsphinx", None)
    with pytest.raises(EngineUnavailable, match="not installed"):
        PocketsphinxEngine().load(tell_nobody)


def test_a_model_that_cannot_be_loaded_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    class Decoder:
        def __init__(self, **options: object) -> None:
            raise RuntimeError("no model")

    broken = ModuleType("pocketsphinx")
    broken.Decoder = Decoder  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "pocketsphinx", broken)
    with pytest.raises(EngineError, match="could not load"):
        PocketsphinxEngine().load(tell_nobody)
