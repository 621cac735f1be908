"""Puts RTP packets back in order, and never waits long for one that is lost.

Owns the 16-bit sequence arithmetic. A hole is waited on until `depth` packets stand
behind it or it is `hold_s` old, then given up: a lost packet costs its own frame and
no more. Pure: time comes in as `now`, in seconds of any monotonic clock.
"""

from collections.abc import Iterator
from typing import Generic, NamedTuple, TypeVar

T = TypeVar("T")

# Beyond these steps it is another stream, not loss or reordering (RFC 3550 A.1).
_MAX_DROPOUT = 3000
_MAX_MISORDER = 100


class InOrder(NamedTuple, Generic[T]):
    """A packet whose turn has come, and how many before it never arrived."""

    packet: T
    lost_before: int


class ReorderBuffer(Generic[T]):
    """In: packets as the network brings them. Out: packets in the order they were sent."""

    def __init__(self, *, hold_s: float = 0.08, depth: int = 4) -> None:
        self._hold_s = hold_s
        self._depth = depth
        self._held: dict[int, tuple[T, float]] = {}
        self._next: int | None = None
        self.lost = 0
        self.late = 0  # their turn was over, or they came twice

    def push(self, sequence: int, packet: T, now: float) -> list[InOrder[T]]:
        """Take a packet; return those whose turn has come."""
        if self._next is None:
            self._next = sequence
        elif sequence == self._next & 0xFFFF and not self._held:
            self._next += 1
            return [InOrder(packet, 0)]
        step = _signed16(sequence - self._next)
        ready: list[InOrder[T]] = []
        if step >= _MAX_DROPOUT or step <= -_MAX_MISORDER:
            ready.extend(self.flush())
            self._next = sequence
            step = 0
        if step == 0 and not self._held:
            self._next += 1
            return [*ready, InOrder(packet, 0)]
        position = self._next + step
        if step < 0 or position in self._held:
            self.late += 1
            return ready
        self._held[position] = (packet, now)
        ready.extend(self._release())
        while len(self._held) >= self._depth:
            ready.extend(self._give_up_hole())
        ready.extend(self.expire(now))
        return ready

    def expire(self, now: float) -> list[InOrder[T]]:
        """Return what waited too long behind a hole."""
        ready: list[InOrder[T]] = []
        while (deadline := self.next_deadline()) is not None and deadline <= now:
            ready.extend(self._give_up_hole())
        return ready

    def next_deadline(self) -> float | None:
        """When `expire` has something to do next; None while nothing is held."""
        if not self._held:
            return None
        return min(arrived for _, arrived in self._held.values()) + self._hold_s

    def flush(self) -> list[InOrder[T]]:
        """Return all that is held, in order: no more will come."""
        ready: list[InOrder[T]] = []
        while self._held:
            ready.extend(self._give_up_hole())
        return ready

    def reset(self) -> None:
        """Forget the place in the sequence: the next packet starts a new one."""
        self._held.clear()
        self._next = None

    def _release(self, lost_before: int = 0) -> Iterator[InOrder[T]]:
        while self._next is not None and self._next in self._held:
            packet, _ = self._held.pop(self._next)
            # Positions grow beyond 16 bits; only `_signed16` of a difference is used.
            self._next += 1
            yield InOrder(packet, lost_before)
            lost_before = 0

    def _give_up_hole(self) -> Iterator[InOrder[T]]:
        assert self._next is not None
        first = min(self._held)
        lost = first - self._next
        self.lost += lost
        self._next = first
        yield from self._release(lost)


def _signed16(difference: int) -> int:
    return ((difference + 0x8000) & 0xFFFF) - 0x8000
