"""`TalkBot`: one call of Nextcloud Talk; the shell around `signaling.hpb`.

One socket to the signaling server, one participant of an ordinary room for each who speaks, and
captions back to the sessions that asked for them. One task per speaker takes offers and candidates
in their order; what goes wrong in it stays with that speaker.
"""

import asyncio
import contextlib
import logging
import time
from dataclasses import dataclass, field
from random import SystemRandom
from typing import Any

import aiohttp

from media.feed import Feed, FeedEnded
from media.peer import IceServer
from server.lobby import Lobby
from server.participant import Participant, room_of_call
from server.room import Room
from server.settings import is_ice_url
from server.talk_captions import Captioner
from signaling import hpb
from signaling.errors import Refused
from signaling.grant import OPEN
from signaling.messages import check_name
from signaling.seat import JoinRequest

_TICK_S = 0.25
_CONNECT_WITHIN_S = 10.0
_CLOSE_WITHIN_S = 3.0
_PING_EVERY_S = 10.0
# Beyond that the server does not read: the socket is opened anew. What waited while there was
# none goes out at once, for each who reads.
_OUTGOING = 5_000
_MAX_MESSAGE_BYTES = 64 * 1024
_OFFERS = 100
# A connection that carries nothing for so long is asked for again, then ever more seldom: whoever
# is muted sends nothing either.
_SILENT_S, _MOST_SILENT_S = 3.0, 60.0
_NO_TARGET_S = 60.0
_SETTINGS_PATH = "/ocs/v2.php/apps/spreed/api/v3/signaling/settings"
_SETTINGS_WITHIN_S = 5.0


log = logging.getLogger("roomscribe.talk")


@dataclass(frozen=True, slots=True)
class Backend:
    """Where the call is."""

    url: str  # of the signaling server's socket
    secret: str
    nextcloud: str
    verify: bool = True
    headers: dict[str, str] = field(default_factory=dict)  # by which Nextcloud knows the app


@dataclass(slots=True)
class _Voice:
    """One who speaks in the call."""

    session: str
    told: Feed[hpb.Answer | hpb.AddCandidate] = field(default_factory=lambda: Feed(_OFFERS))
    task: asyncio.Task[None] | None = None
    participant: Participant | None = None
    sid: str = ""
    answered_at: float = 0.0
    silent_s: float = _SILENT_S


class TalkBot:
    """`run` it in a task; it ends after `leave`, or when the call does."""

    def __init__(
        self, token: str, backend: Backend, lobby: Lobby, http: aiohttp.ClientSession, language: str
    ) -> None:
        self.token = token
        self.language = language
        self.reason: hpb.Ended | None = None
        self.reconnects = 0
        self._backend = backend
        self._lobby = lobby
        self._http = http
        self._call = hpb.HpbCall(token, backend.secret, backend.nextcloud, SystemRandom())
        self._socket: aiohttp.ClientWebSocketResponse | None = None
        # a number is to come back: the server has read what was sent before it
        self._outgoing: asyncio.Queue[str | int] = asyncio.Queue(_OUTGOING)
        self._connect_in_s = 0.0
        self._voices: dict[str, _Voice] = {}
        self._tasks: asyncio.TaskGroup | None = None
        self._started = asyncio.Event()
        self._ended = asyncio.Event()
        self._no_target_since: float | None = time.monotonic()
        self._captioner = Captioner(self._send_caption)
        self._room: Room | None = None
        self._ice_servers: tuple[IceServer, ...] = ()
        self._knows_ice = asyncio.Event()

    @property
    def room_name(self) -> str:
        return room_of_call(self.token)

    @property
    def session(self) -> str:
        """Of the bot, at the signaling server; empty while it has none."""
        return self._call.session

    @property
    def speakers(self) -> int:
        return len(self._voices)

    @property
    def is_over(self) -> bool:
        return self._ended.is_set()

    async def started(self, within_s: float) -> bool:
        """Whether the bot is in the call, or was before it ended; False after the time."""
        waits = [asyncio.create_task(e.wait()) for e in (self._started, self._ended)]
        try:
            await asyncio.wait(waits, timeout=within_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
        return self._started.is_set()

    def add_target(self, nextcloud_session: str) -> None:
        """Captions go to this listener, too."""
        self._captioner.add(nextcloud_session)
        self._no_target_since = None  # they may not have been seen yet: their time begins now

    def remove_target(self, nextcloud_session: str) -> None:
        self._captioner.remove(nextcloud_session)

    def set_language(self, language: str) -> None:
        """For what is said from now on. Raises `Refused`."""
        for voice in self._voices.values():
            if voice.participant is not None:
                voice.participant.set_language(language)
        self.language = language

    def leave(self) -> None:
        """Go; `run` ends."""
        self._carry_out(self._call.leave())

    async def run(self) -> None:
        """Be in the call until it ends."""
        try:
            async with asyncio.TaskGroup() as tasks:
                self._tasks = tasks
                running = [
                    tasks.create_task(self._take_ice_servers(), name=f"talk-ice-{self.token}"),
                    tasks.create_task(self._stay_connected(), name=f"talk-{self.token}"),
                    tasks.create_task(self._tick_forever(), name=f"talk-tick-{self.token}"),
                ]
                await self._ended.wait()
                self._end_voices()
                await self._say_last()
                for task in running:
                    task.cancel()
        finally:
            self._ended.set()
            self._end_voices()
            self._captioner.close()
            if self._room is not None:
                self._room.unwatch(self._captioner.take)

    async def _take_ice_servers(self) -> None:
        self._ice_servers = await self._find_ice_servers()
        self._knows_ice.set()

    async def _find_ice_servers(self) -> tuple[IceServer, ...]:
        """STUN and TURN as Nextcloud's settings say; none where it does not: then ours hold."""
        try:
            async with (
                asyncio.timeout(_SETTINGS_WITHIN_S),
                self._http.get(
                    f"{self._backend.nextcloud}{_SETTINGS_PATH}",
                    params={"token": self.token, "format": "json"},
                    headers={"OCS-APIRequest": "true", **self._backend.headers},
                    ssl=self._backend.verify,
                ) as answer,
            ):
                told = (await answer.json())["ocs"]["data"]
                return ice_servers_of(told)
        except Exception as error:
            # no answer, another one than asked for, or an address that is none
            log.info(
                "Nextcloud names no STUN or TURN servers",
                extra={"call": self.token, "error": type(error).__name__},
            )
            return ()

    # The socket

    async def _stay_connected(self) -> None:
        while not self._ended.is_set():
            await asyncio.sleep(self._connect_in_s)
            try:
                async with asyncio.timeout(_CONNECT_WITHIN_S):
                    socket = await self._http.ws_connect(
                        self._backend.url,
                        ssl=self._backend.verify,
                        max_msg_size=_MAX_MESSAGE_BYTES * 4,
                        heartbeat=_PING_EVERY_S,
                        autoping=False,
                    )
            except (aiohttp.ClientError, OSError, TimeoutError) as error:
                log.warning(
                    "the signaling server does not answer",
                    extra={"call": self.token, "error": type(error).__name__},
                )
            else:
                await self._converse(socket)
            self.reconnects += 1
            self._carry_out(self._call.disconnected(time.monotonic()))

    async def _converse(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._outgoing = asyncio.Queue(_OUTGOING)
        writer = asyncio.create_task(self._write(socket, self._outgoing), name="talk-writer")
        try:
            self._carry_out(self._call.connected(time.monotonic()))
            async for message in socket:
                match message.type:
                    case aiohttp.WSMsgType.TEXT:
                        self._carry_out(self._call.received(message.data, time.monotonic()))
                    case aiohttp.WSMsgType.PING:
                        await socket.pong(message.data)
                    case aiohttp.WSMsgType.PONG:
                        if message.data.isdigit():  # else it is of the heartbeat
                            self._captioner.read(int(message.data))
                    case _:
                        break
        except (aiohttp.ClientError, OSError):
            pass  # as if it had been closed
        finally:
            self._socket = None
            self._captioner.hold()
            writer.cancel()
            await asyncio.wait({writer})
            with contextlib.suppress(aiohttp.ClientError, OSError, TimeoutError):
                async with asyncio.timeout(_CLOSE_WITHIN_S):
                    await socket.close()

    async def _write(
        self, socket: aiohttp.ClientWebSocketResponse, outgoing: asyncio.Queue[str | int]
    ) -> None:
        with contextlib.suppress(aiohttp.ClientError, OSError):
            while True:
                match await outgoing.get():
                    case str(text):
                        await socket.send_str(text)
                    case number:
                        await socket.ping(str(number).encode())
                outgoing.task_done()

    async def _say_last(self) -> None:
        """Let the bye out."""
        if self._socket is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1.0):
                    await self._outgoing.join()

    def _close_socket(self) -> None:
        socket = self._socket
        if socket is not None and self._tasks is not None:
            self._tasks.create_task(self._close(socket), name="talk-close")

    async def _close(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        with contextlib.suppress(aiohttp.ClientError, OSError, TimeoutError):
            async with asyncio.timeout(_CLOSE_WITHIN_S):
                await socket.close()

    # Decisions

    def _carry_out(self, decisions: list[hpb.Decision]) -> None:
        for decision in decisions:
            match decision:
                case hpb.Send(text):
                    self._send(text)
                case hpb.Connect(after_s):
                    self._connect_in_s = after_s
                case hpb.CloseSocket():
                    self._close_socket()
                case hpb.InCall():
                    self._started.set()
                    self._captioner.go_on()
                    log.info("in the call", extra={"call": self.token})
                case hpb.Resumed():
                    self._captioner.go_on()
                    log.info("in the call as before", extra={"call": self.token})
                case hpb.Forgotten():
                    self._captioner.forget_sessions()
                case hpb.Answer(speaker=speaker) | hpb.AddCandidate(speaker=speaker):
                    self._voice(speaker).told.put(decision)
                case hpb.Drop(speaker):
                    if (voice := self._voices.pop(speaker, None)) is not None:
                        self._end_voice(voice)
                case hpb.Seen(nextcloud, session):
                    self._captioner.seen(nextcloud, session)
                case hpb.Gone(session):
                    self._captioner.gone(session)
                case hpb.Ended():
                    self.reason = decision
                    self._ended.set()
                    log.info(
                        "the call is over for the bot",
                        extra={"call": self.token, "reason": decision.code},
                    )

    def _send(self, told: str | int) -> None:
        if self._socket is None:
            return
        try:
            self._outgoing.put_nowait(told)
        except asyncio.QueueFull:
            log.warning("the signaling server does not read", extra={"call": self.token})
            self._close_socket()

    def _send_caption(self, to: str, message: dict[str, object], number: int | None) -> None:
        if self.is_over:
            return
        self._carry_out([self._call.transcript(to, message)])
        if number is not None:
            self._send(number)

    async def _tick_forever(self) -> None:
        while True:
            await asyncio.sleep(_TICK_S)
            now = time.monotonic()
            self._carry_out(self._call.tick(now))
            self._listen_for_silence(now)
            self._note_targets(now)
            since = self._no_target_since
            if since is not None and now - since >= _NO_TARGET_S:
                self._carry_out(self._call.leave())

    def _note_targets(self, now: float) -> None:
        if self._captioner.has_targets:
            self._no_target_since = None
        elif self._no_target_since is None:
            self._no_target_since = now

    # Speakers

    def _voice(self, session: str) -> _Voice:
        voice = self._voices.get(session)
        if voice is None:
            assert self._tasks is not None
            voice = self._voices[session] = _Voice(session)
            voice.task = self._tasks.create_task(self._attend(voice), name=f"talk-{session[:8]}")
        return voice

    async def _attend(self, voice: _Voice) -> None:
        """Take what is told of one speaker, in its order."""
        with contextlib.suppress(FeedEnded):
            while not voice.told.is_ended:
                told = await voice.told.get()
                try:
                    match told:
                        case hpb.Answer():
                            await self._answer(voice, told)
                        case hpb.AddCandidate():
                            await self._add_candidate(voice, told)
                except Refused as error:
                    log.warning(
                        "a speaker in a call cannot be heard",
                        extra={"call": self.token, "reason": f"{error.code}: {error}"},
                    )
                    self._ask_again(voice)
                except Exception:
                    # The containment of one speaker: the call goes on, and they are asked again.
                    log.exception("a speaker in a call failed", extra={"call": self.token})
                    self._ask_again(voice)

    async def _answer(self, voice: _Voice, offer: hpb.Answer) -> None:
        voice.sid = offer.sid
        if voice.participant is None or voice.participant.has_left:
            voice.participant = await self._join(voice.session)
        answer = await voice.participant.answer(offer.sdp)
        voice.answered_at = time.monotonic()
        self._carry_out(self._call.answered(voice.session, offer.sid, answer))

    async def _join(self, session: str) -> Participant:
        """A place in the call's room."""
        told = self._call.names.get(session, "").strip()[:64]
        try:
            name = check_name(told or "Guest")
        except Refused:
            name = "Guest"
        participant = await self._lobby.join(
            JoinRequest(
                self.room_name,
                name,
                self.language,
                has_socket=False,
                outlives_peer=True,
                grant=OPEN,
            )
        )
        await self._knows_ice.wait()
        participant.ice_servers = self._ice_servers
        self._watch(participant)
        self._captioner.speaker(participant.participant, session)
        return participant

    def _watch(self, participant: Participant) -> None:
        """Read the captions of the room that the participant is in; it may be a new one."""
        room = participant.room
        if room is not self._room:
            if self._room is not None:
                self._room.unwatch(self._captioner.take)
            self._room = room
            room.watch(self._captioner.take)

    async def _add_candidate(self, voice: _Voice, told: hpb.AddCandidate) -> None:
        if voice.participant is not None and told.sid == voice.sid:
            with contextlib.suppress(Refused):  # one of many; others do
                await voice.participant.add_candidate(told.candidate, told.sdp_mid)

    def _ask_again(self, voice: _Voice) -> None:
        self._carry_out(self._call.lost(voice.session, voice.sid, time.monotonic()))

    def _listen_for_silence(self, now: float) -> None:
        """Nothing tells of a connection that died: neither Janus nor the server says so."""
        for voice in self._voices.values():
            participant = voice.participant
            if participant is None or not voice.answered_at:
                continue
            peer = participant.peer
            if peer is None or peer.state in ("failed", "closed"):
                voice.answered_at = 0.0  # until the next answer
                self._ask_again(voice)
                continue
            heard_at = max(voice.answered_at, peer.received_at)
            if peer.received_at > voice.answered_at and now - peer.received_at < _SILENT_S:
                voice.silent_s = _SILENT_S
            elif now - heard_at >= voice.silent_s:
                voice.silent_s = min(_MOST_SILENT_S, 2 * voice.silent_s)
                voice.answered_at = now
                self._ask_again(voice)

    def _end_voices(self) -> None:
        for voice in list(self._voices.values()):
            self._voices.pop(voice.session, None)
            self._end_voice(voice)

    def _end_voice(self, voice: _Voice) -> None:
        voice.told.end()
        if voice.task is not None:
            voice.task.cancel()  # to answer an offer may take long
        if voice.participant is not None:
            voice.participant.leave("left")


def ice_servers_of(told: dict[str, Any]) -> tuple[IceServer, ...]:
    """Of Talk's signaling settings; one that aiortc would not take is left out."""
    found = []
    for server in (*(told.get("stunservers") or ()), *(told.get("turnservers") or ())):
        urls = tuple(url for url in server.get("urls") or () if is_ice_url(url))
        if urls:
            found.append(IceServer(urls, server.get("username"), server.get("credential")))
    return tuple(found)
