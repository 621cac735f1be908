"""The last events of a room, for those who come back. Pure.

All but the newest are kept packed, many in one: what lives for minutes among much that lives for
moments keeps whole pages of memory from going back to the system, however small it is.
"""

import json
import zlib
from collections import deque
from dataclasses import astuple, dataclass

from server.outbox import Outbox

MOST = 500
TOGETHER = 20


@dataclass(frozen=True, slots=True)
class Event:
    """A caption or a gap as it goes on the wire."""

    seq: int
    kind: str  # "caption" or "gap"
    text: str
    segment: str | None
    is_final: bool
    at: float  # monotonic

    @property
    def as_sse(self) -> str:
        return f"event: {self.kind}\nid: {self.seq}\ndata: {self.text}\n\n"

    def put_into(self, outbox: Outbox, text: str) -> None:
        if self.is_final:
            if self.segment is not None:
                outbox.drop(self.segment)
            outbox.put(text)
        else:
            outbox.put(text, replaces=self.segment, is_final=False)


@dataclass(frozen=True, slots=True)
class _Packed:
    first_seq: int
    last_seq: int
    last_at: float
    events: bytes

    @classmethod
    def of(cls, events: list[Event]) -> "_Packed":
        told = json.dumps([astuple(event) for event in events])
        last = events[-1]
        return cls(events[0].seq, last.seq, last.at, zlib.compress(told.encode(), 1))

    def unpacked(self) -> list[Event]:
        return [Event(*told) for told in json.loads(zlib.decompress(self.events))]


class Replay:
    """The last 500, and at times some more."""

    def __init__(self) -> None:
        self._packed: deque[_Packed] = deque()
        self._newest: list[Event] = []

    @property
    def oldest_seq(self) -> int | None:
        if self._packed:
            return self._packed[0].first_seq
        return self._newest[0].seq if self._newest else None

    def push(self, event: Event) -> None:
        """Keep it; the oldest go."""
        self._newest.append(event)
        if len(self._newest) == TOGETHER:
            self._packed.append(_Packed.of(self._newest))
            self._newest = []
            if len(self._packed) > MOST // TOGETHER:
                self._packed.popleft()

    def after(self, seq: int) -> list[Event]:
        """Those with a higher `seq`."""
        packed = [p for p in self._packed if p.last_seq > seq]
        return [event for event in self._all(packed) if event.seq > seq]

    def since(self, at: float) -> list[Event]:
        """Those of that time and later."""
        packed = [p for p in self._packed if p.last_at >= at]
        return [event for event in self._all(packed) if event.at >= at]

    def _all(self, packed: list[_Packed]) -> list[Event]:
        return [*(event for p in packed for event in p.unpacked()), *self._newest]
