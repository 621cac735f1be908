"""A speaker of the load: joined through WHIP by aiortc, its packets sent by a thread.

aiortc makes the connection and keeps it alive (ICE consent, DTLS, RTCP). From then on only
the keys and the socket are used: `protect` and `send` are called by `soak.sender`.
"""

import asyncio
import random
import re
import socket
import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import aiohttp
from aiortc import (
    MediaStreamTrack,
    RTCConfiguration,
    RTCPeerConnection,
    RTCSessionDescription,
)
from yarl import URL

_CONNECT_S = 30.0
_AUDIO_LEVEL = "urn:ietf:params:rtp-hdrext:ssrc-audio-level"


class Refused(Exception):
    """The server did not take the speaker. `status` is its answer's."""

    def __init__(self, status: int) -> None:
        super().__init__(f"the server answered {status}")
        self.status = status


class _Silent(MediaStreamTrack):
    """Keeps aiortc's sender waiting: the packets are ours."""

    kind = "audio"

    async def recv(self) -> Any:
        await asyncio.get_running_loop().create_future()


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the answer asks of a sender."""

    packet_ms: int
    wideband: bool
    level_id: int | None


class LoadPeer:
    def __init__(self, session: aiohttp.ClientSession, url: str, room: str, name: str) -> None:
        self._session = session
        self._url = f"{url}/whip/{room}"
        self.place = room, name
        self._location: str | None = None
        self._connection = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        self._lock = threading.Lock()
        self._srtp: Any = None
        self._socket: socket.socket | None = None
        self._address: tuple[str, int] = ("", 0)
        self.ssrc = 0
        self.payload_type = 0
        self.wanted = Wanted(20, False, None)
        self.sequence = random.randrange(1 << 16)
        self.timestamp = random.randrange(1 << 32)

    async def join(self) -> None:
        """Connect. Raises `Refused`, `TimeoutError`."""
        sender = self._connection.addTrack(_Silent())
        await self._connection.setLocalDescription(await self._connection.createOffer())
        answer = await self._offer(self._connection.localDescription.sdp)
        self.wanted = _read_answer(answer)
        connected = asyncio.Event()

        def note() -> None:
            if self._connection.connectionState in ("connected", "failed", "closed"):
                connected.set()

        self._connection.on("connectionstatechange", note)
        await self._connection.setRemoteDescription(RTCSessionDescription(answer, "answer"))
        try:
            async with asyncio.timeout(_CONNECT_S):
                await connected.wait()
        except TimeoutError:
            raise TimeoutError(f"no connection within {_CONNECT_S:.0f} s") from None
        if self._connection.connectionState != "connected":
            raise TimeoutError("no connection")
        self._take_over(sender)

    def protect(self, packet: bytes) -> bytes:
        """Encrypt an RTP packet; called from the sender's thread."""
        with self._lock:
            return bytes(self._srtp.protect(packet))

    def send(self, datagram: bytes) -> None:
        """Send what `protect` gave; called from the sender's thread. Raises `OSError`."""
        if self._socket is None:
            raise OSError("the speaker has left")
        self._socket.sendto(datagram, self._address)

    async def leave(self) -> None:
        """End the session as WHIP has it. Raises `aiohttp.ClientError`, and ends it."""
        try:
            if self._location is not None:
                async with self._session.delete(self._location) as response:
                    await response.read()
        finally:
            await self.vanish()

    async def vanish(self) -> None:
        """End without a word to the server but DTLS's own."""
        await self._connection.close()
        self._release()

    async def drop_dead(self) -> None:
        """Stop answering, as a machine that lost its power."""
        _kill_sockets(self._connection)
        await self._connection.close()
        self._release()

    def _release(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    async def _offer(self, sdp: str) -> str:
        async with self._session.post(
            self._url,
            params={"name": self.place[1]},
            data=sdp,
            headers={"Content-Type": "application/sdp"},
        ) as response:
            text = await response.text()
            if response.status != 201:
                await self._connection.close()
                raise Refused(response.status)
            self._location = str(response.url.join(URL(response.headers["Location"])))
            return text

    def _take_over(self, sender: Any) -> None:
        """Private parts of aiortc: the SRTP session, the socket, the nominated pair."""
        transport = sender.transport
        pair = transport.transport._connection._nominated[1]
        shared = pair.protocol.transport.get_extra_info("socket")
        self._socket = socket.socket(fileno=socket.dup(shared.fileno()))
        self._socket.setblocking(True)
        self._address = pair.remote_addr
        self.ssrc = sender._ssrc
        self.payload_type = _opus_payload_type(self._connection.remoteDescription.sdp)
        self._srtp = transport._tx_srtp
        # libsrtp's session is not made for two threads, and aiortc sends RTCP with it.
        transport._tx_srtp = _Locked(self._srtp, self._lock)


class _Locked:
    def __init__(self, session: Any, lock: threading.Lock) -> None:
        self._session = session
        self._lock = lock

    def protect(self, data: bytes) -> bytes:
        with self._lock:
            return bytes(self._session.protect(data))

    def protect_rtcp(self, data: bytes) -> bytes:
        with self._lock:
            return bytes(self._session.protect_rtcp(data))


async def join_all(
    make: Callable[[int], LoadPeer], count: int, at_once: int
) -> tuple[list[LoadPeer], list[Exception]]:
    """Join `count` speakers, `at_once` of them at a time; returns them, and why others failed."""
    gate = asyncio.Semaphore(at_once)
    joined: list[LoadPeer] = []
    failed: list[Exception] = []

    async def one(number: int) -> None:
        async with gate:
            peer = make(number)
            try:
                await peer.join()
            except (Refused, TimeoutError, aiohttp.ClientError) as error:
                failed.append(error)
                await peer.vanish()
            except asyncio.CancelledError:
                await peer.vanish()
                raise
            else:
                joined.append(peer)

    await _gather(one, count)
    return joined, failed


async def _gather(one: Callable[[int], Awaitable[None]], count: int) -> None:
    await asyncio.gather(*(one(number) for number in range(count)))


def _read_answer(sdp: str) -> Wanted:
    ptime = re.search(r"^a=ptime:(\d+)", sdp, re.M)
    level = re.search(rf"^a=extmap:(\d+)(?:/\w+)? {re.escape(_AUDIO_LEVEL)}", sdp, re.M)
    return Wanted(
        int(ptime.group(1)) if ptime else 20,
        "maxplaybackrate=16000" in sdp,
        int(level.group(1)) if level else None,
    )


def _opus_payload_type(sdp: str) -> int:
    found = re.search(r"^a=rtpmap:(\d+) opus/48000", sdp, re.M | re.I)
    if found is None:
        raise RuntimeError("the answer has no Opus")
    return int(found.group(1))


def _kill_sockets(connection: RTCPeerConnection) -> None:
    for transceiver in connection.getTransceivers():
        agent = transceiver.sender.transport.transport._connection
        if agent._query_consent_task is not None:
            agent._query_consent_task.cancel()  # it would ask through them
        for protocol in agent._protocols:
            protocol.transport.abort()
