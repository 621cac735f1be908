"""Windows and hypotheses for tests, said in words of the field."""

import numpy as np

from transcriber.protocol import Sent, Tail
from transcriber.types import (
    SAMPLE_RATE,
    GapReason,
    Hypothesis,
    Samples,
    StreamId,
    Window,
    Word,
)


def window(
    stream: str = "ada",
    *,
    utterance: int = 1,
    revision: int = 1,
    final: bool = False,
    start_s: float = 0.0,
    seconds: float = 1.0,
    samples: Samples | None = None,
    language: str = "en",
    prompt: str = "",
    absorbed: tuple[int, ...] = (),
    glossary: str = "",
    detect: tuple[str, ...] = (),
) -> Window:
    if samples is None:
        samples = np.zeros(round(seconds * SAMPLE_RATE), np.int16)
    return Window(
        StreamId(stream),
        utterance,
        revision,
        round(start_s * SAMPLE_RATE),
        samples,
        final,
        language,
        prompt,
        absorbed,
        glossary,
        detect,
    )


def hypothesis(
    of: Window,
    text: str,
    *,
    words: tuple[Word, ...] = (),
    absorbed: tuple[int, ...] | None = None,
    lost: GapReason | None = None,
) -> Hypothesis:
    return Hypothesis(
        of.stream,
        of.utterance,
        of.revision,
        of.is_final,
        text,
        of.language,
        words,
        of.absorbed if absorbed is None else absorbed,
        lost,
    )


def tail_of(now: Window, before: Window | None) -> Window | Tail:
    """What is sent of a window after the one before it."""
    return now if before is None else Sent.of(before).rest_of(now)
