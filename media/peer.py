"""`Peer`: answers one offer, receives its audio, sends captions, closes once.

aiortc's event handlers only put an event into `events`; they never await. The owner reads
`events` and `feed` and calls `close`. A peer that fails says so and takes nobody along.
"""

import asyncio
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from aiortc import (
    RTCConfiguration,
    RTCDataChannel,
    RTCIceServer,
    RTCSessionDescription,
)
from aiortc.mediastreams import MediaStreamTrack
from aiortc.sdp import SessionDescription, candidate_from_sdp

from media import contained, private
from media.answer import Asked, ask
from media.errors import BadOffer, RemoteMediaError
from media.feed import Feed
from media.pcm import PcmChunk
from media.track import SILENT_LEVEL, Ledger, Origin, RtpPacket, Track

FEED_CHUNKS = 20  # 2 s of audio
CAPTIONS_LABEL = "captions"
# A page that reads takes about 1 KB a revision; this is some seconds of a busy room.
TENTATIVE_CEILING_BYTES = 64 * 1024
FINAL_CEILING_BYTES = 512 * 1024

# What a participant may say by data channels, where there is nothing to say.
CHANNEL_BYTES_PER_S = 16_384

_ANSWER_TIMEOUT_S = 10.0
_ASKED = Asked()
_CLOSE_TIMEOUT_S = 5.0
_MAX_MEDIA_SECTIONS = 8

log = logging.getLogger("roomscribe.peer")


class Sent(Enum):
    """What became of a text given to `Peer.send`."""

    SENT = "sent"
    NO_CHANNEL = "no_channel"
    SKIPPED = "skipped"  # tentative, and the peer is behind
    FULL = "full"  # final, and the peer has not read for long


class PeerEvent(Enum):
    CONNECTED = "connected"
    CHANNEL_OPEN = "channel_open"
    CHANNEL_CLOSED = "channel_closed"
    CHANNEL_REFUSED = "channel_refused"  # a label we do not know
    FLOODED = "flooded"  # more by data channels than it may; its audio has ended
    LOST = "lost"  # no way to the peer any more, or it closed


@dataclass(frozen=True, slots=True)
class IceServer:
    urls: tuple[str, ...]
    username: str | None = None
    credential: str | None = None


class Peer:
    """One WebRTC connection. Owned by whoever called `Peer(...)`, who must `close` it."""

    def __init__(
        self,
        ice_servers: Sequence[IceServer] = (),
        origin: Origin | None = None,
        asked: Asked = _ASKED,
        silent_level: int = SILENT_LEVEL,
        channel_bytes_per_s: int = CHANNEL_BYTES_PER_S,
    ) -> None:
        self.feed: Feed[PcmChunk] = Feed(FEED_CHUNKS)
        self.events: Feed[PeerEvent] = Feed(100)
        self._origin = origin
        self._asked = asked
        self._silent_level = silent_level
        self._received_at = 0.0
        self._ration = contained.Ration(channel_bytes_per_s, self._on_flood)
        self._track: Track | None = None
        self._tap: private.Tap | None = None
        self._heard: MediaStreamTrack | None = None
        self._channel: RTCDataChannel | None = None
        self._expiry: asyncio.TimerHandle | None = None
        self._closing: asyncio.Task[None] | None = None
        self._is_closed = False
        self._identity: frozenset[str] = frozenset()
        self._layout: tuple[str, ...] = ()
        # An empty list, not None: with None aiortc asks a public STUN server.
        servers = [
            RTCIceServer(urls=list(s.urls), username=s.username, credential=s.credential)
            for s in ice_servers
        ]
        self._connection = private.Connection(RTCConfiguration(iceServers=servers))
        self._connection.on("track", self._on_track)
        self._connection.on("datachannel", self._on_datachannel)
        self._connection.on("connectionstatechange", self._on_state)

    @property
    def state(self) -> str:
        return "closed" if self._is_closed else str(self._connection.connectionState)

    @property
    def has_open_channel(self) -> bool:
        return self._channel is not None and self._channel.readyState == "open"

    @property
    def received_at(self) -> float:
        """When the last packet came, on the monotonic clock; 0 before the first."""
        return self._received_at

    @property
    def ledger(self) -> Ledger:
        return self._track.ledger if self._track is not None else Ledger()

    @property
    def packets_lost(self) -> int:
        return self._track.packets_lost if self._track is not None else 0

    @property
    def packets_unused(self) -> dict[str, int]:
        """Packets that came to nothing, by reason."""
        track, tap = self._track, self._tap
        return {
            "late": track.packets_late if track is not None else 0,
            "undecodable": track.undecodable if track is not None else 0,
            "rejected": tap.rejected if tap is not None else 0,
            "unknown": tap.unknown if tap is not None else 0,
        }

    @property
    def restored(self) -> int:
        """Lost samples that a later packet brought a copy of."""
        return self._track.restored if self._track is not None else 0

    def is_same_session(self, sdp: str) -> bool:
        """Whether an offer belongs to this connection, and is no new one of the same page."""
        return bool(self._identity) and _identity(sdp) == self._identity

    async def answer(self, sdp: str) -> str:
        """Answer an offer, the first or a later one of the same session.

        Raises `BadOffer`. The answer carries our candidates: it is complete.
        """
        _check_offer(sdp)
        try:
            async with asyncio.timeout(_ANSWER_TIMEOUT_S):
                described = SessionDescription.parse(sdp)
                layout = _layout(described)
                if layout[: len(self._layout)] != self._layout:
                    raise ValueError("a later offer keeps the sections of the one before it")
                await self._connection.setRemoteDescription(RTCSessionDescription(sdp, "offer"))
                self._keep_one_audio_track()
                await self._connection.setLocalDescription(await self._connection.createAnswer())
        except TimeoutError:
            raise BadOffer("bad_sdp", "the offer could not be answered in time") from None
        except Exception as error:
            # The offer is the peer's text, and aiortc's parser raises whatever its code runs
            # into: ValueError, KeyError, IndexError, AttributeError, InvalidStateError.
            raise BadOffer("bad_sdp", "the offer is not usable SDP") from error
        contained.contain(self._connection, self._ration)
        if self._tap is not None:
            self._tap.install(self._sources(described))
        self._identity, self._layout = _identity(sdp), layout
        return ask(self._connection.localDescription.sdp, self._asked)

    async def add_candidate(self, candidate: str, sdp_mid: str | None) -> None:
        """Add a trickled candidate; an empty one ends them. Raises `RemoteMediaError`."""
        text = candidate.removeprefix("a=").removeprefix("candidate:").strip()
        if not text:
            return
        try:
            parsed = candidate_from_sdp(text)
            parsed.sdpMid = sdp_mid
            parsed.sdpMLineIndex = None if sdp_mid is not None else 0
            await self._connection.addIceCandidate(parsed)
        except Exception as error:
            # as above: the peer's text in aiortc's and aioice's parsers
            raise RemoteMediaError("bad_candidate", "the candidate is not usable") from error

    def send(self, text: str, *, is_final: bool) -> Sent:
        """Send a caption; never waits."""
        channel = self._channel
        if channel is None or channel.readyState != "open":
            return Sent.NO_CHANNEL
        ceiling = FINAL_CEILING_BYTES if is_final else TENTATIVE_CEILING_BYTES
        if channel.bufferedAmount > ceiling:
            return Sent.FULL if is_final else Sent.SKIPPED
        try:
            channel.send(text)
        except ValueError:
            # longer than the peer's offer says it takes: this channel is not for it
            return Sent.NO_CHANNEL
        return Sent.SENT

    async def close(self) -> None:
        """End the feed, then the connection; the second call waits for the first."""
        if self._closing is None:
            self._closing = asyncio.get_running_loop().create_task(self._close(), name="peer-close")
        # Cancelled midway, RTCPeerConnection.close() would never end on a later call.
        await asyncio.shield(self._closing)

    async def _close(self) -> None:
        self.end_audio()
        if self._tap is not None:
            self._tap.remove()
        self.events.end()
        try:
            async with asyncio.timeout(_CLOSE_TIMEOUT_S):
                await self._connection.close()
                await self._connection.settled()
                if self._tap is not None:
                    await self._tap.end_consent()
        except Exception:
            # in time, or in whatever aiortc ran into: who closes a peer goes on
            log.warning("a peer did not close cleanly", exc_info=True)
            self._connection.remove_all_listeners()
        else:
            private.dissolve(self._connection)
        if self._tap is not None:
            self._tap.let_go()
        self._ration.let_go()
        self._is_closed, self._channel = True, None

    def pause(self, now: float, after_s: float) -> None:
        """If nothing came for so long, hand on what is held and rouse the reader of `feed`."""
        if self._track is not None and now - self._received_at >= after_s:
            self._track.pause(now)
            self.feed.rouse()

    def end_audio(self) -> None:
        """Hand on what is held and end the feed; captions still go out."""
        if self._expiry is not None:
            self._expiry.cancel()
            self._expiry = None
        try:
            if self._track is not None:
                self._track.end(time.monotonic())
        except Exception:
            # its last packets are the peer's, too; who ends a peer goes on
            log.warning("a track did not end cleanly", exc_info=True)
        self.feed.end()

    def _sources(self, offer: SessionDescription) -> frozenset[int]:
        """The RTP sources that the offer announces for the audio that is listened to; some devices
        announce none."""
        ours = [
            t.mid for t in self._connection.getTransceivers() if t.receiver.track is self._heard
        ]
        heard = [media for media in offer.media if media.rtp.muxId in ours]
        return frozenset(source.ssrc for media in heard for source in media.ssrc)

    def _keep_one_audio_track(self) -> None:
        kept = False
        for transceiver in self._connection.getTransceivers():
            if transceiver.kind == "audio" and not kept:
                kept = True
            else:
                transceiver.direction = "inactive"

    def _on_track(self, track: MediaStreamTrack) -> None:
        if track.kind != "audio" or self._track is not None:
            return
        transceiver = next(
            t for t in self._connection.getTransceivers() if t.receiver.track is track
        )
        self._heard = track
        self._tap = tap = private.Tap(transceiver, self._receive, self._ended)
        self._track = Track(self.feed, tap.codec_name, self._origin, self._silent_level)

    def _receive(self, packet: RtpPacket, now: float) -> None:
        if self._track is None or self.feed.is_ended:
            return
        self._received_at = now
        self._track.receive(packet, now)
        if self._expiry is None and (deadline := self._track.next_deadline()) is not None:
            self._arm(deadline)

    def _ended(self, now: float) -> None:
        """The source said goodbye: an utterance need not wait for its packets to cease."""
        if self._track is not None and not self.feed.is_ended:
            self._track.pause(now)
            self.feed.rouse()

    def _arm(self, deadline: float | None) -> None:
        self._expiry = None
        if deadline is not None:
            delay = max(0.0, deadline - time.monotonic())
            self._expiry = asyncio.get_running_loop().call_later(delay, self._expire)

    def _expire(self) -> None:
        assert self._track is not None
        self._arm(self._track.expire(time.monotonic()))

    def _on_datachannel(self, channel: RTCDataChannel) -> None:
        if channel.label != CAPTIONS_LABEL:
            self.events.put(PeerEvent.CHANNEL_REFUSED)
            channel.close()
            return
        self._channel = channel
        channel.on("close", lambda: self.events.put(PeerEvent.CHANNEL_CLOSED))
        self.events.put(PeerEvent.CHANNEL_OPEN)

    def _on_flood(self) -> None:
        self.events.put(PeerEvent.FLOODED)
        self.end_audio()

    def _on_state(self) -> None:
        state = self._connection.connectionState
        if state == "connected":
            self.events.put(PeerEvent.CONNECTED)
        elif state in ("failed", "closed"):
            self.end_audio()
            self.events.put(PeerEvent.LOST)


def _check_offer(sdp: str) -> None:
    lines = sdp.splitlines()
    if not lines or not lines[0].startswith("v=0"):
        raise BadOffer("bad_sdp", "the offer is not SDP")
    sections = [line for line in lines if line.startswith("m=")]
    if len(sections) > _MAX_MEDIA_SECTIONS:
        raise BadOffer("bad_sdp", "the offer has too many media sections")
    if not any(line.startswith("m=audio ") for line in sections):
        raise BadOffer("no_audio", "the offer has no audio")


def _layout(offer: SessionDescription) -> tuple[str, ...]:
    """What later offers of a session keep: which section leads the BUNDLE group, and the
    kind and mid of each.

    Raises `ValueError` where aiortc would answer and fail later. It gives a group the
    transport of the section that leads it: where that is not there, the connection cannot be
    closed. A section without a fingerprint fails in a task unseen.
    """
    sections = [(media.kind, media.rtp.muxId) for media in offer.media]
    bundles = [g.items for g in offer.group if g.semantic == "BUNDLE" and g.items]
    leaders = [str(items[0]) for items in bundles]
    mids = {mid for kind, mid in sections if kind in ("audio", "video")}
    mids.update([mid for kind, mid in sections if kind == "application"][:1])
    if not mids.issuperset(leaders):
        raise ValueError("a group is led by a section that is not there")
    if not all(media.dtls and media.dtls.fingerprints for media in offer.media):
        raise ValueError("a section has no fingerprint")
    return (" ".join(leaders), *(f"{kind} {mid}" for kind, mid in sections))


def _identity(sdp: str) -> frozenset[str]:
    """What names a connection in its offers: its certificates and ICE user fragments."""
    marks = ("a=fingerprint:", "a=ice-ufrag:")
    return frozenset(line.strip() for line in sdp.splitlines() if line.startswith(marks))
