"""Clients as the wire knows them: a browser-like one, and the audio it sends."""

import asyncio
import json
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import av
from aiortc import (
    MediaStreamTrack,
    RTCConfiguration,
    RTCDataChannel,
    RTCPeerConnection,
    RTCSessionDescription,
)

from soak.talk import voice
from soak.talk.heard import Heard, Message
from tests.speech import Samples

RATE = 48_000
FRAME = 960

Send = Callable[[bytes, tuple[str, int]], Awaitable[None]]
Receive = Callable[[bytes, tuple[str, int]], None]


class Voice(voice.Voice):
    """Says when the speech is done; from `jump_at_s` on its timestamps are of another clock."""

    def __init__(self, samples: Samples, *, jump_at_s: float = 0.0, jump_by: int = 0) -> None:
        super().__init__(samples)
        self._done_at, self._jump_at, self._jump_by = len(samples), int(jump_at_s * RATE), jump_by
        self.is_done = asyncio.Event()

    async def recv(self) -> av.AudioFrame:
        frame = await super().recv()
        assert frame.pts is not None
        if frame.pts >= self._done_at:
            self.is_done.set()
        if frame.pts >= self._jump_at:
            frame.pts += self._jump_by
        return frame


async def until(fact: Callable[[], bool], within_s: float = 30.0) -> None:
    """Wait for what no event tells of."""
    async with asyncio.timeout(within_s):
        while not fact():  # noqa: ASYNC110
            await asyncio.sleep(0.02)


def is_final(segment: str) -> Callable[[Message], bool]:
    """To be waited for."""
    return lambda m: bool(m["type"] == "caption" and m["final"] and m["segment"] == segment)


class Network:
    """The way of a connected peer, to be made worse. It loses nothing by itself."""

    def __init__(self, connection: RTCPeerConnection) -> None:
        (transceiver,) = connection.getTransceivers()
        # Any: methods of aioice's protocols are replaced
        self._ways: list[Any] = list(transceiver.sender.transport.transport._connection._protocols)

    def lose(self, share: float, seed: int = 1) -> None:
        """Lose this share of the media that is sent, and bring a fifth of the rest late."""
        chance = random.Random(seed)
        for way in self._ways:
            way.send_data = self._lossy(way.send_data, chance, share)

    def take_in_nothing(self) -> None:
        """Answer the checks that the way is there, and drop all else that comes."""
        for way in self._ways:
            way.datagram_received = self._only_checks(way.datagram_received)

    def vanish(self) -> None:
        """Neither send nor receive any more."""
        for way in self._ways:
            way.send_data = self._lossy(way.send_data, random.Random(), 1.0, media_only=False)
            way.send_stun = lambda message, addr: None
            way.datagram_received = lambda data, addr: None

    @staticmethod
    def _only_checks(receive: Receive) -> Receive:
        def receive_checks(data: bytes, addr: tuple[str, int]) -> None:
            if data[0] < 4:  # STUN
                receive(data, addr)

        return receive_checks

    @staticmethod
    def _lossy(send: Send, chance: random.Random, share: float, *, media_only: bool = True) -> Send:
        late: list[tuple[bytes, tuple[str, int]]] = []

        async def send_or_lose(data: bytes, addr: tuple[str, int]) -> None:
            if media_only and not 128 <= data[0] < 192:
                await send(data, addr)
            elif chance.random() < share:
                return
            elif not late and chance.random() < 0.2:
                late.append((data, addr))
            else:
                await send(data, addr)
                if late and chance.random() < 0.5:
                    await send(*late.pop())

        return send_or_lose


class Client(Heard):
    """A participant: a WebSocket, perhaps a peer. `seen` holds every message in order."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        super().__init__()
        self.socket = socket
        self.heard_by_channel: list[Message] = []
        self.participant = ""
        self.resume = ""
        self.connection: RTCPeerConnection | None = None
        self.channel: RTCDataChannel | None = None
        self._silent: asyncio.Transport | None = None
        self.is_closed = asyncio.Event()

    @property
    def captions(self) -> list[Message]:
        """The newest revision of each segment, in the order of their first."""
        newest: dict[str, Message] = {}
        for message in self.seen:
            if message["type"] == "caption":
                before = newest.get(message["segment"])
                if before is None or message["revision"] >= before["revision"]:
                    newest[message["segment"]] = message
        return list(newest.values())

    @property
    def finals(self) -> list[Message]:
        return [caption for caption in self.captions if caption["final"]]

    async def send(self, **message: object) -> None:
        await self.socket.send_str(json.dumps(message))

    async def hello(self, name: str, **fields: object) -> Message:
        """Join; returns the welcome."""
        await self.send(type="hello", version=1, name=name, **fields)
        welcome = await self.wait_for(lambda m: bool(m["type"] == "welcome"))
        self.participant, self.resume = welcome["participant"], welcome["resume"]
        return welcome

    async def speak(self, voice: MediaStreamTrack, channel: str = "captions") -> None:
        """Make a peer that sends `voice`, and open the data channel."""
        self.connection = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        self.connection.addTrack(voice)
        self.channel = self.connection.createDataChannel(channel)
        self.channel.on("message", self._heard)
        await self.negotiate()

    async def negotiate(self) -> None:
        """Offer what the connection has now, and take the answer."""
        assert self.connection is not None
        await self.connection.setLocalDescription(await self.connection.createOffer())
        before = len(self.seen)
        await self.send(type="offer", sdp=self.connection.localDescription.sdp)
        answer = await self.wait_for(lambda m: bool(m["type"] == "answer"), since=before)
        await self.connection.setRemoteDescription(RTCSessionDescription(answer["sdp"], "answer"))

    async def wait_until_connected(self) -> None:
        """Until audio flows and the data channel, if any, is open."""
        assert self.connection is not None
        connection, channel = self.connection, self.channel
        await until(
            lambda: (
                connection.connectionState == "connected"
                and (channel is None or channel.readyState == "open")
            )
        )

    async def wait_for_final(self, participant: str | None = None, *, since: int = 0) -> Message:
        return await self.wait_for(
            lambda m: (
                m["type"] == "caption"
                and m["final"]
                and (participant is None or m["participant"] == participant)
            ),
            since=since,
        )

    async def read(self) -> None:
        """Collect what comes on the socket until it closes."""
        async for message in self.socket:
            if message.type is aiohttp.WSMsgType.TEXT:
                await self.note(json.loads(message.data))
        self.is_closed.set()

    def fall_silent(self) -> None:
        """Read nothing of the socket any more, so that not even pings are answered."""
        connection = self.socket._response.connection
        assert connection is not None
        assert connection.transport is not None
        self._silent = connection.transport
        self._silent.pause_reading()

    async def close(self) -> None:
        if self._silent is not None:
            self._silent.abort()
        if self.connection is not None:
            await self.connection.close()
        await self.socket.close()

    def _heard(self, text: str) -> None:
        self.heard_by_channel.append(json.loads(text))
        # an aiortc handler: puts the message in line, and a task of the loop tells who waits
        asyncio.get_running_loop().create_task(self.note(json.loads(text)), name="note")


@asynccontextmanager
async def connected(url: str, room: str) -> AsyncIterator[Client]:
    """A client with an open socket that has not said hello."""
    async with aiohttp.ClientSession() as session:
        socket = await session.ws_connect(f"{url}/api/v1/rooms/{room}/ws")
        client = Client(socket)
        reading = asyncio.create_task(client.read(), name="client-read")
        try:
            yield client
        finally:
            await client.close()
            reading.cancel()
            await asyncio.wait({reading})


@asynccontextmanager
async def joined(url: str, room: str, name: str, **fields: object) -> AsyncIterator[Client]:
    """A client that has joined."""
    async with connected(url, room) as client:
        await client.hello(name, **fields)
        yield client


class WhipSpeaker:
    """Someone who sends by WHIP: an offer over HTTP, a peer, and no way to read."""

    def __init__(self, session: aiohttp.ClientSession, url: str, voice: MediaStreamTrack) -> None:
        self.session = session
        self.url = url
        self.location = ""
        self.connection = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        self.connection.addTrack(voice)

    async def make_offer(self) -> str:
        await self.connection.setLocalDescription(await self.connection.createOffer())
        return self.connection.localDescription.sdp

    async def post(self, room: str, sdp: str, **query: str) -> aiohttp.ClientResponse:
        """Send an offer; on success the answer is taken."""
        response = await self.session.post(
            f"{self.url}/whip/{room}",
            params=query,
            data=sdp.encode(),
            headers={"Content-Type": "application/sdp"},
        )
        if response.status == 201:
            self.location = self.url + response.headers["Location"]
            answer = RTCSessionDescription(await response.text(), "answer")
            await self.connection.setRemoteDescription(answer)
        return response

    async def trickle(
        self, fragment: str, content_type: str = "application/trickle-ice-sdpfrag", **headers: str
    ) -> aiohttp.ClientResponse:
        return await self.session.patch(
            self.location,
            data=fragment.encode(),
            headers={"Content-Type": content_type, **headers},
        )

    async def end(self) -> aiohttp.ClientResponse:
        return await self.session.delete(self.location)


@asynccontextmanager
async def whip_speaker(url: str, voice: MediaStreamTrack) -> AsyncIterator[WhipSpeaker]:
    """A WHIP client that has sent nothing yet."""
    async with aiohttp.ClientSession() as session:
        speaker = WhipSpeaker(session, url, voice)
        try:
            yield speaker
        finally:
            await speaker.connection.close()
