"""Join tokens: JSON Web Tokens, made here by the secret, or by an identity provider.

A token says `room` (or `*`), `may` (publish, listen, admin; the first two unless it says), when
it ends (`exp`), and perhaps the `name` its bearer goes by. Which algorithm is right follows from
who holds the key, never from what the token says of itself alone.
"""

import hashlib
import secrets
from collections.abc import Collection
from typing import Any

import jwt

from signaling.errors import Refused
from signaling.grant import EVERY_ROOM, OPEN, Grant, Right
from signaling.messages import check_name, check_room

OF_THE_SECRET = "HS256"
OF_A_PROVIDER = ("RS256", "EdDSA")
_LEEWAY_S = 10  # clocks differ
_LONGEST = 8 * 1024


def issue(secret: str, grant: Grant, expires_at: float) -> str:
    """A token that gives `grant` until `expires_at`, as unix time."""
    claims: dict[str, object] = {
        "room": grant.room,
        "may": sorted(grant.rights),
        "exp": int(expires_at),
        "jti": grant.token_id or secrets.token_urlsafe(9),
    }
    if grant.name is not None:
        claims["name"] = grant.name
    return jwt.encode(claims, secret, OF_THE_SECRET)


def header_of(token: str) -> tuple[str, str | None]:
    """Which algorithm and key a token says it was signed with. Raises `Refused`."""
    if len(token) > _LONGEST or not token.isascii():
        raise bad_token()
    try:
        header = jwt.get_unverified_header(token)
    except jwt.InvalidTokenError:
        raise bad_token() from None
    algorithm, key = header.get("alg"), header.get("kid")
    if not isinstance(algorithm, str) or not isinstance(key, str | None):
        raise bad_token()
    return algorithm, key


def read(
    token: str,
    key: Any,  # the secret, or PyJWT's own kind of key
    algorithms: Collection[str],
    *,
    audience: str | None = None,
    issuer: str | None = None,
) -> Grant:
    """What a token gives. With an audience, it has to be made out for that. Raises `Refused`."""
    required = ["exp", *(["aud"] if audience else []), *(["iss"] if issuer else [])]
    try:
        claims = jwt.decode(
            token,
            key,
            algorithms=list(algorithms),
            audience=audience,
            issuer=issuer,
            leeway=_LEEWAY_S,
            options={"require": required, "verify_aud": audience is not None},
        )
    except jwt.ExpiredSignatureError:
        raise Refused(
            "token_expired", "the token has expired; ask for a new one", status=401
        ) from None
    except (jwt.InvalidTokenError, jwt.InvalidKeyError, OverflowError):
        raise bad_token() from None
    # Of a provider's, who it is: each has many tokens. Of ours, which it is.
    whose = claims.get("sub") if audience else claims.get("jti")
    token_id = whose if isinstance(whose, str) and not audience else _digest(whose or token)
    return _grant(claims, token_id)


def _digest(whose: object) -> str:
    """A name for the log that is nobody's."""
    return hashlib.sha256(str(whose).encode()).hexdigest()[:16]


def _grant(claims: dict[str, Any], token_id: str) -> Grant:
    room, name = claims.get("room"), claims.get("name")
    may = claims.get("may", sorted(OPEN.rights))
    if isinstance(may, str):
        may = may.replace(",", " ").split()
    try:
        if room != EVERY_ROOM:
            check_room(_text(room))
        rights = frozenset(Right(_text(right)) for right in may)
        name = None if name is None else check_name(_text(name))
    except (Refused, ValueError, TypeError):
        raise bad_token("the token does not say what it is for") from None
    return Grant(_text(room), rights, name, token_id)


def _text(claim: object) -> str:
    if not isinstance(claim, str):
        raise TypeError
    return claim


def bad_token(why: str = "the token is not valid") -> Refused:
    return Refused("bad_token", why, status=401)
