"""What someone may do, and in which room. Pure: who says so is for the server to know."""

from dataclasses import dataclass
from enum import StrEnum

EVERY_ROOM = "*"


class Right(StrEnum):
    PUBLISH = "publish"  # speak
    LISTEN = "listen"  # read what is said
    ADMIN = "admin"  # both, and own the room: mute, remove, lock, end


@dataclass(frozen=True, slots=True)
class Grant:
    """What a join token gives to whoever bears it."""

    room: str
    rights: frozenset[Right]
    name: str | None = None  # the one name that its bearer goes by
    token_id: str | None = None

    def covers(self, room: str) -> bool:
        return self.room in (EVERY_ROOM, room)

    def allows(self, right: Right) -> bool:
        return right in self.rights or Right.ADMIN in self.rights


# Where the doors are open. Nobody owns a room then.
OPEN = Grant(EVERY_ROOM, frozenset({Right.PUBLISH, Right.LISTEN}))
