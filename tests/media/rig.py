"""A tap whose socket and keys are in the test's hand, and plain packets to bring it."""

import struct
from types import SimpleNamespace

import pylibsrtp
from aiortc import RTCRtpReceiver, RTCRtpTransceiver
from aiortc.rtcrtpparameters import RTCRtpHeaderExtensionParameters
from aiortc.rtp import (
    RtcpByePacket,
    RtcpPacket,
    RtcpReceiverInfo,
    RtcpRrPacket,
    RtcpSenderInfo,
    RtcpSrPacket,
)

from media import private
from media.track import RtpPacket

KEY = bytes(range(30))
LEVEL_ID = 3
SENDER = ("192.0.2.1", 9)
SSRC = 77


class Socket:
    """Stands for aioice's."""

    def __init__(self) -> None:
        self.passed: list[bytes] = []
        self.sent: list[tuple[bytes, object]] = []
        self.transport = self

    def datagram_received(self, data: bytes, _address: object) -> None:
        self.passed.append(data)

    def sendto(self, data: bytes, address: object) -> None:
        self.sent.append((data, address))


def session(direction: int) -> pylibsrtp.Session:
    return pylibsrtp.Session(pylibsrtp.Policy(key=KEY, ssrc_type=direction))


class Rig:
    """A tap on a socket that is in the test's hand, with keys of both ends."""

    def __init__(self) -> None:
        self.socket = Socket()
        self.taken: list[RtpPacket] = []
        self.goodbyes: list[float] = []
        incoming, outgoing = pylibsrtp.Policy.SSRC_ANY_INBOUND, pylibsrtp.Policy.SSRC_ANY_OUTBOUND
        self.sender, self._reader = session(outgoing), session(incoming)
        pair = SimpleNamespace(protocol=self.socket, remote_addr=SENDER)
        self.connection = SimpleNamespace(_protocols=[self.socket], _nominated={1: pair})
        self.transport = SimpleNamespace(
            state="new",
            _rx_srtp=session(incoming),
            _tx_srtp=session(outgoing),
            transport=SimpleNamespace(_connection=self.connection),
        )
        receiver = RTCRtpReceiver("audio", self.transport)  # type: ignore[arg-type]
        vars(receiver)["_RTCRtpReceiver__codecs"][111] = SimpleNamespace(
            name="opus", clockRate=48_000
        )
        self.transceiver = RTCRtpTransceiver("audio", receiver, None)  # type: ignore[arg-type]
        self.transceiver._headerExtensions = [
            RTCRtpHeaderExtensionParameters(id=LEVEL_ID, uri=private.AUDIO_LEVEL)
        ]
        self.tap = private.Tap(self.transceiver, self.take, self.goodbyes.append)
        self.tap.install()

    def take(self, packet: RtpPacket, _now: float) -> None:
        self.taken.append(packet)

    def bring(self, datagram: bytes) -> None:
        self.socket.datagram_received(datagram, SENDER)

    def send(self, plain: bytes) -> bytes:
        """Protect an RTP packet and bring it."""
        datagram: bytes = self.sender.protect(plain)
        self.bring(datagram)
        return datagram

    def send_rtcp(self, plain: bytes) -> bytes:
        datagram: bytes = self.sender.protect_rtcp(plain)
        self.bring(datagram)
        return datagram

    def told(self) -> list[RtcpReceiverInfo]:
        """What the reports say that went to the sender."""
        blocks: list[RtcpReceiverInfo] = []
        for datagram, address in self.socket.sent:
            assert address == SENDER
            (report,) = RtcpPacket.parse(self._reader.unprotect_rtcp(datagram))
            assert isinstance(report, RtcpRrPacket)
            blocks += report.reports
        return blocks


def rtp(
    payload: bytes = b"opus",
    *,
    sequence: int = 1,
    timestamp: int = 960,
    ssrc: int = SSRC,
    payload_type: int = 111,
    marker: bool = False,
    csrcs: int = 0,
    profile: int = 0xBEDE,
    extension: bytes | None = None,
    padding: int = 0,
) -> bytes:
    """A plain RTP packet; `extension` is a multiple of four bytes."""
    first = 0x80 | csrcs | (0x10 if extension is not None else 0) | (0x20 if padding else 0)
    second = payload_type | (0x80 if marker else 0)
    packet = struct.pack("!BBHII", first, second, sequence, timestamp, ssrc)
    packet += struct.pack("!I", 9) * csrcs
    if extension is not None:
        packet += struct.pack("!HH", profile, len(extension) // 4) + extension
    packet += payload
    if padding:
        packet += bytes(padding - 1) + bytes([padding])
    return packet


def sender_report(ntp_time: int = 0x0001_2345_6789_0000) -> bytes:
    return bytes(RtcpSrPacket(SSRC, RtcpSenderInfo(ntp_time, 0, 1, 1)))


def goodbye(*sources: int) -> bytes:
    return bytes(RtcpByePacket(list(sources)))
