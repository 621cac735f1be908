"""Whether every final of a room came exactly once to everyone who listened. Pure.

What one listener was told, all must be told who were there then. A final is judged once it had
time to reach everyone; what comes still later makes up for a miss. Bounded: judged finals go.

In a call of Talk nobody is told the number of a final, only who said what. `CallDelivery` finds
the number: that of the first final of these words which the listener was not told yet.
"""

import math
from collections import defaultdict, deque
from collections.abc import Iterator
from dataclasses import dataclass, field

SETTLE_S = 20.0  # a listener who lost the line comes back within this
# Who came at about the time of a final may have missed it or not.
_AT_THE_DOOR_S = 2.0
# Who is in a call may be told before the reader of its room is.
_EARLY_S = 5.0
_KNOWN_S = 120.0  # what comes after that is no longer told apart


@dataclass(slots=True)
class _Final:
    first_at: float
    told: set[str]


@dataclass(slots=True)
class Delivery:
    """One room's finals, by `seq`."""

    finals: int = 0
    delivered: int = 0
    twice: int = 0
    late: int = 0
    _open: dict[int, _Final] = field(default_factory=dict)
    _here: dict[str, float] = field(default_factory=dict)
    _missed: set[tuple[int, str]] = field(default_factory=set)
    _judged_to: int = 0

    @property
    def missing(self) -> int:
        return len(self._missed)

    @property
    def listeners(self) -> int:
        return len(self._here)

    def came(self, listener: str, now: float) -> None:
        self._here[listener] = now

    def left(self, listener: str) -> None:
        """It is not known any more: what it is owed does not come."""
        self._missed.update(
            (seq, listener) for seq, final in self._open.items() if listener in self._owed(final)
        )
        self._here.pop(listener, None)

    def begin_anew(self) -> None:
        """The room is another of that name, which counts from 1; who listened comes again."""
        self._open.clear()
        self._here.clear()
        self._judged_to = 0

    def made(self, seq: int, now: float) -> None:
        """There is the final `seq`, whoever will be told."""
        if seq > self._judged_to and seq not in self._open:
            self._open[seq] = _Final(now, set())
            self.finals += 1

    def told(self, listener: str, seq: int, now: float) -> None:
        """`listener` was told the final `seq`."""
        self.made(seq, now)
        final = self._open.get(seq)
        if final is None:
            self._told_late(listener, seq)
        elif listener in final.told:
            self.twice += 1
        else:
            final.told.add(listener)
            self.delivered += 1

    def judge(self, now: float) -> None:
        """Look for who was not told what is old enough."""
        for seq, final in sorted(self._open.items()):
            if now - final.first_at < SETTLE_S:
                break
            self._missed.update((seq, listener) for listener in self._owed(final))
            del self._open[seq]
            self._judged_to = max(self._judged_to, seq)

    @property
    def is_settled(self) -> bool:
        """Whether nobody is to be told anything any more, by now."""
        return not any(name for final in self._open.values() for name in self._owed(final))

    def _owed(self, final: _Final) -> Iterator[str]:
        """Who was there and was not told."""
        for listener, since in self._here.items():
            if since <= final.first_at - _AT_THE_DOOR_S and listener not in final.told:
                yield listener

    def _told_late(self, listener: str, seq: int) -> None:
        if (seq, listener) in self._missed:
            self._missed.remove((seq, listener))
            self.late += 1
            self.delivered += 1
        else:
            self.twice += 1


Words = tuple[str, str]  # who said them, and what


@dataclass(slots=True)
class _Said:
    seq: int
    at: float
    told: set[str] = field(default_factory=set)


@dataclass(slots=True, eq=False)
class CallDelivery:
    """One call's finals: as a reader of its room has them, and as those in the call do."""

    _delivery: Delivery = field(default_factory=Delivery)
    _since: dict[str, float] = field(default_factory=dict)
    _reader_since: float = math.inf
    _said: defaultdict[Words, deque[_Said]] = field(default_factory=lambda: defaultdict(deque))
    _early: deque[tuple[float, str, Words]] = field(default_factory=deque)
    _again: int = 0
    _unheard_of: int = 0

    @property
    def finals(self) -> int:
        return self._delivery.finals

    @property
    def delivered(self) -> int:
        return self._delivery.delivered

    @property
    def missing(self) -> int:
        """By those in the call, or by the reader."""
        return self._delivery.missing + self._unheard_of

    @property
    def twice(self) -> int:
        return self._delivery.twice + self._again

    @property
    def late(self) -> int:
        return self._delivery.late

    @property
    def is_settled(self) -> bool:
        """Whether all have been told all, and the same, by now."""
        return self._delivery.is_settled and not self._early

    def reader_came(self, now: float) -> None:
        self._reader_since = min(self._reader_since, now)

    def came(self, listener: str, now: float) -> None:
        self._since[listener] = now
        self._delivery.came(listener, now)

    def said(self, seq: int, words: Words, now: float) -> None:
        """The reader of the room was told of a final."""
        self._delivery.made(seq, now)
        self._said[words].append(_Said(seq, now))
        early, self._early = self._early, deque()
        for at, listener, of in early:
            if of != words or not self._match(listener, of, now):
                self._early.append((at, listener, of))

    def told(self, listener: str, words: Words, now: float) -> None:
        """One of those in the call read a final."""
        if not self._match(listener, words, now):
            self._early.append((now, listener, words))

    def judge(self, now: float) -> None:
        while self._early and self._early[0][0] <= now - _EARLY_S:
            self._judge_early(*self._early.popleft())
        for words, several in list(self._said.items()):
            while several and several[0].at < now - _KNOWN_S:
                several.popleft()
            if not several:
                del self._said[words]
        self._delivery.judge(now)

    def end(self) -> None:
        """What is not settled by now never will be."""
        self.judge(math.inf)

    def _match(self, listener: str, words: Words, now: float) -> bool:
        begins = self._since[listener] - _AT_THE_DOOR_S
        for said in self._said.get(words, ()):
            if said.at >= begins and listener not in said.told:
                said.told.add(listener)
                self._delivery.told(listener, said.seq, now)
                return True
        return False

    def _judge_early(self, at: float, listener: str, words: Words) -> None:
        if any(listener in said.told for said in self._said.get(words, ())):
            self._again += 1
        elif at >= self._reader_since + _AT_THE_DOOR_S:
            self._unheard_of += 1
