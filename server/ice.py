"""The ICE servers a participant gets, with TURN credentials of their own.

The scheme is coturn's `use-auth-secret` (draft-uberti-behave-turn-rest): the user name is
the time it expires and a name, the password an HMAC of it. `now` is a unix time.
"""

import base64
import hmac

from server.settings import MediaSettings
from signaling.messages import IceServerEntry


def ice_servers_for(
    media: MediaSettings, participant: str, now: float
) -> tuple[IceServerEntry, ...]:
    return tuple(
        IceServerEntry(urls=server.urls, username=username, credential=credential)
        for server in media.ice_servers
        for username, credential in [
            _time_limited(media, participant, now)
            if media.turn_secret and server.username is None and _is_turn(server.urls)
            else (server.username, server.credential)
        ]
    )


def _is_turn(urls: tuple[str, ...]) -> bool:
    return any(url.startswith(("turn:", "turns:")) for url in urls)


def _time_limited(media: MediaSettings, participant: str, now: float) -> tuple[str, str]:
    username = f"{int(now) + media.turn_ttl_s}:{participant}"
    digest = hmac.digest(media.turn_secret.encode(), username.encode(), "sha1")
    return username, base64.b64encode(digest).decode()
