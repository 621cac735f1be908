from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.engines.whisper_fakes import (
    LANGUAGES,
    Alignment,
    Model,
    batch_of,
    decoded,
    features,
    special,
    tokenizer,
    tokens,
)
from tests.speech import pcm, tone
from tests.transcriber.builders import window
from transcriber.engines.whisper_batch import PROMPT_TOKENS, BatchOptions, WhisperBatch
from transcriber.errors import OutOfMemory
from transcriber.types import SAMPLE_RATE, Hypothesis, Window

START, PREVIOUS = special("startoftranscript"), special("startofprev")


def asked(
    stream: str = "ada",
    *,
    prompt: str = "",
    glossary: str = "",
    detect: tuple[str, ...] = (),
    language: str = "en",
    final: bool = False,
    seconds: float = 1.0,
    start_s: float = 0.0,
) -> Window:
    plain = window(
        stream, prompt=prompt, language=language, final=final, seconds=seconds, start_s=start_s
    )
    return replace(plain, glossary=glossary, detect=detect)


def prompt_of(of: Window) -> list[int]:
    """The tokens before the start."""
    model = Model()
    batch_of(model).transcribe([of])
    ((row,),) = model.prompts
    return row[: row.index(START)]


def hear(model: Model, *windows: Window, options: BatchOptions | None = None) -> list[Hypothesis]:
    return batch_of(model, options).transcribe(windows)


# The start of a row


def test_a_row_without_a_prompt_begins_with_the_start() -> None:
    model = Model()
    hear(model, asked(language="de"))
    names = ("startoftranscript", "de", "transcribe", "notimestamps")
    assert model.prompts == [[[special(name) for name in names]]]


def test_rows_may_be_in_different_languages() -> None:
    model = Model()
    heard = hear(model, asked("ada", language="de"), asked("bob", language="fr"))
    assert [row[1] for row in model.prompts[0]] == [special("de"), special("fr")]
    assert [h.language for h in heard] == ["de", "fr"]


def test_an_english_only_model_is_told_no_language() -> None:
    model = Model(is_multilingual=False)
    (heard,) = hear(model, asked(language="en"))
    assert model.prompts == [[[START, special("notimestamps")]]]
    assert heard.language == "en"
    assert not batch_of(model).detects
    assert batch_of(model).languages == ("en",)


def test_an_english_only_model_is_not_asked_what_it_hears() -> None:
    model = Model(is_multilingual=False)
    (heard,) = hear(model, asked(language="", detect=("en", "de")))
    assert model.detections == 0
    assert heard.language == "en"


def test_its_languages_are_those_that_have_a_token() -> None:
    assert batch_of(Model()).languages == ("en", "de", "es", "fr")
    with_cantonese = WhisperBatch(Model(), tokenizer(("en", "yue")), features, BatchOptions())
    assert with_cantonese.languages == ("en", "yue")
    assert with_cantonese.detects


# Prompts


def test_what_was_said_stands_before_the_start_by_its_last_words() -> None:
    said = "we begin at nine and end at five"
    prompt = prompt_of(asked(prompt=said))
    assert prompt[0] == PREVIOUS
    assert decoded(prompt[1:]) == f" {said}"[-31:]


@pytest.mark.parametrize(
    ("characters", "length"),
    [(0, 0), (13, 0), (14, 16), (29, 16), (30, 32), (61, 32), (62, 64), (500, 64)],
)
def test_a_prompt_is_cut_to_a_common_length(characters: int, length: int) -> None:
    # each is a token, and there is one for the space before and one that begins it
    of = asked(prompt="x" * characters)
    assert len(prompt_of(of)) == length
    assert batch_of(Model()).kind(of) == (False, length, 30)


def test_the_rooms_words_stand_before_what_was_said() -> None:
    prompt = prompt_of(asked(glossary="Grafana, Loki", prompt="we look at the numbers of today"))
    assert (
        decoded(prompt[1:])
        == " Grafana, Loki we look at the numbers of today"[:14]
        + (" we look at the numbers of today"[-17:])
    )


def test_the_rooms_words_are_told_though_nothing_was_said() -> None:
    prompt = prompt_of(asked(glossary="Grafana"))
    assert len(prompt) == 16
    assert decoded(prompt[1:]).endswith(" Grafana")


def test_a_short_glossary_is_told_more_than_once() -> None:
    prompt = prompt_of(asked(glossary="Loki"))
    assert decoded(prompt[1:]) == " Loki Loki Loki"
    assert len(prompt) == 16


def test_a_glossary_that_is_too_long_is_cut_at_its_end() -> None:
    words = ", ".join(f"word{n}" for n in range(30))
    prompt = prompt_of(asked(glossary=words, prompt="what was said"))
    assert len(prompt) == 64
    assert decoded(prompt[1:]) == f" {words}"[:63]


texts = st.text("ab cé", max_size=90)


@given(texts, texts)
def test_a_prompt_has_a_common_length_and_the_glossary_whole(glossary: str, said: str) -> None:
    prompt = prompt_of(asked(glossary=glossary, prompt=said))
    assert len(prompt) in PROMPT_TOKENS
    told = tokens(f" {glossary.strip()}") if glossary.strip() else []
    before = tokens(f" {said.strip()}") if said.strip() else []
    if told:
        assert prompt[0] == PREVIOUS
        kept = told[:63]
        assert any(prompt[n : n + len(kept)] == kept for n in range(1, len(prompt)))
    if prompt:
        # it ends with what was said last, as far as there is room
        room = max(0, len(prompt) - 1 - len(told))
        end = before[-room:] if room else []
        assert prompt[len(prompt) - len(end) :] == end
    else:
        assert len(before) < 15
        assert not told


@given(st.lists(st.tuples(texts, texts), min_size=1, max_size=8))
def test_the_start_is_at_one_place_in_all_rows_of_a_kind(told: list[tuple[str, str]]) -> None:
    batch = batch_of(model := Model())
    kinds: dict[object, list[Window]] = {}
    for number, (glossary, said) in enumerate(told):
        of = asked(f"s{number}", glossary=glossary, prompt=said, language=LANGUAGES[number % 4])
        kinds.setdefault(batch.kind(of), []).append(of)
    for windows in kinds.values():
        batch.transcribe(windows)
    for rows in model.prompts:
        assert len({row.index(START) for row in rows}) == 1
        assert len({len(row) for row in rows}) == 1
        assert {row.count(START) for row in rows} == {1}


@pytest.mark.parametrize("name", ["startoftranscript", "endoftext", "de", "notimestamps"])
def test_what_reads_like_a_special_token_is_none(name: str) -> None:
    told = f"we begin <|{name}|> and go on as before"
    for of in (asked(prompt=told), asked(glossary=told)):
        prompt = prompt_of(of)
        assert len(prompt) in PROMPT_TOKENS
        assert max(prompt[1:]) < special("endoftext")


# What the encoder sees


@pytest.mark.parametrize("seconds", [0.1, 1.0, 9.0, 29.9, 30.0])
def test_the_full_context_is_thirty_seconds(seconds: float) -> None:
    model = Model()
    hear(model, asked(seconds=seconds))
    assert model.encoded == [(1, 80, 3000)]


def test_a_window_that_is_longer_than_the_context_is_cut() -> None:
    model = Model()
    hear(model, asked(seconds=31.0))
    assert model.encoded == [(1, 80, 3000)]


@pytest.mark.parametrize(
    ("seconds", "least_s", "context_s"),
    [
        (0.5, 2.0, 2),
        (2.0, 2.0, 2),
        (2.01, 2.0, 3),
        (4.0, 2.0, 5),
        (7.9, 2.0, 8),
        (0.5, 8.0, 8),
        (8.1, 8.0, 12),
        (12.5, 8.0, 20),
        (20.5, 8.0, 30),
        (31.0, 8.0, 30),
        (0.5, 6.5, 8),
    ],
)
def test_a_short_context_is_of_the_class_that_holds_the_window(
    seconds: float, least_s: float, context_s: int
) -> None:
    options = BatchOptions(short_context=True, least_context_s=least_s)
    model = Model()
    of = asked(seconds=seconds)
    hear(model, of, options=options)
    assert model.encoded == [(1, 80, 100 * context_s)]
    assert batch_of(model, options).kind(of) == (False, 0, context_s)


def test_what_follows_a_window_is_silence_to_the_encoder() -> None:
    model = Model()
    loud = replace(asked(), samples=pcm(np.full(SAMPLE_RATE, 0.5)))
    hear(model, loud, asked(seconds=0.5))
    (spectrograms,) = model.spectrograms
    assert np.allclose(spectrograms[0, :, :100], 0.5, atol=1e-4)
    assert np.allclose(spectrograms[0, :, 101:], 0.5 - 2.0, atol=1e-4)
    assert np.allclose(spectrograms[1, :, 51:], -2.0)


def test_all_windows_of_a_batch_are_encoded_at_once() -> None:
    model = Model(texts=[" one", " two", " three"])
    heard = hear(model, asked("ada"), asked("bob", seconds=3.0), asked("eve", seconds=0.2))
    assert model.encoded == [(3, 80, 3000)]
    assert [(h.stream, h.text) for h in heard] == [("ada", "one"), ("bob", "two"), ("eve", "three")]


# Kinds


def test_finals_and_interims_are_of_different_kinds() -> None:
    batch = batch_of(Model())
    assert batch.kind(asked(final=True)) != batch.kind(asked(final=False))
    assert batch.kind(asked("ada", language="de")) == batch.kind(asked("bob", language="fr"))


def test_an_interim_takes_one_beam_and_a_final_five() -> None:
    model = Model()
    hear(model, asked(final=False))
    hear(model, asked(final=True))
    hear(model, asked(final=True), options=BatchOptions(beams=2))
    assert [each["beam_size"] for each in model.asked] == [1, 5, 2]


@pytest.mark.parametrize(
    ("seconds", "prompt", "most"),
    [
        # CTranslate2 generates half of it at most
        (0.1, "", 2 * (16 + 1)),
        (1.0, "", 2 * (16 + 12)),
        (10.0, "", 2 * (16 + 120)),
        (30.0, "", 2 * 224),
        (0.1, "x" * 99, 64 + 4 + 16 + 1),
    ],
)
def test_a_text_ends_where_nobody_could_say_more(seconds: float, prompt: str, most: int) -> None:
    model = Model()
    hear(model, asked(seconds=0.1, prompt=prompt), asked("bob", seconds=seconds, prompt=prompt))
    assert model.asked[0]["max_length"] == most


# Which language


def ranked(**shares: float) -> list[tuple[str, float]]:
    """As CTranslate2 says it: the likeliest first."""
    pairs = [(f"<|{language}|>", share) for language, share in shares.items()]
    return sorted(pairs, key=lambda pair: -pair[1])


def test_a_language_is_detected_among_those_that_are_allowed() -> None:
    model = Model(heard=[ranked(en=0.6, de=0.3, fr=0.1)])
    (heard,) = hear(model, asked(language="", detect=("fr", "de")))
    assert heard.language == "de"
    assert heard.evidence.heard_language == "de"
    # of what is allowed, and not of all
    assert heard.evidence.heard_probability == pytest.approx(0.75)
    assert model.prompts[0][0][1] == special("de")


def test_a_speaker_whose_language_is_known_is_heard_in_it_and_detected_beside() -> None:
    model = Model(heard=[ranked(en=0.9, de=0.1)])
    (heard,) = hear(model, asked(language="de", detect=("en", "de")))
    assert heard.language == "de"
    assert (heard.evidence.heard_language, heard.evidence.heard_probability) == ("en", 0.9)
    assert model.prompts[0][0][1] == special("de")


def test_nothing_is_detected_for_those_who_chose() -> None:
    model = Model()
    (heard,) = hear(model, asked(language="de"))
    assert model.detections == 0
    assert heard.evidence.heard_language == ""


def test_each_row_has_its_own_languages() -> None:
    everyone = ranked(en=0.5, de=0.3, fr=0.2)
    model = Model(heard=[everyone, everyone, everyone])
    heard = hear(
        model,
        asked("ada", language="", detect=("de", "fr")),
        asked("bob", language="", detect=("fr",)),
        asked("eve", language=""),
    )
    assert [h.language for h in heard] == ["de", "fr", "en"]
    assert model.detections == 1


def test_where_none_of_the_allowed_is_known_it_is_english() -> None:
    model = Model(heard=[ranked(de=1.0)])
    (heard,) = hear(model, asked(language="", detect=("xx",)))
    assert (heard.language, heard.evidence.heard_probability) == ("en", 0.0)


def test_a_warm_up_runs_interims_finals_and_detection() -> None:
    model = Model(heard=[ranked(en=1.0)])
    batch_of(model).warm_up()
    assert [each["beam_size"] for each in model.asked] == [1, 5]
    assert model.detections == 2
    english = Model(is_multilingual=False)
    batch_of(english).warm_up()
    assert len(english.asked) == 2


# What comes out


def test_a_hypothesis_says_how_sure_the_model_is() -> None:
    (heard,) = hear(Model(), asked())
    assert (heard.evidence.avg_logprob, heard.evidence.no_speech_prob) == (-0.25, 0.125)


def test_a_hypothesis_is_of_its_window() -> None:
    of = replace(asked("ada", final=True), utterance=7, revision=3, absorbed=(8,))
    (heard,) = hear(Model(texts=["  Hello there. "]), of)
    assert (heard.stream, heard.utterance, heard.revision) == ("ada", 7, 3)
    assert (heard.is_final, heard.absorbed, heard.text) == (True, (8,), "Hello there.")


def test_an_interim_is_not_aligned() -> None:
    model = Model()
    (heard,) = hear(model, asked())
    assert heard.words == ()
    assert model.aligned == []


def test_the_words_of_a_final_have_times_and_their_punctuation() -> None:
    # two times a token, 20 ms each: a byte takes 40 ms
    (heard,) = hear(Model(texts=[" hi, you."]), asked(final=True, start_s=10.0))
    begin, byte = 10 * SAMPLE_RATE, SAMPLE_RATE // 25
    assert [(w.text, w.start_sample - begin, w.end_sample - begin) for w in heard.words] == [
        ("hi,", 0, 4 * byte),
        ("you.", 4 * byte, 9 * byte),
    ]
    assert {w.confidence for w in heard.words} == {0.5}


def test_a_word_reaches_no_further_than_its_window() -> None:
    (heard,) = hear(Model(texts=[" hi there you"]), asked(final=True, seconds=0.2, start_s=1.0))
    assert max(w.end_sample for w in heard.words) == int(1.2 * SAMPLE_RATE)
    assert all(w.start_sample <= w.end_sample for w in heard.words)


def test_a_word_of_several_bytes_a_letter_stays_whole() -> None:
    (heard,) = hear(Model(texts=[" schöne Grüße"]), asked(final=True, language="de"))
    assert [w.text for w in heard.words] == ["schöne", "Grüße"]


def test_tokens_without_a_time_have_that_of_the_last() -> None:
    model = Model(texts=[" ab cd"], alignment=Alignment([(0, 5), (1, 6)], [0.5] * 6))
    (heard,) = hear(model, asked(final=True))
    tick = SAMPLE_RATE // 50
    assert [(w.start_sample, w.end_sample) for w in heard.words] == [
        (5 * tick, 6 * tick),
        (6 * tick, 6 * tick),
    ]


def test_one_call_aligns_all_rows_of_a_language() -> None:
    model = Model(texts=[" one", " eins", " two", ""])
    heard = hear(
        model,
        asked("ada", final=True),
        asked("bob", final=True, language="de", seconds=2.0),
        asked("eve", final=True),
        asked("dan", final=True),
    )
    german, english = model.aligned
    assert german[0] == [START, special("de"), special("transcribe")]
    assert english[0] == [START, special("en"), special("transcribe")]
    # the others go along without a text
    assert [decoded(text) for text in german[1]] == ["", " eins", "", ""]
    assert [decoded(text) for text in english[1]] == [" one", "", " two", ""]
    assert german[2] == english[2] == [100, 200, 100, 100]
    assert [[w.text for w in h.words] for h in heard] == [["one"], ["eins"], ["two"], []]


def test_finals_without_a_text_are_not_aligned() -> None:
    model = Model(texts=[""])
    (heard,) = hear(model, asked(final=True))
    assert (heard.text, heard.words, model.aligned) == ("", (), [])


# Memory


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("CUDA failed with error out of memory"),
        RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"),
        MemoryError(),
    ],
)
def test_a_batch_that_memory_is_not_enough_for_is_said_so(error: Exception) -> None:
    with pytest.raises(OutOfMemory, match="a batch of 2"):
        hear(Model(fails=error), asked("ada"), asked("bob"))


def test_another_failure_of_the_library_is_itself() -> None:
    with pytest.raises(RuntimeError, match="cuDNN"):
        hear(Model(fails=RuntimeError("cuDNN failed")), asked())


def test_audio_is_handed_over_between_minus_one_and_one() -> None:
    model = Model()
    hear(model, replace(asked(), samples=tone(1.0, level=1.0)))
    assert 0.9 < model.spectrograms[0].max() <= 1.0
