"""A join token from the command line, and the link that carries it.

The token stands in the link's fragment, which no browser sends and no log keeps.
"""

import argparse
import re
import time

from server.config import Settings
from server.tokens import issue
from signaling.errors import Refused
from signaling.grant import EVERY_ROOM, OPEN, Grant, Right
from signaling.messages import check_name, check_room

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_LENGTH = re.compile(r"([1-9][0-9]{0,5})([smhd])")


class CannotInvite(Exception):
    """The message is one line for an operator."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--room", required=True, help="the room, or * for every room")
    parser.add_argument("--name", help="the name that its bearer goes by; unset: any")
    parser.add_argument(
        "--for", dest="length", default="2h", metavar="2h", help="how long it lets in: 30m, 2h, 7d"
    )
    parser.add_argument(
        "--may",
        default=",".join(sorted(OPEN.rights)),
        metavar="RIGHTS",
        help="of publish, listen and admin, separated by commas (listen,publish)",
    )
    parser.add_argument("--admin", action="store_true", help="the room's owner; as --may admin")
    parser.add_argument(
        "--url", help="where people reach this server: https://captions.example.org"
    )


def invite(settings: Settings, arguments: argparse.Namespace, now: float | None = None) -> str:
    """The token and its link, a line each. Raises `CannotInvite`."""
    if not settings.auth.secret:
        raise CannotInvite("AUTH__SECRET is not set: there is nothing to sign a token with")
    length = _LENGTH.fullmatch(arguments.length)
    if length is None:
        raise CannotInvite("--for is a length such as 30m, 2h or 7d")
    expires_at = (now or time.time()) + int(length[1]) * _UNITS[length[2]]
    token = issue(settings.auth.secret, _grant(arguments), expires_at)
    if arguments.room == EVERY_ROOM:
        return f"{token}\n{_address(settings, arguments.url)}/#token={token}"
    return f"{token}\n{_address(settings, arguments.url)}/r/{arguments.room}#token={token}"


def _grant(arguments: argparse.Namespace) -> Grant:
    try:
        room = arguments.room if arguments.room == EVERY_ROOM else check_room(arguments.room)
        name = None if arguments.name is None else check_name(arguments.name)
    except Refused as error:
        raise CannotInvite(error.message) from None
    may = "admin" if arguments.admin else arguments.may
    try:
        rights = frozenset(Right(right.strip()) for right in may.split(","))
    except ValueError:
        raise CannotInvite("--may is of publish, listen and admin") from None
    return Grant(room, rights, name)


def _address(settings: Settings, url: str | None) -> str:
    if url is not None:
        return url.rstrip("/")
    host, scheme = settings.server.host, "https" if settings.server.tls else "http"
    host = f"[{host}]" if ":" in host else host
    return f"{scheme}://{host}:{settings.server.port}"
