"""What a speaker's packets, reports and offers are read by, without a socket."""

import contextlib
import functools
import struct

import pylibsrtp
from aiortc.rtp import RtcpPacket
from aiortc.sdp import SessionDescription

from media import peer
from media.answer import Asked, ask
from media.errors import BadOffer
from media.feed import Feed
from media.opus import make_opus_decoder, packet_samples
from media.pcm import CHUNK_SAMPLES, PcmChunk
from media.reports import Reports
from media.track import CODECS, RtpPacket, Track
from tests.fuzz.frames import frames
from tests.media.rig import SSRC, Rig
from tests.media.rtp import NAMES

_STEP_S = 0.01
_PAUSE = 31
_LONGEST_SAMPLES = 1_920  # of a packet
_OWN = 7


def sdp(data: bytes) -> None:
    """An offer, as far as it is only text."""
    text = data.decode("utf-8", "replace")
    with contextlib.suppress(BadOffer):
        peer._check_offer(text)
    peer._identity(text)
    ask(text, Asked())
    try:
        offer = SessionDescription.parse(text)
        peer._layout(offer)
        again = str(offer)
    except Exception:
        return  # `Peer.answer` makes a `BadOffer` of it, whatever aiortc runs into
    ask(again, Asked())


class _Heard(Feed[PcmChunk]):
    """A feed that nobody reads, and that keeps all of it."""

    def __init__(self) -> None:
        super().__init__(1)
        self.chunks: list[PcmChunk] = []

    def put(self, item: PcmChunk) -> None:
        self.chunks.append(item)


@functools.cache
def _rig() -> Rig:
    return Rig()


def rtp(data: bytes) -> None:
    """Plain packets to a track. The kind of a frame is the time before it; 31 is a pause."""
    heard, now = _Heard(), 100.0
    track = Track(heard, NAMES.get)
    for step, packet in frames(data):
        now += step * _STEP_S
        if step == _PAUSE:
            track.pause(now)
        track.expire(now)
        if (read := _read(packet)) is not None:
            track.receive(read, now)
    track.end(now)
    _check_heard(heard.chunks, track)


def _read(packet: bytes) -> RtpPacket | None:
    if len(packet) < 12:
        return None  # libsrtp hands on none
    try:
        return _rig().tap._parse(packet)
    except ValueError:
        return None


def _check_heard(chunks: list[PcmChunk], track: Track) -> None:
    """Every sample between the first and the last has one place and one fate."""
    ends = [chunk.end_sample for chunk in chunks]
    for chunk, end in zip(chunks[1:], ends, strict=False):
        assert chunk.start_sample >= end, "chunks overlap"
    for chunk in chunks:
        assert 0 <= chunk.concealed <= len(chunk.samples) <= CHUNK_SAMPLES
    assert all(samples >= 0 for _, samples in track.ledger.fates())
    span = ends[-1] - chunks[0].start_sample if chunks else 0
    assert track.ledger.span == span, "the ledger does not sum up"


def datagram(data: bytes) -> None:
    """Datagrams to the tap: a kind of 0 as they are, of 1 and 2 with good keys."""
    rig, brought = Rig(), 0
    protect = {1: rig.sender.protect, 2: rig.sender.protect_rtcp}
    for kind, packet in frames(data):
        try:
            sent = protect[kind](packet) if kind in protect else packet
        except (pylibsrtp.Error, ValueError):
            continue  # libsrtp does not send it
        rig.bring(sent)
        brought += 1
    rig.tap._reports.next_report(1e9)
    assert len(rig.taken) + rig.tap.rejected + len(rig.socket.passed) <= brought


def rtcp(data: bytes) -> None:
    """Compounds to the reports, and a packet before each."""
    reports, now = Reports(_OWN, spread=lambda: 0.5), 10.0
    for kind, compound in frames(data):
        now += kind * _STEP_S
        sequence, timestamp = struct.unpack("!HI", compound[:6].ljust(6, b"\0"))
        reports.count(SSRC, sequence, timestamp, 48_000, now)
        with contextlib.suppress(ValueError):
            reports.receive(compound, now)
        told = reports.next_report(now)
        assert len(RtcpPacket.parse(told)) == 1


def opus(data: bytes) -> None:
    """Payloads to decoders. A kind's lower two bits say what is done with one, the others for how
    much of it, or with which codec."""
    decoder = make_opus_decoder()
    others = [CODECS[name].make_decoder() for name in ("pcmu", "pcma", "g722")]
    for kind, payload in frames(data):
        told = packet_samples(payload)
        samples = min(_LONGEST_SAMPLES, 280 * (kind // 4 + 1))
        match kind & 3:
            case 0:
                _decode_opus(payload, told)
            case 1 if told:
                assert len(decoder.restore(payload, min(samples, told))) <= samples
            case 2:
                assert len(decoder.conceal(samples)) == samples
            case 3:
                with contextlib.suppress(ValueError):
                    others[kind // 4 % 3].decode(payload)
        with contextlib.suppress(ValueError):
            decoder.decode(payload)


def _decode_opus(payload: bytes, told: int) -> None:
    try:
        pcm = make_opus_decoder().decode(payload)
    except ValueError:
        return
    assert len(pcm) == told, "not as long as its first bytes say"
