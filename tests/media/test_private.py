"""The private names we use, held to the installed aiortc and aioice.

A failure here after an upgrade says which of `media/private.py`'s names moved.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace

import aioice
import aioice.ice
import aioice.stun
import ifaddr
import pytest
from aiortc import (
    RTCConfiguration,
    RTCIceGatherer,
    RTCPeerConnection,
    RTCRtpReceiver,
    RTCRtpSender,
)

from media import private
from media.track import RtpPacket
from tests.clients import Voice
from tests.speech import tone


@pytest.fixture(autouse=True)
def process_wide_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """What `gather_on` sets is undone; a name that vanished fails here."""
    monkeypatch.setattr(aioice.ice, "get_host_addresses", aioice.ice.get_host_addresses)
    monkeypatch.setattr(aioice.ice, "CONSENT_FAILURES", aioice.ice.CONSENT_FAILURES)


@asynccontextmanager
async def receiving(
    take: list[RtpPacket],
) -> AsyncIterator[tuple[RTCRtpSender, RTCRtpReceiver]]:
    """A connection that sends a tone to a receiver with a tap."""
    private.gather_on(["127.0.0.1"], loopback=True)
    sending = RTCPeerConnection(RTCConfiguration(iceServers=[]))
    hearing = RTCPeerConnection(RTCConfiguration(iceServers=[]))
    try:
        sender = sending.addTrack(Voice(tone(10.0, 48_000)))
        await sending.setLocalDescription(await sending.createOffer())
        await hearing.setRemoteDescription(sending.localDescription)
        (receiver,) = hearing.getReceivers()
        private.tap_packets(receiver, take.append)
        await hearing.setLocalDescription(await hearing.createAnswer())
        await sending.setRemoteDescription(hearing.localDescription)
        yield sender, receiver
    finally:
        await sending.close()
        await hearing.close()


async def stats_of(source: RTCRtpSender | RTCRtpReceiver, kind: str) -> SimpleNamespace:
    """Wait until a connection has statistics of a kind."""
    async with asyncio.timeout(10):
        while True:
            for entry in (await source.getStats()).values():
                if entry.type == kind:
                    return SimpleNamespace(**vars(entry))
            await asyncio.sleep(0.02)


async def test_the_tap_takes_every_packet_and_leaves_statistics_and_rtcp_to_aiortc() -> None:
    taken: list[RtpPacket] = []
    async with receiving(taken) as (sender, receiver):
        reported = await stats_of(sender, "remote-inbound-rtp")
        said = await stats_of(receiver, "remote-outbound-rtp")
        received = await stats_of(receiver, "inbound-rtp")
        taken_by_now = len(taken)

        assert taken_by_now > 10
        assert received.packetsReceived == taken_by_now
        assert said.ssrc == received.ssrc == taken[0].ssrc
        assert reported.packetsReceived > 10
        assert reported.packetsLost == 0
        # no frame went to the decoder's thread, and none came back from it
        assert vars(receiver)["_RTCRtpReceiver__decoder_queue"].empty()
        assert vars(receiver.track)["_queue"].empty()

    sequence = taken[0].sequence_number
    assert [p.sequence_number for p in taken[:10]] == [(sequence + n) & 0xFFFF for n in range(10)]
    assert taken[1].timestamp - taken[0].timestamp == 960
    assert len(taken[5].payload) > 10


async def test_the_codec_of_a_payload_type_is_known_once_it_is_negotiated() -> None:
    taken: list[RtpPacket] = []
    async with receiving(taken) as (_, receiver):
        await stats_of(receiver, "inbound-rtp")

        assert private.codec_name(receiver, taken[0].payload_type) == "opus"
        assert private.codec_name(receiver, 0) == "PCMU"
        assert private.codec_name(receiver, 13) is None


def bare_receiver() -> RTCRtpReceiver:
    transport = SimpleNamespace(state="new")
    return RTCRtpReceiver("audio", transport)  # type: ignore[arg-type]


async def test_a_receiver_without_the_buffer_that_the_tap_replaces_is_refused() -> None:
    receiver = bare_receiver()
    private.tap_packets(receiver, lambda _: None)

    del vars(receiver)["_RTCRtpReceiver__jitter_buffer"]

    with pytest.raises(RuntimeError, match="jitter buffer"):
        private.tap_packets(receiver, lambda _: None)


async def test_a_receiver_without_its_table_of_codecs_is_an_error() -> None:
    receiver = bare_receiver()
    assert private.codec_name(receiver, 0) is None

    del vars(receiver)["_RTCRtpReceiver__codecs"]

    with pytest.raises(KeyError):
        private.codec_name(receiver, 0)


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
