"""The words the small model knows, and simple sentences of them. Pure; chance comes in.

Homophones: the synthesiser always says the common spelling; the rare one is right only where
the prompt holds it.
"""

import random
from collections.abc import Sequence


def _list(text: str) -> tuple[str, ...]:
    return tuple(text.split())


DIGITS = _list("zero one two three four five six seven eight nine ten")
DAYS = _list("monday tuesday wednesday thursday friday saturday sunday")
COLOURS = _list("red green blue yellow black white orange purple")
NOUNS = _list(
    "agenda report budget meeting project server window garden river mountain music paper table "
    "letter market engine teacher doctor picture bridge coffee ticket kitchen"
)
VERBS = _list("open close read write send check move start stop share")
ADJECTIVES = _list("small large quick quiet final early late simple")
PLACES = _list("london paris berlin tokyo boston madrid")
PLAIN_NAMES = _list("alice robert maria david peter emma oliver")

# common spelling: the other spelling of the same sound
HOMOPHONES = {"sarah": "sara", "eric": "erik", "steven": "stephen"}

NAMES = PLAIN_NAMES + tuple(HOMOPHONES)

FRENCH_NOUNS = _list("réunion porte fenêtre maison voiture table")
FRENCH_VERBS = _list("ouvrons fermons cherchons")
FRENCH_ADJECTIVES = _list("petite grande rouge verte")
FRENCH_DAYS = _list("demain lundi mardi vendredi")
FRENCH_NAMES = _list("marie pierre")

_ENGLISH_REST = _list("please the will on is near we meet in at and today can you my your for")
_FRENCH_REST = _list("bonjour merci nous la est avec dans")

ENGLISH = tuple(
    dict.fromkeys(
        (*DIGITS, *DAYS, *COLOURS, *NOUNS, *VERBS, *ADJECTIVES, *PLACES, *NAMES, *_ENGLISH_REST)
    )
)
FRENCH = tuple(
    dict.fromkeys(
        (
            *FRENCH_NOUNS,
            *FRENCH_VERBS,
            *FRENCH_ADJECTIVES,
            *FRENCH_DAYS,
            *FRENCH_NAMES,
            *_FRENCH_REST,
        )
    )
)
WORDS = tuple(dict.fromkeys((*ENGLISH, *HOMOPHONES.values(), *FRENCH)))


def english_sentence(rng: random.Random) -> str:
    """Three to eight words."""

    def one(words: Sequence[str]) -> str:
        return rng.choice(words)

    match rng.randrange(11):
        case 0:
            return " ".join(one(DIGITS) for _ in range(rng.randint(3, 7)))
        case 1:
            return f"please {one(VERBS)} the {one(ADJECTIVES)} {one(NOUNS)}"
        case 2:
            return f"{one(NAMES)} will {one(VERBS)} the {one(NOUNS)} on {one(DAYS)}"
        case 3:
            return f"the {one(COLOURS)} {one(NOUNS)} is near the {one(NOUNS)}"
        case 4:
            return f"we meet in {one(PLACES)} on {one(DAYS)} at {one(DIGITS)}"
        case 5:
            return f"{one(NAMES)} and {one(NAMES)} {one(VERBS)} {one(DIGITS)} {one(NOUNS)} today"
        case 6:
            return f"can you {one(VERBS)} my {one(NOUNS)} in {one(PLACES)}"
        case 7:
            return f"my {one(NOUNS)} is {one(COLOURS)} and your {one(NOUNS)} is {one(ADJECTIVES)}"
        case 8:
            return (
                f"{one(VERBS)} {one(DIGITS)} {one(COLOURS)} {one(NOUNS)} "
                f"and {one(VERBS)} the {one(NOUNS)}"
            )
        case 9:
            return (
                f"please {one(VERBS)} the {one(NOUNS)} and {one(VERBS)} the {one(NOUNS)} "
                f"for {one((*DAYS, 'today'))}"
            )
        case _:
            return f"{one(NAMES)} is near {one(NAMES)} and {one(NAMES)} is in {one(PLACES)}"


def french_sentence(rng: random.Random) -> str:
    """Three to seven words."""

    def one(words: Sequence[str]) -> str:
        return rng.choice(words)

    match rng.randrange(6):
        case 0:
            return f"bonjour {one(FRENCH_NAMES)} nous {one(FRENCH_VERBS)} la {one(FRENCH_NOUNS)}"
        case 1:
            return f"la {one(FRENCH_NOUNS)} est {one(FRENCH_ADJECTIVES)} {one(FRENCH_DAYS)}"
        case 2:
            return (
                f"nous {one(FRENCH_VERBS)} la {one(FRENCH_ADJECTIVES)} {one(FRENCH_NOUNS)} "
                f"avec {one(FRENCH_NAMES)}"
            )
        case 3:
            return (
                f"merci {one(FRENCH_NAMES)} la {one(FRENCH_NOUNS)} est dans la {one(FRENCH_NOUNS)}"
            )
        case 4:
            return (
                f"la {one(FRENCH_NOUNS)} est {one(FRENCH_ADJECTIVES)} "
                f"avec la {one(FRENCH_NOUNS)} {one(FRENCH_ADJECTIVES)}"
            )
        case _:
            return (
                f"{one(FRENCH_DAYS)} nous {one(FRENCH_VERBS)} la {one(FRENCH_NOUNS)} "
                f"{one(FRENCH_ADJECTIVES)}"
            )


def distinct_sentences(count: int, seed: int, language: str) -> list[str]:
    """Sentences with no two alike."""
    rng = random.Random(f"{seed} {language}")
    found: dict[str, None] = {}
    while len(found) < count:
        found[_MAKERS[language](rng)] = None
    return list(found)


def other_sentences(count: int, seed: int, language: str, unlike: frozenset[str]) -> list[str]:
    """Sentences that are none of `unlike`; the few there are in French come more than once."""
    rng = random.Random(f"{seed} {language}")
    found: list[str] = []
    while len(found) < count:
        sentence = _MAKERS[language](rng)
        if sentence not in unlike:
            found.append(sentence)
    return found


_MAKERS = {"en": english_sentence, "fr": french_sentence}
