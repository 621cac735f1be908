"""Agreement of successive hypotheses: which words of an utterance are stable.

LocalAgreement-2: a word is stable once two successive hypotheses agree on it and on all
before it. Words are compared, not times, and without case or punctuation. Stable text
only grows until the final, which may restate it. Pure.
"""

import re
from dataclasses import dataclass

_EDGE = re.compile(r"^\W+|\W+$")


@dataclass(frozen=True, slots=True)
class Agreed:
    """Text to show; `stable + tentative` reads as one."""

    stable: str
    tentative: str
    words_shown: int  # for the first time
    words_taken_back: int  # shown before, and now gone or changed


class Agreement:
    """Of one utterance."""

    def __init__(self) -> None:
        self._stable: list[str] = []
        self._last: list[str] = []
        self._shown: list[str] = []

    @property
    def stable(self) -> str:
        return " ".join(self._stable)

    def update(self, text: str) -> Agreed:
        """Take an interim hypothesis."""
        words = text.split()
        agreed = _common(self._last, words)
        # Words that contradict the stable ones are not shown; the final may restate.
        if agreed > len(self._stable) and _common(self._stable, words) == len(self._stable):
            self._stable += words[len(self._stable) : agreed]
        self._last = words
        return self._show(self._stable, words[len(self._stable) :])

    def finish(self, text: str) -> Agreed:
        """Take the final hypothesis: all of it is stable."""
        self._stable = text.split()
        return self._show(self._stable, [])

    def _show(self, stable: list[str], tentative: list[str]) -> Agreed:
        shown = stable + tentative
        kept = _common(self._shown, shown)
        taken_back = len(self._shown) - kept
        new = len(shown) - kept
        self._shown = shown
        joined = " ".join(tentative)
        return Agreed(
            " ".join(stable), " " + joined if stable and joined else joined, new, taken_back
        )


def without_doubled_start(previous: str, text: str) -> str:
    """Drop from `text` the words that an overlap of two cuts repeats from `previous`."""
    before, words = previous.split(), text.split()
    for count in (3, 2, 1):
        if count <= min(len(before), len(words)) and same_words(before[-count:], words[:count]):
            return " ".join(words[count:])
    return text


def same_words(first: list[str], second: list[str]) -> bool:
    return len(first) == len(second) and _common(first, second) == len(first)


def _common(first: list[str], second: list[str]) -> int:
    """How many words the two share from the start."""
    count = 0
    for one, other in zip(first, second, strict=False):
        if _bare(one) != _bare(other):
            break
        count += 1
    return count


def _bare(word: str) -> str:
    return _EDGE.sub("", word).casefold() or word
