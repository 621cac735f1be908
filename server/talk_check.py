"""`python -m server talk-check`: whether the bot could join calls, step by step, with hints."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from random import SystemRandom

import aiohttp

from server.settings import TalkSettings
from server.talk import socket_of
from signaling import hpb

_WITHIN_S = 10.0

_HINTS = {
    "invalid_token": "LT_INTERNAL_SECRET is not the server's: see `internalsecret` under "
    "[clients] of its configuration",
    "auth_failed": "LT_INTERNAL_SECRET is not the server's: see `internalsecret` under [clients]",
    "invalid_backend": "NEXTCLOUD_URL is none of the server's backends: it must be as in its "
    "configuration, under [backend]",
    "no_such_room": "there is no conversation with this token on NEXTCLOUD_URL",
    "too_many_requests": "too many failed attempts from this address: wait some minutes",
    "invalid_client_type": "the server takes no internal clients: set `internalsecret` under "
    "[clients]",
}


class CheckFailed(Exception):
    """The message is the hint."""


@dataclass(slots=True)
class _Conversation:
    socket: aiohttp.ClientWebSocketResponse
    call: hpb.HpbCall
    joins: bool  # else it stays outside of every room

    async def until(self, state: hpb.State) -> None:
        """Raises `CheckFailed`."""
        await self._carry_out(self.call.tick(time.monotonic()))
        while self.call.state is not state:
            message = await self.socket.receive(_WITHIN_S)
            if message.type is not aiohttp.WSMsgType.TEXT:
                raise CheckFailed("the server closed the socket: its log may say why")
            await self._carry_out(self.call.received(message.data, time.monotonic()))

    async def _carry_out(self, decisions: list[hpb.Decision]) -> None:
        for decision in decisions:
            match decision:
                case hpb.Send(text) if self.joins or '"type": "room"' not in text:
                    await self.socket.send_str(text)
                case hpb.Ended(code, message):
                    raise CheckFailed(_HINTS.get(code, message))
                case hpb.CloseSocket():
                    raise CheckFailed("the server does not answer as it should")


async def check(settings: TalkSettings, room: str | None, say: Callable[[str], None]) -> bool:
    """Say what works; False at the first that does not. Without a room the last step is left
    out."""
    try:
        await _check(settings, room, say)
    except CheckFailed as failed:
        say(f"  no: {failed}")
        return False
    return True


async def _check(settings: TalkSettings, room: str | None, say: Callable[[str], None]) -> None:
    say("settings")
    for name in ("lt_hpb_url", "lt_internal_secret", "nextcloud_url"):
        if not getattr(settings, name):
            raise CheckFailed(f"{name.upper()} is not set")
    say("  ok")

    url = socket_of(settings.lt_hpb_url)
    say(f"the signaling server at {url}")
    async with aiohttp.ClientSession() as http:
        socket = await _connect(http, url, verify=not settings.skip_cert_verify)
        say("  ok")
        try:
            async with asyncio.timeout(_WITHIN_S):
                await _converse(socket, settings, room, say)
        except TimeoutError:
            raise CheckFailed(f"no answer within {_WITHIN_S:.0f} s") from None
        except (aiohttp.ClientError, OSError):
            raise CheckFailed("the server closed the socket: its log may say why") from None
        finally:
            await socket.close()


async def _connect(
    http: aiohttp.ClientSession, url: str, *, verify: bool
) -> aiohttp.ClientWebSocketResponse:
    try:
        async with asyncio.timeout(_WITHIN_S):
            return await http.ws_connect(url, ssl=verify)
    except aiohttp.ClientConnectorCertificateError:
        raise CheckFailed(
            "its certificate is not trusted here; SKIP_CERT_VERIFY=true takes any"
        ) from None
    except aiohttp.WSServerHandshakeError as error:
        raise CheckFailed(
            f"it answers {error.status}: LT_HPB_URL is not a signaling server's address"
        ) from None
    except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
        raise CheckFailed(
            f"it cannot be reached ({type(error).__name__}): is LT_HPB_URL right, and is it open "
            "from this machine?"
        ) from None


async def _converse(
    socket: aiohttp.ClientWebSocketResponse,
    settings: TalkSettings,
    room: str | None,
    say: Callable[[str], None],
) -> None:
    call = hpb.HpbCall(
        room or "talk-check",
        settings.lt_internal_secret,
        settings.nextcloud_url.rstrip("/"),
        SystemRandom(),
    )
    conversation = _Conversation(socket, call, joins=room is not None)
    say("hello with the secret")
    for decision in call.connected(time.monotonic()):
        if isinstance(decision, hpb.Send):
            await socket.send_str(decision.text)
    await conversation.until(hpb.State.JOINING)
    say("  ok")
    if room is None:
        say("a room\n  not tried: name one with --room TOKEN")
        return
    say(f"the conversation {room}")
    await conversation.until(hpb.State.IN_CALL)
    say("  ok")
    for decision in call.leave():
        if isinstance(decision, hpb.Send):
            await socket.send_str(decision.text)
