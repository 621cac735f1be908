"""`Outbox`: what waits to go to one reader of captions, over a WebSocket or SSE.

Interims give way when the reader is behind: a newer revision takes the place of a waiting
one. What may not be dropped is bounded too: a reader who does not take it is closed.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable
from itertools import count

# Beyond so many lines that may not be dropped a reader is behind; if nothing was taken for so
# long besides, it is slow. A burst in one turn of the loop is no fault of the reader's.
FINALS_AT_MOST = 50
SLOW_AFTER_S = 5.0
# Nobody is behind by so much and still reading.
LINES_AT_MOST = 2_000
_INTERIMS_AT_MOST = 50


class Outbox:
    """One producer and one consumer, which iterates. `reason` tells why it ended."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._lines: OrderedDict[object, tuple[str, bool]] = OrderedDict()
        self._keys = count()
        self._finals = 0
        self._backlog = 0
        self._clock = clock
        self._taken_at = clock()
        self._wake = asyncio.Event()
        self.skipped = 0
        self.reason: str | None = None

    def __len__(self) -> int:
        return len(self._lines)

    def put(self, text: str, *, replaces: str | None = None, is_final: bool = True) -> None:
        """Append; with `replaces`, in place of the waiting line of that key. What is not
        final may be dropped."""
        if self.reason is not None:
            return
        if not self._lines:
            self._taken_at = self._clock()  # until now there was nothing to take
        if replaces is not None and replaces in self._lines:
            self._finals -= self._lines.pop(replaces)[1]
            self.skipped += 1
        elif not is_final and len(self._lines) - self._finals >= _INTERIMS_AT_MOST:
            self.skipped += 1
            return
        self._finals += is_final
        self._lines[next(self._keys) if replaces is None else replaces] = (text, is_final)
        if self._is_slow():
            self._lines.clear()
            self.end("slow_reader")
        self._wake.set()

    def _is_slow(self) -> bool:
        if self._finals > LINES_AT_MOST + self._backlog:
            return True
        behind = self._finals > FINALS_AT_MOST + self._backlog
        return behind and self._clock() - self._taken_at > SLOW_AFTER_S

    def drop(self, key: str) -> None:
        """A final makes the waiting interims of its segment pointless."""
        if self._lines.pop(key, None) is not None:
            self.skipped += 1

    def put_backlog(self, texts: list[str]) -> None:
        """Append what was missed; it does not count against the bound."""
        self._backlog += len(texts)
        for text in texts:
            self.put(text)

    def end(self, reason: str, last: str | None = None) -> None:
        """Let the reader take what is in line and `last`, then end. Of what a slow one has
        not taken only `last` is left."""
        if last is not None:
            self._lines[next(self._keys)] = (last, False)
        if self.reason is None:
            self.reason = reason
        self._wake.set()

    def __aiter__(self) -> "Outbox":
        return self

    async def __anext__(self) -> str:
        while not self._lines:
            if self.reason is not None:
                raise StopAsyncIteration
            self._wake.clear()
            await self._wake.wait()
        _, (text, is_final) = self._lines.popitem(last=False)
        self._finals -= is_final
        self._backlog = min(self._backlog, self._finals)
        self._taken_at = self._clock()
        return text
