"""RTP as senders make it: real encoders, packets, and a line that carries them by hand."""

import fractions
import heapq
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import pairwise

import av
import numpy as np
from aiortc.codecs.base import Encoder
from aiortc.codecs.g711 import PcmaEncoder, PcmuEncoder
from aiortc.codecs.g722 import G722Encoder
from aiortc.codecs.opus import OpusEncoder

from media.feed import Feed
from media.pcm import SAMPLE_RATE, PcmChunk
from media.track import Ledger, Origin, RtpPacket, Track
from tests.speech import Samples

FRAME_S = 0.02
MASK32 = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class Kind:
    """A codec as an offer names it."""

    payload_type: int
    encoder: Callable[[], Encoder]
    rate: int  # of the audio that goes in
    clock_rate: int
    channels: int = 1

    @property
    def frame_units(self) -> int:
        return self.clock_rate // 50


KINDS = {
    "opus": Kind(111, OpusEncoder, 48_000, 48_000, channels=2),
    "PCMU": Kind(0, PcmuEncoder, 8_000, 8_000),
    "PCMA": Kind(8, PcmaEncoder, 8_000, 8_000),
    "G722": Kind(9, G722Encoder, 16_000, 8_000),
}
NAMES = {kind.payload_type: name for name, kind in KINDS.items()}
UNKNOWN_TYPE = 13  # comfort noise


def encoded(samples: Samples, codec: str = "opus") -> list[bytes]:
    """Frames of 20 ms as aiortc's sender makes them; `samples` are at the codec's rate."""
    kind = KINDS[codec]
    encoder = kind.encoder()
    length = kind.rate // 50
    payloads: list[bytes] = []
    for at in range(0, len(samples) - length + 1, length):
        piece = samples[at : at + length].repeat(kind.channels)
        frame = av.AudioFrame.from_ndarray(
            piece.reshape(1, -1), format="s16", layout="stereo" if kind.channels == 2 else "mono"
        )
        frame.sample_rate = kind.rate
        frame.pts = at
        frame.time_base = fractions.Fraction(1, kind.rate)
        payloads += encoder.encode(frame)[0]
    return payloads


def encoded_wideband(samples: Samples, packet_ms: int, *, fec: bool = True) -> list[bytes]:
    """Packets of 16 kHz as a browser makes them when it was asked: SILK with in-band FEC."""
    encoder = av.CodecContext.create("libopus", "w")
    assert isinstance(encoder, av.AudioCodecContext)
    encoder.sample_rate, encoder.layout, encoder.format = SAMPLE_RATE, "mono", "s16"
    encoder.bit_rate = 20_000
    loss = "10" if fec else "0"
    encoder.options = {
        "application": "voip",
        "frame_duration": str(packet_ms),
        "fec": str(int(fec)),
        "packet_loss": loss,
    }
    length = packet_ms * SAMPLE_RATE // 1000
    payloads: list[bytes] = []
    for at in range(0, len(samples) - length + 1, length):
        frame = av.AudioFrame.from_ndarray(samples[at : at + length].reshape(1, -1), layout="mono")
        frame.sample_rate = SAMPLE_RATE
        frame.pts = at
        payloads += [bytes(packet) for packet in encoder.encode(frame)]
    return payloads


def packets(
    payloads: Iterable[bytes],
    codec: str = "opus",
    *,
    ssrc: int = 1,
    sequence: int = 1_000,
    timestamp: int = 50_000,
    packet_ms: int = 20,
) -> list[RtpPacket]:
    """One packet a frame, numbered on from the first."""
    kind = KINDS[codec]
    units = kind.clock_rate * packet_ms // 1000
    return [
        RtpPacket(
            ssrc,
            kind.payload_type,
            (sequence + n) & 0xFFFF,
            (timestamp + n * units) & MASK32,
            payload,
        )
        for n, payload in enumerate(payloads)
    ]


def moved(packet: RtpPacket, *, timestamp: int = 0, sequence: int = 0) -> RtpPacket:
    """The packet with its numbers moved on."""
    return packet._replace(
        timestamp=(packet.timestamp + timestamp) & MASK32,
        sequence_number=(packet.sequence_number + sequence) & 0xFFFF,
    )


@dataclass(frozen=True, slots=True, order=True)
class Arrival:
    """A packet and when it comes."""

    at: float
    order: int
    packet: RtpPacket


def on_time(
    sent: Iterable[RtpPacket], *, at: float = 0.0, every_s: float = FRAME_S
) -> list[Arrival]:
    """A packet each 20 ms, or as often as is said."""
    return [Arrival(at + n * every_s, n, packet) for n, packet in enumerate(sent)]


class Line:
    """Carries packets to a track and keeps its deadlines; the clock is in its hand."""

    def __init__(
        self,
        *,
        bound: int = 100_000,
        origin: Origin | None = None,
        codec_of: Callable[[int], str | None] = NAMES.get,
    ) -> None:
        self.feed: Feed[PcmChunk] = Feed(bound)
        self.track = Track(self.feed, codec_of, origin)
        self.chunks: list[PcmChunk] = []
        self.now = 0.0

    @property
    def ledger(self) -> Ledger:
        return self.track.ledger

    async def carry(self, arrivals: Iterable[Arrival]) -> None:
        """Bring packets in the order of their arrival, and read what comes of them."""
        waiting = list(arrivals)
        heapq.heapify(waiting)
        while waiting:
            arrival = heapq.heappop(waiting)
            self.pass_until(arrival.at)
            self.track.receive(arrival.packet, self.now)
            await self.read()

    def pass_until(self, at: float) -> None:
        """Let time pass, waking the track when it asked for it."""
        while (deadline := self.track.next_deadline()) is not None and deadline <= at:
            self.track.expire(deadline)
        self.now = at

    async def read(self) -> None:
        while len(self.feed):
            chunk = await self.feed.get()
            assert chunk is not None
            self.chunks.append(chunk)

    async def end(self) -> list[PcmChunk]:
        """End the track; returns all chunks."""
        self.track.end(self.now)
        self.chunks += [chunk async for chunk in self.feed]
        return self.chunks


def timeline(chunks: list[PcmChunk]) -> Samples:
    """All samples at their places, silence where there are none."""
    out = np.zeros(chunks[-1].end_sample if chunks else 0, np.int16)
    for chunk in chunks:
        out[chunk.start_sample : chunk.end_sample] = chunk.samples
    return out


def correlation(heard: Samples, said: Samples, *, within_ms: int = 60) -> tuple[float, float]:
    """How alike two sounds are at best, and how many ms `heard` comes after `said`."""
    size = 1 << int(len(heard) + len(said)).bit_length()
    one, other = heard.astype(np.float64), said.astype(np.float64)
    cross = np.fft.irfft(np.fft.rfft(one, size) * np.conj(np.fft.rfft(other, size)), size)
    reach = within_ms * SAMPLE_RATE // 1000
    lags = np.concatenate([cross[-reach:], cross[: reach + 1]])
    best = int(np.argmax(lags))
    power = float(np.linalg.norm(one) * np.linalg.norm(other))
    return float(lags[best]) / power, (best - reach) * 1000 / SAMPLE_RATE


def assert_in_order(chunks: list[PcmChunk]) -> None:
    """Each chunk stands after the one before it, and says so where it leaves a hole."""
    for before, after in pairwise(chunks):
        assert after.start_sample >= before.end_sample
        if after.start_sample > before.end_sample + 1:
            assert after.jump is not None
    assert all(0 < len(chunk.samples) <= SAMPLE_RATE // 10 for chunk in chunks)
    assert all(0 <= chunk.concealed <= len(chunk.samples) for chunk in chunks)


def assert_accounted(line: Line, *, origin: int = 0) -> None:
    """Every sample from the first to the last has its fate."""
    ledger = line.ledger
    assert all(samples >= 0 for _, samples in ledger.fates()), ledger
    assert ledger.span == (line.chunks[-1].end_sample if line.chunks else origin) - origin
    assert ledger.concealed == sum(chunk.concealed for chunk in line.chunks)
    assert ledger.heard + ledger.concealed == sum(len(chunk.samples) for chunk in line.chunks)
