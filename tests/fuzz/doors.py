"""What says who someone is: tokens, an identity provider's keys, a proxy's word."""

import asyncio
import contextlib
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_address

import jwt
from aiohttp import web
from aiohttp.test_utils import make_mocked_request
from multidict import CIMultiDict

from server.doors import Doors
from server.limits import Limits
from server.provider import _keys
from server.proxies import believe
from server.settings import AuthSettings, LimitSettings
from server.tokens import OF_A_PROVIDER, OF_THE_SECRET, read
from signaling.errors import Refused
from signaling.grant import EVERY_ROOM, Grant, Right
from signaling.messages import check_name, check_room
from signaling.origin import check_origin
from tests.fuzz.bench import bench
from tests.fuzz.target import Feed, lines

# No token of the corpus is signed by it.
SECRET = "what this fuzz signs with itself, and nothing else"
SCHEMES = ("http", "https")


@contextmanager
def tokens() -> Iterator[Feed]:
    """Tokens, one a line, none of them good. What begins with a brace are claims: those are
    signed."""
    doors = Doors(AuthSettings(secret=SECRET), is_open=False)

    async def knock(data: bytes) -> None:
        for line in lines(data):
            claims = line.startswith("{")
            token = _signed(line) if claims else line
            with contextlib.suppress(Refused):
                grant = await doors.check(token, Right.LISTEN)
                assert claims, "nobody signed it"
                _check(grant)

    with bench() as loop:
        yield lambda data: loop.run(knock(data))


def _signed(claims: str) -> str:
    token: str = jwt.api_jws.encode(claims.encode(), SECRET, OF_THE_SECRET)
    return token


def _check(grant: Grant) -> None:
    """Of the kinds that all others rely on."""
    assert grant.room == EVERY_ROOM or check_room(grant.room)
    assert grant.rights <= set(Right)
    assert grant.name is None or check_name(grant.name) == grant.name
    assert isinstance(grant.token_id, str)


def keys(data: bytes) -> None:
    """What stands where a provider's keys should. A token that each is said to have signed."""
    try:
        found = _keys(data)
    except Exception:
        return  # contained by whoever fetches
    for key in found.values():
        assert key.algorithm_name in OF_A_PROVIDER
        for algorithm in OF_A_PROVIDER:
            token = f"{_BASE64[algorithm]}.e30.AAAA"
            with contextlib.suppress(Refused):
                grant = read(token, key, (key.algorithm_name,), audience="roomscribe")
                raise AssertionError(f"nobody signed it: {grant}")


_BASE64 = {"RS256": "eyJhbGciOiJSUzI1NiJ9", "EdDSA": "eyJhbGciOiJFZERTQSJ9"}


def forwarded(data: bytes) -> None:
    """Headers, one a line, of a request that a trusted proxy passes on."""
    headers: CIMultiDict[str] = CIMultiDict()
    for line in lines(data):
        name, _, value = line.partition(":")
        # as aiohttp lets them through
        if name and name.isascii() and "\0" not in value:
            headers.add(name.strip(), value.strip())

    async def pass_on() -> None:
        await believe(["127.0.0.0/8", "2001:db8::/32"])(_request(headers), _judge)

    asyncio.run(pass_on())


def _request(headers: CIMultiDict[str]) -> web.Request:
    request = make_mocked_request("POST", "/whip/standup", headers=headers)
    return request.clone(remote="127.0.0.1", host=headers.get("Host", ""))


async def _judge(request: web.Request) -> web.Response:
    assert request.remote is not None
    ip_address(request.remote)
    Limits(LimitSettings(), lambda _limit: None).take_join(request.remote, 0.0)
    assert request.scheme in SCHEMES
    with contextlib.suppress(Refused):
        check_origin(request, frozenset())
    return web.Response()
