"""A participant of a Talk call, on the wire that Talk's web client speaks.

A `Conversation` is a socket to the signaling server that keeps every message it got. A
`Participant` has one: it says hello, joins the room, is in the call or not, publishes speech
through Janus, hears others and reads the captions that a bot sends. All ends with `close`.
"""

import asyncio
import contextlib
import itertools
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
import av
import numpy as np
from aiortc import (
    MediaStreamTrack,
    RTCConfiguration,
    RTCPeerConnection,
    RTCSessionDescription,
)
from aiortc.mediastreams import MediaStreamError
from aiortc.sdp import candidate_from_sdp

from tests.clients import FRAME, RATE, Voice, until
from tests.speech import Samples
from tests.talk.nextcloud import (
    BACKEND_PATH,
    IN_CALL,
    OUT_OF_CALL,
    WITH_AUDIO,
    Nextcloud,
    TalkSession,
)
from tests.talk.stack import TalkStack

Message = dict[str, Any]

_SILENCE_S = 0.3
_PUBLISH_TRIES = 4
_ANSWER_S = 15.0  # the signaling server itself waits up to 10 s for a publisher


class Refused(Exception):
    """The signaling server answered with an error."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


class Conversation:
    """What is said on a socket to the signaling server, and on those that follow it.

    `seen` holds every message in order, `arrived` the loop's time of each.
    """

    def __init__(self, http: aiohttp.ClientSession, url: str) -> None:
        self.seen: list[Message] = []
        self.arrived: list[float] = []
        self.is_closed = asyncio.Event()
        self._http = http
        self._url = url
        self._socket: aiohttp.ClientWebSocketResponse | None = None
        self._reading: asyncio.Task[None] | None = None
        self._numbers = itertools.count(1)
        self._news = asyncio.Condition()

    @property
    def socket(self) -> aiohttp.ClientWebSocketResponse:
        assert self._socket is not None, "there is no socket"
        return self._socket

    async def connect(self) -> None:
        """Raises `aiohttp.ClientError` where nobody answers."""
        await self.close()
        self._socket = await self._http.ws_connect(self._url)
        self.is_closed = asyncio.Event()
        self._reading = asyncio.create_task(self._read(self._socket), name="talk-read")

    async def ask(self, kind: str, content: Message) -> Message:
        """Send a message and wait for what answers it. Raises `Refused`."""
        number = await self.tell(kind, content)
        answer = await self.wait_for(lambda m: m.get("id") == number)
        if answer["type"] == "error":
            raise Refused(answer["error"]["code"])
        return answer

    async def tell(self, kind: str, content: Message) -> str:
        """Returns the id that an answer would carry."""
        number = str(next(self._numbers))
        await self.socket.send_str(json.dumps({"id": number, "type": kind, kind: content}))
        return number

    async def tell_session(self, session: str, content: Message) -> str:
        """Send to one session of the room, or for one's own to the media server behind it."""
        recipient = {"type": "session", "sessionid": session}
        return await self.tell("message", {"recipient": recipient, "data": content})

    async def wait_for(
        self, wanted: Callable[[Message], bool], *, since: int = 0, within_s: float = _ANSWER_S
    ) -> Message:
        """The first message from `since` on that is wanted, seen already or to come."""
        at = since
        async with asyncio.timeout(within_s), self._news:
            while True:
                for message in self.seen[at:]:
                    if wanted(message):
                        return message
                at = len(self.seen)
                await self._news.wait()

    async def wait_for_event(
        self, target: str, kind: str, *, since: int = 0, within_s: float = _ANSWER_S
    ) -> Message:
        """What came with an event, such as `participants` `update`."""

        def is_wanted(message: Message) -> bool:
            event = message.get("event", {})
            return (event.get("target"), event.get("type")) == (target, kind)

        message = await self.wait_for(is_wanted, since=since, within_s=within_s)
        event: Message = message["event"]
        return event

    def lose(self) -> None:
        """The line is cut: nothing is said about it."""
        connection = self.socket._response.connection
        if connection is not None and connection.transport is not None:
            connection.transport.abort()

    async def close(self) -> None:
        if self._reading is not None:
            await self.socket.close()
            await asyncio.wait({self._reading})
            self._reading = None

    async def _read(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        async for message in socket:
            if message.type is aiohttp.WSMsgType.TEXT:
                async with self._news:
                    self.seen.append(json.loads(message.data))
                    self.arrived.append(asyncio.get_running_loop().time())
                    self._news.notify_all()
        self.is_closed.set()


@asynccontextmanager
async def conversation(url: str) -> AsyncIterator[Conversation]:
    """A socket on which nobody has said hello."""
    async with aiohttp.ClientSession() as http:
        talking = Conversation(http, url)
        await talking.connect()
        try:
            yield talking
        finally:
            await talking.close()


class MutableVoice(Voice):
    """A voice that can be muted: silence goes out while the speech goes on."""

    is_muted = False

    async def recv(self) -> av.AudioFrame:
        frame = await super().recv()
        if self.is_muted:
            for plane in frame.planes:
                plane.update(bytes(plane.buffer_size))
        return frame


class Peer:
    """A connection to Janus under one `sid`, as publisher or subscriber."""

    def __init__(self, talking: Conversation, session: str, sid: str) -> None:
        self.connection = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        self.sid = sid
        self._talking = talking
        self._session = session
        self._trickling: asyncio.Task[None] | None = None

    async def describe(self, kind: str, sdp: str) -> None:
        """Take what the other side is, and its candidates: those before this and those after."""
        await self.connection.setRemoteDescription(RTCSessionDescription(sdp, kind))
        self._trickling = asyncio.create_task(self._trickle(), name="talk-trickle")

    async def close(self) -> None:
        if self._trickling is not None:
            self._trickling.cancel()
            await asyncio.wait({self._trickling})
        await self.connection.close()

    async def _trickle(self) -> None:
        at = 0
        while True:
            message = await self._talking.wait_for(self._is_candidate, since=at, within_s=1e6)
            at = self._talking.seen.index(message, at) + 1
            told = message["message"]["data"]["payload"]["candidate"]
            if told.get("candidate"):
                candidate = candidate_from_sdp(told["candidate"].removeprefix("candidate:"))
                candidate.sdpMid, candidate.sdpMLineIndex = told["sdpMid"], told["sdpMLineIndex"]
                await self.connection.addIceCandidate(candidate)

    def _is_candidate(self, message: Message) -> bool:
        return is_from(message, self._session, "candidate", self.sid)


class Listening(Peer):
    """A subscription: what is heard of one speaker, mono at 48 kHz."""

    def __init__(self, talking: Conversation, session: str, sid: str) -> None:
        super().__init__(talking, session, sid)
        self.frames: list[Samples] = []
        self.connection.on("track", self._listen)
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def heard(self) -> Samples:
        return np.concatenate(self.frames) if self.frames else np.zeros(0, np.int16)

    async def wait_until_heard(self, seconds: float, within_s: float = 20.0) -> Samples:
        """That much more than was there."""
        wanted = len(self.frames) + seconds * RATE / FRAME
        await until(lambda: len(self.frames) >= wanted, within_s)
        return self.heard

    async def wait_until_silent(self, within_s: float = 10.0) -> None:
        """Until nothing has come for a while; the connection may well look alive."""
        async with asyncio.timeout(within_s):
            before = -1
            while len(self.frames) != before:
                before = len(self.frames)
                await asyncio.sleep(_SILENCE_S)

    async def close(self) -> None:
        await super().close()
        # a track of a connection that never came about does not end
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def _listen(self, track: MediaStreamTrack) -> None:
        if track.kind == "audio":
            self._tasks.append(asyncio.create_task(self._hear(track), name="talk-hear"))

    async def _hear(self, track: MediaStreamTrack) -> None:
        with contextlib.suppress(MediaStreamError):
            while True:
                frame = await track.recv()
                assert isinstance(frame, av.AudioFrame)
                both = frame.to_ndarray().reshape(-1, len(frame.layout.channels))
                self.frames.append(both[:, 0].astype(np.int16))


def is_from(message: Message, session: str, kind: str, sid: str | None = None) -> bool:
    """Whether it was sent by (or for) that session and is an offer, an answer, …"""
    if message["type"] != "message":
        return False
    told = message["message"]["data"]
    return bool(
        message["message"]["sender"].get("sessionid") == session
        and told.get("type") == kind
        and (sid is None or told.get("sid") == sid)
    )


async def subscribe(talking: Conversation, session: str, within_s: float = _ANSWER_S) -> Listening:
    """Hear a session of the room. Raises `Refused`."""
    before = len(talking.seen)
    number = await talking.tell_session(session, {"type": "requestoffer", "roomType": "video"})
    message = await talking.wait_for(
        lambda m: m.get("id") == number or is_from(m, session, "offer"),
        since=before,
        within_s=within_s,
    )
    if message["type"] == "error":
        raise Refused(message["error"]["code"])
    offer = message["message"]["data"]
    listening = Listening(talking, session, offer["sid"])
    await listening.describe("offer", offer["payload"]["sdp"])
    connection = listening.connection
    await connection.setLocalDescription(await connection.createAnswer())
    payload = {"type": "answer", "sdp": connection.localDescription.sdp, "nick": ""}
    answer = {"to": session, "sid": offer["sid"], "roomType": "video", "type": "answer"}
    await talking.tell_session(session, answer | {"payload": payload})
    return listening


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
        self.voice: MutableVoice | None = None
        self.publishing: Peer | None = None
        self._nextcloud = nextcloud
        self._resume_id = ""
        self._listening: list[Listening] = []
        self._sids = itertools.count(1)

    @property
    def transcripts(self) -> list[Transcript]:
        """What bots sent, on this socket and on those before it."""
        told = zip(self.talking.seen, self.talking.arrived, strict=True)
        return [Transcript.of(m, at) for m, at in told if _is_transcript(m)]

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

    async def publish(self, samples: Samples, *others: MediaStreamTrack) -> None:
        """Speech, and other tracks beside it. Raises `Refused`.

        An offer that Janus takes for one of the connection that was just closed is not answered, or
        never connects: as a browser does, it is made again then.
        """
        for _ in range(_PUBLISH_TRIES):
            with contextlib.suppress(TimeoutError):
                peer = await self._offer(samples, *others)
                await until(lambda: peer.connection.connectionState == "connected", 5.0)  # noqa: B023
                return
            await self.stop_publishing()
        raise AssertionError("Janus took no offer")

    async def _offer(self, samples: Samples, *others: MediaStreamTrack) -> Peer:
        assert self.publishing is None, "they publish already"
        self.voice = MutableVoice(samples)
        peer = Peer(self.talking, self.session, f"{self.session[:8]}-{next(self._sids)}")
        self.publishing = peer
        for track in (self.voice, *others):
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

    async def listen_to(self, session: str) -> Listening:
        """Who listens has to be in the call. Raises `Refused`: `not_allowed`."""
        listening = await subscribe(self.talking, session)
        self._listening.append(listening)
        return listening

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
        for listening in self._listening:
            await listening.close()
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
