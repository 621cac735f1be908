"""RTCP as far as a receiver needs it (RFC 3550): what it tells a sender of the sender's packets,
and what of the sender's own reports that takes.

A report is due some seconds after the one before it and goes out with the next packet: it has no
timer. Pure: `now` is in seconds of any monotonic clock.
"""

import math
import random
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass

FIRST_REPORT_S, REPORT_EVERY_S = 1.0, 5.0

_SENDER_REPORT, _RECEIVER_REPORT, _BYE = 200, 201, 203
_HEADER = struct.Struct("!BBH")
_SENDER_INFO = struct.Struct("!III")  # SSRC, NTP time
_BLOCK = struct.Struct("!IIIIII")
_SOURCES_AT_MOST = 31  # that one report can hold
_MAX_DROPOUT = 3000  # as in the reorder buffer: beyond it the sender has begun anew


@dataclass(slots=True)
class _Source:
    """One sender's stream, as RFC 3550 A.1, A.3 and A.8 count it."""

    clock_rate: int
    first: int  # extended sequence numbers, beyond 16 bits
    highest: int
    received: int = 0
    jitter: float = 0.0
    transit: float | None = None
    expected_before: int = 0
    received_before: int = 0
    last_report: int = 0  # middle 32 bits of its NTP time
    reported_at: float = 0.0

    def count(self, sequence: int, timestamp: int, now: float) -> None:
        step = ((sequence - self.highest + 0x8000) & 0xFFFF) - 0x8000
        if abs(step) > _MAX_DROPOUT:
            self.first = self.highest = self.highest + step
            self.received = self.expected_before = self.received_before = 0
            self.transit = None
        elif step > 0:
            self.highest += step
        self.received += 1
        if step < 0:
            return
        transit = now * self.clock_rate - timestamp
        if self.transit is not None:
            moved = abs(transit - self.transit)
            # a timestamp that leaps or wraps says nothing of the network
            if moved < self.clock_rate:
                self.jitter += (moved - self.jitter) / 16
        self.transit = transit

    def block(self, ssrc: int, now: float) -> bytes:
        expected = self.highest - self.first + 1
        lost = max(-0x800000, min(expected - self.received, 0x7FFFFF))
        expected_since = expected - self.expected_before
        lost_since = expected_since - (self.received - self.received_before)
        self.expected_before, self.received_before = expected, self.received
        share = min(255, (lost_since << 8) // expected_since) if lost_since > 0 else 0
        delay = int(min(now - self.reported_at, 65_535.0) * 65_536) if self.last_report else 0
        return _BLOCK.pack(
            ssrc,
            share << 24 | lost & 0xFFFFFF,
            self.highest & 0xFFFFFFFF,
            int(self.jitter),
            self.last_report,
            delay,
        )


class Reports:
    """In: `count`, `receive`. Out: `next_report`."""

    def __init__(self, ssrc: int, spread: Callable[[], float] = random.random) -> None:
        self._ssrc = ssrc
        self._spread = spread
        self.due = math.inf
        self._sources: dict[int, _Source] = {}

    def count(self, ssrc: int, sequence: int, timestamp: int, clock_rate: int, now: float) -> None:
        """Note a packet that came. A sender with very many sources is told of its newest."""
        source = self._sources.get(ssrc)
        if source is None:
            if len(self._sources) == _SOURCES_AT_MOST:
                del self._sources[next(iter(self._sources))]
            source = self._sources[ssrc] = _Source(clock_rate, sequence, sequence)
            self.due = min(self.due, now + FIRST_REPORT_S)
        source.count(sequence, timestamp, now)

    def receive(self, data: bytes, now: float) -> list[int]:
        """Take a packet of RTCP; return the sources that said goodbye. Raises `ValueError`
        for what is shorter than it says, and takes nothing of it then."""
        gone: list[int] = []
        for kind, count, body in list(_packets(data)):
            if kind == _SENDER_REPORT:
                ssrc, seconds, fraction = _SENDER_INFO.unpack_from(body)
                if (source := self._sources.get(ssrc)) is not None:
                    source.last_report = (seconds & 0xFFFF) << 16 | fraction >> 16
                    source.reported_at = now
            elif kind == _BYE:
                named = struct.unpack_from(f"!{count}I", body)
                gone += [ssrc for ssrc in named if self._sources.pop(ssrc, None) is not None]
        return gone

    def next_report(self, now: float) -> bytes:
        """What to send at `due`."""
        # RFC 3550 6.2: spread, so that reports of many do not fall into step
        self.due = now + REPORT_EVERY_S * (0.5 + self._spread())
        blocks = b"".join(source.block(ssrc, now) for ssrc, source in self._sources.items())
        words = 1 + len(blocks) // 4
        first = 0x80 | len(self._sources)
        return _HEADER.pack(first, _RECEIVER_REPORT, words) + self._ssrc.to_bytes(4, "big") + blocks


def _packets(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Kind, count and body of each packet in a compound one."""
    at = 0
    while at < len(data):
        if at + 4 > len(data):
            raise ValueError("no room for a header")
        first, kind, words = _HEADER.unpack_from(data, at)
        end = at + 4 + 4 * words
        if first >> 6 != 2 or end > len(data):
            raise ValueError("not RTCP")
        if kind == _SENDER_REPORT and words < 6:
            raise ValueError("a sender report without its sender")
        if kind == _BYE and words < first & 31:
            raise ValueError("a goodbye without its sources")
        yield kind, first & 31, data[at + 4 : end]
        at = end
