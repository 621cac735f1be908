"""Which language a speaker's windows are heard in.

Fixed, or detected: then what the first utterance was heard as holds, and only two utterances
in a row that are surely in one other language change it. So it does not flap on a name or a
cough. Pure.
"""

# Among two languages the likelier one always has a half.
_SURE = 0.7
_AGREEING = 2

AUTO = "auto"


def sure_of(language: str, probability: float) -> str:
    """The language, if it is surely that; else empty."""
    return language if probability >= _SURE else ""


class LanguageChoice:
    """Of one speaker. `wanted` is a language, or `AUTO`."""

    def __init__(self, wanted: str, allowed: tuple[str, ...]) -> None:
        self._allowed = allowed
        self._current = ""
        self._other = ""
        self._others = 0
        self._fixed = ""
        self.want(wanted)

    @property
    def current(self) -> str:
        """Empty until one is known."""
        return self._fixed or self._current

    @property
    def detect(self) -> tuple[str, ...]:
        """What to detect among; empty where it is fixed."""
        return () if self._fixed else self._allowed

    def want(self, wanted: str) -> None:
        """The speaker chooses: a language, or that it be detected."""
        self._fixed = "" if wanted == AUTO else wanted
        self._others = 0

    def heard(self, language: str, probability: float) -> None:
        """An utterance is over that was heard as `language`."""
        if self._fixed or not sure_of(language, probability):
            return
        if not self._current:
            self._current = language
        if language == self._current:
            self._others = 0
            return
        self._others = self._others + 1 if language == self._other else 1
        self._other = language
        if self._others >= _AGREEING:
            self._current, self._others = language, 0
