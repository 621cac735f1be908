"""The other side of a `Peer`, in the same process: what a page does, with aiortc."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager

import aioice.ice
import pytest
from aiortc import (
    MediaStreamTrack,
    RTCConfiguration,
    RTCDataChannel,
    RTCPeerConnection,
    RTCSessionDescription,
)

from media import ice
from media.pcm import PcmChunk
from media.peer import CAPTIONS_LABEL, Peer, PeerEvent
from tests.clients import Voice
from tests.speech import silence

_PATIENCE_S = 15.0


class Page:
    """A connection that offers a voice and, if named, a data channel."""

    def __init__(
        self, voice: MediaStreamTrack | None = None, channel: str | None = CAPTIONS_LABEL
    ) -> None:
        self.connection = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        self.sender = self.connection.addTrack(voice or Voice(silence(0.1, 48_000)))
        self.texts: asyncio.Queue[str] = asyncio.Queue()
        self.channel: RTCDataChannel | None = None
        if channel is not None:
            self.channel = self.connection.createDataChannel(channel)
            self.channel.on("message", self.texts.put_nowait)

    async def offer(self) -> str:
        await self.connection.setLocalDescription(await self.connection.createOffer())
        return str(self.connection.localDescription.sdp)

    async def take(self, answer: str) -> None:
        await self.connection.setRemoteDescription(RTCSessionDescription(answer, "answer"))

    async def read(self) -> str:
        async with asyncio.timeout(_PATIENCE_S):
            return await self.texts.get()

    def stop_reading(self) -> Callable[[], None]:
        """Leave what comes for the data channels unread and unacknowledged; returns how to
        read on."""
        sctp = self.connection.sctp
        assert sctp is not None
        dtls = sctp.transport
        dtls._unregister_data_receiver(sctp)
        return lambda: dtls._register_data_receiver(sctp)

    def vanish(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """From now on nothing comes from this page, and it hears nothing: no BYE, no close."""
        for protocol in self.connection.getSenders()[0].transport.transport._connection._protocols:
            monkeypatch.setattr(protocol, "datagram_received", lambda *_: None)
            monkeypatch.setattr(protocol.transport, "sendto", lambda *_: None)


@asynccontextmanager
async def peer_of(page: Page, peer: Peer | None = None) -> AsyncIterator[Peer]:
    """A peer that has answered the page's offer; both end closed."""
    peer = peer or Peer()
    try:
        await page.take(await peer.answer(await page.offer()))
        yield peer
    finally:
        await page.connection.close()
        await peer.close()


async def wait_for(peer: Peer, wanted: PeerEvent) -> list[PeerEvent]:
    """Read events until the wanted one; returns those before it."""
    before: list[PeerEvent] = []
    async with asyncio.timeout(_PATIENCE_S):
        while (event := await peer.events.get()) is not wanted:
            assert event is not None
            before.append(event)
    return before


async def until(holds: Callable[[], bool]) -> None:
    """Wait for what no event tells of."""
    async with asyncio.timeout(_PATIENCE_S):
        while not holds():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


@asynccontextmanager
async def listening(peer: Peer) -> AsyncIterator[list[PcmChunk]]:
    """Read the feed as a room does; ends when the feed does."""
    chunks: list[PcmChunk] = []

    async def read() -> None:
        async for chunk in peer.feed:
            chunks.append(chunk)

    async with asyncio.timeout(30), asyncio.TaskGroup() as tasks:
        tasks.create_task(read(), name="read-feed")
        yield chunks
        peer.end_audio()


@contextmanager
def on_loopback() -> Iterator[None]:
    """Peers meet on 127.0.0.1; a task that fails unseen fails the test."""
    unseen: list[str] = []
    asyncio.get_running_loop().set_exception_handler(
        lambda _, context: unseen.append(f"{context['message']}: {context.get('exception')!r}")
    )
    with pytest.MonkeyPatch.context() as undone:
        undone.setattr(aioice.ice, "get_host_addresses", aioice.ice.get_host_addresses)
        undone.setattr(aioice.ice, "CONSENT_FAILURES", aioice.ice.CONSENT_FAILURES)
        ice.gather_on(["127.0.0.1"], loopback=True)
        yield
    assert not unseen, f"failed unseen: {unseen}"
