"""The WebSocket shell around `Session`: one socket, one session, nothing decided here."""

import asyncio
import time
from collections.abc import AsyncIterator

from aiohttp import WebSocketError, WSCloseCode, WSMsgType, web

from signaling import messages, session
from signaling.errors import Refused
from signaling.messages import Answer, ServerMessage, check_sdp
from signaling.origin import check_origin
from signaling.seat import JoinRequest, Lobby, Seat

# aiohttp pings after so long without a word and waits half as long for the answer. So a
# socket that is found dead has been silent for 2.3 to 6.9 s: who vanishes keeps the seat for
# 30 s from then at the least, and is gone within 35.
_HEARTBEAT_S = 4.6
# A page sends all its candidates at once.
_AT_ONCE_S = 2.0


class _Closed(Exception):
    """Ends the shell's tasks."""


async def serve_socket(request: web.Request, lobby: Lobby) -> web.WebSocketResponse:
    """Serve `GET …/ws`. Raises `Refused` before the upgrade if the room's name is bad."""
    room = messages.check_room(request.match_info["room"])
    check_origin(request, lobby.bounds.origins)
    # aiohttp refuses a message of its limit already, and would answer pings at any pace
    socket = web.WebSocketResponse(
        heartbeat=_HEARTBEAT_S,
        max_msg_size=lobby.bounds.message_bytes + 1,
        timeout=2.0,
        autoping=False,
    )
    await socket.prepare(request)
    shell = _Shell(socket, room, request.remote or "", lobby)
    try:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(shell.read(), name="ws-read")
            tasks.create_task(shell.tick(), name="ws-tick")
            tasks.create_task(shell.write(), name="ws-write")
    except* _Closed:
        pass
    finally:
        shell.lost()
    await socket.close()
    return socket


class _Shell:
    def __init__(
        self, socket: web.WebSocketResponse, room: str, address: str, lobby: Lobby
    ) -> None:
        self._socket = socket
        self._room = room
        self._address = address
        self._lobby = lobby
        self._bounds = lobby.bounds
        self._session = session.Session(time.monotonic())
        self._seat: Seat | None = None
        self._outgoing: AsyncIterator[str] | None = None
        self._joined = asyncio.Event()
        self._credit = self._bounds.messages_per_s * _AT_ONCE_S
        self._credited_at = time.monotonic()

    async def read(self) -> None:
        async for message in self._socket:
            await self._slow_down()
            if message.type is WSMsgType.TEXT:
                await self._carry_out(self._session.receive(message.data))
            elif message.type is WSMsgType.BINARY:
                await self._carry_out(self._session.receive_binary())
            elif message.type is WSMsgType.PING:
                await self._pong(message.data)
            elif message.type is WSMsgType.ERROR:
                self._note_end(message.data)
        raise _Closed

    async def _pong(self, payload: bytes) -> None:
        try:
            await self._socket.pong(payload)
        except ConnectionError:
            raise _Closed from None

    def _note_end(self, error: object) -> None:
        if isinstance(error, WebSocketError) and error.code == WSCloseCode.MESSAGE_TOO_BIG:
            self._lobby.note_limit("message_bytes")

    async def _slow_down(self) -> None:
        """Messages that are buffered come without a turn of the loop between them: a client
        that floods would keep everyone else from theirs."""
        now = time.monotonic()
        per_s = self._bounds.messages_per_s
        self._credit = min(per_s * _AT_ONCE_S, self._credit + (now - self._credited_at) * per_s) - 1
        self._credited_at = now
        if self._credit < 0:
            if self._credit > -2:  # once for a flood, not for each of its messages
                self._lobby.note_limit("messages_per_s")
            await asyncio.sleep(-self._credit / per_s)

    async def tick(self) -> None:
        while True:
            await asyncio.sleep(max(0.0, self._session.next_deadline() - time.monotonic()))
            await self._carry_out(self._session.expire(time.monotonic()))

    async def write(self) -> None:
        await self._joined.wait()
        assert self._outgoing is not None
        async for text in self._outgoing:
            await self._send(text)
        await self._socket.close()
        raise _Closed

    def lost(self) -> None:
        if self._seat is not None and self._outgoing is not None:
            found_dead = isinstance(self._socket.exception(), TimeoutError)
            self._seat.socket_lost(self._outgoing, _HEARTBEAT_S / 2 if found_dead else 0.0)

    async def _carry_out(self, decisions: list[session.Decision]) -> None:
        for decision in decisions:
            try:
                await self._do(decision)
            except Refused as error:
                self._tell(messages.error_of(error))

    async def _do(self, decision: session.Decision) -> None:
        seat = self._seat
        if seat is not None and self._outgoing is not None and not seat.is_read_by(self._outgoing):
            seat = None  # another socket has taken the participant's place
        match decision:
            case session.Join(hello):
                await self._join(hello)
            case session.Send(message):
                if seat is None:
                    await self._send(messages.encode(message))
                else:
                    self._tell(message)
            case session.Close(code, reason):
                await self._socket.close(code=code, message=reason.encode())
                raise _Closed
            case session.AnswerOffer(sdp) if seat is not None:
                check_sdp(sdp, self._bounds, self._lobby.note_limit)
                self._tell(Answer(sdp=await seat.answer(sdp)))
            case session.AddCandidate(candidate, sdp_mid) if seat is not None:
                await seat.add_candidate(candidate, sdp_mid)
            case session.SetLanguage(language) if seat is not None:
                seat.set_language(language)
            case session.SetMuted(muted) if seat is not None:
                seat.set_muted(muted)
            case session.Leave(reason) if seat is not None:
                seat.leave(reason)

    async def _join(self, hello: messages.Hello) -> None:
        try:
            request = JoinRequest(
                self._room,
                messages.check_name(hello.name),
                hello.language,
                hello.resume,
                hello.last_seq,
                token=hello.token,
                address=self._address,
            )
            self._seat = await self._lobby.join(request)
        except Refused as error:
            await self._carry_out(self._session.refused(messages.error_of(error)))
            return
        self._outgoing = self._seat.outgoing()
        await self._carry_out(self._session.joined())
        self._joined.set()

    def _tell(self, message: ServerMessage) -> None:
        seat = self._seat
        if seat is not None and self._outgoing is not None and seat.is_read_by(self._outgoing):
            seat.send(message)

    async def _send(self, text: str) -> None:
        try:
            await self._socket.send_str(text)
        except ConnectionError:
            raise _Closed from None
