"""`Participant`: one person's place in a room; the `Seat` that signaling sees.

Holds who they are and what is theirs: a stream of captions, a peer that may be replaced,
and an outbox while a socket is there. The room owns the tasks.
"""

import secrets
import time
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from media.answer import Asked
from media.errors import RemoteMediaError
from media.peer import IceServer, Peer, Sent
from media.track import Ledger, Origin
from server.doors import not_allowed
from server.ice import ice_servers_for
from server.outbox import Outbox
from signaling.errors import Refused
from signaling.grant import Grant, Right
from signaling.messages import RosterEntry, ServerMessage, check_language, encode
from signaling.seat import JoinRequest
from transcriber.account import Fates
from transcriber.stream import SpeakerStream
from transcriber.types import SAMPLE_RATE, StreamId

if TYPE_CHECKING:
    from server.replay import Event
    from server.room import Room


_OF_CALL = "talk-"


def room_of_call(token: str) -> str:
    """The name of a call's room: an ordinary one, in which only the bot's speakers speak."""
    return f"{_OF_CALL}{token}"


def is_of_call(room: str) -> bool:
    return room.startswith(_OF_CALL)


class Participant:
    def __init__(
        self,
        room: "Room",
        participant: str,
        request: JoinRequest,
        language: str,
        grant: Grant,
    ) -> None:
        self.participant = participant
        self.name = grant.name or request.name
        self.language = language
        self.grant = grant
        self.address = request.address
        self.resume = secrets.token_urlsafe(24)
        self.has_socket = request.has_socket
        self.is_of_bot = request.outlives_peer
        self.outlives_peer = request.outlives_peer or request.has_socket
        self.joined_at = time.time()
        self.muted = False
        self.muted_by_owner = False
        self.speaking = False
        self.has_left = False
        self.lost_at: float | None = None
        self.peer: Peer | None = None
        self.stream: SpeakerStream | None = None
        self.first_audio_at: float | None = None  # monotonic
        self.began_at = 0.0  # the same as unix time, read once: a clock may step
        self.outbox: Outbox | None = None
        self.ice_servers: tuple[IceServer, ...] = ()  # in place of those of the settings
        self.past_ledger = Ledger()
        self.past_fates = Fates()  # of the streams before this one
        self.counted_fates = Fates()  # what the metrics know
        self.counted_frames = (0, 0)  # the same, of this stream
        self._candidates = 0  # since their last peer came
        self._room = room

    @property
    def room(self) -> "Room":
        return self._room

    @property
    def stream_id(self) -> StreamId:
        return StreamId(f"{self._room.id}/{self.participant}")

    @property
    def roster_entry(self) -> RosterEntry:
        return RosterEntry(
            participant=self.participant,
            name=self.name,
            muted=self.muted,
            muted_by_owner=self.muted_by_owner,
            speaking=self.speaking,
        )

    async def answer(self, sdp: str) -> str:
        """Answer an offer: of the peer that is there, or of a new one in its place."""
        if is_of_call(self._room.name) and not self.is_of_bot:
            raise Refused("read_only", "who speaks in this room is in a call of Nextcloud Talk")
        if not self.grant.allows(Right.PUBLISH):
            raise not_allowed(Right.PUBLISH)
        self._room.house.limits.take_offer(self.stream_id, time.monotonic())
        if self.peer is not None and self.peer.is_same_session(sdp):
            try:
                return await self.peer.answer(sdp)
            except RemoteMediaError as error:
                raise _refused(error) from error
        if self.peer is not None:
            return await self._answer_anew(sdp)
        self._ask_for_room()
        came = False
        try:
            answer = await self._answer_anew(sdp)
            came = True
        finally:
            self._room.house.admission.settle(came=came)
        return answer

    async def _answer_anew(self, sdp: str) -> str:
        limits = self._room.house.limits
        limits.take_peer(self.address, in_place=self.peer is not None)
        try:
            return await self._answer_by(self._new_peer(), sdp)
        except BaseException:
            limits.give_peer(self.address)
            raise

    async def _answer_by(self, peer: Peer, sdp: str) -> str:
        try:
            answer = await peer.answer(sdp)
            self._room.attend(self, peer)
            self._candidates = 0
        except RemoteMediaError as error:
            await peer.close()
            raise _refused(error) from error
        except BaseException:
            await peer.close()
            raise
        return answer

    async def add_candidate(self, candidate: str, sdp_mid: str | None) -> None:
        self._candidates += 1
        self._room.house.limits.check_candidates(self._candidates)
        if self.peer is None:
            raise Refused("no_offer", "a candidate needs an offer before it", status=409)
        try:
            await self.peer.add_candidate(candidate, sdp_mid)
        except RemoteMediaError as error:
            raise _refused(error) from error

    def set_language(self, language: str) -> None:
        info = self._room.house.engine.status.info
        self.language = check_language(language, info.languages, detects=info.detects)
        if self.stream is not None:
            self.stream.set_language(self.language)

    def set_muted(self, muted: bool) -> None:
        if self.muted_by_owner and not muted:
            raise Refused("muted_by_owner", "the owner has muted you", status=403)
        self._set_muted(muted)

    def hold_muted(self, held: bool) -> None:
        """By the owner: mute them until the owner lets them speak. They unmute themselves then."""
        was_held, self.muted_by_owner = self.muted_by_owner, held
        if held and not self.muted:
            self._set_muted(True)
        elif was_held != held:
            self._room.announce(self)

    def _set_muted(self, muted: bool) -> None:
        if self.muted == muted:
            return
        self.muted = muted
        if muted and self.stream is not None:
            self.stream.pause()
        self.speaking = False
        self._room.announce(self)

    def send(self, message: ServerMessage) -> None:
        self.send_text(encode(message))

    def send_text(self, text: str, replaces: str | None = None) -> None:
        """Send an encoded message; with `replaces`, in place of a waiting one of that key."""
        if self.outbox is not None:
            self.outbox.put(text, replaces=replaces)
            self._drop_if_slow()

    def _drop_if_slow(self) -> None:
        if self.outbox is not None and self.outbox.reason == "slow_reader":
            self._room.drop_listener(self)

    def deliver(self, event: "Event") -> None:
        """Send a caption or gap by the data channel, else by the socket; never waits."""
        if not self.grant.allows(Right.LISTEN):
            return
        if self.peer is not None:
            sent = self.peer.send(event.text, is_final=event.is_final)
            if sent is Sent.FULL:
                self._room.drop_listener(self)
            elif sent is Sent.SKIPPED:
                self._room.house.metrics.captions_skipped.inc()
            if sent is not Sent.NO_CHANNEL:
                return
        if self.outbox is not None:
            event.put_into(self.outbox, event.text)
            self._drop_if_slow()

    def outgoing(self) -> AsyncIterator[str]:
        assert self.outbox is not None
        return self.outbox

    def socket_lost(self, outgoing: AsyncIterator[str], silent_s: float) -> None:
        if outgoing is self.outbox and not self.has_left:
            self.outbox = None
            self.lost_at = time.monotonic() - silent_s

    def leave(self, reason: str) -> None:
        self._room.leave(self, reason)

    def is_read_by(self, outgoing: AsyncIterator[str]) -> bool:
        return outgoing is self.outbox

    def ledger(self) -> Ledger:
        """Where all the audio of this speaker went, over all peers."""
        now = self.peer.ledger if self.peer is not None else Ledger()
        return self.past_ledger.plus(now)

    def fates(self) -> Fates:
        """What became of all the audio of this speaker, over all peers."""
        return self.past_fates.plus(self.stream.fates) if self.stream else self.past_fates

    def dropped_s(self) -> dict[str, float]:
        """Seconds of their audio that were lost, by reason."""
        ledger = self.ledger()
        return {
            "network": round((ledger.network + ledger.concealed) / SAMPLE_RATE, 2),
            "overload": round(ledger.overload / SAMPLE_RATE, 2),
        }

    def _ask_for_room(self) -> None:
        """Raises `Refused` while another speaker would cost those inside their quality."""
        house = self._room.house
        if house.admission.admit():
            return
        house.metrics.refused.labels(house.admission.reason).inc()
        raise Refused(
            "full",
            "no more speakers fit now; reading along still works",
            retryable=True,
            status=503,
            retry_after_s=10,
        )

    def _new_peer(self) -> Peer:
        media = self._room.house.settings.media
        servers = ice_servers_for(media, "server", time.time())
        return Peer(
            self.ice_servers or [IceServer(s.urls, s.username, s.credential) for s in servers],
            self._origin(),
            Asked(media.packet_ms, media.dtx, media.playback_rate),
            media.silent_level,
            self._room.house.settings.limits.channel_bytes_per_s,
        )

    def _origin(self) -> Origin | None:
        """Where this speaker's clock stands, if it has begun."""
        if self.first_audio_at is None or self.stream is None:
            return None
        now = time.monotonic()
        passed = int((now - self.first_audio_at) * SAMPLE_RATE)
        return Origin(max(passed, self.stream.end_sample or 0), now)


def _refused(error: RemoteMediaError) -> Refused:
    return Refused(error.code, error.message, retryable=error.retryable)
