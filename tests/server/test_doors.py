"""Who is let in, by the secret and by an identity provider's keys."""

import asyncio
import base64
import hmac
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import jwt
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from server import provider
from server.config import Settings
from server.doors import Doors, doors_of, fault_of
from server.settings import AuthSettings, ServerSettings
from server.tokens import issue
from signaling.errors import Refused
from signaling.grant import OPEN, Grant, Right

SECRET = "a secret of thirty-two characters"
RSA = rsa.generate_private_key(65537, 2048)
ED = ed25519.Ed25519PrivateKey.generate()


def token(may: Right = Right.LISTEN, room: str = "standup") -> str:
    return issue(SECRET, Grant(room, frozenset({may})), time.time() + 3600)


async def refusal(
    doors: Doors, given: str | None, needs: Right, room: str | None
) -> tuple[str, int]:
    with pytest.raises(Refused) as refused:
        await doors.check(given, needs, room)
    return refused.value.code, refused.value.status


def settings(host: str = "127.0.0.1", **auth: object) -> Settings:
    return Settings(server=ServerSettings(host=host), auth=AuthSettings(**auth))


async def test_open_doors_let_speak_and_read_and_own_nothing() -> None:
    doors = doors_of(settings())
    assert await doors.check(None, Right.PUBLISH, "standup") == OPEN
    assert await doors.check("of another server", Right.LISTEN, "standup") == OPEN
    assert await refusal(doors, None, Right.ADMIN, "standup") == ("not_allowed", 403)


async def test_who_opens_to_everyone_may_still_own_a_room() -> None:
    doors = doors_of(settings("192.0.2.1", secret=SECRET, open_to_everyone=True))
    assert await doors.check(None, Right.PUBLISH, "standup") == OPEN
    assert (await doors.check(token(Right.ADMIN), Right.ADMIN, "standup")).room == "standup"
    assert await refusal(doors, "none", Right.LISTEN, "standup") == ("bad_token", 401)


@pytest.mark.parametrize(
    ("given", "needs", "room", "why"),
    [
        (None, Right.LISTEN, "standup", ("unauthorized", 401)),
        ("", Right.LISTEN, "standup", ("unauthorized", 401)),
        ("x.y.z", Right.LISTEN, "standup", ("bad_token", 401)),
        (token(), Right.LISTEN, "other", ("wrong_room", 403)),
        (token(), Right.PUBLISH, "standup", ("not_allowed", 403)),
        (token(Right.PUBLISH), Right.LISTEN, "standup", ("not_allowed", 403)),
        (token(Right.PUBLISH), Right.ADMIN, "standup", ("not_allowed", 403)),
    ],
)
async def test_each_door_is_shut_to_whom_it_is_not_for(
    given: str | None, needs: Right, room: str, why: tuple[str, int]
) -> None:
    assert await refusal(doors_of(settings(secret=SECRET)), given, needs, room) == why


async def test_a_token_opens_its_door() -> None:
    doors = doors_of(settings(secret=SECRET))
    assert (await doors.check(token(), Right.LISTEN, "standup")).room == "standup"
    assert (await doors.check(token(room="*"), Right.LISTEN, "other")).room == "*"
    owner = await doors.check(token(Right.ADMIN), Right.PUBLISH, "standup")
    assert owner.allows(Right.LISTEN)


def test_an_address_that_others_reach_wants_a_door() -> None:
    assert "AUTH__SECRET" in (fault_of(settings("0.0.0.0")) or "")
    for fine in (
        settings(),
        settings("::1"),
        settings("0.0.0.0", secret=SECRET),
        settings("0.0.0.0", jwks_url="https://id/keys"),
        settings("0.0.0.0", open_to_everyone=True),
    ):
        assert fault_of(fine) is None


async def test_nextclouds_secret_alone_opens_no_room() -> None:
    app = Settings(server=ServerSettings(host="0.0.0.0"), app_secret="s")
    assert fault_of(app) is None
    doors = doors_of(app)
    assert not doors.is_open
    assert await refusal(doors, None, Right.LISTEN, "standup") == ("unauthorized", 401)


# An identity provider


@dataclass
class Keys:
    """What the provider answers."""

    entries: list[dict[str, object]] = field(default_factory=list)
    status: int = 200
    asked: int = 0
    body: bytes | None = None

    async def answer(self, _request: web.Request) -> web.Response:
        self.asked += 1
        body = self.body if self.body is not None else json.dumps({"keys": self.entries}).encode()
        return web.Response(body=body, status=self.status)


def public(key: Any, **more: object) -> dict[str, object]:
    algorithm: Any
    if isinstance(key, rsa.RSAPrivateKey):
        algorithm = RSAAlgorithm
    elif isinstance(key, ed25519.Ed25519PrivateKey):
        algorithm = OKPAlgorithm
    else:
        algorithm = ECAlgorithm
    told: dict[str, object] = json.loads(algorithm.to_jwk(key.public_key()))
    return {**told, **more}


def signed(key: Any, algorithm: str, name: str | None, **claims: object) -> str:
    told = {"room": "standup", "aud": "roomscribe", "exp": time.time() + 3600, **claims}
    headers = {} if name is None else {"kid": name}
    return jwt.encode(told, key, algorithm, headers=headers)


@asynccontextmanager
async def provided(keys: Keys, **auth: str) -> AsyncIterator[Doors]:
    app = web.Application()
    app.router.add_get("/keys", keys.answer)
    async with TestServer(app) as server, asyncio.TaskGroup() as tasks:
        url = f"http://127.0.0.1:{server.port}/keys"
        doors = doors_of(settings(jwks_url=url, **auth))
        running = tasks.create_task(doors.run())
        yield doors
        running.cancel()


async def test_a_provider_of_either_kind_lets_in() -> None:
    keys = Keys([public(RSA, kid="r"), public(ED, kid="e")])
    async with provided(keys) as doors:
        for key, algorithm, name in ((RSA, "RS256", "r"), (ED, "EdDSA", "e")):
            grant = await doors.check(signed(key, algorithm, name), Right.PUBLISH, "standup")
            assert grant.room == "standup"
        assert keys.asked == 1


@pytest.mark.parametrize(
    "given",
    [
        signed(rsa.generate_private_key(65537, 2048), "RS256", "r"),
        signed(RSA, "RS256", "e"),
        signed(RSA, "RS512", "r"),
        signed(RSA, "RS256", "r", aud="mail"),
        signed(RSA, "RS256", "r", exp=1),
        jwt.encode({"room": "*", "exp": time.time() + 3600}, "x" * 32, "HS256"),
    ],
    ids=["another key", "a key of another kind", "digest", "audience", "expired", "secret"],
)
async def test_what_the_provider_did_not_sign_for_us_is_refused(given: str) -> None:
    async with provided(Keys([public(RSA, kid="r"), public(ED, kid="e")])) as doors:
        code, status = await refusal(doors, given, Right.LISTEN, "standup")
        assert (code in ("bad_token", "token_expired"), status) == (True, 401)


async def test_a_public_key_is_not_taken_for_a_secret() -> None:
    pem = RSA.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    header = {"alg": "HS256", "typ": "JWT", "kid": "r"}
    claims = {"room": "*", "aud": "roomscribe", "exp": int(time.time() + 3600)}

    # PyJWT itself refuses to sign so; a forger does not
    def part(value: object) -> bytes:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=")

    body = part(header) + b"." + part(claims)
    mark = base64.urlsafe_b64encode(hmac.digest(pem, body, "sha256")).rstrip(b"=")
    forged = (body + b"." + mark).decode()
    async with provided(Keys([public(RSA, kid="r")]), secret=SECRET) as doors:
        assert await refusal(doors, forged, Right.LISTEN, "standup") == ("bad_token", 401)


async def test_the_secret_and_a_provider_stand_side_by_side() -> None:
    async with provided(Keys([public(RSA, kid="r")]), secret=SECRET) as doors:
        assert await doors.check(token(), Right.LISTEN, "standup")
        assert await doors.check(signed(RSA, "RS256", "r"), Right.LISTEN, "standup")


async def test_one_key_answers_for_tokens_that_name_none() -> None:
    async with provided(Keys([public(RSA, kid="r")])) as doors:
        assert await doors.check(signed(RSA, "RS256", None), Right.LISTEN, "standup")


async def test_keys_that_do_not_sign_are_left_out() -> None:
    weak = rsa.generate_private_key(65537, 1024)
    keys = Keys(
        [
            public(RSA, kid="encrypts", use="enc"),
            public(weak, kid="weak"),
            public(ec.generate_private_key(ec.SECP256R1()), kid="ec"),
            {"kty": "oct", "k": "c2VjcmV0", "kid": "oct"},
            {"kid": "nothing"},
            {"kty": "RSA", "n": 7, "e": [], "kid": "broken"},
            7,  # type: ignore[list-item]
            public(RSA, kid="r"),
        ]
    )
    async with provided(keys) as doors:
        assert await doors.check(signed(RSA, "RS256", "r"), Right.LISTEN, "standup")
        assert await doors.check(signed(RSA, "RS256", None), Right.LISTEN, "standup")


async def test_a_key_that_is_new_is_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provider, "_APART_S", 0.05)
    keys = Keys([public(RSA, kid="r")])
    async with provided(keys) as doors:
        await doors.check(signed(RSA, "RS256", "r"), Right.LISTEN, "standup")
        keys.entries = [public(ED, kid="e")]
        assert await doors.check(signed(ED, "EdDSA", "e"), Right.LISTEN, "standup")
        assert keys.asked == 2
        # and what is no more there lets nobody in
        assert (await refusal(doors, signed(RSA, "RS256", "r"), Right.LISTEN, "standup"))[1] == 401


async def test_however_many_name_keys_that_are_not_there_it_is_asked_seldom(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(provider, "_APART_S", 1.0)
    keys = Keys([public(RSA, kid="r")])
    async with provided(keys) as doors:
        forged = [signed(RSA, "RS256", f"k{n}") for n in range(20)]
        codes = await asyncio.gather(
            *(refusal(doors, given, Right.LISTEN, "standup") for given in forged)
        )
        assert set(codes) == {("bad_token", 401)}
        assert keys.asked <= 3


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (500, None),
        (302, None),
        (200, b"no json"),
        (200, b"[]"),
        (200, b"{}"),
        (200, b"x" * 300_000),
        (200, b"[" * 200_000),
        (200, b'{"keys":7}'),
    ],
)
async def test_a_provider_that_does_not_answer_is_said(
    monkeypatch: pytest.MonkeyPatch, status: int, body: bytes | None
) -> None:
    monkeypatch.setattr(provider, "_APART_S", 0.05)
    keys = Keys([public(RSA, kid="r")], status, body=body)
    async with provided(keys) as doors:
        given = signed(RSA, "RS256", "r")
        assert await refusal(doors, given, Right.LISTEN, "standup") == ("provider_unavailable", 503)
        keys.status, keys.body = 200, None
        assert await doors.check(given, Right.LISTEN, "standup")


async def test_keys_outlive_a_provider_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provider, "_APART_S", 0.05)
    keys = Keys([public(RSA, kid="r")])
    async with provided(keys) as doors:
        given = signed(RSA, "RS256", "r")
        await doors.check(given, Right.LISTEN, "standup")
        keys.status = 500
        assert (await refusal(doors, signed(ED, "EdDSA", "e"), Right.LISTEN, "standup"))[1] == 401
        assert keys.asked == 2
        assert await doors.check(given, Right.LISTEN, "standup")
        monkeypatch.setattr(provider, "_STALE_AFTER_S", 0.0)
        assert (await refusal(doors, given, Right.LISTEN, "standup"))[1] == 503
