"""One incoming audio track: RTP packets in, 100 ms chunks of 16 kHz mono into a feed.

The straight way of a packet: `ReorderBuffer`, decoder, `Timeline`, `Downsampler`,
`Chunker`, `Feed`. Everything runs in the caller's turn of the event loop; there is no
thread and no task. `Ledger` accounts for every sample between the first and the last.
Time comes in as `now`.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields

import av
import numpy as np

from media.feed import Feed
from media.jitter import InOrder, ReorderBuffer
from media.pcm import SAMPLE_RATE, Chunker, Downsampler, PcmChunk, Samples, downmix
from media.timeline import Jump, Placement, Timeline


@dataclass(frozen=True, slots=True)
class RtpPacket:
    """What the path needs of a packet."""

    ssrc: int
    payload_type: int
    sequence: int
    timestamp: int
    payload: bytes


@dataclass(frozen=True, slots=True)
class Codec:
    decoder: str  # FFmpeg's name
    clock_rate: int  # of RTP timestamps
    rate: int  # of the decoded audio


# G.722 counts at 8 kHz but carries 16: an old mistake that RFC 3551 4.5.2 keeps.
CODECS = {
    "opus": Codec("libopus", 48_000, 48_000),
    "pcmu": Codec("pcm_mulaw", 8_000, 8_000),
    "pcma": Codec("pcm_alaw", 8_000, 8_000),
    "g722": Codec("g722", 8_000, 16_000),
}


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
    ) -> None:
        self.feed = feed
        self.ledger = Ledger()
        self.undecodable = 0
        self._codec_of = codec_of
        self._origin = origin
        self._reorder: ReorderBuffer[RtpPacket] = ReorderBuffer()
        self._ssrc: int | None = None
        self._payload_type: int | None = None
        self._is_missing = False  # something between the last frame placed and the next
        self._codec = CODECS["opus"]
        self._decoder: av.AudioCodecContext | None = None
        self._timeline: Timeline | None = None
        self._downsampler: Downsampler | None = None
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
        self._decode_all(self._reorder.push(packet.sequence, packet, now), now)

    def expire(self, now: float) -> float | None:
        """Go on without packets that did not come; return when to call again."""
        self._decode_all(self._reorder.expire(now), now)
        return self._reorder.next_deadline()

    def next_deadline(self) -> float | None:
        return self._reorder.next_deadline()

    def end(self, now: float) -> None:
        """Hand on what is held and end the feed."""
        self._decode_all(self._reorder.flush(), now)
        self._finish_piece(now)
        self.feed.end()

    def _change_source(self, ssrc: int, now: float) -> None:
        if self._ssrc is not None:
            self._decode_all(self._reorder.flush(), now)
            self._reorder.reset()
            if self._timeline is not None:
                self._timeline.restart()
        self._ssrc = ssrc

    def _decode_all(self, packets: list[InOrder[RtpPacket]], now: float) -> None:
        for ready in packets:
            packet = ready.packet
            self._is_missing |= ready.lost_before > 0
            if packet.payload_type != self._payload_type and not self._change_codec(packet, now):
                self.undecodable += 1
                continue
            samples = self._decode(packet.payload)
            if len(samples):
                self._place(packet.timestamp, samples, now)

    def _change_codec(self, packet: RtpPacket, now: float) -> bool:
        name = self._codec_of(packet.payload_type)
        codec = CODECS.get(name.lower()) if name is not None else None
        if codec is None:
            return False
        self._finish_piece(now)
        position, at = 0, None
        if self._timeline is not None:
            position = self._timeline.position * codec.clock_rate // self._codec.clock_rate
            at = self._timeline.at
        elif self._origin is not None:
            position = self._origin.sample * codec.clock_rate // SAMPLE_RATE
            at = self._origin.at
        self._payload_type, self._codec = packet.payload_type, codec
        self._timeline = Timeline(codec.clock_rate, position=position, at=at)
        self._decoder = _decoder(codec)
        return True

    def _decode(self, payload: bytes) -> Samples:
        assert self._decoder is not None
        if not payload:
            return np.empty(0, np.float32)
        try:
            frames = self._decoder.decode(av.Packet(payload))
        except av.FFmpegError:
            self.undecodable += 1
            self._is_missing = True
            return np.empty(0, np.float32)
        pieces = [
            downmix(f.to_ndarray().reshape(-1).astype(np.int16, copy=False), f.layout.nb_channels)
            for f in frames
        ]
        return pieces[0] if len(pieces) == 1 else np.concatenate([np.empty(0, np.float32), *pieces])

    def _place(self, timestamp: int, samples: Samples, now: float) -> None:
        assert self._timeline is not None
        codec = self._codec
        units = len(samples) * codec.clock_rate // codec.rate
        placement = self._timeline.place(timestamp, units, lost=self._is_missing, now=now)
        self._is_missing = False
        samples = samples[placement.skip * codec.rate // codec.clock_rate :]
        if not len(samples):
            return
        if self._downsampler is None or placement.jump is not None:
            self._start_piece(placement, now)
        assert self._downsampler is not None
        assert self._chunker is not None
        if placement.fill:
            fill = placement.fill * codec.rate // codec.clock_rate
            samples = np.concatenate([np.zeros(fill, np.float32), samples])
            self._chunker.conceal(placement.fill * SAMPLE_RATE // codec.clock_rate)
        self._emit(self._chunker.push(self._downsampler.push(samples), now))

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
        # The resampler may end a piece one sample beyond its length.
        start = max(start, end)
        if jump is Jump.NETWORK:
            self.ledger.network += start - end
        else:
            self.ledger.silence += start - end
        self._downsampler = Downsampler(self._codec.rate)
        self._chunker = Chunker(start, jump)

    def _finish_piece(self, now: float) -> int | None:
        """Hand on the rest of the piece; return where the audio so far ends."""
        if self._chunker is None:
            return None
        if self._downsampler is not None:
            self._emit(self._chunker.push(self._downsampler.flush(), now))
            self._downsampler = None
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


def _decoder(codec: Codec) -> av.AudioCodecContext:
    decoder = av.CodecContext.create(codec.decoder, "r")
    assert isinstance(decoder, av.AudioCodecContext)
    decoder.layout = "mono"
    decoder.sample_rate = codec.clock_rate
    if codec.decoder == "libopus":
        decoder.format = "s16"
    return decoder
