"""Whisper for real: the tiny model that the repo made, on sentences it never heard."""

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from tests.speech import silence
from tests.tiny import MODEL, Said, say
from tests.transcriber.builders import window
from tools.tiny_whisper.words import distinct_sentences
from transcriber.engines import EngineOptions, tell_nobody
from transcriber.engines.whisper import WhisperEngine
from transcriber.errors import EngineError, EngineUnavailable
from transcriber.filters import Told, never_said
from transcriber.recordings import word_errors
from transcriber.types import SAMPLE_RATE, EngineState, Hypothesis, Samples, Window

ENGLISH = (
    ("please send the quick report", "slt"),
    ("robert will open the window on friday", "rms"),
    ("we meet in tokyo on monday at seven", "awb"),
    ("can you check my budget in boston", "kal16"),
    ("my paper is orange and your ticket is late", "en-us"),
    ("the green bridge is near the market", "slt"),
)
VOICES = ("slt", "rms", "awb", "kal16", "en-us")
HELD_OUT_SEED = 2
FRENCH = (
    ("la voiture est rouge vendredi", "fr"),
    ("nous ouvrons la petite porte avec pierre", "fr+m3"),
)


def engine_with(short_context: str) -> WhisperEngine:
    engine = WhisperEngine(
        EngineOptions("whisper", str(MODEL), auto_download=False, short_context=short_context)
    )
    engine.load(tell_nobody)
    engine.warm_up()
    return engine


@pytest.fixture(scope="module", params=["on", "off"], ids=["short context", "full context"])
def engine(request: pytest.FixtureRequest) -> Iterator[WhisperEngine]:
    engine = engine_with(request.param)
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def short() -> Iterator[WhisperEngine]:
    engine = engine_with("auto")
    yield engine
    engine.close()


def windows(said: Sequence[Said], *, final: bool, language: str = "en") -> list[Window]:
    return [
        window(f"room/p{n}", samples=one.samples, final=final, language=language)
        for n, one in enumerate(said)
    ]


def hear(engine: WhisperEngine, asked: Sequence[Window]) -> list[Hypothesis]:
    """In batches of one kind, as the scheduler makes them; in the order asked."""
    heard: dict[int, Hypothesis] = {}
    kinds = {engine.kind(w) for w in asked}
    for kind in kinds:
        rows = [n for n, w in enumerate(asked) if engine.kind(w) == kind]
        answers = engine.transcribe([asked[n] for n in rows])
        heard.update(zip(rows, answers, strict=True))
    return [heard[n] for n in range(len(asked))]


def rate(said: Sequence[Said], heard: Sequence[Hypothesis]) -> float:
    """The word error rate over all."""
    counts = [word_errors(one.text, h.text) for one, h in zip(said, heard, strict=True)]
    return sum(errors for errors, _ in counts) / sum(words for _, words in counts)


def test_sentences_of_every_voice_are_understood(engine: WhisperEngine) -> None:
    said = [say(text, voice) for text, voice in ENGLISH]
    for final in (False, True):
        assert rate(said, hear(engine, windows(said, final=final))) <= 0.05


def test_speakers_of_one_batch_never_get_each_others_words(engine: WhisperEngine) -> None:
    said = [say(text, voice) for text, voice in ENGLISH]
    heard = hear(engine, windows(said, final=True))
    for one, own in zip(said, heard, strict=True):
        errors, words = word_errors(one.text, own.text)
        others = [word_errors(one.text, h.text)[0] for h in heard if h is not own]
        assert errors <= words // 5
        assert errors < min(others)


@pytest.mark.parametrize("final", [False, True])
def test_a_window_is_heard_alike_alone_and_in_a_batch(engine: WhisperEngine, final: bool) -> None:
    said = [say(text, voice) for text, voice in (*ENGLISH, *FRENCH)]
    asked = windows(said, final=final)
    together = hear(engine, asked)
    for alone, among in zip(asked, together, strict=True):
        (single,) = engine.transcribe([alone])
        assert single.text == among.text
        assert [(w.text, w.start_sample, w.end_sample) for w in single.words] == [
            (w.text, w.start_sample, w.end_sample) for w in among.words
        ]


@pytest.mark.parametrize("final", [False, True])
def test_a_french_and_an_english_speaker_share_a_batch(short: WhisperEngine, final: bool) -> None:
    english, french = say(*ENGLISH[0]), say(*FRENCH[0])
    asked = [
        window("room/a", samples=english.samples, final=final, language="en"),
        window("room/b", samples=french.samples, final=final, language="fr"),
    ]
    assert short.kind(asked[0]) == short.kind(asked[1])
    one, other = short.transcribe(asked)
    assert (one.text, one.language) == (english.text, "en")
    assert (other.text, other.language) == (french.text, "fr")
    if final:
        assert [w.text for w in other.words] == french.text.split()


def test_the_language_is_heard_where_none_is_named(engine: WhisperEngine) -> None:
    said = [say(text, voice) for text, voice in (*ENGLISH, *FRENCH)]
    asked = [
        window(f"room/p{n}", samples=one.samples, language="", final=True, detect=("en", "fr"))
        for n, one in enumerate(said)
    ]
    heard = hear(engine, asked)
    expected = ["en"] * len(ENGLISH) + ["fr"] * len(FRENCH)
    assert [h.evidence.heard_language for h in heard] == expected
    assert [h.language for h in heard] == expected
    assert all(0.5 <= h.evidence.heard_probability <= 1.0 for h in heard)
    assert rate(said, heard) <= 0.05


def test_a_fixed_language_stays_and_the_other_is_told(short: WhisperEngine) -> None:
    french = say(*FRENCH[0])
    (heard,) = short.transcribe(
        [window(samples=french.samples, language="en", detect=("en", "fr"), final=True)]
    )
    assert heard.language == "en"
    assert heard.evidence.heard_language == "fr"


def test_a_glossary_decides_between_two_spellings(engine: WhisperEngine) -> None:
    said = say("sarah will read the letter on sunday", "slt")
    plain = window("room/a", samples=said.samples, final=True)
    told = window("room/b", samples=said.samples, final=True, glossary="sara")
    other = window("room/c", samples=said.samples, final=True, glossary="budget garden")
    heard = hear(engine, [plain, told, other])
    assert [h.text.split()[0] for h in heard] == ["sarah", "sara", "sarah"]


def test_what_was_said_before_decides_too_and_is_not_repeated(short: WhisperEngine) -> None:
    said = say("sarah will read the letter on sunday", "slt")
    before = (
        "david will check the ticket on monday the yellow table is near the garden "
        "please move the small picture sara is near david"
    )
    (heard,) = short.transcribe([window(samples=said.samples, final=True, prompt=before)])
    assert heard.text == "sara will read the letter on sunday"


def test_words_stand_where_they_were_said(engine: WhisperEngine) -> None:
    texts = distinct_sentences(28, HELD_OUT_SEED, "en")
    said = [say(text, VOICES[n % len(VOICES)]) for n, text in enumerate(texts)]
    asked = [
        window(f"room/p{n}", samples=one.samples, final=True, start_s=5.0)
        for n, one in enumerate(said)
    ]
    off: list[float] = []
    for one, heard in zip(said, hear(engine, asked), strict=True):
        assert " ".join(w.text for w in heard.words) == heard.text
        for before, after in itertools.pairwise(heard.words):
            assert before.start_sample <= before.end_sample <= after.end_sample
        assert all(0.0 < w.confidence <= 1.0 for w in heard.words)
        if heard.text != one.text:
            continue
        for word, (start, end) in zip(heard.words, one.spans, strict=True):
            off.append(abs(word.start_sample - 5 * SAMPLE_RATE - start) / SAMPLE_RATE)
            off.append(abs(word.end_sample - 5 * SAMPLE_RATE - end) / SAMPLE_RATE)
    assert len(off) >= 300
    assert np.quantile(off, 0.95) <= 0.08


@pytest.mark.parametrize(
    "sound",
    [silence(2.0), (np.random.default_rng(1).normal(0, 200, 3 * SAMPLE_RATE)).astype(np.int16)],
    ids=["silence", "noise"],
)
def test_where_nobody_speaks_no_text_is_believed(engine: WhisperEngine, sound: Samples) -> None:
    for final in (False, True):
        (heard,) = engine.transcribe([window(samples=sound, final=final)])
        assert heard.evidence.no_speech_prob is not None
        assert heard.evidence.no_speech_prob > 0.1
        assert heard.text == "" or never_said(heard, Told("", "", len(sound))) is not None


def test_where_somebody_speaks_the_text_is_believed(engine: WhisperEngine) -> None:
    said = [say(text, voice) for text, voice in ENGLISH]
    for heard in hear(engine, windows(said, final=True)):
        assert heard.evidence.no_speech_prob is not None
        assert heard.evidence.no_speech_prob < 0.1
        assert heard.evidence.avg_logprob is not None
        assert heard.evidence.avg_logprob > -0.7
        assert never_said(heard, Told("", "", SAMPLE_RATE)) is None


def test_a_long_utterance_of_several_sentences_is_understood(engine: WhisperEngine) -> None:
    said = [say(text, "slt") for text, _ in ENGLISH[:3]]
    samples = np.concatenate([one.samples for one in said])
    (heard,) = engine.transcribe([window(samples=samples, final=True)])
    errors, words = word_errors(" ".join(one.text for one in said), heard.text)
    assert errors / words <= 0.1


@pytest.mark.parametrize("prompt", ["", "the yellow table is near the garden today " * 3])
def test_a_long_final_has_room_for_all_of_its_words(
    short: WhisperEngine, monkeypatch: pytest.MonkeyPatch, prompt: str
) -> None:
    """CTranslate2 generates half of `max_length` at most: 4.5 tokens a second need more."""
    model = short._loaded._model
    end = 50_257
    lengths: list[int] = []

    class Endless:
        def __getattr__(self, name: str) -> object:
            return getattr(model, name)

        def generate(self, *told: object, **options: object) -> object:
            results = model.generate(*told, **{**options, "suppress_tokens": [end]})
            lengths.append(len(results[0].sequences_ids[0]))
            return results

    monkeypatch.setattr(short._loaded, "_model", Endless())
    said = say(*ENGLISH[0]).samples
    samples = np.concatenate([said] * 8)[: 10 * SAMPLE_RATE]
    short.transcribe([window(samples=samples, final=True, prompt=prompt)])
    assert lengths[0] >= 120


def test_a_language_that_the_model_does_not_know_fails_nobody(short: WhisperEngine) -> None:
    said = say(*ENGLISH[0])
    asked = [
        window("room/a", samples=said.samples, language="xx", final=True),
        window("room/b", samples=said.samples, language="en-GB", final=True),
    ]
    assert [(h.text, h.language) for h in short.transcribe(asked)] == [(said.text, "en")] * 2


def test_windows_of_like_length_share_a_batch_where_the_context_is_short(
    short: WhisperEngine,
) -> None:
    short_one, like_it, long_one = (
        window(f"room/p{n}", samples=silence(s)) for n, s in enumerate((1.0, 1.8, 11.0))
    )
    assert short.kind(short_one) == short.kind(like_it) != short.kind(long_one)
    full = engine_with("off")
    assert full.kind(short_one) == full.kind(long_one)
    full.close()


def test_the_engine_says_what_it_is(short: WhisperEngine) -> None:
    assert (short.info.name, short.info.model) == ("whisper", MODEL.name)
    assert short.info.detects
    assert {"en", "fr"} <= set(short.info.languages)
    assert "short context" in short.info.note


def test_a_model_that_is_not_here_is_named_with_its_remedy(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    engine = WhisperEngine(EngineOptions("whisper", "small", auto_download=False))
    with pytest.raises(EngineUnavailable, match="models --fetch small"):
        engine.load(tell_nobody)


def test_a_folder_that_is_no_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(EngineUnavailable, match=r"model\.bin"):
        WhisperEngine(EngineOptions("whisper", str(tmp_path))).load(tell_nobody)


def test_a_spoilt_model_is_an_error_without_a_path(tmp_path: Path) -> None:
    for file in MODEL.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes()[:1_000])
    with pytest.raises(EngineError) as error:
        WhisperEngine(EngineOptions("whisper", str(tmp_path))).load(tell_nobody)
    assert str(tmp_path) not in str(error.value)


def test_loading_is_told() -> None:
    told: list[EngineState] = []
    engine = WhisperEngine(EngineOptions("whisper", str(MODEL)))
    engine.load(lambda state, _progress, _message: told.append(state))
    assert told == [EngineState.LOADING]
    engine.close()
