"""What reads a peer's offers and datagrams within aiortc and aioice, contained as in a `Peer`."""

import asyncio
import contextlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_address
from typing import Any, cast

import aioice.ice
import aioice.stun
import aiortc.rtcpeerconnection
import dns.name
import pylibsrtp
import pytest
from aiortc import RTCCertificate, RTCDtlsTransport, RTCIceTransport
from aiortc.rtcdtlstransport import RTCDtlsFingerprint, RTCDtlsParameters
from aiortc.rtcsctptransport import (
    Chunk,
    InitChunk,
    RTCSctpCapabilities,
    RTCSctpTransport,
    serialize_packet,
)
from OpenSSL import SSL

from media import contained, ice, private
from media.errors import BadOffer, RemoteMediaError
from media.peer import Peer
from tests.fuzz.bench import bench
from tests.fuzz.frames import frames
from tests.fuzz.kept import seeds_of
from tests.fuzz.target import Feed

AGAIN = "\n----\n"  # between the offers of one input
LOCAL_NAME, LOCAL_PASSWORD = "fuzz", "a+password+of+22+chars"
REMOTE_NAME, REMOTE_PASSWORD = "them", "another+password+of+22"
TAG, PORT = 1, 5000
_MOST_OFFERS, _MOST_CANDIDATES = 4, 20
_ADDRESSES = (("127.0.0.1", 9), ("127.0.0.1", 10), ("::1", 9))
_APPLICATION_DATA = b"\x17"


@contextmanager
def process_wide() -> Iterator[None]:
    """What a server sets for its whole process; undone at the end."""
    with pytest.MonkeyPatch.context() as undone:
        for owner, name in (
            (aioice.ice, "get_host_addresses"),
            (aioice.ice, "CONSENT_FAILURES"),
            (aiortc.rtcpeerconnection, "RTCCertificate"),
        ):
            undone.setattr(owner, name, getattr(owner, name))
        ice.gather_on(["127.0.0.1"], loopback=True)
        private.share_certificate()
        yield


def without_names(data: bytes) -> bytes:
    """aioice would ask the network for names in `.local`."""
    return re.sub(rb"\.local", b".nowhere", data, flags=re.I)


def text_of(data: bytes) -> str:
    return without_names(data).decode("utf-8", "replace")


@contextmanager
def offers() -> Iterator[Feed]:
    """Offers to one peer, later ones of the same session, and candidates between them."""

    async def answer(text: str) -> None:
        peer = Peer()
        try:
            for part in text.split(AGAIN)[:_MOST_OFFERS]:
                if part.startswith("candidate:"):
                    await _add(peer, part)
                    continue
                with contextlib.suppress(BadOffer):
                    assert (await peer.answer(part)).startswith("v=0")
        finally:
            await peer.close()

    with process_wide(), bench() as loop:
        yield lambda data: loop.run(answer(text_of(data)))


@contextmanager
def candidates() -> Iterator[Feed]:
    """Candidates to a peer that has answered."""
    offer = seeds_of("offer")[0].decode()

    async def add(told: str) -> None:
        peer = Peer()
        try:
            await peer.answer(offer)
            await _add(peer, told)
        finally:
            await peer.close()

    with process_wide(), bench() as loop:
        yield lambda data: loop.run(add(text_of(data)))


async def _add(peer: Peer, told: str) -> None:
    """One candidate a line; a mid may stand before it."""
    for line in told.split("\n")[:_MOST_CANDIDATES]:
        mid, _, candidate = line.rpartition(" candidate:")
        with contextlib.suppress(RemoteMediaError):
            await peer.add_candidate(candidate, mid or None)


class _Socket:
    """Where what aioice sends goes: nowhere."""

    def sendto(self, data: bytes, address: object) -> None:
        pass

    def close(self) -> None:
        pass


@contextmanager
def stun() -> Iterator[Feed]:
    """Datagrams to the socket of an agent. Of a kind, the first bit has it signed, the second
    makes it the answer to our own check; the rest says from where."""

    async def bring(data: bytes) -> None:
        agent = _agent()
        (protocol,) = agent._protocols
        for kind, datagram in frames(data):
            if kind & 2 and protocol.transactions:
                datagram = datagram[:8] + next(iter(protocol.transactions)) + datagram[20:]
            if kind & 1:
                datagram = _signed(datagram, LOCAL_PASSWORD if not kind & 2 else REMOTE_PASSWORD)
            protocol.datagram_received(datagram, _ADDRESSES[(kind >> 2) % len(_ADDRESSES)])
        for pair in agent._check_list:
            if pair.task is not None:
                pair.task.cancel()

    with bench() as loop:
        yield lambda data: loop.run(bring(data))


def _agent() -> Any:
    """An agent that connects, on a socket that leads nowhere."""
    agent = aioice.ice.Connection(
        ice_controlling=False, local_username=LOCAL_NAME, local_password=LOCAL_PASSWORD
    )
    agent.remote_username, agent.remote_password = REMOTE_NAME, REMOTE_PASSWORD
    agent._early_checks_done = True
    protocol = aioice.ice.StunProtocol(agent)
    protocol.__class__ = contained._Socket
    protocol.transport = cast(Any, _Socket())
    protocol.local_candidate = aioice.Candidate(
        "1", 1, "udp", 1, "127.0.0.1", 5_000, "host", generation=0
    )
    agent._protocols.append(protocol)
    return agent


def _signed(datagram: bytes, password: str) -> bytes:
    """With a digest and a checksum that are right, if it can be read at all."""
    try:
        message = aioice.stun.parse_message(datagram)
        message.attributes.pop("MESSAGE-INTEGRITY", None)
        message.attributes.pop("FINGERPRINT", None)
        message.add_message_integrity(password.encode())
        return bytes(message)
    except Exception:
        return datagram  # it is the sender's code that fails here


@contextmanager
def mdns() -> Iterator[Feed]:
    """Datagrams to the one who asks the network for names in `.local`, while it waits for one."""
    name = dns.name.from_text(f"{LOCAL_NAME}.local")

    async def bring(data: bytes) -> None:
        asking = contained._Names()
        asking.connection_made(cast(asyncio.BaseTransport, _Socket()))
        found = asyncio.get_running_loop().create_future()
        asking.queries[name] = {found}
        for _, datagram in frames(data):
            asking.datagram_received(datagram, ("192.0.2.1", 5353))
        if found.done():
            ip_address(found.result())

    with bench() as loop:
        yield lambda data: loop.run(bring(data))


class _Ice:
    """Brings datagrams to a transport, then ends."""

    role = "controlled"

    def __init__(self, datagrams: Iterator[bytes]) -> None:
        self._datagrams = datagrams

    async def _recv(self) -> bytes:
        for datagram in self._datagrams:
            if datagram:  # `contained._Agent` lets no empty one through
                return datagram
        raise ConnectionError

    async def _send(self, data: bytes) -> None:
        pass


def _dtls(datagrams: Iterator[bytes], certificate: RTCCertificate) -> Any:
    transport = RTCDtlsTransport(cast(RTCIceTransport, _Ice(datagrams)), [certificate])
    transport.__class__ = contained._Dtls
    return transport


@contextmanager
def dtls() -> Iterator[Feed]:
    """Datagrams to a handshake, before there are keys. An odd kind: we are the client."""
    certificate = private._Certificate.generateCertificate()

    async def connect(data: bytes) -> None:
        sent = list(frames(data))
        transport = _dtls((datagram for _, datagram in sent), certificate)
        transport._set_role("client" if sent and sent[0][0] & 1 else "server")
        await transport.start(RTCDtlsParameters([RTCDtlsFingerprint("sha-256", "00")]))
        assert transport.state == "failed"
        await transport.stop()

    with bench() as loop:
        yield lambda data: loop.run(connect(data))


class _Plain:
    """In place of OpenSSL and libsrtp: what comes is what was sent."""

    def __init__(self) -> None:
        self._data = b""

    def DTLSv1_get_timeout(self) -> None:  # noqa: N802 - OpenSSL's name
        return None

    def bio_write(self, data: bytes) -> None:
        self._data = data[1:]

    def recv(self, _size: int) -> bytes:
        return self._data

    def bio_read(self, _size: int) -> bytes:
        raise SSL.WantReadError

    def send(self, data: bytes) -> None:
        pass

    def unprotect(self, data: bytes) -> bytes:
        if len(data) < 12:
            raise pylibsrtp.Error(1)
        return data

    def unprotect_rtcp(self, data: bytes) -> bytes:
        if len(data) < 8:
            raise pylibsrtp.Error(1)
        return data


@contextmanager
def sctp() -> Iterator[Feed]:
    """What comes decrypted. Kind 0: chunks of a connection, 1: those of one that begins, 2: a
    packet with its header, else a datagram as it is, RTP and RTCP too."""
    certificate = private._Certificate.generateCertificate()

    async def bring(data: bytes) -> None:
        transport = _dtls((_sctp_packet(*each) for each in frames(data)), certificate)
        transport._set_role("server")
        transport._ssl = transport._rx_srtp = _Plain()
        transport.encrypted = True
        transport._set_state(type(transport._state).CONNECTED)
        association, peer = await _established(transport), Peer()
        association.on("datachannel", peer._on_datachannel)
        try:
            while True:
                await transport._recv_next()
        except ConnectionError:
            pass
        finally:
            await association.stop()
            await peer.close()

    with process_wide(), bench() as loop:
        yield lambda data: loop.run(bring(data))


def _sctp_packet(kind: int, body: bytes) -> bytes:
    chunks = cast(Chunk, body)  # anything that `bytes` takes
    match kind:
        case 0:
            return _APPLICATION_DATA + serialize_packet(PORT, PORT, TAG, chunks)
        case 1:
            return _APPLICATION_DATA + serialize_packet(PORT, PORT, 0, chunks)
        case 2:
            return _APPLICATION_DATA + body
    return body


async def _established(transport: RTCDtlsTransport) -> Any:
    association: Any = RTCSctpTransport(transport, PORT)
    association._local_verification_tag = TAG
    await association.start(RTCSctpCapabilities(maxMessageSize=65_536), PORT)
    begin = InitChunk()
    begin.initiate_tag, begin.initial_tsn, begin.advertised_rwnd = 2, 1, 65_536
    begin.outbound_streams = begin.inbound_streams = 65_535
    await association._receive_chunk(begin)
    association._t1_cancel()
    association._set_state(association.State.ESTABLISHED)
    return association
