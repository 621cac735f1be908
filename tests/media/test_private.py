"""The private names we use, held to the installed aiortc and aioice.

A failure here after an upgrade says which of `media/private.py`'s names moved.
"""

import asyncio
import functools
import itertools
import struct
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import aioice
import aioice.ice
import aioice.stun
import ifaddr
import pylibsrtp
import pytest
from aiortc import (
    RTCCertificate,
    RTCConfiguration,
    RTCDtlsTransport,
    RTCIceGatherer,
    RTCPeerConnection,
    RTCRtpReceiver,
    RTCRtpSender,
    RTCRtpTransceiver,
    rtcpeerconnection,
    rtcrtpreceiver,
)
from aiortc.rtcdtlstransport import RtpRouter
from aiortc.rtcrtpparameters import RTCRtpHeaderExtensionParameters
from aiortc.rtp import RtcpByePacket, RtcpRrPacket
from hypothesis import given, settings
from hypothesis import strategies as st

from media import private
from media.track import RtpPacket
from tests.clients import Voice
from tests.speech import tone


@pytest.fixture(autouse=True)
def process_wide_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """What `gather_on` sets is undone; a name that vanished fails here."""
    monkeypatch.setattr(aioice.ice, "get_host_addresses", aioice.ice.get_host_addresses)
    monkeypatch.setattr(aioice.ice, "CONSENT_FAILURES", aioice.ice.CONSENT_FAILURES)


@dataclass(slots=True)
class Call:
    """A connection that sends a tone to one with a tap."""

    sending: RTCPeerConnection
    hearing: RTCPeerConnection
    sender: RTCRtpSender
    tap: private.Tap
    taken: list[RtpPacket]

    @property
    def receiver(self) -> RTCRtpReceiver:
        (receiver,) = self.hearing.getReceivers()
        return receiver

    async def heard(self, packets: int = 10) -> None:
        """Until so many more have come."""
        wanted = len(self.taken) + packets
        async with asyncio.timeout(10):
            while len(self.taken) < wanted:  # noqa: ASYNC110
                await asyncio.sleep(0.01)

    async def offer(self) -> None:
        """Offer and answer, the first time and later."""
        await self.sending.setLocalDescription(await self.sending.createOffer())
        await self.hearing.setRemoteDescription(self.sending.localDescription)
        await self.hearing.setLocalDescription(await self.hearing.createAnswer())
        self.tap.install()
        await self.sending.setRemoteDescription(self.hearing.localDescription)


@asynccontextmanager
async def calling() -> AsyncIterator[Call]:
    private.gather_on(["127.0.0.1"], loopback=True)
    sending = RTCPeerConnection(RTCConfiguration(iceServers=[]))
    hearing = RTCPeerConnection(RTCConfiguration(iceServers=[]))
    taken: list[RtpPacket] = []
    try:
        sender = sending.addTrack(Voice(tone(10.0, 48_000)))
        await sending.setLocalDescription(await sending.createOffer())
        await hearing.setRemoteDescription(sending.localDescription)
        (transceiver,) = hearing.getTransceivers()
        tap = private.Tap(transceiver, taken.append)
        await hearing.setLocalDescription(await hearing.createAnswer())
        tap.install()
        await sending.setRemoteDescription(hearing.localDescription)
        yield Call(sending, hearing, sender, tap, taken)
    finally:
        await sending.close()
        await hearing.close()


async def stats_of(
    source: RTCRtpSender | RTCRtpReceiver,
    kind: str,
    holds: Callable[[SimpleNamespace], object] = lambda _: True,
) -> SimpleNamespace:
    """Wait until a connection has statistics of a kind."""
    async with asyncio.timeout(10):
        while True:
            for entry in (await source.getStats()).values():
                seen = SimpleNamespace(**vars(entry))
                if entry.type == kind and holds(seen):
                    return seen
            await asyncio.sleep(0.02)


@pytest.fixture
def frequent_reports(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(private, "_FIRST_REPORT_S", 0.3)
    monkeypatch.setattr(private, "_REPORT_EVERY_S", 0.1)


@pytest.mark.usefixtures("frequent_reports")
async def test_the_tap_takes_every_packet_and_leaves_statistics_and_rtcp_to_aiortc() -> None:
    async with calling() as call:
        reported = await stats_of(call.sender, "remote-inbound-rtp")
        said = await stats_of(call.receiver, "remote-outbound-rtp")
        received = await stats_of(call.receiver, "inbound-rtp")
        taken = call.taken

        assert len(taken) > 10
        assert received.packetsReceived == len(taken)
        assert said.ssrc == received.ssrc == taken[0].ssrc
        assert reported.packetsReceived > 10
        assert reported.packetsLost == 0
        assert call.tap.rejected == 0
        # no packet went to aiortc's decoder, and no frame came back from it
        assert vars(call.receiver)["_RTCRtpReceiver__decoder_queue"].empty()
        assert vars(call.receiver.track)["_queue"].empty()

    sequence = taken[0].sequence_number
    assert [p.sequence_number for p in taken[:10]] == [(sequence + n) & 0xFFFF for n in range(10)]
    assert taken[1].timestamp - taken[0].timestamp == 960
    assert len(taken[5].payload) > 10


@pytest.mark.usefixtures("frequent_reports")
async def test_the_sender_is_told_its_loss_and_its_round_trip(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with calling() as call:
        dtls = call.sender.transport
        carry, count = dtls._send_rtp, 0

        async def lossy(data: bytes) -> None:
            nonlocal count
            is_rtp = not 192 <= data[1] <= 208
            count += is_rtp
            if not is_rtp or count % 5:
                await carry(data)

        monkeypatch.setattr(dtls, "_send_rtp", lossy)
        reported = await stats_of(
            call.sender,
            "remote-inbound-rtp",
            # of the last interval only, and that may be lossless
            lambda seen: seen.packetsLost >= 3 and seen.fractionLost > 0 and seen.roundTripTime,
        )

    assert 0 < reported.roundTripTime < 1


@pytest.mark.usefixtures("frequent_reports")
async def test_the_round_trip_of_a_source_that_no_offer_named_is_told_too() -> None:
    async with calling() as call:
        await call.heard(1)
        router = call.receiver.transport._rtp_router
        router.ssrc_table.clear()
        vars(call.receiver)["_RTCRtpReceiver__remote_streams"].clear()

        reported = await stats_of(
            call.sender, "remote-inbound-rtp", lambda seen: seen.roundTripTime is not None
        )

    assert reported.roundTripTime < 1


async def test_no_thread_decodes() -> None:
    async with calling() as call:
        before = {thread.name for thread in threading.enumerate()}
        await call.heard()

        assert not any("decoder" in name for name in before)
        assert vars(call.receiver)["_RTCRtpReceiver__decoder_thread"] is None


async def test_a_later_offer_keeps_the_tap() -> None:
    async with calling() as call:
        await call.heard()
        await call.offer()
        await call.heard()
        (protocol,) = tapped(call)
        # once only: what aiortc is given is its own
        assert vars(protocol)["datagram_received"].args[0].__func__ is (
            type(protocol).datagram_received
        )

    numbers = [packet.sequence_number for packet in call.taken]
    assert len(set(numbers)) == len(numbers)


def tapped(call: Call) -> list[Any]:
    protocols = call.receiver.transport.transport._connection._protocols
    return [protocol for protocol in protocols if "datagram_received" in vars(protocol)]


async def test_a_tap_that_is_removed_leaves_the_sockets_to_aiortc() -> None:
    async with calling() as call:
        await call.heard()
        assert tapped(call)

        call.tap.remove()
        call.tap.remove()

        heard = len(call.taken)
        assert tapped(call) == []
        received = (await stats_of(call.receiver, "inbound-rtp")).packetsReceived
        await stats_of(
            call.receiver, "inbound-rtp", lambda seen: seen.packetsReceived > received + 5
        )
        assert len(call.taken) == heard


async def test_a_sender_that_says_goodbye_may_come_back_as_another_source() -> None:
    async with calling() as call:
        await call.heard()
        dtls = call.sender.transport
        ssrc = call.taken[-1].ssrc
        await dtls._send_rtp(bytes(RtcpByePacket(sources=[ssrc])))
        await call.heard()
        header = struct.pack("!BBHII", 0x80, call.taken[-1].payload_type, 7, 8, 4242)

        await dtls._send_rtp(header + b"\xf8\xff\xfe")

        await call.heard(3)
        assert 4242 in {packet.ssrc for packet in call.taken}
        assert call.hearing.connectionState == "connected"


async def test_the_codec_of_a_payload_type_is_known_once_it_is_negotiated() -> None:
    async with calling() as call:
        await call.heard(1)

        assert call.tap.codec_name(call.taken[0].payload_type) == "opus"
        assert call.tap.codec_name(0) == "PCMU"
        assert call.tap.codec_name(13) is None


async def test_peers_share_one_certificate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rtcpeerconnection, "RTCCertificate", RTCCertificate)
    private.share_certificate()
    async with calling() as one, calling() as other:
        await one.heard(1)
        await other.heard(1)
        prints = {
            line
            for call in (one, other)
            for connection in (call.sending, call.hearing)
            for line in connection.localDescription.sdp.splitlines()
            if line.startswith("a=fingerprint:sha-256")
        }

    assert len(prints) == 1


# The private names, one by one


@pytest.mark.parametrize(
    "name",
    [
        *("started", "codecs", "decoder_thread", "decoder_queue"),
        *("rtcp_task", "rtcp_started", "rtcp_exited", "rtcp_ssrc"),
        *("remote_streams", "lsr", "lsr_time"),
    ],
)
def test_a_receiver_keeps_its_state_where_we_look(name: str) -> None:
    assert f"_RTCRtpReceiver__{name}" in vars(Rig().transceiver.receiver)


@pytest.mark.parametrize(
    ("owner", "name"),
    [
        (RTCRtpReceiver, "_run_rtcp"),
        (RTCRtpReceiver, "_send_rtcp"),
        (RTCDtlsTransport, "_register_rtp_receiver"),
        (RTCDtlsTransport, "_handle_rtcp_data"),
        (aioice.ice.StunProtocol, "datagram_received"),
        (rtcpeerconnection, "RTCCertificate"),
        (aioice.ice, "get_host_addresses"),
        (aioice.ice, "CONSENT_FAILURES"),
    ],
)
def test_what_we_replace_and_call_is_there(owner: object, name: str) -> None:
    assert hasattr(owner, name)


async def test_a_connection_keeps_its_sockets_keys_and_extensions_where_we_look() -> None:
    async with calling() as call:
        await call.heard(1)
        (transceiver,) = call.hearing.getTransceivers()
        dtls = transceiver.receiver.transport

        assert isinstance(dtls._rx_srtp, pylibsrtp.Session)
        assert isinstance(dtls._rtp_router, RtpRouter)
        assert all(isinstance(p, aioice.ice.StunProtocol) for p in tapped(call))
        uris = {extension.uri for extension in transceiver._headerExtensions}

    assert private.AUDIO_LEVEL in uris


def test_a_receiver_without_its_table_of_codecs_is_an_error() -> None:
    rig = Rig()
    assert rig.tap.codec_name(0) is None

    del vars(rig.transceiver.receiver)["_RTCRtpReceiver__codecs"]

    with pytest.raises(KeyError):
        rig.tap.codec_name(0)


# Datagrams, by hand


KEY = bytes(range(30))
LEVEL_ID = 3
SSRC = 77


class Socket:
    """Stands for aioice's."""

    def __init__(self) -> None:
        self.passed: list[bytes] = []

    def datagram_received(self, data: bytes, _address: object) -> None:
        self.passed.append(data)


class Rig:
    """A tap on a socket that is in the test's hand, with keys of both ends."""

    def __init__(self) -> None:
        self.socket = Socket()
        self.taken: list[RtpPacket] = []
        policy = pylibsrtp.Policy
        self.sender = pylibsrtp.Session(policy(key=KEY, ssrc_type=policy.SSRC_ANY_OUTBOUND))
        transport = SimpleNamespace(
            state="new",
            _rx_srtp=pylibsrtp.Session(policy(key=KEY, ssrc_type=policy.SSRC_ANY_INBOUND)),
            _rtp_router=RtpRouter(),
            transport=SimpleNamespace(_connection=SimpleNamespace(_protocols=[self.socket])),
        )
        self.transport = transport
        receiver = RTCRtpReceiver("audio", transport)  # type: ignore[arg-type]
        vars(receiver)["_RTCRtpReceiver__codecs"][111] = SimpleNamespace(
            name="opus", clockRate=48_000
        )
        self.transceiver = RTCRtpTransceiver("audio", receiver, None)  # type: ignore[arg-type]
        self.transceiver._headerExtensions = [
            RTCRtpHeaderExtensionParameters(id=LEVEL_ID, uri=private.AUDIO_LEVEL)
        ]
        self.tap = private.Tap(self.transceiver, self.taken.append)
        self.tap.install()

    @property
    def streams(self) -> dict[int, Any]:
        streams: dict[int, Any] = vars(self.transceiver.receiver)["_RTCRtpReceiver__remote_streams"]
        return streams

    def bring(self, datagram: bytes) -> None:
        self.socket.datagram_received(datagram, ("192.0.2.1", 9))

    def send(self, plain: bytes) -> bytes:
        """Protect an RTP packet and bring it."""
        datagram: bytes = self.sender.protect(plain)
        self.bring(datagram)
        return datagram


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


def test_rtp_goes_to_the_track_and_all_else_to_aiortc() -> None:
    rig = Rig()
    report = bytes(RtcpRrPacket(ssrc=1, reports=[]))
    others = [
        b"\x00\x01\x00\x00" + bytes(16),  # STUN
        b"\x16\xfe\xfd" + bytes(30),  # DTLS
        rig.sender.protect_rtcp(report + bytes(8)),
        b"\x80\x6f\x00",  # too short to be RTP
        b"",
    ]

    for datagram in others:
        rig.bring(datagram)
    rig.send(rtp())

    assert rig.socket.passed == others
    assert rig.taken == [RtpPacket(SSRC, 111, 1, 960, b"opus")]
    assert rig.tap.rejected == 0


def test_before_there_are_keys_all_goes_to_aiortc() -> None:
    rig = Rig()
    rig.transport._rx_srtp = None

    sent = rig.send(rtp())

    assert rig.socket.passed == [sent]
    assert rig.taken == []


def test_what_is_forged_or_repeated_is_dropped_and_counted() -> None:
    rig = Rig()
    sent = rig.send(rtp())

    rig.bring(sent)
    rig.bring(sent[:-1] + bytes([sent[-1] ^ 1]))
    rig.bring(rtp(sequence=2) + bytes(10))
    rig.bring(rtp(b"")[:12])

    assert rig.tap.rejected == 4
    assert [packet.sequence_number for packet in rig.taken] == [1]
    assert rig.streams[SSRC].packets_received == 1
    assert rig.socket.passed == []


LEVEL_48 = bytes([LEVEL_ID << 4, 0x80 | 48])


@pytest.mark.parametrize(
    ("packet", "level"),
    [
        (rtp(), None),
        (rtp(marker=True), None),
        (rtp(csrcs=15), None),
        (rtp(padding=1), None),
        (rtp(padding=200), None),
        (rtp(extension=b""), None),
        (rtp(extension=LEVEL_48 + bytes(2)), 48),
        (rtp(extension=bytes(2) + LEVEL_48), 48),
        (rtp(extension=bytes([0x92]) + b"mid" + LEVEL_48 + bytes(2)), 48),
        (rtp(extension=LEVEL_48 + bytes(2), csrcs=3, padding=4, marker=True), 48),
        (rtp(extension=bytes([LEVEL_ID << 4, 127, 0, 0])), 127),
        (rtp(extension=bytes([9 << 4, 5, 0, 0])), None),
        # the two-byte headers, and another profile
        (rtp(extension=bytes([LEVEL_ID, 1, 48, 0]), profile=0x1000), None),
        (rtp(extension=LEVEL_48 + bytes(2), profile=0x1234), None),
        # its value would stand beyond the end
        (rtp(extension=bytes([0, 0, 0, LEVEL_ID << 4])), None),
        (rtp(extension=bytes([0x9F, 0, 0, 0])), None),
    ],
)
def test_the_header_is_read_as_it_is(packet: bytes, level: int | None) -> None:
    rig = Rig()

    rig.send(packet)

    assert rig.taken == [RtpPacket(SSRC, 111, 1, 960, b"opus", level)]


def test_without_the_extension_in_the_answer_there_is_no_level() -> None:
    rig = Rig()
    rig.tap._level_id = None

    rig.send(rtp(extension=LEVEL_48 + bytes(2)))

    assert [packet.level for packet in rig.taken] == [None]


@pytest.mark.parametrize(
    "plain",
    [
        rtp(b"", csrcs=15)[:20],
        rtp(b"", extension=b"")[:14],
        rtp(b"", extension=bytes(8))[:18],
        rtp(b"", padding=200)[:12] + bytes([200]),
    ],
)
def test_a_packet_shorter_than_it_says_is_dropped_and_counted(plain: bytes) -> None:
    rig = Rig()
    try:
        rig.send(plain)
    except pylibsrtp.Error:
        # libsrtp itself does not send it
        with pytest.raises(ValueError, match="no room"):
            rig.tap._parse(plain)
        return

    assert rig.taken == []
    assert rig.tap.rejected == 1


datagrams = st.binary(max_size=100) | st.tuples(
    st.sampled_from(
        [rtp(), rtp(extension=LEVEL_48 + bytes(2), csrcs=2, padding=3), rtp(b"", extension=b"")]
    ),
    st.integers(0, 60),
    st.integers(0, 255),
    st.integers(0, 60),
).map(lambda p: bytes(b ^ (p[2] if n == p[1] else 0) for n, b in enumerate(p[0]))[: 60 - p[3]])


@settings(deadline=None)
@given(st.lists(datagrams, max_size=10), st.booleans())
def test_no_bytes_raise_out_of_the_tap(plains: list[bytes], is_protected: bool) -> None:
    rig = Rig()
    for plain in plains:
        if is_protected:
            try:
                rig.send(plain)
            except pylibsrtp.Error:
                continue
        else:
            rig.bring(plain)

    assert len(rig.taken) + rig.tap.rejected + len(rig.socket.passed) <= len(plains)
    if not is_protected:
        assert rig.taken == []


@settings(deadline=None)
@given(datagrams)
def test_any_plain_packet_is_read_or_a_value_error(plain: bytes) -> None:
    # as libsrtp hands them on: at least a header
    with suppress(ValueError):
        packet = Rig().tap._parse(plain.ljust(12, b"\x00"))
        assert len(packet.payload) <= len(plain)
        assert packet.level is None or 0 <= packet.level <= 127


def test_a_sender_of_many_sources_is_kept_in_bounds() -> None:
    rig = Rig()
    for ssrc in range(1, 200):
        rig.send(rtp(ssrc=ssrc))

    assert list(rig.streams) == list(range(200 - 31, 200))
    assert set(rig.transport._rtp_router.ssrc_table) == set(rig.streams)


def test_a_source_of_an_unknown_codec_is_not_reported() -> None:
    rig = Rig()

    rig.send(rtp(payload_type=13))

    assert rig.streams == {}
    assert len(rig.taken) == 1


async def test_timestamps_that_leap_do_not_end_the_reports(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rig = Rig()
    moments = SimpleNamespace(time=functools.partial(next, itertools.count(0, 10**6)))
    monkeypatch.setattr(rtcrtpreceiver, "time", moments)
    vars(rig.transceiver.receiver)["_RTCRtpReceiver__rtcp_ssrc"] = 1
    reports: list[bytes] = []

    async def send(data: bytes) -> None:
        reports.append(data)

    rig.transport._send_rtp = send
    for sequence in range(1, 400):
        rig.send(rtp(sequence=sequence, timestamp=0xFFFFFFFF * (sequence % 2)))

    await rig.transceiver.receiver._report()  # type: ignore[attr-defined]

    (report,) = reports
    assert len(report) == 8 + 24


async def gathered() -> set[str]:
    """Addresses that a new connection offers."""
    gatherer = RTCIceGatherer(iceServers=[])
    await gatherer.gather()
    addresses = {candidate.ip for candidate in gatherer.getLocalCandidates()}
    await vars(gatherer)["_connection"].close()
    return addresses


async def test_candidates_are_gathered_on_the_given_addresses_only() -> None:
    private.gather_on(["127.0.0.1"], loopback=False)

    assert await gathered() == {"127.0.0.1"}


async def test_loopback_is_gathered_on_if_it_is_wanted() -> None:
    private.gather_on([], loopback=True)
    assert "127.0.0.1" in await gathered()

    private.gather_on([], loopback=False)
    assert "127.0.0.1" not in await gathered()


@pytest.mark.parametrize(
    ("use_ipv4", "use_ipv6", "wanted"),
    [
        (True, True, ["192.0.2.7", "2001:db8::7"]),
        (True, False, ["192.0.2.7"]),
        (False, True, ["2001:db8::7"]),
    ],
)
def test_given_addresses_are_chosen_by_family(
    use_ipv4: bool, use_ipv6: bool, wanted: list[str]
) -> None:
    private.gather_on(["192.0.2.7", "2001:db8::7"], loopback=False)

    assert aioice.ice.get_host_addresses(use_ipv4, use_ipv6) == wanted


@pytest.mark.parametrize(
    ("use_ipv4", "use_ipv6", "loopback", "wanted"),
    [
        (True, True, False, ["192.0.2.7", "2001:db8::7"]),
        (True, False, True, ["192.0.2.7", "127.0.0.1"]),
        (False, True, True, ["2001:db8::7"]),
    ],
)
def test_of_an_interface_loopback_and_link_local_addresses_are_left_out(
    monkeypatch: pytest.MonkeyPatch,
    use_ipv4: bool,
    use_ipv6: bool,
    loopback: bool,
    wanted: list[str],
) -> None:
    ips: list[str | tuple[str, int, int]] = [
        "127.0.0.1",
        "192.0.2.7",
        ("::1", 0, 0),
        ("fe80::7", 0, 2),
        ("2001:db8::7", 0, 0),
    ]
    adapter = ifaddr.Adapter("eth0", "eth0", [ifaddr.IP(ip, 24, "eth0") for ip in ips])
    monkeypatch.setattr(ifaddr, "get_adapters", lambda: [adapter])
    private.gather_on([], loopback=loopback)

    assert aioice.ice.get_host_addresses(use_ipv4, use_ipv6) == wanted


async def test_a_peer_without_consent_is_given_up_after_five_checks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(aioice.ice, "CONSENT_INTERVAL", 0.01)
    monkeypatch.setattr(aioice.stun, "RETRY_RTO", 0.01)
    private.gather_on(["127.0.0.1"], loopback=True)
    ours, theirs = aioice.Connection(True), aioice.Connection(False)
    try:
        await _connect(ours, theirs)
        checks = _silence(theirs)
        async with asyncio.timeout(5):
            while await ours.get_event() is not None:
                pass
    finally:
        await ours.close()
        await theirs.close()

    assert len(checks) == private.CONSENT_FAILURES
    # each check is at most 6 s after the one before it, and waits 0.5 s for its answer
    assert private.CONSENT_FAILURES * (5 * 1.2 + 0.5) < 35


async def _connect(ours: aioice.Connection, theirs: aioice.Connection) -> None:
    for one, other in ((ours, theirs), (theirs, ours)):
        await one.gather_candidates()
        other.remote_username, other.remote_password = one.local_username, one.local_password
        for candidate in one.local_candidates:
            await other.add_remote_candidate(candidate)
        await other.add_remote_candidate(None)
    async with asyncio.timeout(5):
        await asyncio.gather(ours.connect(), theirs.connect())


def _silence(theirs: aioice.Connection) -> list[aioice.stun.Message]:
    """`theirs` answers no more; returns where the checks it gets will be noted."""
    checks: list[aioice.stun.Message] = []

    def note(message: aioice.stun.Message, addr: object, protocol: object) -> None:
        if message.message_class is aioice.stun.Class.REQUEST:
            checks.append(message)

    theirs.request_received = note  # type: ignore[method-assign]
    return checks
