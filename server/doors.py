"""`Doors`: who is let in, to which room, for what."""

from server.config import Settings
from server.provider import Provider
from server.settings import AuthSettings
from server.tokens import OF_A_PROVIDER, OF_THE_SECRET, bad_token, header_of, read
from signaling.errors import Refused
from signaling.grant import OPEN, Grant, Right


class Doors:
    """`run` it in a task."""

    def __init__(self, auth: AuthSettings, *, is_open: bool) -> None:
        self.is_open = is_open
        self.is_for_this_machine = is_open and not auth.open_to_everyone
        self._auth = auth
        self._provider = Provider(auth.jwks_url) if auth.jwks_url else None

    async def run(self) -> None:
        """Keep the identity provider's keys, where there is one."""
        if self._provider is not None:
            await self._provider.run()

    async def check(self, token: str | None, needs: Right, room: str | None = None) -> Grant:
        """What the token gives, if that is what is needed. Raises `Refused`."""
        is_read = not self.is_open or (token and self._auth.is_set)
        grant = await self._read(token) if is_read else OPEN
        if room is not None and not grant.covers(room):
            raise Refused("wrong_room", "the token is for another room", status=403)
        if not grant.allows(needs):
            raise not_allowed(needs)
        return grant

    async def _read(self, token: str | None) -> Grant:
        if not token:
            raise Refused(
                "unauthorized", "this server lets in who has a link or a token", status=401
            )
        algorithm, name = header_of(token)
        if algorithm == OF_THE_SECRET and self._auth.secret:
            return read(token, self._auth.secret, (OF_THE_SECRET,))
        if algorithm in OF_A_PROVIDER and self._provider is not None:
            key = await self._provider.key(name)
            return read(
                token,
                key,
                (key.algorithm_name,),
                audience=self._auth.audience,
                issuer=self._auth.issuer or None,
            )
        raise bad_token()


def doors_of(settings: Settings) -> Doors:
    """Open where nothing is set and nobody but this machine, or everyone, is to come in."""
    auth, server = settings.auth, settings.server
    is_open = auth.open_to_everyone or (server.is_loopback and not auth.is_set)
    return Doors(auth, is_open=is_open)


def fault_of(settings: Settings) -> str | None:
    """Why not to open the doors like this; one line."""
    auth, server = settings.auth, settings.server
    if server.is_loopback or auth.is_set or auth.open_to_everyone or settings.app_secret:
        return None
    return (
        f"SERVER__HOST {server.host} lets others in: set AUTH__SECRET (32 characters or more) so "
        "that they need a token, or start with --open-to-everyone"
    )


def not_allowed(needs: Right) -> Refused:
    what = {
        Right.PUBLISH: "the token does not let you speak",
        Right.LISTEN: "the token does not let you read",
        Right.ADMIN: "only the room's owner may do this",
    }[needs]
    return Refused("not_allowed", what, status=403)
