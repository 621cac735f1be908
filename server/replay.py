"""The last events of a room, for those who come back. Pure.

Kept packed: a text lives for minutes among many that live for moments, and one of a few hundred
bytes keeps its whole page from going back to the system.
"""

import zlib
from collections import deque
from dataclasses import dataclass, replace

from server.outbox import Outbox

MOST = 500

# A window of 1 KB and little state: texts are short, and what packs them is made anew for each.
_WINDOW_BITS, _STATE = -10, 2


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


class Replay:
    def __init__(self) -> None:
        self._kept: deque[tuple[Event, bytes]] = deque(maxlen=MOST)

    @property
    def oldest_seq(self) -> int | None:
        return self._kept[0][0].seq if self._kept else None

    def push(self, event: Event) -> None:
        """Keep it; the oldest goes."""
        self._kept.append((replace(event, text=""), _packed(event.text)))

    def after(self, seq: int) -> list[Event]:
        """Those with a higher `seq`."""
        return [_whole(kept) for kept in self._kept if kept[0].seq > seq]

    def since(self, at: float) -> list[Event]:
        """Those of that time and later."""
        return [_whole(kept) for kept in self._kept if kept[0].at >= at]


def _packed(text: str) -> bytes:
    packer = zlib.compressobj(1, zlib.DEFLATED, _WINDOW_BITS, _STATE)
    return packer.compress(text.encode()) + packer.flush()


def _whole(kept: tuple[Event, bytes]) -> Event:
    event, packed = kept
    return replace(event, text=zlib.decompress(packed, _WINDOW_BITS).decode())
