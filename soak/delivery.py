"""Whether every final of a room came exactly once to everyone who listened. Pure.

What one listener was told, all must be told who were there then. A final is judged once it had
time to reach everyone; what comes still later makes up for a miss. Bounded: judged finals go.
"""

from dataclasses import dataclass, field

SETTLE_S = 20.0  # a listener who lost the line comes back within this
# Who came at about the time of a final may have missed it or not.
_AT_THE_DOOR_S = 2.0


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

    def came(self, listener: str, now: float) -> None:
        self._here[listener] = now

    def left(self, listener: str) -> None:
        self._here.pop(listener, None)

    def told(self, listener: str, seq: int, now: float) -> None:
        """`listener` was told the final `seq`."""
        final = self._open.get(seq)
        if final is None:
            if seq <= self._judged_to:
                self._told_late(listener, seq)
                return
            final = self._open[seq] = _Final(now, set())
            self.finals += 1
        if listener in final.told:
            self.twice += 1
        else:
            final.told.add(listener)
            self.delivered += 1

    def judge(self, now: float) -> None:
        """Look for who was not told what is old enough."""
        for seq, final in sorted(self._open.items()):
            if now - final.first_at < SETTLE_S:
                break
            for listener, since in self._here.items():
                if since <= final.first_at - _AT_THE_DOOR_S and listener not in final.told:
                    self._missed.add((seq, listener))
            del self._open[seq]
            self._judged_to = max(self._judged_to, seq)

    def _told_late(self, listener: str, seq: int) -> None:
        if (seq, listener) in self._missed:
            self._missed.remove((seq, listener))
            self.late += 1
            self.delivered += 1
        else:
            self.twice += 1
