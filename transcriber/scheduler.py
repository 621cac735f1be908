"""Which windows go into the next batch.

Finals before interims; one interim of a speaker at a time, the newest replaces a waiting one.
Rooms take turns, and in a room the speaker who was served longest ago goes first. A batch holds
windows of one kind, as the engine says: those that wait longest for it, and others of their
kind. At most four finals of a speaker wait: a fifth is joined to the fourth, and when that
grows longer than the engine takes it is given up and said to be lost. Pure: `now` is in seconds
of a monotonic clock.
"""

import math
from collections import Counter
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field, replace

import numpy as np

from transcriber.types import SAMPLE_RATE, StreamId, Window

FINALS_PER_STREAM = 4

Kind = Callable[[Window], Hashable]


@dataclass(slots=True)
class _Entry:
    """A window, since when it waits, and its kind once that was asked for."""

    window: Window
    since: float
    kind: Hashable = None
    is_known: bool = False

    def kind_by(self, kind: Kind) -> Hashable:
        if not self.is_known:
            self.kind, self.is_known = kind(self.window), True
        return self.kind


@dataclass(slots=True)
class _Waiting:
    """One speaker's windows."""

    room: str
    finals: list[_Entry] = field(default_factory=list)
    interim: _Entry | None = None
    served: float = 0.0  # last, or when it came
    taken: float = -math.inf  # last, of a window of theirs
    interim_in_flight: bool = False

    def __len__(self) -> int:
        return len(self.finals) + (self.interim is not None)

    def oldest(self) -> float:
        came = [entry.since for entry in self.finals]
        return min(came if self.interim is None else [*came, self.interim.since])


class Scheduler:
    """In: `offer`, `complete`. Out: `next_batch`, and from `offer` what is given up."""

    def __init__(
        self, batch_limit: int, kind: Kind = lambda _window: None, longest_s: float = 60.0
    ) -> None:
        self.batch_limit = batch_limit
        self.longest_s = longest_s
        self._kind = kind
        self._streams: dict[StreamId, _Waiting] = {}

    @property
    def waiting(self) -> int:
        return sum(len(s) for s in self._streams.values())

    def offer(self, window: Window, now: float) -> list[Window]:
        """Take a window; return windows that will never be transcribed, but for an interim
        that a newer one replaced."""
        stream = self._streams.get(window.stream)
        if stream is None:
            room = window.stream.rpartition("/")[0]
            stream = self._streams[window.stream] = _Waiting(room, served=now)
        if not window.is_final:
            if any(f.window.utterance >= window.utterance for f in stream.finals):
                return [window]
            # the newest audio, but its place in the queue is the older one's
            since = stream.interim.since if stream.interim is not None else now
            stream.interim = _Entry(window, since)
            return []
        given_up: list[Window] = []
        if stream.interim is not None and stream.interim.window.utterance <= window.utterance:
            given_up.append(stream.interim.window)
            stream.interim = None
        if len(stream.finals) < FINALS_PER_STREAM:
            stream.finals.append(_Entry(window, now))
            return given_up
        return given_up + self._join(stream.finals, window)

    def next_batch(self, now: float) -> list[Window]:
        """Take the windows to transcribe now; each must be given to `complete`."""
        order = self._turns()
        kind: list[Hashable] = []  # of the first that is taken
        batch: list[Window] = []

        def fits(entry: _Entry) -> bool:
            if not kind:
                kind.append(entry.kind_by(self._kind))
            return len(batch) < self.batch_limit and entry.kind_by(self._kind) == kind[0]

        for stream in order:
            # in the order they were said: one of another kind holds up those after it
            while stream.finals and fits(stream.finals[0]):
                batch.append(stream.finals.pop(0).window)
                stream.served = stream.taken = now
        for stream in order:
            if stream.interim is None or stream.interim_in_flight or not fits(stream.interim):
                continue
            batch.append(stream.interim.window)
            stream.interim, stream.interim_in_flight = None, True
            stream.served = stream.taken = now
        return batch

    def oldest_since(self) -> float | None:
        """When the window that waits longest came."""
        return min((s.oldest() for s in self._streams.values() if len(s)), default=None)

    def _turns(self) -> list[_Waiting]:
        """Those who wait: the first of each room, then the second of each; and before others
        the room that was served longest ago, for a batch may be too small for one of each."""
        rooms: dict[str, float] = {}
        for stream in self._streams.values():
            rooms[stream.room] = max(stream.taken, rooms.get(stream.room, -math.inf))
        by_age = sorted((s for s in self._streams.values() if len(s)), key=lambda s: s.served)
        before: Counter[str] = Counter()
        turn: dict[int, int] = {}
        for stream in by_age:
            turn[id(stream)] = before[stream.room]
            before[stream.room] += 1
        return sorted(by_age, key=lambda s: (turn[id(s)], rooms[s.room]))

    def complete(self, window: Window) -> None:
        """A window of a batch has been answered, or failed."""
        stream = self._streams.get(window.stream)
        if stream is not None and not window.is_final:
            stream.interim_in_flight = False

    def forget(self, stream: StreamId) -> None:
        """A speaker is gone: what waits of them is dropped."""
        self._streams.pop(stream, None)

    def _join(self, finals: list[_Entry], window: Window) -> list[Window]:
        last = finals[-1].window
        silence = max(0, min(window.start_sample - last.end_sample, SAMPLE_RATE // 2))
        joined_samples = len(last.samples) + silence + len(window.samples)
        if joined_samples > self.longest_s * SAMPLE_RATE:
            finals[-1] = _Entry(window, finals[-1].since)
            return [last]
        joined = replace(
            last,
            samples=np.concatenate([last.samples, np.zeros(silence, np.int16), window.samples]),
            absorbed=(*last.absorbed, window.utterance, *window.absorbed),
        )
        finals[-1] = _Entry(joined, finals[-1].since)
        return []
