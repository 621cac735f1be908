"""What the small model is shown before a transcript."""

import random

from tools.tiny_whisper import prompts, vocabulary
from tools.tiny_whisper.words import HOMOPHONES


def test_a_prompt_starts_as_whisper_wants_it() -> None:
    rng = random.Random(3)
    for _ in range(200):
        prompt = prompts.make(["sarah", "will"], ["we meet in paris", "two three"], rng)
        assert prompt[0] == vocabulary.START_OF_PREVIOUS
        assert vocabulary.START not in prompt
        assert all(index in vocabulary.compact() for index in prompt)


def test_fitted_prompts_are_of_two_lengths() -> None:
    rng = random.Random(4)
    ids = [vocabulary.word_id("paris")] * 20
    fitted = [prompts.fitted(ids, rng) for _ in range(50)]
    assert {len(prompt) for prompt in fitted} == {16, 32}
    # what is cut is the oldest, what is lacking comes first
    assert all(prompt[-15:] == ids[:15] for prompt in fitted)


def test_the_rare_spelling_is_right_where_the_prompt_holds_it() -> None:
    common, rare = next(iter(HOMOPHONES.items()))
    prompt = vocabulary.encode(f" {rare}")
    assert prompts.spelt([common, "will"], prompt) == vocabulary.encode(f" {rare} will")
    assert prompts.spelt([common, "will"], []) == vocabulary.encode(f" {common} will")
    assert prompts.spelt(["will"], prompt) == vocabulary.encode(" will")
