"""A participant of a Talk call, on the wire that Talk's web client speaks.

They say hello, join the room, are in the call or not, publish speech through Janus, and read the
captions that a bot sends. All ends with `close`.
"""

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import aiohttp
from aiortc import (
    MediaStreamTrack,
    RTCConfiguration,
    RTCPeerConnection,
    RTCSessionDescription,
)
from aiortc.sdp import candidate_from_sdp

from soak.talk.conversation import Conversation, Refused, conversation, is_from
from soak.talk.heard import Message
from soak.talk.nextcloud import (
    BACKEND_PATH,
    IN_CALL,
    OUT_OF_CALL,
    WITH_AUDIO,
    Nextcloud,
    TalkSession,
)
from soak.talk.stack import TalkStack
from soak.talk.voice import Samples, Voice

_PUBLISH_TRIES = 4
_CONNECT_S = 5.0


class Peer:
    """A connection to Janus under one `sid`, as publisher or subscriber."""

    def __init__(self, talking: Conversation, session: str, sid: str) -> None:
        self.connection = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        self.connection.on("connectionstatechange", self._note_state)
        self.sid = sid
        self._talking = talking
        self._session = session
        self._trickling: asyncio.Task[None] | None = None
        self._is_connected = asyncio.Event()

    async def describe(self, kind: str, sdp: str) -> None:
        """Take what the other side is, and its candidates: those before this and those after."""
        await self.connection.setRemoteDescription(RTCSessionDescription(sdp, kind))
        self._trickling = asyncio.create_task(self._trickle(), name="talk-trickle")

    async def wait_until_connected(self) -> None:
        await self._is_connected.wait()

    async def close(self) -> None:
        if self._trickling is not None:
            self._trickling.cancel()
            await asyncio.wait({self._trickling})
        await self.connection.close()

    def _note_state(self) -> None:
        if self.connection.connectionState == "connected":
            self._is_connected.set()

    async def _trickle(self) -> None:
        async for message in self._talking.each():
            if not is_from(message, self._session, "candidate", self.sid):
                continue
            told = message["message"]["data"]["payload"]["candidate"]
            if told.get("candidate"):
                candidate = candidate_from_sdp(told["candidate"].removeprefix("candidate:"))
                candidate.sdpMid, candidate.sdpMLineIndex = told["sdpMid"], told["sdpMLineIndex"]
                await self.connection.addIceCandidate(candidate)


@dataclass(frozen=True, slots=True)
class Transcript:
    """A caption that a bot sent; `at` is the loop's time at which it was read."""

    at: float
    speaker_session: str
    text: str
    language: str
    is_final: bool
    sender_session: str

    @classmethod
    def of(cls, message: Message, at: float = 0.0) -> "Transcript":
        told = message["message"]["data"]
        return cls(
            at,
            told["speakerSessionId"],
            told["message"],
            told["langId"],
            told["final"],
            message["message"]["sender"]["sessionid"],
        )


class Participant:
    """Someone in a room of Talk. Nextcloud tells the others when they are in the call."""

    def __init__(self, nextcloud: Nextcloud, talk: TalkSession, talking: Conversation) -> None:
        self.talk = talk
        self.talking = talking
        self.session = ""  # its id at the signaling server
        self.voice: Voice | None = None
        self.publishing: Peer | None = None
        self._nextcloud = nextcloud
        self._resume_id = ""
        self._sids = itertools.count(1)

    @property
    def transcripts(self) -> list[Transcript]:
        """What bots sent, on this socket and on those before it."""
        told = zip(self.talking.seen, self.talking.arrived, strict=True)
        return [Transcript.of(m, at) for m, at in told if _is_transcript(m)]

    async def captions(self) -> AsyncIterator[Transcript]:
        """What bots send, read already or to come, without an end."""
        async for message in self.talking.each():
            if _is_transcript(message):
                yield Transcript.of(message)

    async def wait_for_transcript(
        self, wanted: Callable[[Transcript], bool], *, within_s: float = 20.0
    ) -> Transcript:
        """The first that is wanted, seen already or to come."""
        message = await self.talking.wait_for(
            lambda m: _is_transcript(m) and wanted(Transcript.of(m)), within_s=within_s
        )
        at = self.talking.arrived[self.talking.seen.index(message)]
        return Transcript.of(message, at)

    async def hello(self, version: str = "2.0") -> None:
        """2.0 shows a JWT, 1.0 a ticket. Raises `Refused`."""
        url = self._nextcloud.url + BACKEND_PATH
        params: Message = {"token": self._nextcloud.token(self.talk)}
        if version == "1.0":
            params = {"userid": self.talk.user, "ticket": self.talk.ticket}
        await self._hello({"version": version, "auth": {"url": url, "params": params}})

    async def resume(self) -> None:
        """On a new socket, as who they were. Raises `Refused`: `no_such_session`."""
        await self._hello({"version": "2.0", "resumeid": self._resume_id})

    async def join_room(self) -> None:
        """Raises `Refused`."""
        room = {"roomid": self.talk.room, "sessionid": self.talk.nc_session}
        await self.talking.ask("room", room)

    async def leave_room(self) -> None:
        await self.talking.ask("room", {"roomid": ""})

    async def enter_call(self, flags: int = IN_CALL | WITH_AUDIO) -> None:
        await self._nextcloud.set_in_call(self.talk, flags)

    async def leave_call(self) -> None:
        await self.stop_publishing()
        await self._nextcloud.set_in_call(self.talk, OUT_OF_CALL)

    async def speak(self, samples: Samples) -> None:
        """Be in the call and say that (48 kHz), then silence. Until Janus is connected."""
        await self.enter_call()
        await self.publish(samples)

    async def publish(
        self, samples: Samples, *others: MediaStreamTrack, repeats: bool = False
    ) -> None:
        """Speech, and other tracks beside it. Raises `Refused`, `TimeoutError`.

        An offer that Janus takes for one of the connection that was just closed is not answered, or
        never connects: as a browser does, it is made again then.
        """
        for _ in range(_PUBLISH_TRIES):
            self.voice = Voice(samples, repeats=repeats)
            with contextlib.suppress(TimeoutError):
                peer = await self._offer(self.voice, *others)
                async with asyncio.timeout(_CONNECT_S):
                    await peer.wait_until_connected()
                return
            await self.stop_publishing()
        raise TimeoutError("Janus took no offer")

    async def _offer(self, *tracks: MediaStreamTrack) -> Peer:
        assert self.publishing is None, "they publish already"
        peer = Peer(self.talking, self.session, f"{self.session[:8]}-{next(self._sids)}")
        self.publishing = peer
        for track in tracks:
            peer.connection.addTrack(track)
        await peer.connection.setLocalDescription(await peer.connection.createOffer())
        payload = {"type": "offer", "sdp": peer.connection.localDescription.sdp}
        offer = {"to": self.session, "sid": peer.sid, "roomType": "video", "type": "offer"}
        before = len(self.talking.seen)
        number = await self.talking.tell_session(self.session, offer | {"payload": payload})
        message = await self.talking.wait_for(
            lambda m: m.get("id") == number or is_from(m, self.session, "answer"), since=before
        )
        if message["type"] == "error":
            raise Refused(message["error"]["code"])
        answer = message["message"]["data"]
        # once Janus was restarted the signaling server answers under the sid of the first offer
        peer.sid = answer["sid"]
        await peer.describe("answer", answer["payload"]["sdp"])
        return peer

    async def stop_publishing(self) -> None:
        """The connection is closed; they stay in the call."""
        if self.publishing is not None:
            peer, self.publishing = self.publishing, None
            await peer.close()

    def lose_socket(self) -> None:
        """Media goes on, as it does in a browser."""
        self.talking.lose()

    async def come_back(self) -> bool:
        """On a new socket. True if the session was resumed; else they are new in the room."""
        await self.talking.connect()
        try:
            await self.resume()
        except Refused:
            await self.hello()
            await self.join_room()
            return False
        return True

    async def close(self) -> None:
        await self.stop_publishing()
        with contextlib.suppress(aiohttp.ClientError):  # the socket is lost
            await self.talking.tell("bye", {})
        await self.talking.close()

    async def _hello(self, content: Message) -> None:
        hello = (await self.talking.ask("hello", content))["hello"]
        self.session, self._resume_id = hello["sessionid"], hello["resumeid"]


@asynccontextmanager
async def participant(
    stack: TalkStack, room: str, name: str, *, version: str = "2.0"
) -> AsyncIterator[Participant]:
    """Someone who has joined the room and is not in the call yet."""
    talk = stack.nextcloud.new_session(room, name)
    async with conversation(stack.signaling_url) as talking:
        someone = Participant(stack.nextcloud, talk, talking)
        try:
            await someone.hello(version)
            await someone.join_room()
            yield someone
        finally:
            await someone.close()


def _is_transcript(message: Message) -> bool:
    told: Message = message.get("message", {}).get("data", {})
    return told.get("type") == "transcript"
