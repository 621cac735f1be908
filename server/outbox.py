"""`Outbox`: what waits to go to one reader of captions, over a WebSocket or SSE.

Interims give way when the reader is behind: a newer revision takes the place of a waiting
one. What may not be dropped is bounded too: a reader who does not take it is closed.
"""

import asyncio
from collections import OrderedDict
from itertools import count

FINALS_AT_MOST = 50
# What makes a reader current at once after a resume or a reload may be more than that; it is
# put in line in one piece, and no reader can make it grow.
_INTERIMS_AT_MOST = 50


class Outbox:
    """One producer and one consumer, which iterates. `reason` tells why it ended."""

    def __init__(self) -> None:
        self._lines: OrderedDict[object, tuple[str, bool]] = OrderedDict()
        self._keys = count()
        self._finals = 0
        self._backlog = 0
        self._wake = asyncio.Event()
        self.skipped = 0
        self.reason: str | None = None

    def __len__(self) -> int:
        return len(self._lines)

    def put(self, text: str, *, replaces: str | None = None) -> None:
        """Append; with `replaces`, in place of the waiting line of that key, droppable."""
        if self.reason is not None:
            return
        if replaces is None:
            self._finals += 1
            self._lines[next(self._keys)] = (text, False)
            if self._finals > FINALS_AT_MOST + self._backlog:
                self._lines.clear()
                self.end("slow_reader")
        else:
            if self._lines.pop(replaces, None) is not None:
                self.skipped += 1
            elif len(self._lines) - self._finals >= _INTERIMS_AT_MOST:
                self.skipped += 1
                return
            self._lines[replaces] = (text, True)
        self._wake.set()

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
            self._lines[next(self._keys)] = (last, True)
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
        _, (text, droppable) = self._lines.popitem(last=False)
        if not droppable:
            self._finals -= 1
            self._backlog = min(self._backlog, self._finals)
        return text
