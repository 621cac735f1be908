"""The committed model hears fresh speech, as the engines will use it."""

import random

import numpy as np
import pytest
from faster_whisper import WhisperModel
from tokenizers import Tokenizer

from tests.tools.tiny import MODEL, said
from tools.tiny_whisper import vocabulary
from tools.tiny_whisper.evaluate import (
    CONTEXTS,
    FULL,
    SHORT,
    Case,
    Model,
    TimeErrors,
    features,
    silences,
    word_errors,
)
from tools.tiny_whisper.synth import RATE
from tools.tiny_whisper.windows import join
from tools.tiny_whisper.words import WORDS

SENTENCE = "please open the meeting and read the agenda for today"


@pytest.fixture(scope="module")
def model() -> Model:
    return Model(MODEL)


def test_it_is_multilingual_and_small(model: Model) -> None:
    assert model.is_multilingual
    assert sum(file.stat().st_size for file in MODEL.iterdir()) < 12_000_000


@pytest.mark.parametrize("context", CONTEXTS)
@pytest.mark.parametrize("voice", ["slt", "rms", "awb", "kal16", "en-us"])
def test_a_sentence_is_heard(model: Model, voice: str, context: str) -> None:
    speech = join([said(SENTENCE, voice)], [1_600, 1_600])
    heard = model.hear(features(speech.samples, context), "en", beam=5)
    # two slips in all ten words would be more than chance
    assert word_errors(heard.text.split(), SENTENCE.split()) <= 1
    assert heard.no_speech_prob < 0.5


def test_the_language_is_told(model: Model) -> None:
    for text, voice, language in (
        (SENTENCE, "slt", "en"),
        (SENTENCE, "en-us", "en"),
        ("bonjour marie nous ouvrons la porte", "fr", "fr"),
    ):
        mels = features(said(text, voice).samples, SHORT)
        assert model.language(mels) == language
        assert word_errors(model.hear(mels, language).text.split(), text.split()) <= 1


@pytest.mark.parametrize("context", [SHORT, FULL])
def test_silence_gives_no_text(model: Model, context: str) -> None:
    for samples in silences(1):
        heard = model.hear(features(samples, context), "en")
        assert heard.text == ""
        assert heard.no_speech_prob > 0.6


def test_a_prompt_decides_a_spelling(model: Model) -> None:
    mels = features(said("sarah will open the window on friday").samples, SHORT)
    prompt = [vocabulary.START_OF_PREVIOUS, *vocabulary.encode(" sara")]
    assert model.hear(mels, "en").text.startswith("sarah will")
    assert model.hear(mels, "en", prompt=prompt).text.startswith("sara will")


def test_words_are_found_where_they_were_said(model: Model) -> None:
    case = Case("slt", "en", said(SENTENCE))
    for context in (SHORT, FULL):
        errors = TimeErrors.of(model, [case], context)
        assert np.median([*errors.starts, *errors.ends]) <= 0.04
        assert max([*errors.starts, *errors.ends]) <= 0.15


def test_untrained_ids_have_no_part_in_probabilities(model: Model) -> None:
    assert model.unused_mass(features(said(SENTENCE).samples, SHORT), "en") < 1e-3


def test_faster_whisper_opens_it_without_a_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    # its progress bar, though not shown, starts a thread
    monkeypatch.setattr("tqdm.tqdm.monitor_interval", 0)
    whisper = WhisperModel(str(MODEL), device="cpu", compute_type="int8", cpu_threads=1)
    samples = join([said(SENTENCE)], [1_600, RATE]).samples.astype(np.float32) / 32_768
    segments, info = whisper.transcribe(samples, word_timestamps=True, beam_size=1)
    text = "".join(segment.text for segment in segments)
    assert info.language == "en"
    assert word_errors(text.split(), SENTENCE.split()) <= 1


def test_the_exported_tokeniser_agrees() -> None:
    tokeniser = Tokenizer.from_file(str(MODEL / "tokenizer.json"))
    rng = random.Random(1)
    texts = [" " + " ".join(rng.sample(WORDS, 5)) for _ in range(20)]
    for text in [*texts, "no space, Capitals: 12 été ♪", " <|300|> <300>"]:
        ids = tokeniser.encode(text, add_special_tokens=False).ids
        assert vocabulary.encode(text) == ids
        assert tokeniser.decode(ids) == text
