"""The private names we use, held to the installed aiortc and aioice.

A failure here after an upgrade says which of the names in `media/private.py`, `contained.py` and
`ice.py` moved.
"""

import asyncio
import struct
import threading
from collections.abc import AsyncIterator, Callable, Iterable
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
    rtcpeerconnection,
    rtcsctptransport,
)
from aiortc.rtp import (
    RtcpSenderInfo,
    RtcpSrPacket,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from OpenSSL import SSL

from media import contained, ice, private, reports
from media.track import RtpPacket
from tests.clients import Voice
from tests.media.rig import LEVEL_ID, SSRC, Rig, goodbye, rtp, sender_report
from tests.nat import nat
from tests.speech import tone


@pytest.fixture(autouse=True)
def process_wide_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """What `gather_on` and `meet_only` set is undone; a name that vanished fails here."""
    monkeypatch.setattr(aioice.ice, "get_host_addresses", aioice.ice.get_host_addresses)
    monkeypatch.setattr(aioice.ice, "CONSENT_FAILURES", aioice.ice.CONSENT_FAILURES)
    validate = aioice.ice.validate_remote_candidate
    monkeypatch.setattr(aioice.ice, "validate_remote_candidate", validate)
    monkeypatch.setattr(ice, "_admits_who_comes", ice._admits_who_comes)


@dataclass(slots=True)
class Call:
    """A connection that sends a tone to one with a tap."""

    sending: RTCPeerConnection
    hearing: RTCPeerConnection
    sender: RTCRtpSender
    tap: private.Tap
    taken: list[RtpPacket]
    goodbyes: list[float]

    @property
    def dtls(self) -> RTCDtlsTransport:
        """The transport of the end with the tap."""
        return self.receiver.transport

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

    def given_to_aiortc(self, monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
        """The RTP and RTCP that aiortc is given from now on."""
        given: list[bytes] = []

        async def note(data: bytes, **_: object) -> None:
            given.append(data)

        monkeypatch.setattr(self.dtls, "_handle_rtp_data", note)
        monkeypatch.setattr(self.dtls, "_handle_rtcp_data", note)
        return given

    async def offer(self) -> None:
        """Offer and answer, the first time and later."""
        await self.sending.setLocalDescription(await self.sending.createOffer())
        await self.hearing.setRemoteDescription(self.sending.localDescription)
        await self.hearing.setLocalDescription(await self.hearing.createAnswer())
        self.tap.install()
        await self.sending.setRemoteDescription(self.hearing.localDescription)


@asynccontextmanager
async def calling() -> AsyncIterator[Call]:
    ice.gather_on(["127.0.0.1"], loopback=True)
    sending = RTCPeerConnection(RTCConfiguration(iceServers=[]))
    hearing = RTCPeerConnection(RTCConfiguration(iceServers=[]))
    taken: list[RtpPacket] = []
    goodbyes: list[float] = []
    try:
        sender = sending.addTrack(Voice(tone(10.0, 48_000)))
        await sending.setLocalDescription(await sending.createOffer())
        await hearing.setRemoteDescription(sending.localDescription)
        (transceiver,) = hearing.getTransceivers()
        tap = private.Tap(transceiver, lambda packet, _: taken.append(packet), goodbyes.append)
        await hearing.setLocalDescription(await hearing.createAnswer())
        tap.install()
        await sending.setRemoteDescription(hearing.localDescription)
        yield Call(sending, hearing, sender, tap, taken, goodbyes)
    finally:
        await sending.close()
        await hearing.close()


async def told_to(
    sender: RTCRtpSender, holds: Callable[[SimpleNamespace], object] = lambda _: True
) -> SimpleNamespace:
    """Wait until a sender has a report of what it sent."""
    async with asyncio.timeout(10):
        while True:
            for entry in (await sender.getStats()).values():
                seen = SimpleNamespace(**vars(entry))
                if entry.type == "remote-inbound-rtp" and holds(seen):
                    return seen
            await asyncio.sleep(0.02)


@pytest.fixture
def frequent_reports(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reports, "FIRST_REPORT_S", 0.3)
    monkeypatch.setattr(reports, "REPORT_EVERY_S", 0.1)


@pytest.mark.usefixtures("frequent_reports")
async def test_the_tap_takes_every_packet_and_aiortc_none(monkeypatch: pytest.MonkeyPatch) -> None:
    async with calling() as call:
        await call.heard(3)  # what came before there were keys is aiortc's
        given = call.given_to_aiortc(monkeypatch)
        reported = await told_to(call.sender, lambda seen: seen.packetsReceived > 10)
        taken = call.taken

        assert len(taken) > 10
        assert reported.packetsLost == 0
        assert call.tap.rejected == 0
        assert given == []

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
        reported = await told_to(
            call.sender,
            # of the last interval only, and that may be lossless
            lambda seen: seen.packetsLost >= 3 and seen.fractionLost > 0 and seen.roundTripTime,
        )

    assert 0 < reported.roundTripTime < 1


async def test_no_thread_decodes() -> None:
    async with calling() as call:
        before = {thread.name for thread in threading.enumerate()}
        await call.heard()

        assert not any("decoder" in name for name in before)


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


async def test_a_tap_that_is_removed_leaves_the_sockets_to_aiortc(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with calling() as call:
        await call.heard()
        assert tapped(call)
        given = call.given_to_aiortc(monkeypatch)

        call.tap.remove()
        call.tap.remove()

        heard = len(call.taken)
        assert tapped(call) == []
        async with asyncio.timeout(10):
            while len(given) < 5:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        assert len(call.taken) == heard


async def test_a_sender_that_says_goodbye_may_come_back_as_another_source() -> None:
    async with calling() as call:
        await call.heard()
        dtls = call.sender.transport
        await call.sender.stop()  # says goodbye, and nothing of it comes after that
        async with asyncio.timeout(10):
            while not call.goodbyes:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        header = struct.pack("!BBHII", 0x80, call.taken[-1].payload_type, 7, 8, 4242)

        await dtls._send_rtp(header + b"\xf8\xff\xfe")

        async with asyncio.timeout(10):
            while call.taken[-1].ssrc != 4242:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
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


async def test_peers_share_one_context_which_keeps_little(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(rtcpeerconnection, "RTCCertificate", RTCCertificate)
    private.share_certificate()
    async with calling() as one, calling() as other:
        await one.heard(1)
        await other.heard(1)
        contexts = {
            vars(transceiver.receiver.transport)["_ssl"].get_context()
            for call in (one, other)
            for connection in (call.sending, call.hearing)
            for transceiver in connection.getTransceivers()
        }

    (context,) = contexts
    openssl = vars(SSL)["_lib"]
    assert openssl.SSL_CTX_get_session_cache_mode(context._context) == SSL.SESS_CACHE_OFF
    assert openssl.SSL_CTX_clear_mode(context._context, 0) & SSL.MODE_RELEASE_BUFFERS


# The private names, one by one


@pytest.mark.parametrize(
    ("owner", "name"),
    [
        (RTCRtpReceiver, "receive"),
        (RTCDtlsTransport, "_recv_next"),
        (aioice.ice.StunProtocol, "datagram_received"),
        (rtcpeerconnection, "RTCCertificate"),
        (rtcsctptransport, "decode_params"),
        (RTCCertificate, "_create_ssl_context"),
        (aioice.ice, "get_host_addresses"),
        (aioice.ice, "CONSENT_FAILURES"),
        (aioice.ice, "CONSENT_INTERVAL"),
        (aioice.Connection, "query_consent"),
        (aioice.Connection, "build_request"),
    ],
)
def test_what_we_replace_is_there(owner: object, name: str) -> None:
    assert hasattr(owner, name)


def test_a_parameter_of_sctp_that_has_no_end_is_refused() -> None:
    whole = rtcsctptransport.encode_params([(1, b"abc"), (7, b"")])

    assert rtcsctptransport.decode_params(whole) == [(1, b"abc"), (7, b"")]
    for length in range(4):
        endless = bytes([0, 1, 0, length])
        with pytest.raises(ValueError, match="shorter"):
            rtcsctptransport.decode_params(whole + endless)
        with pytest.raises(ValueError, match="shorter"):
            rtcsctptransport.HeartbeatChunk(body=endless)


async def test_a_connection_keeps_its_sockets_keys_and_extensions_where_we_look() -> None:
    async with calling() as call:
        await call.heard(1)
        (transceiver,) = call.hearing.getTransceivers()
        dtls = transceiver.receiver.transport
        connection = dtls.transport._connection
        pair = connection._nominated[1]

        assert isinstance(dtls._rx_srtp, pylibsrtp.Session)
        assert isinstance(dtls._tx_srtp, pylibsrtp.Session)
        assert isinstance(connection._query_consent_task, asyncio.Task)
        assert pair.protocol in connection._protocols
        assert callable(pair.protocol.transport.sendto)
        assert pair.remote_addr[0] == "127.0.0.1"
        assert all(isinstance(p, aioice.ice.StunProtocol) for p in tapped(call))
        uris = {extension.uri for extension in transceiver._headerExtensions}

    assert private.AUDIO_LEVEL in uris


def test_a_receiver_without_its_table_of_codecs_is_an_error() -> None:
    rig = Rig()
    assert rig.tap.codec_name(0) is None

    del vars(rig.transceiver.receiver)["_RTCRtpReceiver__codecs"]

    with pytest.raises(KeyError):
        private.Tap(rig.transceiver, rig.take, rig.goodbyes.append)


async def test_a_receiver_that_was_never_ours_has_a_codec_only_once_it_started() -> None:
    receiver = Rig().transceiver.receiver
    private_name = "_RTCRtpReceiver__codecs"
    codec = SimpleNamespace(payloadType=8, name="PCMA", clockRate=8_000)

    await receiver.receive(SimpleNamespace(codecs=[codec]))  # type: ignore[arg-type]
    await receiver.stop()

    assert vars(receiver)[private_name][8] is codec


# Datagrams, by hand


def test_rtp_goes_to_the_track_rtcp_to_the_reports_and_all_else_to_aiortc() -> None:
    rig = Rig()
    others = [
        b"\x00\x01\x00\x00" + bytes(16),  # STUN
        b"\x16\xfe\xfd" + bytes(30),  # DTLS
        b"\x80\x6f\x00",  # too short to be RTP
        b"",
    ]

    for datagram in others:
        rig.bring(datagram)
    rig.send(rtp())
    rig.send_rtcp(sender_report())

    assert rig.socket.passed == others
    assert rig.taken == [RtpPacket(SSRC, 111, 1, 960, b"opus")]
    assert rig.tap.rejected == 0
    assert rig.socket.sent == []


def test_before_there_are_keys_all_goes_to_aiortc() -> None:
    rig = Rig()
    rig.transport._rx_srtp = None

    sent = [rig.send(rtp()), rig.send_rtcp(sender_report())]

    assert rig.socket.passed == sent
    assert rig.taken == []


def test_what_is_forged_or_repeated_is_dropped_and_counted() -> None:
    rig = Rig()
    sent = rig.send(rtp())

    rig.bring(sent)
    rig.bring(sent[:-1] + bytes([sent[-1] ^ 1]))
    rig.bring(rtp(sequence=2) + bytes(10))
    rig.bring(rtp(b"")[:12])
    rig.bring(goodbye(SSRC) + bytes(20))
    rig.bring(rig.send_rtcp(sender_report()))
    # beyond what libsrtp takes
    rig.bring(rtp() + bytes(1_500))
    rig.bring(sender_report() + bytes(1_500))

    assert rig.tap.rejected == 8
    assert [packet.sequence_number for packet in rig.taken] == [1]
    assert rig.goodbyes == []
    assert rig.socket.passed == []


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Whose `now` is the time of the tap."""
    clock = SimpleNamespace(now=100.0)
    clock.monotonic = lambda: clock.now
    monkeypatch.setattr(private, "time", clock)
    return clock


def test_a_report_goes_to_the_sender_with_a_packet_that_comes_when_it_is_due(
    clock: SimpleNamespace,
) -> None:
    rig = Rig()
    rig.send(rtp(sequence=1))
    rig.send_rtcp(sender_report())
    clock.now += reports.FIRST_REPORT_S - 0.1
    rig.send(rtp(sequence=4))
    assert rig.told() == []

    clock.now += 0.1
    rig.send(rtp(sequence=5))
    rig.send(rtp(sequence=6))

    (block,) = rig.told()
    assert (block.ssrc, block.highest_sequence, block.packets_lost) == (SSRC, 5, 2)
    assert (block.lsr, block.dlsr) == (0x23456789, round(reports.FIRST_REPORT_S * 65_536))


def test_a_report_without_a_way_to_the_sender_is_passed_over(clock: SimpleNamespace) -> None:
    rig = Rig()
    rig.send(rtp(sequence=1))
    way = rig.connection._nominated.pop(1)

    clock.now += 10
    rig.send(rtp(sequence=2))
    assert rig.told() == []

    rig.connection._nominated[1] = way
    clock.now += 10
    rig.send(rtp(sequence=3))
    assert [block.highest_sequence for block in rig.told()] == [3]
    assert len(rig.taken) == 3


def test_a_goodbye_is_told_once_and_of_a_source_that_was_heard(clock: SimpleNamespace) -> None:
    rig = Rig()
    rig.send(rtp(sequence=1))

    rig.send_rtcp(goodbye(4242))
    assert rig.goodbyes == []
    clock.now += 1
    rig.send_rtcp(sender_report() + goodbye(4242, SSRC))
    rig.send_rtcp(goodbye(SSRC))

    assert rig.goodbyes == [clock.now]
    assert rig.tap.rejected == 0


def test_rtcp_that_is_broken_is_dropped_and_counted() -> None:
    rig = Rig()
    rig.send(rtp())

    rig.send_rtcp(sender_report()[:8])
    rig.send_rtcp(goodbye(SSRC) + b"\x80")

    assert rig.tap.rejected == 2
    assert rig.goodbyes == []
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


def test_without_the_extension_in_the_last_answer_there_is_no_level() -> None:
    rig = Rig()
    rig.send(rtp(extension=LEVEL_48 + bytes(2)))
    rig.transceiver._headerExtensions = []
    rig.tap.install()

    rig.send(rtp(extension=LEVEL_48 + bytes(2), sequence=2))

    assert [packet.level for packet in rig.taken] == [48, None]


def test_of_very_many_sources_the_newest_are_kept() -> None:
    """libsrtp makes a stream for each, and looks through all of them for one more."""
    rig = Rig()
    sources = range(1, 201)
    for source in sources:
        rig.send(rtp(ssrc=source))
        rig.send_rtcp(bytes(RtcpSrPacket(1_000 + source, RtcpSenderInfo(0, 0, 1, 1))))
        rig.send(rtp(b"", ssrc=2_000 + source, padding=200)[:12] + bytes([200]))  # broken
    # one that came before may come again
    rig.send(rtp(ssrc=1, sequence=2))

    assert [packet.ssrc for packet in rig.taken] == [1, 1]
    assert (rig.tap.unknown, rig.tap.rejected) == (199, 200)
    assert 0 < len(streams(rig.transport._rx_srtp, range(3_000))) < 40


def test_a_source_that_was_not_announced_is_dropped_and_counted() -> None:
    rig = Rig()
    rig.tap.install(frozenset({SSRC, SSRC + 1}))
    for sequence in range(1, 4):
        rig.send(rtp(sequence=sequence))
        rig.send(rtp(ssrc=SSRC + 1, sequence=sequence))
        rig.send(rtp(ssrc=99, sequence=sequence))

    assert {packet.ssrc for packet in rig.taken} == {SSRC, SSRC + 1}
    assert (len(rig.taken), rig.tap.unknown) == (6, 3)


def test_where_none_is_announced_one_speaks_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("media.private.time.monotonic", lambda: now)
    rig = Rig()
    rig.send(rtp(ssrc=1))
    rig.send(rtp(ssrc=2))
    now += 0.4
    rig.send(rtp(ssrc=2, sequence=2))
    assert ([packet.ssrc for packet in rig.taken], rig.tap.unknown) == ([1], 2)

    now += 0.2  # the first has paused; a device begins anew with another source
    rig.send(rtp(ssrc=2, sequence=3))
    rig.send(rtp(ssrc=1, sequence=2))
    assert [packet.ssrc for packet in rig.taken] == [1, 2]

    rig.send_rtcp(goodbye(2))
    rig.send(rtp(ssrc=3))
    assert [packet.ssrc for packet in rig.taken] == [1, 2, 3]


def test_a_packet_that_comes_again_is_dropped_and_counted() -> None:
    rig = Rig()
    datagram = rig.send(rtp())
    for _ in range(3):
        rig.bring(datagram)
    assert (len(rig.taken), rig.tap.rejected) == (1, 3)


def test_what_nobody_reads_is_not_kept_for_ever() -> None:
    agent = aioice.Connection(True)
    agent.__class__ = contained._Agent
    for _ in range(1_000):
        agent.data_received(bytes.fromhex("16fefd") + bytes(1200), 1)
    assert agent._queue.qsize() == 256


@pytest.mark.parametrize(
    "noise", ["", "00", "16", "16fefd", "160303" + "00" * 60, "3f" * 60, "806f" * 30, "c0" * 60]
)
def test_noise_takes_no_room_of_a_handshake(noise: str) -> None:
    agent = aioice.Connection(True)
    agent.__class__ = contained._Agent
    agent.data_received(bytes.fromhex(noise), 1)
    assert agent._queue.empty()


@pytest.mark.parametrize("record", ["16feff", "16fefd", "14fefd", "15fefd", "17fefd", "2e0001"])
def test_what_a_handshake_says_is_kept(record: str) -> None:
    agent = aioice.Connection(True)
    agent.__class__ = contained._Agent
    agent.data_received(bytes.fromhex(record) + bytes(60), 1)
    assert agent._queue.qsize() == 1


async def test_nothing_is_sent_where_it_is_not_admitted() -> None:
    refused: list[None] = []
    ice.meet_only(("192.0.2.1/32",), (), lambda: refused.append(None))
    agent = aioice.Connection(True)
    for host in ("192.0.2.1", "192.0.2.2", "169.254.169.254", "example.org", "127.0.0.1"):
        line = f"1 1 udp 2130706431 {host} 5000 typ host"
        await agent.add_remote_candidate(aioice.Candidate.from_sdp(line))
    assert [candidate.host for candidate in agent.remote_candidates] == ["192.0.2.1"]
    assert len(refused) == 3  # a name is none that could be asked for
    await agent.close()


async def test_a_machine_that_moves_meets_those_of_its_new_network(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ours = ["192.168.7.2"]
    monkeypatch.setattr(ice, "interface_addresses", lambda *_: ours)
    monkeypatch.setattr(ice, "_LOOK_EVERY_S", 0.0)
    ice.meet_only((), ("127.0.0.1",), lambda: None)
    agent = aioice.Connection(True)

    async def met(host: str) -> bool:
        line = f"1 1 udp 2130706431 {host} 5000 typ host"
        await agent.add_remote_candidate(aioice.Candidate.from_sdp(line))
        return host in {candidate.host for candidate in agent.remote_candidates}

    assert await met("192.168.200.1")
    assert await met("127.0.0.1")
    assert not await met("10.0.0.1")
    ours[:] = ["10.9.9.9"]
    assert await met("10.0.0.1")
    assert not await met("192.168.200.2")
    await agent.close()


async def test_who_comes_from_elsewhere_is_met_only_where_no_networks_are_given() -> None:
    ice.meet_only((), ("127.0.0.1",), lambda: None)
    assert ice.may_come("10.0.0.1")
    ice.meet_only(("192.168.0.0/16",), ("127.0.0.1",), lambda: None)
    assert ice.may_come("192.168.7.7")
    assert not ice.may_come("10.0.0.1")

    agent = aioice.Connection(True)
    agent.__class__ = contained._Agent
    asked = aioice.stun.Message(aioice.stun.Method.BINDING, aioice.stun.Class.REQUEST)
    asked.attributes["PRIORITY"] = 1
    agent.check_incoming(asked, ("10.0.0.1", 5000), None)  # type: ignore[arg-type]
    assert agent.remote_candidates == []


async def test_a_name_counts_as_the_address_that_it_stands_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Resolved:
        async def resolve(self, name: str) -> str:
            return {"good.local": "192.0.2.1", "bad.local": "169.254.169.254"}[name]

    async def protocol(_: object) -> Resolved:
        return Resolved()

    monkeypatch.setattr(aioice.ice, "get_or_create_mdns_protocol", protocol)
    ice.meet_only(("192.0.2.1/32",), (), lambda: None)
    agent = aioice.Connection(True)
    for host in ("good.local", "bad.local"):
        line = f"1 1 udp 2130706431 {host} 5000 typ host"
        await agent.add_remote_candidate(aioice.Candidate.from_sdp(line))
    assert [candidate.host for candidate in agent.remote_candidates] == ["good.local"]
    await agent.close()


def streams(session: pylibsrtp.Session, sources: Iterable[int]) -> list[int]:
    """Of these sources, those that the session has a stream for. It has none afterwards."""
    found = []
    for source in sources:
        with suppress(pylibsrtp.Error):
            session.remove_stream(source)
            found.append(source)
    return found


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


rtcp_datagrams = st.tuples(
    st.sampled_from([sender_report(), goodbye(SSRC), sender_report() + goodbye(1, SSRC)]),
    st.integers(0, 60),
    st.binary(max_size=4),
).map(lambda p: p[0][: p[1]] + p[2] + p[0][p[1] + len(p[2]) :])


@settings(deadline=None)
@given(
    st.lists(datagrams | rtcp_datagrams, max_size=10),
    st.sampled_from(["as it is", "rtp", "rtcp"]),
)
def test_no_bytes_raise_out_of_the_tap(plains: list[bytes], how: str) -> None:
    rig = Rig()
    bring = {"rtp": rig.send, "rtcp": rig.send_rtcp}.get(how, rig.bring)
    for plain in plains:
        with suppress(pylibsrtp.Error):  # of the sender, who does not send it
            bring(plain)

    assert len(rig.taken) + rig.tap.rejected + len(rig.socket.passed) <= len(plains)
    assert not rig.taken or how == "rtp"


@settings(deadline=None)
@given(datagrams)
def test_any_plain_packet_is_read_or_a_value_error(plain: bytes) -> None:
    # as libsrtp hands them on: at least a header
    with suppress(ValueError):
        packet = Rig().tap._parse(plain.ljust(12, b"\x00"))
        assert len(packet.payload) <= len(plain)
        assert packet.level is None or 0 <= packet.level <= 127


def test_a_source_of_an_unknown_codec_is_heard_and_not_reported(clock: SimpleNamespace) -> None:
    rig = Rig()
    for sequence in range(5):
        rig.send(rtp(sequence=sequence, payload_type=13))
        clock.now += 10

    assert len(rig.taken) == 5
    assert rig.told() == []


async def gathered() -> set[str]:
    """Addresses that a new connection offers."""
    gatherer = RTCIceGatherer(iceServers=[])
    await gatherer.gather()
    addresses = {candidate.ip for candidate in gatherer.getLocalCandidates()}
    await vars(gatherer)["_connection"].close()
    return addresses


async def test_candidates_are_gathered_on_the_given_addresses_only() -> None:
    ice.gather_on(["127.0.0.1"], loopback=False)

    assert await gathered() == {"127.0.0.1"}


async def test_loopback_is_gathered_on_if_it_is_wanted() -> None:
    ice.gather_on([], loopback=True)
    assert "127.0.0.1" in await gathered()

    ice.gather_on([], loopback=False)
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
    ice.gather_on(["192.0.2.7", "2001:db8::7"], loopback=False)

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
    ice.gather_on([], loopback=loopback)

    assert aioice.ice.get_host_addresses(use_ipv4, use_ipv6) == wanted


async def test_a_peer_without_consent_is_given_up_after_five_checks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(aioice.ice, "CONSENT_INTERVAL", 0.1)
    monkeypatch.setattr(aioice.stun, "RETRY_RTO", 0.1)
    ice.gather_on(["127.0.0.1"], loopback=True)
    ours, theirs = aioice.Connection(True), aioice.Connection(False)
    try:
        await _connect(ours, theirs)
        checks = _silence(theirs)
        async with asyncio.timeout(20):
            while await ours.get_event() is not None:
                pass
    finally:
        await ours.close()
        await theirs.close()

    assert len(checks) == ice.CONSENT_FAILURES
    # each check is at most 6 s after the one before it, waits 0.5 s for its answer, and as long
    # again for other pairs
    assert ice.CONSENT_FAILURES * (5 * 1.2 + 0.5 + 0.5) <= 35


async def test_a_peer_whose_router_forgot_its_port_is_followed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(aioice.ice, "CONSENT_INTERVAL", 0.02)
    monkeypatch.setattr(aioice.stun, "RETRY_RTO", 0.1)
    ice.gather_on(["127.0.0.1"], loopback=True)
    ours, theirs = aioice.Connection(False), aioice.Connection(True)
    ours.__class__ = contained._Agent
    try:
        await ours.gather_candidates()
        (candidate,) = ours.local_candidates
        async with nat((candidate.host, candidate.port)) as router:
            candidate.host, candidate.port = router.address
            await _connect_to(theirs, ours, candidate)
            await router.rebind()
            # both ask for consent some twenty times
            await asyncio.sleep(1.0)
            await ours.send(b"still there")
            async with asyncio.timeout(20):
                assert await theirs.recv() == b"still there"
    finally:
        await ours.close()
        await theirs.close()


async def _connect_to(
    theirs: aioice.Connection, ours: aioice.Connection, candidate: aioice.Candidate
) -> None:
    """`theirs` is told one address; `ours` is told none."""
    await theirs.gather_candidates()
    for one, other in ((ours, theirs), (theirs, ours)):
        other.remote_username, other.remote_password = one.local_username, one.local_password
    await theirs.add_remote_candidate(candidate)
    await theirs.add_remote_candidate(None)
    async with asyncio.timeout(20):
        await asyncio.gather(ours.connect(), theirs.connect())


async def _connect(ours: aioice.Connection, theirs: aioice.Connection) -> None:
    for one, other in ((ours, theirs), (theirs, ours)):
        await one.gather_candidates()
        other.remote_username, other.remote_password = one.local_username, one.local_password
        for candidate in one.local_candidates:
            await other.add_remote_candidate(candidate)
        await other.add_remote_candidate(None)
    async with asyncio.timeout(20):
        await asyncio.gather(ours.connect(), theirs.connect())


def _silence(theirs: aioice.Connection) -> list[aioice.stun.Message]:
    """`theirs` answers no more; returns where the checks it gets will be noted."""
    checks: list[aioice.stun.Message] = []

    def note(message: aioice.stun.Message, addr: object, protocol: object) -> None:
        if message.message_class is aioice.stun.Class.REQUEST:
            checks.append(message)

    theirs.request_received = note  # type: ignore[method-assign]
    return checks
