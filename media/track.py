"""One incoming audio track: RTP packets in, 100 ms chunks of 16 kHz mono into a feed.

The straight way of a packet: `ReorderBuffer`, `Timeline`, decoder, `Chunker`, `Feed`.
Everything runs in the caller's turn of the event loop; there is no thread and no task.
`Ledger` accounts for every sample between the first and the last. Time comes in as `now`.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import NamedTuple

import numpy as np

from media.feed import Feed
from media.jitter import InOrder, ReorderBuffer
from media.opus import Decoder, FfmpegDecoder, make_opus_decoder, packet_samples
from media.pcm import SAMPLE_RATE, Chunker, PcmChunk, Samples
from media.timeline import Jump, Placement, Timeline


class RtpPacket(NamedTuple):
    """What the path needs of a packet. A tuple: frozen dataclasses take four times as long to
    make, and there is one for each packet."""

    ssrc: int
    payload_type: int
    sequence_number: int
    timestamp: int
    payload: bytes
    level: int | None = None  # RFC 6464: dB below overload


@dataclass(frozen=True, slots=True)
class Codec:
    clock_rate: int  # of RTP timestamps
    make_decoder: Callable[[], Decoder]
    samples: Callable[[bytes], int]  # at 16 kHz, of a payload


# G.722 counts at 8 kHz but carries 16: an old mistake that RFC 3551 4.5.2 keeps.
CODECS = {
    "opus": Codec(48_000, make_opus_decoder, packet_samples),
    "pcmu": Codec(8_000, lambda: FfmpegDecoder("pcm_mulaw", 8_000, 8_000), lambda p: 2 * len(p)),
    "pcma": Codec(8_000, lambda: FfmpegDecoder("pcm_alaw", 8_000, 8_000), lambda p: 2 * len(p)),
    "g722": Codec(8_000, lambda: FfmpegDecoder("g722", 8_000, 16_000), lambda p: 2 * len(p)),
}

# Quieter than speech can be on any microphone; its packets are not decoded.
SILENT_LEVEL = 70


@dataclass(slots=True)
class Ledger:
    """Where the samples of a track went; the fields sum to its span."""

    heard: int = 0  # decoded and handed on
    concealed: int = 0  # lost, too short to show, handed on as silence
    silence: int = 0  # never sent
    network: int = 0  # lost on the way
    overload: int = 0  # dropped here because the transcriber was slower

    @property
    def span(self) -> int:
        return sum(samples for _, samples in self.fates())

    def fates(self) -> list[tuple[str, int]]:
        """Each field's name and samples."""
        return [(f.name, getattr(self, f.name)) for f in fields(self)]

    def plus(self, other: "Ledger") -> "Ledger":
        return self._with(other, 1)

    def minus(self, other: "Ledger") -> "Ledger":
        return self._with(other, -1)

    def _with(self, other: "Ledger", sign: int) -> "Ledger":
        pairs = zip(self.fates(), other.fates(), strict=True)
        return Ledger(*(mine + sign * theirs for (_, mine), (_, theirs) in pairs))


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a speaker's clock stood, and when: the next track goes on from there."""

    sample: int
    at: float


class Track:
    """Owned by one peer; `codec_of` maps a payload type to a key of `CODECS`."""

    def __init__(
        self,
        feed: Feed[PcmChunk],
        codec_of: Callable[[int], str | None],
        origin: Origin | None = None,
        silent_level: int = SILENT_LEVEL,
    ) -> None:
        self.feed = feed
        self.ledger = Ledger()
        self.undecodable = 0
        self.restored = 0  # samples that a later packet brought after all
        self._codec_of = codec_of
        self._origin = origin
        self._silent_level = silent_level
        self._reorder: ReorderBuffer[RtpPacket] = ReorderBuffer()
        self._ssrc: int | None = None
        self._payload_type: int | None = None
        self._is_missing = False  # something between the last frame placed and the next
        self._is_skipping = False
        self._codec = CODECS["opus"]
        self._decoder: Decoder | None = None
        self._timeline: Timeline | None = None
        self._chunker: Chunker | None = None

    @property
    def packets_lost(self) -> int:
        return self._reorder.lost

    @property
    def packets_late(self) -> int:
        return self._reorder.late

    def receive(self, packet: RtpPacket, now: float) -> None:
        """Take a packet as it came from the network."""
        if packet.ssrc != self._ssrc:
            self._change_source(packet.ssrc, now)
        self._take_all(self._reorder.push(packet.sequence_number, packet, now), now)

    def expire(self, now: float) -> float | None:
        """Go on without packets that did not come; return when to call again."""
        self._take_all(self._reorder.expire(now), now)
        return self._reorder.next_deadline()

    def next_deadline(self) -> float | None:
        return self._reorder.next_deadline()

    def pause(self, now: float) -> None:
        """Nothing came for a while: hand on what is held; more may come."""
        self._take_all(self._reorder.flush(), now)
        self._finish_piece(now)

    def end(self, now: float) -> None:
        """Hand on what is held and end the feed."""
        self._take_all(self._reorder.flush(), now)
        self._finish_piece(now)
        self.feed.end()

    def _change_source(self, ssrc: int, now: float) -> None:
        if self._ssrc is not None:
            self._take_all(self._reorder.flush(), now)
            self._reorder.reset()
            if self._timeline is not None:
                self._timeline.restart()
        self._ssrc = ssrc

    def _take_all(self, packets: list[InOrder[RtpPacket]], now: float) -> None:
        for ready in packets:
            packet = ready.packet
            if ready.lost_before:
                self._is_missing = True
            if packet.payload_type != self._payload_type and not self._change_codec(packet, now):
                self.undecodable += 1
                continue
            samples = self._codec.samples(packet.payload)
            if samples:
                self._take(packet, samples, now)
            elif packet.payload:
                self.undecodable += 1
                self._is_missing = True

    def _take(self, packet: RtpPacket, samples: int, now: float) -> None:
        """Place a packet of so many samples, fill the hole before it, and hand it on."""
        assert self._timeline is not None
        scale, lost = self._codec.clock_rate, self._is_missing
        placement = self._timeline.place(
            packet.timestamp, samples * scale // SAMPLE_RATE, lost=lost, now=now
        )
        self._is_missing = False
        skip = placement.skip * SAMPLE_RATE // scale
        if skip >= samples:
            return
        if self._chunker is None or placement.jump is not None:
            self._start_piece(placement, now)
        hole = placement.fill * SAMPLE_RATE // scale
        # Where nothing was lost, the packet's copy is of what was heard already.
        restored = min(hole, samples) if lost else 0
        if hole > restored:
            self._conceal(hole - restored, now)
        if restored:
            self._restore(packet, restored, now)
        if hole:
            self._is_skipping = False  # the decoder has something to finish again
        self._decode(packet, samples, skip, now)

    def _restore(self, packet: RtpPacket, samples: int, now: float) -> None:
        """The packet brings a copy of the end of the hole before it."""
        assert self._decoder is not None
        self.restored += samples
        self._push(self._decoder.restore(packet.payload, samples), now, concealed=samples)

    def _conceal(self, samples: int, now: float) -> None:
        assert self._decoder is not None
        self._push(self._decoder.conceal(samples), now, concealed=samples)

    def _decode(self, packet: RtpPacket, samples: int, skip: int, now: float) -> None:
        assert self._decoder is not None
        if packet.level is not None and packet.level >= self._silent_level:
            if not self._is_skipping:
                self._is_skipping = True
                self._push(self._decoder.finish(), now)
            self._push(np.zeros(samples - skip, np.int16), now)
            return
        self._is_skipping = False
        try:
            pcm = self._decoder.decode(packet.payload, skip)
        except ValueError:
            self.undecodable += 1
            self._conceal(samples - skip, now)
            return
        self._push(pcm, now)

    def _push(self, pcm: Samples, now: float, concealed: int = 0) -> None:
        assert self._chunker is not None
        if concealed:
            self._chunker.conceal(concealed)
        self._emit(self._chunker.push(pcm, now))

    def _change_codec(self, packet: RtpPacket, now: float) -> bool:
        name = self._codec_of(packet.payload_type)
        codec = CODECS.get(name.lower()) if name is not None else None
        if codec is None:
            return False
        position, at = 0, None
        if self._timeline is not None:
            position = self._timeline.position * codec.clock_rate // self._codec.clock_rate
            at = self._timeline.at
        elif self._origin is not None:
            position = self._origin.sample * codec.clock_rate // SAMPLE_RATE
            at = self._origin.at
        if self._chunker is not None and self._decoder is not None:
            self._push(self._decoder.finish(), now)
        self._payload_type, self._codec = packet.payload_type, codec
        self._timeline = Timeline(codec.clock_rate, position=position, at=at)
        self._decoder = codec.make_decoder()
        self._is_skipping = False
        return True

    def _start_piece(self, placement: Placement, now: float) -> None:
        end = self._finish_piece(now)
        first = placement.position - placement.fill
        start = first * SAMPLE_RATE // self._codec.clock_rate
        jump = placement.jump
        if end is None:
            # A track that follows on another of the same speaker: what was said between
            # them did not come through.
            jump = Jump.NETWORK if self._origin is not None else None
            end = self._origin.sample if self._origin is not None else start
        # A resampler may give a sample more or less than the packets' lengths say.
        start = max(start, end)
        if jump is Jump.NETWORK:
            self.ledger.network += start - end
        else:
            self.ledger.silence += start - end
        self._chunker = Chunker(start, jump)

    def _finish_piece(self, now: float) -> int | None:
        """Hand on the rest of the piece; return where the audio so far ends."""
        if self._chunker is None:
            return None
        if self._decoder is not None:
            self._push(self._decoder.finish(), now)
        self._emit(self._chunker.flush(now))
        return self._chunker.end_sample

    def _emit(self, chunks: list[PcmChunk]) -> None:
        for chunk in chunks:
            self.ledger.heard += len(chunk.samples) - chunk.concealed
            self.ledger.concealed += chunk.concealed
            dropped = self.feed.put(chunk)
            if dropped is not None:
                self.ledger.heard -= len(dropped.samples) - dropped.concealed
                self.ledger.concealed -= dropped.concealed
                self.ledger.overload += len(dropped.samples)
