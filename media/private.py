"""All that touches private parts of aiortc and aioice; `tests/media/test_private.py` holds
these names to the versions that `pyproject.toml` admits.

- aiortc reads packets through two queues and a task, stalls for 320 ms on one lost packet and
  decodes in a thread per receiver. A `Tap` takes RTP where the socket hands it over; STUN, DTLS
  and RTCP go on to aiortc, whose receiver still keeps the statistics and sends the reports.
- aiortc makes a certificate for every connection; one for the process will do.
- aioice leaves loopback out of its host addresses and has no setting for them.
- aioice ends a peer without consent after 6 checks, up to 39 s; five keep it below 35.
"""

import asyncio
import functools
import random
import struct
import time
from collections.abc import Callable, Sequence
from typing import Any

import aioice.ice
import aiortc.rtcpeerconnection
import ifaddr
import pylibsrtp
from aiortc import RTCCertificate, RTCRtpReceiver, RTCRtpTransceiver
from aiortc.rtcrtpparameters import RTCRtpReceiveParameters
from aiortc.rtcrtpreceiver import StreamStatistics
from aiortc.rtp import RtcpReceiverInfo, RtcpRrPacket

from media.track import RtpPacket

CONSENT_FAILURES = 5
AUDIO_LEVEL = "urn:ietf:params:rtp-hdrext:ssrc-audio-level"

_SSRC = struct.Struct("!HII")
_EXTENSION = struct.Struct("!HH")
_FIRST_REPORT_S, _REPORT_EVERY_S = 1.0, 5.0
_ONE_BYTE_HEADERS = 0xBEDE  # RFC 8285
_SOURCES_AT_MOST = 31  # that one report can hold


class _Statistics(StreamStatistics):
    """aiortc's, of a sender whose timestamps may be anything."""

    @property
    def jitter(self) -> int:
        # What does not fit into a report would end aiortc's task for them unseen.
        return min(super().jitter, 0xFFFFFFFF)


class _Receiver(RTCRtpReceiver):
    """aiortc's, without its decoder thread, and with reports every 5 s on average, as RFC 3550
    has it, in place of one a second. An instance becomes one by `__class__`."""

    async def _run_rtcp(self) -> None:
        mine = vars(self)
        mine["_RTCRtpReceiver__rtcp_started"].set()
        try:
            await asyncio.sleep(_FIRST_REPORT_S)
            while True:
                await self._report()
                await asyncio.sleep(_REPORT_EVERY_S * (0.5 + random.random()))
        finally:
            mine["_RTCRtpReceiver__rtcp_exited"].set()

    async def _report(self) -> None:
        mine = vars(self)
        own_ssrc = mine["_RTCRtpReceiver__rtcp_ssrc"]
        reports = [
            _reception(ssrc, stream, mine)
            for ssrc, stream in mine["_RTCRtpReceiver__remote_streams"].items()
        ]
        if own_ssrc is not None and reports:
            await self._send_rtcp(RtcpRrPacket(ssrc=own_ssrc, reports=reports))

    async def receive(self, parameters: RTCRtpReceiveParameters) -> None:
        mine = vars(self)
        if mine["_RTCRtpReceiver__started"]:
            return
        for codec in parameters.codecs:
            mine["_RTCRtpReceiver__codecs"][codec.payloadType] = codec
        self.transport._register_rtp_receiver(self, parameters)
        mine["_RTCRtpReceiver__rtcp_task"] = asyncio.ensure_future(self._run_rtcp())
        mine["_RTCRtpReceiver__started"] = True


def _reception(ssrc: int, stream: StreamStatistics, mine: dict[str, Any]) -> RtcpReceiverInfo:
    last, since = mine["_RTCRtpReceiver__lsr"].get(ssrc, 0), 0
    if last:
        delay_s = time.time() - mine["_RTCRtpReceiver__lsr_time"][ssrc]
        since = int(min(max(delay_s, 0.0), 65535.0) * 65536)
    return RtcpReceiverInfo(
        ssrc=ssrc,
        fraction_lost=stream.fraction_lost,
        packets_lost=stream.packets_lost,
        highest_sequence=stream.max_seq or 0,
        jitter=stream.jitter,
        lsr=last,
        dlsr=since,
    )


class Tap:
    """Stands between the sockets of a connection and aiortc, and takes the RTP of one
    receiver out of the stream."""

    def __init__(
        self, transceiver: RTCRtpTransceiver, receive: Callable[[RtpPacket], None]
    ) -> None:
        self.rejected = 0  # did not decrypt: forged, repeated, or not for us
        receiver = transceiver.receiver
        receiver.__class__ = _Receiver
        self._receiver = vars(receiver)
        self._transceiver = transceiver
        self._receive = receive
        self._dtls = receiver.transport
        self._level_id: int | None = None

    def install(self) -> None:
        """Tap the connection's sockets, which are there once the answer is made. Again after
        each further answer."""
        self._dtls = self._transceiver.receiver.transport
        for extension in self._transceiver._headerExtensions:
            if extension.uri == AUDIO_LEVEL:
                self._level_id = extension.id
        for protocol in self._dtls.transport._connection._protocols:
            if "datagram_received" not in vars(protocol):
                original = protocol.datagram_received
                tapped = functools.partial(self._datagram, original)
                setattr(protocol, "datagram_received", tapped)  # noqa: B010

    def remove(self) -> None:
        """Leave the sockets to aiortc again."""
        for protocol in self._dtls.transport._connection._protocols:
            vars(protocol).pop("datagram_received", None)

    async def end_consent(self) -> None:
        """After closing: an ICE agent that was closed in the turn in which it connected begins
        to ask for consent all the same, and would never stop (aioice 0.13, `connect`)."""
        connection = self._dtls.transport._connection
        for _ in range(2):  # turns in which `connect` goes on
            await asyncio.sleep(0)
        task, connection._query_consent_task = connection._query_consent_task, None
        if task is not None:
            task.cancel()

    def codec_name(self, payload_type: int) -> str | None:
        """The negotiated codec of a payload type, once the receiver has started."""
        codec = self._receiver["_RTCRtpReceiver__codecs"].get(payload_type)
        return None if codec is None else str(codec.name)

    def _datagram(self, original: Callable[[bytes, Any], None], data: bytes, address: Any) -> None:
        # RFC 7983: SRTP begins with 128 to 191. RFC 5761: RTCP has 64 to 95 as payload type.
        if (
            len(data) < 12
            or not 128 <= data[0] <= 191
            or 64 <= data[1] & 127 <= 95
            or (session := self._dtls._rx_srtp) is None
        ):
            original(data, address)
            return
        try:
            packet = self._parse(session.unprotect(data))
        except (pylibsrtp.Error, ValueError):
            self.rejected += 1
            return
        self._count(packet)
        self._receive(packet)

    def _parse(self, data: bytes) -> RtpPacket:
        """Raises `ValueError` for what is shorter than it says."""
        sequence, timestamp, ssrc = _SSRC.unpack_from(data, 2)
        start, end, level = 12 + 4 * (data[0] & 15), len(data), None
        if data[0] & 0x10:
            if start + 4 > end:
                raise ValueError("no room for the extension")
            profile, words = _EXTENSION.unpack_from(data, start)
            start += 4
            if profile == _ONE_BYTE_HEADERS and self._level_id is not None:
                level = _level(data, start, min(end, start + 4 * words), self._level_id)
            start += 4 * words
        if data[0] & 0x20:
            end -= data[-1]
        if start > end:
            raise ValueError("no room for the payload")
        return RtpPacket(ssrc, data[1] & 127, sequence, timestamp, data[start:end], level)

    def _count(self, packet: RtpPacket) -> None:
        """What the receiver reports to the sender."""
        streams = self._receiver["_RTCRtpReceiver__remote_streams"]
        statistics = streams.get(packet.ssrc)
        if statistics is None:
            codec = self._receiver["_RTCRtpReceiver__codecs"].get(packet.payload_type)
            if codec is None:
                return
            streams[packet.ssrc] = statistics = _Statistics(codec.clockRate)
            self._know_source(packet.ssrc, streams)
        statistics.add(packet)

    def _know_source(self, ssrc: int, streams: dict[int, StreamStatistics]) -> None:
        """Let the sender's reports on a source find the receiver; forget the oldest source."""
        sources = self._dtls._rtp_router.ssrc_table
        sources.setdefault(ssrc, self._transceiver.receiver)
        if len(streams) > _SOURCES_AT_MOST:
            oldest = next(iter(streams))
            del streams[oldest]
            sources.pop(oldest, None)


def _level(data: bytes, at: int, end: int, wanted: int) -> int | None:
    """RFC 6464: how far below overload, 127 for silence. None where it is not told."""
    while at < end:
        number, length = data[at] >> 4, (data[at] & 15) + 1
        if data[at] == 0:
            at += 1
            continue
        if number == wanted and at + 1 < end:
            return data[at + 1] & 127
        at += 1 + length
    return None


def share_certificate() -> None:
    """Let every connection of this process use one certificate."""
    certificate = RTCCertificate.generateCertificate()

    class _Shared(RTCCertificate):
        @classmethod
        def generateCertificate(cls) -> RTCCertificate:  # type: ignore[override] # noqa: N802
            return certificate

    setattr(aiortc.rtcpeerconnection, "RTCCertificate", _Shared)  # noqa: B010


def gather_on(addresses: Sequence[str], *, loopback: bool) -> None:
    """Gather host candidates on `addresses`; with none given, on every interface, and on
    loopback too if `loopback`. Holds for the whole process."""

    def host_addresses(use_ipv4: bool, use_ipv6: bool) -> list[str]:
        if addresses:
            return [a for a in addresses if (use_ipv6 if ":" in a else use_ipv4)]
        found = _interface_addresses(use_ipv4, use_ipv6)
        return [*found, "127.0.0.1"] if loopback and use_ipv4 else found

    aioice.ice.get_host_addresses = host_addresses
    aioice.ice.CONSENT_FAILURES = CONSENT_FAILURES


def _interface_addresses(use_ipv4: bool, use_ipv6: bool) -> list[str]:
    found: list[str] = []
    for adapter in ifaddr.get_adapters():
        for ip in adapter.ips:
            if isinstance(ip.ip, str):
                if use_ipv4 and not ip.ip.startswith("127."):
                    found.append(ip.ip)
            elif use_ipv6 and ip.ip[0] != "::1" and ip.ip[2] == 0:
                # a scope (link-local) cannot be bound without its interface
                found.append(ip.ip[0])
    return found
