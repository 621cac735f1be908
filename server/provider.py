"""`Provider`: the keys of an identity provider, fetched, kept, and fetched again.

One task fetches; who needs a key that is not known waits for its next answer. A provider that
does not answer leaves the keys as they were for a day.
"""

import asyncio
import contextlib
import json
import logging
import time
from typing import Any

import aiohttp
import jwt

from server.tokens import OF_A_PROVIDER, bad_token
from signaling.errors import Refused

_KEPT_S = 600.0
_STALE_AFTER_S = 86_400.0
# However many tokens name keys that are not there.
_APART_S = 10.0
_FETCH_S = 5.0
_MAX_BYTES = 256 * 1024
_LEAST_RSA_BITS = 2048

log = logging.getLogger("roomscribe.auth")


class Provider:
    """`run` it in a task."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._keys: dict[str | None, jwt.PyJWK] = {}
        self._fetched_at: float | None = None
        self._wanted = asyncio.Event()
        self._answered = asyncio.Event()

    async def run(self) -> None:
        async with aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=_FETCH_S),
            # as it is: what is small on the line may be large in memory
            headers={"Accept-Encoding": "identity"},
            auto_decompress=False,
        ) as http:
            while True:
                await self._fetch(http)
                answered, self._answered = self._answered, asyncio.Event()
                answered.set()
                await asyncio.sleep(_APART_S)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_KEPT_S - _APART_S):
                        await self._wanted.wait()
                self._wanted.clear()

    async def key(self, name: str | None) -> jwt.PyJWK:
        """The key of that name. Raises `Refused`."""
        if name not in self._keys:
            answered = self._answered
            self._wanted.set()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_APART_S + _FETCH_S):
                    await answered.wait()
        if self._fetched_at is None or time.monotonic() - self._fetched_at > _STALE_AFTER_S:
            raise Refused(
                "provider_unavailable",
                "the identity provider does not answer",
                retryable=True,
                status=503,
            )
        if name not in self._keys:
            raise bad_token()
        return self._keys[name]

    async def _fetch(self, http: aiohttp.ClientSession) -> None:
        try:
            async with http.get(self._url, allow_redirects=False) as answer:
                if answer.status != 200:
                    raise ValueError(f"status {answer.status}")
                body = await answer.content.read(_MAX_BYTES)
                while len(body) <= _MAX_BYTES and (more := await answer.content.read(_MAX_BYTES)):
                    body += more
            if len(body) > _MAX_BYTES:
                raise ValueError("too long")
            self._keys = _keys(body)
        except Exception as error:
            # The containment of a fetch: what comes is whatever stands at that address, and
            # json, PyJWT and cryptography raise what they run into.
            log.warning("the keys could not be fetched", extra={"error": type(error).__name__})
            return
        self._fetched_at = time.monotonic()


def _keys(body: bytes) -> dict[str | None, jwt.PyJWK]:
    """Those that sign, by name. One alone answers for tokens that name none. Raises what
    json does, and `LookupError` or `TypeError` for what is no set of keys."""
    found: dict[str | None, jwt.PyJWK] = {}
    for entry in json.loads(body)["keys"]:
        key = _signing_key(entry)
        if key is not None:
            found[key.key_id] = key
    if len(found) == 1:
        found[None] = next(iter(found.values()))
    return found


def _signing_key(entry: Any) -> jwt.PyJWK | None:
    if not isinstance(entry, dict) or entry.get("use", "sig") != "sig":
        return None
    try:
        key = jwt.PyJWK.from_dict(entry)
    except Exception:
        return None  # of a kind that signs nothing for us, or broken; the others count
    size = getattr(key.key, "key_size", _LEAST_RSA_BITS)
    return key if key.algorithm_name in OF_A_PROVIDER and size >= _LEAST_RSA_BITS else None
