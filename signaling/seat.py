"""What signaling needs of the house: a `Lobby` to join, and a `Seat` in a room.

Protocols, because the arrows of the house point from the server to here and not back.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Protocol

from signaling.bounds import Bounds
from signaling.grant import Grant, Right
from signaling.messages import ServerMessage


@dataclass(frozen=True, slots=True)
class JoinRequest:
    """Who wants into a room; validated."""

    room: str
    name: str
    language: str | None = None
    resume: str | None = None
    last_seq: int | None = None
    has_socket: bool = True  # WHIP has none: its peer is all there is
    outlives_peer: bool = False  # who joined for it says when it leaves
    token: str | None = None
    needs: Right = Right.LISTEN
    grant: Grant | None = None  # of who needs no token
    address: str = ""  # whence they come


class Seat(Protocol):
    """A participant's place in a room."""

    @property
    def participant(self) -> str: ...

    @property
    def resume(self) -> str:
        """The secret by which the participant comes back."""
        ...

    async def answer(self, sdp: str) -> str:
        """Raises `Refused`."""
        ...

    async def add_candidate(self, candidate: str, sdp_mid: str | None) -> None:
        """Raises `Refused`."""
        ...

    def set_language(self, language: str) -> None:
        """Raises `Refused`."""
        ...

    def set_muted(self, muted: bool) -> None: ...

    def send(self, message: ServerMessage) -> None:
        """Put a message of the shell's own in line with the room's."""
        ...

    def outgoing(self) -> AsyncIterator[str]:
        """What goes to the participant's socket; ends when another takes its place, when
        the room ends, or when it is not read."""
        ...

    def socket_lost(self, outgoing: AsyncIterator[str], silent_s: float) -> None:
        """The socket that read `outgoing` is gone, and was silent for `silent_s` at least;
        the seat is kept for a while."""
        ...

    def leave(self, reason: str) -> None: ...

    def is_read_by(self, outgoing: AsyncIterator[str]) -> bool:
        """Whether `outgoing` is still what goes to the participant."""
        ...


class Lobby(Protocol):
    @property
    def bounds(self) -> Bounds:
        """What a client may send."""
        ...

    def note_limit(self, limit: str) -> None:
        """Someone came to one of them."""
        ...

    async def join(self, request: JoinRequest) -> Seat:
        """Raises `Refused`."""
        ...

    def find_seat(self, room: str, resume: str) -> Seat | None:
        """The seat that a resume token belongs to."""
        ...
