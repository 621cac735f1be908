"""aioice and aiortc, so that what a peer sends costs that peer alone. Touches their private parts.

- aioice ends a peer without consent after 6 checks, up to 39 s; five keep it to 35. It does not
  follow one whose address changed, as a router's does that forgot it; `contain` lets it.
- One datagram that aioice or aiortc cannot read, an empty one even, raises into the event loop
  or closes the connection, and anyone may send it. `contain` makes it cost itself alone.
- aioice keeps every datagram that nobody has read yet, as before DTLS is up: `contain` bounds it,
  and lets noise take no room of a handshake, which would wait for ever behind a flood of it.
- aiortc reads an SCTP parameter of length 0 for ever, and the loop stands still. It keeps every
  chunk that belongs to a message that has not come to its end, and looks through all of them for
  one more: `contain` gives each peer a ration of bytes and of chunks.
- Pages that hide their addresses give names in `.local`, of which aioice asks the network. An
  answer that it cannot read raises into the event loop, and where its port is another program's
  the whole offer is refused. Here the one goes by, and in the other case the name is nobody's.
- aioice asks a relay again and again, also over a connection that was lost. uvloop raises there,
  in a timer, and who asked waits for ever: what a lost relay is sent goes nowhere instead.
"""

import asyncio
import contextlib
import logging
import random
import struct
import time
from collections.abc import Callable
from typing import Any

import aioice.ice
import aioice.mdns
import aioice.stun
import aioice.turn
import aiortc.rtcsctptransport
from aiortc import RTCDtlsTransport, RTCPeerConnection, RTCSctpTransport
from OpenSSL import SSL

from media import ice

# A flight of a handshake is some ten.
_UNREAD_AT_MOST = 256
_RECORD_HEADER = 13
# A page has one data channel, and nothing to say on it but that it got what it was sent.
_STREAMS_AT_MOST, _CHUNKS_AT_MOST = 16, 256
_AT_ONCE_S = 4
_DATAGRAM_OVERHEAD = 48

log = logging.getLogger("roomscribe.peer")


class _Socket(aioice.ice.StunProtocol):
    """aioice's, for any bytes. An instance becomes one by `__class__`."""

    def datagram_received(self, data: bytes | str, addr: tuple[Any, ...]) -> None:
        # An attribute shorter than it has to be; a check that lacks one (aioice 0.13).
        with contextlib.suppress(struct.error, KeyError, AssertionError):
            super().datagram_received(data, addr)


def _is_dtls(data: bytes) -> bool:
    """RFC 9147, 4: a record with its version, or the shorter one of DTLS 1.3. RTP is none: what
    comes before there are keys is lost, and afterwards it does not pass here."""
    if len(data) < _RECORD_HEADER:
        return False
    return (20 <= data[0] <= 26 and data[1] == 0xFE) or 32 <= data[0] < 48


class _Agent(aioice.Connection):
    """aioice's, which keeps no more than a handshake has, and goes over to another pair that gives
    consent where its own gives none: to the address from which the peer's checks come now. An
    instance becomes one by `__class__`."""

    def check_incoming(self, message: Any, addr: tuple[str, int], protocol: Any) -> None:
        # one that comes by itself is sent to as well
        if ice.may_come(addr[0]):
            super().check_incoming(message, addr, protocol)

    def data_received(self, data: bytes, component: int) -> None:
        if _is_dtls(data) and self._queue.qsize() < _UNREAD_AT_MOST:
            super().data_received(data, component)

    async def query_consent(self) -> None:
        failures = 0
        while failures < aioice.ice.CONSENT_FAILURES:
            apart = 0.8 + 0.4 * random.random()  # nosec B311
            await asyncio.sleep(aioice.ice.CONSENT_INTERVAL * apart)
            for component, pair in list(self._nominated.items()):
                if await self._consents(pair):
                    failures = 0
                elif (other := await self._another(pair)) is not None:
                    self._nominated[component] = other
                    failures = 0
                else:
                    failures += 1
        self._query_consent_task = None
        await self.close()

    async def _another(self, than: aioice.ice.CandidatePair) -> aioice.ice.CandidatePair | None:
        pairs = [
            pair
            for pair in self._check_list
            if pair is not than
            and pair.component == than.component
            and pair.state is aioice.ice.CandidatePair.State.SUCCEEDED
        ]
        answers = await asyncio.gather(*map(self._consents, pairs))
        return next((pair for pair, consents in zip(pairs, answers, strict=True) if consents), None)

    async def _consents(self, pair: aioice.ice.CandidatePair) -> bool:
        request = self.build_request(pair, nominate=False)
        key = str(self.remote_password).encode()
        try:
            await pair.protocol.request(
                request, pair.remote_addr, integrity_key=key, retransmissions=0
            )
        except aioice.stun.TransactionError:
            return False
        return True


class _Dtls(RTCDtlsTransport):
    """aiortc's, which goes on after a datagram that it cannot read. An instance becomes one
    by `__class__`."""

    async def _recv_next(self) -> None:
        try:
            await super()._recv_next()
        except (ConnectionError, SSL.Error):
            raise  # the end of the connection, or of the handshake
        except Exception:
            # Whatever aiortc's parser of SCTP runs into. A warning each would be a flood.
            log.debug("a datagram could not be read", exc_info=True)


def _nothing() -> None:
    pass


class Ration:
    """So many bytes a second, some seconds' worth at once; `exceeded` is called when there are
    none left, once."""

    def __init__(self, bytes_per_s: int, exceeded: Callable[[], None]) -> None:
        self._bytes_per_s = bytes_per_s
        self._left = float(bytes_per_s * _AT_ONCE_S)
        self._at = time.monotonic()
        self._exceeded = exceeded
        self.is_exceeded = False

    def take(self, size: int) -> None:
        now, most = time.monotonic(), float(self._bytes_per_s * _AT_ONCE_S)
        self._left = min(most, self._left + (now - self._at) * self._bytes_per_s) - size
        self._at = now
        if self._left < 0:
            self.end()

    def let_go(self) -> None:
        """Of whom it tells: they hold the ration, too."""
        self._exceeded = _nothing

    def end(self) -> None:
        if not self.is_exceeded:
            self.is_exceeded = True
            self._exceeded()


class _Sctp(RTCSctpTransport):
    """aiortc's, for no more than a ration. An instance becomes one by `__class__`."""

    ration: Ration

    async def _handle_data(self, data: bytes) -> None:
        self.ration.take(len(data) + _DATAGRAM_OVERHEAD)
        if self._is_overfull():
            self.ration.end()
        if not self.ration.is_exceeded:
            await super()._handle_data(data)

    def _is_overfull(self) -> bool:
        streams = self._inbound_streams
        return (
            len(self._sack_misordered) > _CHUNKS_AT_MOST
            or len(streams) > _STREAMS_AT_MOST
            or len(self._data_channels) > _STREAMS_AT_MOST
            or sum(len(stream.reassembly) for stream in streams.values()) > _CHUNKS_AT_MOST
        )


def contain(connection: RTCPeerConnection, ration: Ration) -> None:
    """Let a datagram that cannot be read end nothing, and hold data channels to a ration. For the
    transports that are there; again after each further answer, before the tap is installed."""
    transports = {transceiver.receiver.transport for transceiver in connection.getTransceivers()}
    if connection.sctp is not None:
        transports.add(connection.sctp.transport)
        connection.sctp.__class__ = _Sctp
        setattr(connection.sctp, "ration", ration)  # noqa: B010
    for dtls in transports:
        dtls.__class__ = _Dtls
        dtls.transport._connection.__class__ = _Agent
        for protocol in dtls.transport._connection._protocols:
            protocol.__class__ = _Socket


class _Names(aioice.mdns.MDnsProtocol):
    """aioice's, for any bytes of anyone in the network."""

    def datagram_received(self, data: bytes | str, addr: tuple[Any, ...]) -> None:
        try:
            super().datagram_received(data, addr)
        except Exception:
            # Whatever dnspython runs into, and addresses that are none.
            log.debug("an answer about names could not be read", exc_info=True)


class _NoNames(aioice.mdns.MDnsProtocol):
    """Where the network cannot be asked; it is tried again for each name."""

    def __init__(self) -> None:
        super().__init__()
        self._names: aioice.mdns.MDnsProtocol | None = None
        self._trying = asyncio.Lock()

    async def resolve(self, hostname: str, timeout: float | None = 1.0) -> str | None:
        async with self._trying:
            if self._names is None:
                with contextlib.suppress(OSError):
                    self._names = await _ask_for_names()
        return await self._names.resolve(hostname, timeout) if self._names is not None else None

    async def close(self) -> None:
        if self._names is not None:
            await self._names.close()


_ask_for_names = aioice.mdns.create_mdns_protocol


async def _names() -> aioice.mdns.MDnsProtocol:
    try:
        return await _ask_for_names()
    except OSError as error:
        log.info("names in .local cannot be asked for", extra={"error": str(error)})
        return _NoNames()


class _RelayByTcp(aioice.turn.TurnClientTcpProtocol):
    """aioice's, for a connection that is lost."""

    def _send(self, data: bytes) -> None:
        if not self.transport.is_closing():
            super()._send(data)


_decode_params = aiortc.rtcsctptransport.decode_params


def _params(body: bytes) -> list[tuple[int, bytes]]:
    """aiortc's parser of SCTP parameters, for those that get on. Raises `ValueError`."""
    at = 0
    while at + 4 <= len(body):
        length = int.from_bytes(body[at + 2 : at + 4], "big")
        if length < 4:
            raise ValueError("a parameter shorter than its own header")
        at += length + -length % 4
    return _decode_params(body)


# For every connection of this process: there is no other way to them than their modules' names.
setattr(aiortc.rtcsctptransport, "decode_params", _params)  # noqa: B010
setattr(aioice.mdns, "MDnsProtocol", _Names)  # noqa: B010
setattr(aioice.mdns, "create_mdns_protocol", _names)  # noqa: B010
setattr(aioice.turn, "TurnClientTcpProtocol", _RelayByTcp)  # noqa: B010
