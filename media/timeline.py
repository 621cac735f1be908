"""Places decoded frames on one clock: the speaker's own, from their first audio on.

Positions are in units of the codec's RTP clock. Small holes are filled so that the audio
stays in one piece, overlaps are cut, and a hole too large to fill is a `Jump` with its
reason. A timestamp that jumps (a sender that restarted its clock) is not believed: the
time that passed here is. Pure: `now` is in seconds of any monotonic clock.
"""

from enum import StrEnum
from typing import NamedTuple


class Jump(StrEnum):
    """Why audio before a frame is missing."""

    SILENCE = "silence"  # the sender sent nothing: DTX, mute
    NETWORK = "network"  # it was sent and did not arrive


class Placement(NamedTuple):
    """Where a frame stands, and what to do to put it there."""

    position: int  # of the first sample kept, in clock units
    fill: int = 0  # units of silence to put before it; they end at `position`
    skip: int = 0  # units to cut from its head, at most the whole frame
    jump: Jump | None = None  # not in one piece with what came before


# Beyond three frames of 20 ms, or one of 60, concealment sounds and reads worse than a gap.
_FILL_S = 0.06
# How far a timestamp's step may be ahead of the time that passed and still be believed:
# a network that stalls delivers late, not early.
_TRUST_S = 1.0
# A step back within this is an overlap (a sender's own concealment); beyond it the sender has
# restarted its clock, and cutting would throw real audio away.
_OVERLAP_S = 0.1


class Timeline:
    """In: timestamp, length and arrival of each frame. Out: its `Placement`.

    `position` and `at` say where the clock stood when: a track that follows on another of
    the same speaker goes on from there.
    """

    def __init__(self, clock_rate: int, *, position: int = 0, at: float | None = None) -> None:
        self._clock_rate = clock_rate
        self._fill = int(_FILL_S * clock_rate)
        self._trust = int(_TRUST_S * clock_rate)
        self._overlap = int(_OVERLAP_S * clock_rate)
        self._position = position
        self._arrived = at
        self._expected: int | None = None

    @property
    def position(self) -> int:
        """Where the next frame stands if nothing is missing."""
        return self._position

    @property
    def at(self) -> float | None:
        """When the last frame came."""
        return self._arrived

    def restart(self) -> None:
        """The next frame has a clock of its own (another SSRC): place it by its arrival."""
        self._expected = None

    def place(self, timestamp: int, length: int, *, lost: bool, now: float) -> Placement:
        """Place a frame of `length` units; `lost` says that packets before it are missing."""
        step = 0 if timestamp == self._expected else self._step(timestamp, length, now)
        self._arrived = now
        # A frame cut away whole leaves the clock where it was: at `timestamp - step`.
        self._expected = (timestamp + max(length, -step)) & 0xFFFFFFFF
        if step < 0:
            skip = min(-step, length)
            start = self._position
            self._position += length - skip
            return Placement(start, skip=skip)
        start = self._position + step
        self._position = start + length
        # One packet's length can be had from the next; what is before that is made up.
        if step <= self._fill or (lost and step <= self._fill + length):
            return Placement(start, fill=step)
        return Placement(start, jump=Jump.NETWORK if lost else Jump.SILENCE)

    def _step(self, timestamp: int, length: int, now: float) -> int:
        """Units between the end of the last frame and the start of this one."""
        elapsed = 0.0 if self._arrived is None else max(0.0, now - self._arrived)
        passed = max(0, int(elapsed * self._clock_rate) - length)
        if self._expected is None:
            return passed
        step = _signed32(timestamp - self._expected)
        if -self._overlap <= step <= passed + self._trust:
            return step
        return passed


def _signed32(difference: int) -> int:
    return ((difference + 0x80000000) & 0xFFFFFFFF) - 0x80000000
