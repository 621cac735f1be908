"""Which windows go into the next batch.

Finals before interims; one interim of a speaker at a time, the newest replaces a waiting
one; the speaker who was served longest ago goes first. At most four finals of a speaker
wait: a fifth is joined to the fourth, and when that grows too long it is given up and
said to be lost. Pure: `now` is in seconds of a monotonic clock.
"""

from dataclasses import dataclass, field, replace

import numpy as np

from transcriber.types import SAMPLE_RATE, StreamId, Window

FINALS_PER_STREAM = 4
_JOINED_LIMIT = 60 * SAMPLE_RATE


@dataclass(slots=True)
class _Waiting:
    """One speaker's windows, each with the time it came."""

    finals: list[tuple[Window, float]] = field(default_factory=list)
    interim: tuple[Window, float] | None = None
    served: float = 0.0
    interim_in_flight: bool = False

    def __len__(self) -> int:
        return len(self.finals) + (self.interim is not None)

    def oldest(self) -> float:
        came = [at for _, at in self.finals]
        return min(came if self.interim is None else [*came, self.interim[1]])


class Scheduler:
    """In: `offer`, `complete`. Out: `next_batch`, and from `offer` what is given up."""

    def __init__(self, batch_limit: int) -> None:
        self._batch_limit = batch_limit
        self._streams: dict[StreamId, _Waiting] = {}

    @property
    def waiting(self) -> int:
        return sum(len(s) for s in self._streams.values())

    def offer(self, window: Window, now: float) -> list[Window]:
        """Take a window; return windows that will never be transcribed, but for an interim
        that a newer one replaced."""
        stream = self._streams.setdefault(window.stream, _Waiting(served=now))
        if not window.is_final:
            if any(f.utterance >= window.utterance for f, _ in stream.finals):
                return [window]
            # the newest audio, but its place in the queue is the older one's
            since = stream.interim[1] if stream.interim is not None else now
            stream.interim = (window, since)
            return []
        given_up: list[Window] = []
        if stream.interim is not None and stream.interim[0].utterance <= window.utterance:
            given_up.append(stream.interim[0])
            stream.interim = None
        if len(stream.finals) < FINALS_PER_STREAM:
            stream.finals.append((window, now))
            return given_up
        return given_up + self._join(stream.finals, window)

    def next_batch(self, now: float) -> list[Window]:
        """Take the windows to transcribe now; each must be given to `complete`."""
        order = sorted((s for s in self._streams.values() if len(s)), key=lambda s: s.served)
        batch: list[Window] = []
        for stream in order:
            while stream.finals and len(batch) < self._batch_limit:
                batch.append(stream.finals.pop(0)[0])
                stream.served = now
        for stream in order:
            if len(batch) >= self._batch_limit:
                break
            if stream.interim is not None and not stream.interim_in_flight:
                batch.append(stream.interim[0])
                stream.interim, stream.interim_in_flight, stream.served = None, True, now
        return batch

    def oldest_since(self) -> float | None:
        """When the window that waits longest came."""
        return min((s.oldest() for s in self._streams.values() if len(s)), default=None)

    def complete(self, window: Window) -> None:
        """A window of a batch has been answered, or failed."""
        stream = self._streams.get(window.stream)
        if stream is not None and not window.is_final:
            stream.interim_in_flight = False

    def forget(self, stream: StreamId) -> None:
        """A speaker is gone: what waits of them is dropped."""
        self._streams.pop(stream, None)

    def _join(self, finals: list[tuple[Window, float]], window: Window) -> list[Window]:
        last, since = finals[-1]
        if len(last.samples) + len(window.samples) > _JOINED_LIMIT:
            finals[-1] = (window, since)
            return [last]
        silence = max(0, min(window.start_sample - last.end_sample, SAMPLE_RATE // 2))
        joined = replace(
            last,
            samples=np.concatenate([last.samples, np.zeros(silence, np.int16), window.samples]),
            absorbed=(*last.absorbed, window.utterance, *window.absorbed),
        )
        finals[-1] = (joined, since)
        return []
