"""Clients as the wire knows them: a browser-like one, and the audio it sends."""

import asyncio
import fractions
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import av
import numpy as np
from aiortc import (
    MediaStreamTrack,
    RTCConfiguration,
    RTCDataChannel,
    RTCPeerConnection,
    RTCSessionDescription,
)

from tests.speech import Samples

RATE = 48_000
FRAME = 960

Message = dict[str, Any]


class Voice(MediaStreamTrack):
    """Plays samples at 48 kHz in real time, then silence until stopped."""

    kind = "audio"

    def __init__(self, samples: Samples) -> None:
        super().__init__()
        self._pcm = (np.clip(samples, -1, 1) * 32767).astype(np.int16)
        self._sent = 0
        self._started: float | None = None
        self.is_done = asyncio.Event()

    async def recv(self) -> av.AudioFrame:
        loop = asyncio.get_running_loop()
        if self._started is None:
            self._started = loop.time()
        await asyncio.sleep(max(0.0, self._started + self._sent / RATE - loop.time()))
        piece = self._pcm[self._sent : self._sent + FRAME]
        if not len(piece):
            self.is_done.set()
        piece = np.pad(piece, (0, FRAME - len(piece)))
        frame = av.AudioFrame.from_ndarray(piece.reshape(1, -1), format="s16", layout="mono")
        frame.sample_rate = RATE
        frame.pts = self._sent
        frame.time_base = fractions.Fraction(1, RATE)
        self._sent += FRAME
        return frame


class Client:
    """A participant: a WebSocket, perhaps a peer. `seen` holds every message in order."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.socket = socket
        self.seen: list[Message] = []
        self.participant = ""
        self.resume = ""
        self.connection: RTCPeerConnection | None = None
        self.channel: RTCDataChannel | None = None
        self._news = asyncio.Condition()
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
        await self.connection.setLocalDescription(await self.connection.createOffer())
        before = len(self.seen)
        await self.send(type="offer", sdp=self.connection.localDescription.sdp)
        answer = await self.wait_for(lambda m: bool(m["type"] == "answer"), since=before)
        await self.connection.setRemoteDescription(RTCSessionDescription(answer["sdp"], "answer"))

    async def wait_for(
        self, wanted: Callable[[Message], bool], *, since: int = 0, within_s: float = 20.0
    ) -> Message:
        """The first message from `since` on that is wanted, seen already or to come."""
        at = since
        async with asyncio.timeout(within_s):
            async with self._news:
                while True:
                    for message in self.seen[at:]:
                        if wanted(message):
                            return message
                    at = len(self.seen)
                    await self._news.wait()

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
                await self._note(json.loads(message.data))
        self.is_closed.set()

    async def close(self) -> None:
        if self.connection is not None:
            await self.connection.close()
        await self.socket.close()

    def _heard(self, text: str) -> None:
        # an aiortc handler: puts the message in line, and a task of the loop tells who waits
        asyncio.get_running_loop().create_task(self._note(json.loads(text)), name="note")

    async def _note(self, message: Message) -> None:
        async with self._news:
            self.seen.append(message)
            self._news.notify_all()


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
