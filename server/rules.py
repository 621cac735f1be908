"""What the owner of a room decided, for as long as it lives. Pure.

People are known by their tokens: under whatever name, and where they come in anew.
"""

from signaling.errors import Refused
from signaling.grant import Grant, Right


class Rules:
    def __init__(self) -> None:
        self.is_locked = False
        self._barred: set[str] = set()
        self._silenced: set[str] = set()

    def check(self, grant: Grant) -> None:
        """Whether its bearer was not sent away, as no owner can be. Raises `Refused`."""
        if grant.token_id in self._barred and not grant.allows(Right.ADMIN):
            raise Refused("removed", "the owner has removed you from this room", status=403)

    def check_in(self, grant: Grant) -> None:
        """Whether its bearer may come in, or in again. Raises `Refused`."""
        self.check(grant)
        if self.is_locked and not grant.allows(Right.ADMIN):
            raise Refused("locked", "the owner has locked this room", retryable=True, status=403)

    def silences(self, grant: Grant) -> bool:
        return grant.token_id in self._silenced

    def bar(self, token_id: str) -> None:
        self._barred.add(token_id)

    def silence(self, token_id: str, held: bool) -> None:
        (self._silenced.add if held else self._silenced.discard)(token_id)
