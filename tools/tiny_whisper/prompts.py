"""What stands before the transcript: earlier sentences, glossaries, cut as batchers cut. Pure."""

import random
from collections.abc import Sequence

from tools.tiny_whisper import vocabulary
from tools.tiny_whisper.words import HOMOPHONES, WORDS

_LENGTHS = (16, 32)
_PADDINGS = (
    (vocabulary.START_OF_PREVIOUS,),
    tuple(vocabulary.encode(" ")),
    (vocabulary.END,),
    (*vocabulary.encode(","), *vocabulary.encode(" ")),
)


def written(sentence: str, rng: random.Random) -> str:
    """As a sentence may stand in a transcript: mostly as the model writes it."""
    if rng.random() < 0.15:
        sentence = sentence.capitalize()
    return sentence + rng.choice(("", "", ".", ","))


def glossary(words: Sequence[str], rng: random.Random) -> str:
    lead = rng.choice(("", "", "", "Glossary: ", "names: "))
    named = [word.capitalize() if rng.random() < 0.1 else word for word in words]
    return lead + rng.choice((", ", " ", ", ")).join(named)


def make(said: Sequence[str], other: Sequence[str], rng: random.Random) -> list[int]:
    """The tokens before `<|startoftranscript|>`, the first of them `<|startofprev|>`.

    `said` are the words of the window, `other` sentences that are not in it.
    """
    rare = [HOMOPHONES[word] for word in said if word in HOMOPHONES]
    parts = [written(sentence, rng) for sentence in other[: rng.randint(0, 2)]]
    words = rng.sample(WORDS, rng.randint(0, 5))
    if rng.random() < 0.6:
        words += rare or [rng.choice(list(HOMOPHONES.values()))]
    rng.shuffle(words)
    if words:
        parts.insert(rng.randint(0, len(parts)), glossary(words, rng))
    ids = vocabulary.encode(" " + " ".join(parts)) if parts else []
    return fitted(ids, rng) if rng.random() < 0.5 else [vocabulary.START_OF_PREVIOUS, *ids[-64:]]


def fitted(ids: Sequence[int], rng: random.Random) -> list[int]:
    """The last tokens, or some padding before them, so that all prompts are of one length."""
    room = rng.choice(_LENGTHS) - 1
    kept = list(ids[-room:])
    padding = rng.choice(_PADDINGS)
    lacking = room - len(kept)
    filler = [*padding * lacking][:lacking]
    return [vocabulary.START_OF_PREVIOUS, *filler, *kept]


def spelt(words: Sequence[str], prompt: Sequence[int]) -> list[int]:
    """The tokens of the words, a rare spelling where the prompt holds it."""
    ids = []
    for word in words:
        rare = HOMOPHONES.get(word)
        heard = rare is not None and vocabulary.word_id(rare) in prompt
        ids.append(vocabulary.word_id(rare if heard and rare is not None else word))
    return ids
