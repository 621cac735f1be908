"""What touches private parts of aiortc, for the way of a packet; `contained.py` and `ice.py` have
the rest. `tests/media/test_private.py` holds these names to the versions that `pyproject.toml`
admits.

- aiortc reads packets through two queues and a task, stalls for 320 ms on one lost packet and
  decodes in a thread per receiver. A `Tap` takes RTP and RTCP where the socket hands them over;
  STUN and DTLS go on to aiortc.
- aiortc goes on connecting in a task of its own after `close`.
- aiortc makes a certificate and a context of OpenSSL for every connection; one for the process
  will do.
"""

import asyncio
import functools
import logging
import random
import struct
import time
from collections.abc import Callable
from typing import Any

import aiortc.rtcpeerconnection
import aiortc.rtcsctptransport
import pylibsrtp
from aiortc import (
    RTCCertificate,
    RTCConfiguration,
    RTCPeerConnection,
    RTCRtpReceiver,
    RTCRtpTransceiver,
)
from aiortc.exceptions import InvalidStateError
from aiortc.rtcdtlstransport import SRTPProtectionProfile
from aiortc.rtcrtpparameters import RTCRtpReceiveParameters
from OpenSSL import SSL

from media.reports import Reports
from media.track import RtpPacket

AUDIO_LEVEL = "urn:ietf:params:rtp-hdrext:ssrc-audio-level"

_HEADER = struct.Struct("!BBHII")
_EXTENSION = struct.Struct("!HH")
_ONE_BYTE_HEADERS = 0xBEDE  # RFC 8285
_SOURCES_AT_MOST = 32  # a browser has one or two
# A device that begins anew has paused for longer; one that speaks has not.
_HANDED_OVER_S = 0.5

log = logging.getLogger("roomscribe.peer")


class Connection(RTCPeerConnection):
    """aiortc's, whose tasks that connect are known: they hold its parts, also after `close`."""

    def __init__(self, configuration: RTCConfiguration) -> None:
        super().__init__(configuration)
        self._connecting: set[asyncio.Task[None]] = set()

    async def settled(self) -> None:
        """After closing: wait until they have ended."""
        if self._connecting:
            await asyncio.wait(self._connecting)

    # A task, not a coroutine: one that has not begun when the connection closes counts, too.
    def _RTCPeerConnection__connect(self) -> asyncio.Task[None]:  # noqa: N802
        task = asyncio.ensure_future(self._connect())
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)
        return task

    async def _connect(self) -> None:
        try:
            await super()._RTCPeerConnection__connect()  # type: ignore[misc]
        except InvalidStateError:
            # beside `close` it meets parts that are closed by now
            if self.signalingState != "closed":
                raise


class _Receiver(RTCRtpReceiver):
    """aiortc's, without its decoder thread and its task for reports. An instance becomes one by
    `__class__`."""

    async def receive(self, parameters: RTCRtpReceiveParameters) -> None:
        codecs = vars(self)["_RTCRtpReceiver__codecs"]
        codecs.update((codec.payloadType, codec) for codec in parameters.codecs)


class Tap:
    """Stands between the sockets of a connection and aiortc, and takes RTP and RTCP out of the
    stream. `ended` is called when a source says goodbye."""

    def __init__(
        self,
        transceiver: RTCRtpTransceiver,
        receive: Callable[[RtpPacket, float], None],
        ended: Callable[[float], None],
    ) -> None:
        self.rejected = 0  # did not decrypt, or is not what it says: forged, repeated, broken
        self.unknown = 0  # of a source that nobody announced
        receiver = transceiver.receiver
        receiver.__class__ = _Receiver
        self._codecs: dict[int, Any] = vars(receiver)["_RTCRtpReceiver__codecs"]
        self._transceiver = transceiver
        self._receive = receive
        self._ended = ended
        self._reports = Reports(random.getrandbits(32))  # nosec B311
        self._dtls = receiver.transport
        self._level_id: int | None = None
        self._sources: dict[bytes, None] = {}  # in the order in which they came
        self._tapped: list[Any] = []
        self._announced: frozenset[int] = frozenset()
        self._speaking: int | None = None
        self._heard_at = 0.0

    def install(self, announced: frozenset[int] = frozenset()) -> None:
        """Tap the connection's sockets, which are there once the answer is made, for the sources
        that the offer announced; with none, for whichever speaks. Again after each further
        answer."""
        self._announced = announced
        self._dtls = self._transceiver.receiver.transport
        extensions = self._transceiver._headerExtensions
        self._level_id = next((e.id for e in extensions if e.uri == AUDIO_LEVEL), None)
        for protocol in self._dtls.transport._connection._protocols:
            if "datagram_received" not in vars(protocol):
                original = protocol.datagram_received
                tapped = functools.partial(self._datagram, original)
                setattr(protocol, "datagram_received", tapped)  # noqa: B010
                self._tapped.append(protocol)

    def remove(self) -> None:
        """Leave the sockets to aiortc again: also those that it has closed and forgotten."""
        for protocol in self._tapped:
            vars(protocol).pop("datagram_received", None)
        self._tapped.clear()

    async def end_consent(self) -> None:
        """After closing: an ICE agent that was closed in the turn in which it connected begins
        to ask for consent all the same, and would never stop (aioice 0.13, `connect`)."""
        connection = self._dtls.transport._connection
        for _ in range(2):  # turns in which `connect` goes on
            await asyncio.sleep(0)
        task, connection._query_consent_task = connection._query_consent_task, None
        if task is not None:
            task.cancel()

    def let_go(self) -> None:
        """Of whom it told: they hold the tap, too."""
        self._receive, self._ended = _nobody, _nobody

    def codec_name(self, payload_type: int) -> str | None:
        """The negotiated codec of a payload type, once the receiver has started."""
        codec = self._codecs.get(payload_type)
        return None if codec is None else str(codec.name)

    def _datagram(self, original: Callable[[bytes, Any], None], data: bytes, address: Any) -> None:
        # RFC 7983: SRTP and SRTCP begin with 128 to 191.
        if len(data) < 12 or not 128 <= data[0] <= 191 or (session := self._dtls._rx_srtp) is None:
            original(data, address)
            return
        now = time.monotonic()
        # RFC 5761: RTCP has 64 to 95 where RTP has its payload type.
        is_rtcp = 64 <= data[1] & 127 <= 95
        try:
            plain = session.unprotect_rtcp(data) if is_rtcp else session.unprotect(data)
            source = plain[4:8] if is_rtcp else plain[8:12]
            if source not in self._sources:
                self._note_source(source, session)
            if is_rtcp:
                if self._reports.receive(plain, now):
                    self._speaking = None  # another may follow at once
                    self._ended(now)
                return
            packet = self._parse(plain)
        except (pylibsrtp.Error, ValueError):
            self.rejected += 1
            return
        codec = self._codecs.get(packet.payload_type)
        # what is not of this track's codecs, as a device's video, takes no speaker's turn
        if codec is not None:
            if packet.ssrc != self._speaking and not self._may_speak(packet.ssrc, now):
                self.unknown += 1
                return
            self._heard_at = now
            self._reports.count(
                packet.ssrc, packet.sequence_number, packet.timestamp, codec.clockRate, now
            )
            if now >= self._reports.due:
                self._send(self._reports.next_report(now))
        self._receive(packet, now)

    def _may_speak(self, ssrc: int, now: float) -> bool:
        """One at a time, where none are announced: another once the one before is silent."""
        if self._announced:
            may = ssrc in self._announced
        else:
            may = self._speaking is None or now - self._heard_at >= _HANDED_OVER_S
        if may:
            self._speaking = ssrc
        return may

    def _note_source(self, source: bytes, session: pylibsrtp.Session) -> None:
        """libsrtp makes a stream for every new source, and would never let go of one."""
        self._sources[source] = None
        if len(self._sources) > _SOURCES_AT_MOST:
            oldest = next(iter(self._sources))
            del self._sources[oldest]
            session.remove_stream(int.from_bytes(oldest, "big"))

    def _parse(self, data: bytes) -> RtpPacket:
        """Raises `ValueError` for what is shorter than it says."""
        first, second, sequence, timestamp, ssrc = _HEADER.unpack_from(data)
        start, end, level = 12 + 4 * (first & 15), len(data), None
        if first & 0x10:
            if start + 4 > end:
                raise ValueError("no room for the extension")
            profile, words = _EXTENSION.unpack_from(data, start)
            start += 4
            if profile == _ONE_BYTE_HEADERS and self._level_id is not None:
                level = _level(data, start, min(end, start + 4 * words), self._level_id)
            start += 4 * words
        if first & 0x20:
            end -= data[-1]
        if start > end:
            raise ValueError("no room for the payload")
        return RtpPacket(ssrc, second & 127, sequence, timestamp, data[start:end], level)

    def _send(self, report: bytes) -> None:
        """At once, without a task. A report that cannot go now is followed by another."""
        pair = self._dtls.transport._connection._nominated.get(1)
        if pair is not None:
            pair.protocol.transport.sendto(
                self._dtls._tx_srtp.protect_rtcp(report), pair.remote_addr
            )


def _nobody(*_: object) -> None:
    pass


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


def dissolve(connection: RTCPeerConnection) -> None:
    """Break the cycles among the parts of a closed connection, so that it is freed now and not
    by a full collection, which stalls the loop while hundreds of others speak. Only once
    `Connection.settled` is done."""
    transceivers = connection.getTransceivers()
    transports = [t.receiver.transport for t in transceivers]
    parts: list[Any] = [connection, *transceivers]
    for transceiver in transceivers:
        parts += [transceiver.sender, transceiver.receiver]
    if connection.sctp is not None:
        transports.append(connection.sctp.transport)
        parts += [connection.sctp, *connection.sctp._data_channels.values()]
    for dtls in transports:
        ice = dtls.transport
        agent = ice._connection
        parts += [dtls, ice, ice.iceGatherer]
        # The agent itself stays whole: its checks of other pairs may still be under way.
        for pair in agent._check_list:
            pair.task = None  # one that was cancelled holds its pair
        for pairs in (agent._check_list, agent._early_checks, agent._nominated):
            pairs.clear()
    for part in parts:
        vars(part).clear()


class _Certificate(RTCCertificate):
    """aiortc's, with one context of OpenSSL for all who use it: each takes 16 kB."""

    @functools.cached_property
    def _contexts(self) -> dict[tuple[bytes, ...], SSL.Context]:
        return {}

    def _create_ssl_context(self, srtp_profiles: list[SRTPProtectionProfile]) -> SSL.Context:
        wanted = tuple(profile.openssl_profile for profile in srtp_profiles)
        context = self._contexts.get(wanted)
        if context is None:
            context = self._contexts[wanted] = super()._create_ssl_context(srtp_profiles)
            # nobody resumes a session, and it would keep 20,000
            context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
            # 33 kB of each connection, for the moment in which it reads
            context.set_mode(SSL.MODE_RELEASE_BUFFERS)
        return context


def share_certificate() -> None:
    """Let every connection of this process use one certificate."""
    certificate = _Certificate.generateCertificate()

    class _Shared(RTCCertificate):
        @classmethod
        def generateCertificate(cls) -> RTCCertificate:  # type: ignore[override] # noqa: N802
            return certificate

    setattr(aiortc.rtcpeerconnection, "RTCCertificate", _Shared)  # noqa: B010
