"""How long to wait before a failed worker is replaced, and when to say that it is no use.

Each failure doubles the wait. After `_LIMIT` within `_WITHIN_S` the breaker is open: the engine
counts as failed, nothing is held for it, and it is tried once in `_COOL_S`. Pure: `now` is in
seconds of a monotonic clock.
"""

from collections import deque

_FIRST_S, _MOST_S = 0.1, 10.0
_LIMIT, _WITHIN_S = 5, 60.0
_COOL_S = 20.0
_MOST_DOUBLINGS = 16  # beyond what any wait needs; 2.0 to the power of 1,024 is an error


class Breaker:
    def __init__(self) -> None:
        self._failures: deque[float] = deque(maxlen=_LIMIT)
        self._in_a_row = 0

    def failed(self, now: float) -> float:
        """A worker failed; how long to wait before the next, in seconds."""
        self._failures.append(now)
        self._in_a_row += 1
        if self.is_open(now):
            return _COOL_S
        return min(_MOST_S, _FIRST_S * 2.0 ** min(self._in_a_row - 1, _MOST_DOUBLINGS))

    def worked(self) -> None:
        """A worker became ready."""
        self._in_a_row = 0

    def is_open(self, now: float) -> bool:
        return len(self._failures) == _LIMIT and now - self._failures[0] <= _WITHIN_S
