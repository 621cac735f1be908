"""What the owner of a room may do to it, over HTTP; each act leaves a line in the log.

A room belongs to whoever has a token that says `admin`. Where the doors are open nobody does.
"""

import logging

from aiohttp import web

from server.lobby import Lobby
from server.participant import Participant, is_of_call
from server.requests import json_body
from server.room import Room
from signaling.bearer import bearer
from signaling.errors import Refused
from signaling.grant import Grant, Right
from signaling.messages import check_room

log = logging.getLogger("roomscribe.audit")


class Owner:
    def __init__(self, lobby: Lobby) -> None:
        self._lobby = lobby

    def routes(self) -> list[web.RouteDef]:
        room = "/api/v1/rooms/{room}"
        participant = f"{room}/participants/{{participant}}"
        return [
            web.post(f"{room}/lock", self.lock),
            web.delete(room, self.end),
            web.post(f"{participant}/mute", self.mute),
            web.delete(participant, self.remove),
        ]

    async def lock(self, request: web.Request) -> web.Response:
        """Nobody new comes in, or again anyone who may."""
        room, grant = await self._room(request)
        room.rules.is_locked = locked = await _asked(request, "locked")
        _note("lock" if locked else "unlock", room, grant)
        return web.json_response({"room": room.name, "locked": locked})

    async def end(self, request: web.Request) -> web.Response:
        room, grant = await self._room(request)
        _refuse_call(room)
        self._lobby.end_room(room)
        _note("end", room, grant)
        return web.json_response({"room": room.name, "status": "ended"})

    async def mute(self, request: web.Request) -> web.Response:
        """Muted by the owner, one cannot unmute oneself."""
        room, grant = await self._room(request)
        participant = _participant(request, room)
        room.silence(participant, await _asked(request, "muted"))
        _note("mute" if participant.muted_by_owner else "unmute", room, grant, participant)
        return web.json_response(participant.roster_entry.model_dump())

    async def remove(self, request: web.Request) -> web.Response:
        """Who is removed does not come back with the same token."""
        room, grant = await self._room(request)
        _refuse_call(room)
        participant = _participant(request, room)
        room.remove(participant)
        _note("remove", room, grant, participant)
        return web.json_response({"participant": participant.participant, "status": "removed"})

    async def _room(self, request: web.Request) -> tuple[Room, Grant]:
        """Raises `Refused`."""
        name = check_room(request.match_info["room"])
        grant = await self._lobby.house.doors.check(bearer(request), Right.ADMIN, name)
        room = self._lobby.rooms.get(name)
        if room is None or room.is_ended:
            raise Refused("no_such_room", "there is no such room", status=404)
        return room, grant


def _participant(request: web.Request, room: Room) -> Participant:
    participant = room.participants.get(request.match_info["participant"])
    if participant is None:
        raise Refused("no_such_participant", "there is no such participant", status=404)
    return participant


def _refuse_call(room: Room) -> None:
    if is_of_call(room.name):
        raise Refused(
            "read_only", "who is in a call of Nextcloud Talk is managed there", status=409
        )


async def _asked(request: web.Request, name: str) -> bool:
    """What the body asks for; without one, that it be so."""
    if not request.body_exists:
        return True
    wanted = (await json_body(request)).get(name, True)
    if not isinstance(wanted, bool):
        raise Refused("bad_request", f"{name} is true or false")
    return wanted


def _note(action: str, room: Room, grant: Grant, participant: Participant | None = None) -> None:
    who = {} if participant is None else {"participant": participant.participant}
    log.info(
        "owner action",
        extra={"action": action, "room": room.name, "token": grant.token_id, **who},
    )
