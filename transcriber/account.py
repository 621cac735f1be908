"""Where all of one speaker's audio went, to the sample.

Transcribed, silence, lost with a reason, or still on its way: the four sum to what the
speaker's clock has covered. Pure; positions are in samples.
"""

from collections import deque
from dataclasses import dataclass, field

from transcriber.types import GapReason


@dataclass(frozen=True, slots=True)
class Fates:
    """Samples by what became of them."""

    received: int = 0  # all of those below
    transcribed: int = 0
    silence: int = 0
    pending: int = 0
    dropped: dict[GapReason, int] = field(default_factory=dict)

    def plus(self, other: "Fates") -> "Fates":
        reasons = {*self.dropped, *other.dropped}
        return Fates(
            self.received + other.received,
            self.transcribed + other.transcribed,
            self.silence + other.silence,
            self.pending + other.pending,
            {r: self.dropped.get(r, 0) + other.dropped.get(r, 0) for r in sorted(reasons)},
        )


class Account:
    def __init__(self) -> None:
        self._first: int | None = None
        self._end = 0
        self._to = 0  # everything before has a fate, or belongs to an utterance
        self._transcribed = 0
        self._silence = 0
        self._awaited = 0
        self._dropped: dict[GapReason, int] = {}
        self._bridged: deque[tuple[int, int]] = deque()  # lost pieces that no utterance took yet

    def heard(self, start: int, end: int) -> None:
        """Audio came."""
        if self._first is None:
            self._first = self._to = start
        self._end = end

    def missed(self, start: int, end: int, reason: GapReason | None) -> None:
        """Audio did not come; without a reason it was silence. It is no part of what was said."""
        self.silent_to(start)
        if reason is None:
            self._silence += end - start
        else:
            self._drop(reason, end - start)
        self._to = self._end = end

    def bridged(self, start: int, end: int, reason: GapReason) -> None:
        """Audio did not come, and the utterance around it goes on."""
        self._drop(reason, end - start)
        self._bridged.append((start, end))
        self._end = end

    def silent_to(self, position: int) -> None:
        """No utterance can begin before this any more."""
        if position > self._to:
            self._silence += position - self._to - self._take_bridged(position)
            self._to = position

    def utterance(self, start: int, end: int) -> int:
        """An utterance is over; how many samples are its alone."""
        self.silent_to(start)
        share = max(0, end - self._to)
        if share:
            share -= self._take_bridged(end)
            self._to = end
        self._awaited += share
        return share

    def settle(self, share: int, lost: GapReason | None, *, was_said: bool) -> None:
        """What became of an utterance."""
        self._awaited -= share
        if lost is not None:
            self._drop(lost, share)
        elif was_said:
            self._transcribed += share
        else:
            self._silence += share

    def fates(self) -> Fates:
        spoken_now = self._end - self._to - sum(end - start for start, end in self._bridged)
        return Fates(
            self._end - (self._first or 0),
            self._transcribed,
            self._silence,
            self._awaited + spoken_now,
            dict(self._dropped),
        )

    def _drop(self, reason: GapReason, samples: int) -> None:
        self._dropped[reason] = self._dropped.get(reason, 0) + samples

    def _take_bridged(self, before: int) -> int:
        """Samples of the lost pieces that end up to here; they are let go."""
        taken = 0
        while self._bridged and self._bridged[0][0] < before:
            start, end = self._bridged.popleft()
            taken += min(end, before) - start
            if end > before:
                self._bridged.appendleft((before, end))
        return taken
