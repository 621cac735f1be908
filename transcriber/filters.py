"""Text that was never said: what an engine writes over silence, noise and music.

Layers, cheapest first; each has a reason, by which it is counted. Pure. Windows that are too
quiet are not sent at all (`transcriber.stream`).
"""

import unicodedata
import zlib
from dataclasses import dataclass
from enum import StrEnum

from transcriber.types import SAMPLE_RATE, Hypothesis

_NO_SPEECH_PROB = 0.6
_DOUBT = 0.3  # of speech, where the text was told before
_UNSURE_LOGPROB = -1.0
_LEAST_LOGPROB = -1.3
_MOST_COMPRESSION = 2.4
_LOOP_WORDS = (3, 4, 5, 6)
_LOOP_TIMES = 3
_LOOP_LEAST_WORDS = 2
_LOOP_SHARE = 0.8
# Nobody speaks more characters a second; a phrase of thanks over half a second was not said.
_CHARACTERS_PER_S = 25
_ECHO_WORDS = 4  # fewer may well be said again


class Never(StrEnum):
    """Why a text is taken for one that nobody said."""

    NO_SPEECH = "no_speech"
    REPETITIVE = "repetitive"
    UNSURE = "unsure"
    ECHO = "echo"
    LOOP = "loop"
    STOCK = "stock_phrase"


@dataclass(frozen=True, slots=True)
class Told:
    """What an engine was given beside the audio, and how much of that is speech."""

    prompt: str
    glossary: str
    speech_samples: int


# What Whisper's training set says when nobody speaks: the ends of films and broadcasts.
_STOCK: dict[str, frozenset[str]] = {
    "en": frozenset(
        {
            "thank you",
            "thank you very much",
            "thank you for watching",
            "thanks for watching",
            "thank you so much for watching",
            "please subscribe",
            "please subscribe to my channel",
            "like and subscribe",
            "see you next time",
            "see you in the next video",
            "subtitles by the amara org community",
            "bye bye",
        }
    ),
    "de": frozenset(
        {
            "vielen dank",
            "vielen dank fürs zuschauen",
            "danke fürs zuschauen",
            "bis zum nächsten mal",
            "untertitel der amara org community",
            "untertitel im auftrag des zdf für funk 2017",
            "untertitelung des zdf 2020",
        }
    ),
    "fr": frozenset(
        {
            "merci",
            "merci d avoir regardé cette vidéo",
            "merci d avoir regardé",
            "sous titres réalisés par la communauté d amara org",
            "sous titres réalisés para la communauté d amara org",
            "à bientôt",
        }
    ),
    "es": frozenset(
        {
            "gracias",
            "gracias por ver el video",
            "gracias por ver",
            "suscríbete al canal",
            "subtítulos realizados por la comunidad de amara org",
            "hasta la próxima",
        }
    ),
}


def never_said(hypothesis: Hypothesis, told: Told) -> Never | None:
    """Why this text is not to be shown; None where it may be."""
    text, evidence = hypothesis.text, hypothesis.evidence
    if not text:
        return None
    logprob, no_speech = evidence.avg_logprob, evidence.no_speech_prob
    is_unsure = logprob is not None and logprob < _UNSURE_LOGPROB
    if is_unsure and no_speech is not None and no_speech > _NO_SPEECH_PROB:
        return Never.NO_SPEECH
    words = _words(text)
    if _is_loop(words):
        return Never.LOOP
    if compression(text) > _MOST_COMPRESSION:
        return Never.REPETITIVE
    if logprob is not None and logprob < _LEAST_LOGPROB:
        return Never.UNSURE
    if _is_echo(words, told, no_speech):
        return Never.ECHO
    if _is_stock(words, hypothesis.language, told.speech_samples):
        return Never.STOCK
    return None


def compression(text: str) -> float:
    """How many times smaller it gets: a loop compresses well. A character is one byte: in UTF-8
    ordinary Hindi, Thai or Tamil compresses like a loop, for all its letters begin alike."""
    letters: dict[str, int] = {}
    encoded = bytes(letters.setdefault(letter, len(letters)) % 256 for letter in text)
    return len(encoded) / len(zlib.compress(encoded))


def _is_loop(words: list[str]) -> bool:
    """Whether one phrase, said over and over, is nearly all there is."""
    for length in _LOOP_WORDS:
        best = run = 0
        for index in range(length, len(words)):
            run = run + 1 if words[index] == words[index - length] else 0
            best = max(best, run)
        covered = best + length
        if len(set(words)) < _LOOP_LEAST_WORDS:
            return False  # "no no no no": people do
        if covered >= _LOOP_TIMES * length and covered >= _LOOP_SHARE * len(words):
            return True
    return False


def _is_echo(words: list[str], told: Told, no_speech: float | None) -> bool:
    """Whether it repeats what the engine was told, and was not said again: nobody recites the
    room's own words, and what was said before may be repeated, at the pace of speech."""
    if len(words) < _ECHO_WORDS:
        return False
    text = f" {' '.join(words)} "
    if text in f" {' '.join(_words(told.glossary))} ":
        return True
    if text not in f" {' '.join(_words(told.prompt))} ":
        return False
    return _is_too_fast(text, told.speech_samples) or (no_speech or 0.0) > _DOUBT


def _is_stock(words: list[str], language: str, speech_samples: int) -> bool:
    phrase = " ".join(words)
    if phrase not in _STOCK.get(language.split("-")[0].lower(), frozenset()):
        return False
    return _is_too_fast(phrase, speech_samples)


def _is_too_fast(text: str, speech_samples: int) -> bool:
    return speech_samples * _CHARACTERS_PER_S < len(text) * SAMPLE_RATE


def _words(text: str) -> list[str]:
    # the vowels of Indian scripts are marks, which a regular expression takes for no letters
    return "".join(c if is_of_word(c) else " " for c in text.casefold()).split()


def is_of_word(letter: str) -> bool:
    """Whether a character stands in a word, in any script."""
    return letter.isalnum() or letter == "_" or unicodedata.category(letter).startswith("M")
