"""Datagrams as a broken or hostile sender makes them: near enough to good ones to be read on.

All chance is in the `random.Random` that is given, so that a seed tells the whole run.
"""

import hmac
import random
import struct
import zlib
from collections.abc import Callable, Sequence

from aiortc.rtp import (
    RTCP_PSFB_APP,
    AnyRtcpPacket,
    RtcpByePacket,
    RtcpPsfbPacket,
    RtcpReceiverInfo,
    RtcpRrPacket,
    RtcpRtpfbPacket,
    RtcpSdesPacket,
    RtcpSenderInfo,
    RtcpSourceInfo,
    RtcpSrPacket,
)

Chance = random.Random

_HEADER = struct.Struct("!BBHII")
_EDGES = (0, 1, 0x7F, 0x80, 0xFE, 0xFF)
_COOKIE = 0x2112A442
_USERNAME, _INTEGRITY, _FINGERPRINT = 0x0006, 0x0008, 0x8028
_PRIORITY, _USE_CANDIDATE, _CONTROLLED, _CONTROLLING = 0x0024, 0x0025, 0x8029, 0x802A
_ATTRIBUTES = (
    *(0x0001, 0x0003, 0x0004, 0x0005, _USERNAME, 0x0009, 0x000C, 0x000D, 0x0012, 0x0013),
    *(0x0014, 0x0015, 0x0016, 0x0019, 0x0020, _PRIORITY, _USE_CANDIDATE, 0x8022, _FINGERPRINT),
    *(_CONTROLLING, 0x802B, 0x802C, 0x7FFF, 0xFFFF, 0),
)
_BINDING = 0x0001


def spoil(chance: Chance, data: bytes) -> bytes:
    """The same after one to three accidents."""
    spoilt = bytearray(data)
    for _ in range(chance.randint(1, 3)):
        at = chance.randrange(len(spoilt) + 1)
        match chance.randrange(6):
            case 0 if at < len(spoilt):
                spoilt[at] ^= 1 << chance.randrange(8)
            case 1 if at < len(spoilt):
                spoilt[at] = chance.choice(_EDGES)
            case 2:
                del spoilt[at:]
            case 3:
                del spoilt[at : at + chance.randint(1, 8)]
            case 4:
                spoilt[at:at] = chance.randbytes(chance.randint(1, 8))
            case _:
                spoilt[at : at + 2] = chance.choice((b"\0\0", b"\xff\xff", b"\x7f\xff"))
    return bytes(spoilt)


def garbage(chance: Chance) -> bytes:
    """Bytes that are nothing; their first one chooses who gets them (RFC 7983)."""
    size = chance.choice((0, 1, 2, 11, 12, 13, 20, 60, 200, 1_500, 1_501, 4_000))
    body = bytearray(chance.randbytes(size))
    if size and chance.random() < 0.8:
        body[0] = chance.choice((0, 1, 19, 20, 22, 23, 63, 64, 127, 128, 129, 144, 191, 192))
    if size > 1 and chance.random() < 0.5:
        body[1] = chance.choice((0, 63, 64, 95, 96, 111, 192, 200, 201, 203, 205, 206, 208))
    return bytes(body)


def rtp(chance: Chance, good: bytes, *, ssrc: int, sequence: int) -> bytes:
    """A plain packet of a source of its own, with parts of a good one."""
    csrcs = chance.choice((0, 0, 0, 1, 15))
    first = 0x80 | csrcs | chance.choice((0, 0x10, 0x20, 0x30))
    kind = chance.choice((111, 96, 0, 8, 9, 13, good[1] & 127, good[1] & 127))
    timestamp = chance.choice((0, 0xFFFFFFFF, chance.getrandbits(32), sequence * 960)) & 0xFFFFFFFF
    packet = _HEADER.pack(first, kind | chance.choice((0, 128)), sequence, timestamp, ssrc)
    packet += chance.randbytes(4 * csrcs)
    if first & 0x10:
        profile = chance.choice((0xBEDE, 0x1000, 0))
        words = chance.choice((0, 1, 2, 5))
        told = words if chance.random() < 0.8 else chance.choice((words + 1, 0xFFFF))
        packet += struct.pack("!HH", profile, told) + chance.randbytes(4 * words)
    packet += _payload(chance, good[12:])
    if first & 0x20:
        packet += bytes([chance.choice((0, 1, 4, 200, 255))])
    return packet


def in_transit(chance: Chance, good: bytes) -> bytes:
    """A good packet with anything changed but its place: source and sequence number."""
    kind = good[1] if chance.random() < 0.7 else chance.randrange(256)
    timestamp = good[4:8] if chance.random() < 0.5 else chance.randbytes(4)
    first = good[0] if chance.random() < 0.8 else chance.randrange(128, 192)
    head = bytes([first, kind]) + good[2:4] + timestamp + good[8:12]
    return head + _payload(chance, good[12:])


def _payload(chance: Chance, good: bytes) -> bytes:
    return chance.choice(
        (good, spoil(chance, good), chance.randbytes(chance.choice((0, 1, 2, 40, 1_200))))
    )


def rtcp(chance: Chance, ssrcs: Sequence[int]) -> bytes:
    """A plain compound of one to four packets; half of them are spoilt behind the first header."""
    compound = b"".join(
        bytes(chance.choice(_REPORTS)(chance, ssrcs)) for _ in range(chance.randint(1, 4))
    )
    if chance.random() < 0.5:
        return compound
    # libsrtp looks at the first eight bytes, and encrypts the rest as it is
    return compound[:8] + spoil(chance, compound[8:])


def _u32(chance: Chance) -> int:
    return chance.choice((0, 1, 0x7FFFFFFF, 0xFFFFFFFF, chance.getrandbits(32)))


def _reports(chance: Chance, ssrcs: Sequence[int]) -> list[RtcpReceiverInfo]:
    return [
        RtcpReceiverInfo(
            ssrc=chance.choice(ssrcs),
            fraction_lost=chance.randrange(256),
            packets_lost=chance.choice((-(1 << 23), (1 << 23) - 1, 0)),
            highest_sequence=_u32(chance),
            jitter=_u32(chance),
            lsr=_u32(chance),
            dlsr=_u32(chance),
        )
        for _ in range(chance.choice((0, 1, 31)))
    ]


def _sender_report(chance: Chance, ssrcs: Sequence[int]) -> RtcpSrPacket:
    times = chance.choice((0, (1 << 64) - 1, chance.getrandbits(64)))
    told = RtcpSenderInfo(times, _u32(chance), _u32(chance), _u32(chance))
    return RtcpSrPacket(chance.choice(ssrcs), told, _reports(chance, ssrcs))


def _receiver_report(chance: Chance, ssrcs: Sequence[int]) -> RtcpRrPacket:
    return RtcpRrPacket(chance.choice(ssrcs), _reports(chance, ssrcs))


def _description(chance: Chance, ssrcs: Sequence[int]) -> RtcpSdesPacket:
    name = chance.randbytes(chance.choice((0, 1, 30, 255)))
    return RtcpSdesPacket(
        [RtcpSourceInfo(chance.choice(ssrcs), [(1, name)]) for _ in range(chance.randint(0, 3))]
    )


def _goodbye(chance: Chance, ssrcs: Sequence[int]) -> RtcpByePacket:
    return RtcpByePacket([chance.choice(ssrcs) for _ in range(chance.choice((0, 1, 31)))])


def _feedback(chance: Chance, ssrcs: Sequence[int]) -> RtcpRtpfbPacket:
    lost = sorted(chance.sample(range(1 << 16), chance.randint(0, 20)))
    return RtcpRtpfbPacket(chance.randrange(32), chance.choice(ssrcs), chance.choice(ssrcs), lost)


def _payload_feedback(chance: Chance, ssrcs: Sequence[int]) -> RtcpPsfbPacket:
    # REMB: more sources may be told than there are
    bitrate = b"REMB" + bytes([chance.choice((0, 1, 2, 255))]) + chance.randbytes(3)
    fci = chance.choice((b"", bitrate, bitrate + chance.randbytes(4), chance.randbytes(8)))
    fmt = chance.choice((RTCP_PSFB_APP, chance.randrange(32)))
    return RtcpPsfbPacket(fmt, chance.choice(ssrcs), chance.choice((0, *ssrcs)), fci)


_REPORTS: tuple[Callable[[Chance, Sequence[int]], AnyRtcpPacket], ...] = (
    _sender_report,
    _receiver_report,
    _description,
    _goodbye,
    _feedback,
    _payload_feedback,
)


def stun(chance: Chance, username: str, password: str) -> bytes:
    """A check, or nearly one: attributes of any length, signed rightly, wrongly or not at all."""
    attributes = [
        (_USERNAME, username.encode()),
        (_PRIORITY, struct.pack("!I", _u32(chance))),
        # Of the highest tie-breaker: the roles stay as they are, whoever claims what.
        (chance.choice((_CONTROLLING, _CONTROLLED)), bytes([0xFF] * 8)),
        (_USE_CANDIDATE, b""),
    ]
    attributes = [kept for kept in attributes if chance.random() < 0.8]
    for _ in range(chance.randint(0, 3)):
        value = chance.randbytes(chance.choice((0, 1, 2, 3, 4, 5, 8, 16, 20, 300)))
        spot = chance.randrange(len(attributes) + 1)
        attributes.insert(spot, (chance.choice(_ATTRIBUTES), value))
    body = b"".join(_attribute(kind, value) for kind, value in attributes)
    method = chance.choice((_BINDING, _BINDING, _BINDING, *range(12)))
    kind = method | chance.choice((0, 0, 0, 0x010, 0x100, 0x110))
    head, tail = struct.pack("!H", kind), struct.pack("!I", _COOKIE) + chance.randbytes(12)
    if chance.random() < 0.7:
        key = password if chance.random() < 0.8 else password[::-1]
        body += _attribute(_INTEGRITY, _digest(key, head, tail, body))
    if chance.random() < 0.7:
        covered = head + struct.pack("!H", len(body) + 8) + tail + body
        check = struct.pack("!I", zlib.crc32(covered) ^ 0x5354554E)
        body += _attribute(_FINGERPRINT, check[: chance.choice((4, 4, 4, 3, 0))])
    message = head + struct.pack("!H", len(body)) + tail + body
    return message if chance.random() < 0.7 else spoil(chance, message)


def _digest(key: str, head: bytes, tail: bytes, body: bytes) -> bytes:
    covered = head + struct.pack("!H", len(body) + 24) + tail + body
    return hmac.new(key.encode(), covered, "sha1").digest()


def _attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("!HH", kind, len(value)) + value + bytes(-len(value) % 4)


def dtls(chance: Chance) -> bytes:
    """One or two records with a right header, or nearly, and nothing inside."""
    records = b""
    for _ in range(chance.randint(1, 2)):
        body = chance.randbytes(chance.choice((0, 1, 2, 13, 40, 300, 1_400)))
        if chance.random() < 0.3:
            body = bytes([chance.choice((1, 2)), chance.randrange(120)])  # an alert
        kind = chance.choice((20, 21, 22, 23, 24, 25, 26, 63))
        version = chance.choice((0xFEFD, 0xFEFD, 0xFEFF, 0x0303, 0))
        epoch = chance.choice((0, 1, 1, 2, 0xFFFF))
        told = len(body) if chance.random() < 0.8 else chance.randrange(1 << 16)
        number = chance.getrandbits(chance.choice((3, 8, 48)))
        records += struct.pack("!BHHHIH", kind, version, epoch, 0, number & 0xFFFFFFFF, told) + body
    return records if chance.random() < 0.7 else spoil(chance, records)
