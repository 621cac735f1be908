"""What was said in a room by now: its last events from memory, older finals from the store."""

from collections.abc import Callable

from server import wire
from server.replay import Event, Replay
from server.store import Store, StoredEvent, StoreError
from signaling.messages import encode

_PAGE = 200


class History:
    """`name_of` says who a participant is that is still there."""

    def __init__(
        self, room: str, room_id: str, store: Store, name_of: Callable[[str], str | None]
    ) -> None:
        self._room = room
        self._room_id = room_id
        self._store = store
        self._name_of = name_of
        self._replay = Replay()

    def push(self, event: Event) -> None:
        self._replay.push(event)

    @property
    def oldest_seq(self) -> int:
        """The first event still in memory; before there is any, the first that comes."""
        return self._replay.oldest_seq or 1

    def after(self, seq: int) -> list[Event]:
        """Events in memory that came after `seq`."""
        return self._replay.after(seq)

    def since(self, at: float) -> list[Event]:
        """Events in memory of that time and later."""
        return self._replay.since(at)

    async def older(self, seq: int, limit: int = 5_000) -> list[Event]:
        """Finals and gaps after `seq` that have left memory. What cannot be read is missing."""
        events: list[Event] = []
        while seq + 1 < self.oldest_seq and len(events) < limit:
            try:
                page = await self._store.finals_after(self._room_id, seq, _PAGE)
            except StoreError:
                break
            older = [stored for stored in page if stored.seq < self.oldest_seq]
            if not older:
                break
            events += [self._event(stored) for stored in older]
            seq = older[-1].seq
        return events

    def _event(self, stored: StoredEvent) -> Event:
        message = wire.stored_message(self._room, stored)
        if not message.name and (name := self._name_of(message.participant)) is not None:
            message = message.model_copy(update={"name": name})
        return Event(stored.seq, message.type, encode(message), None, True, 0.0)
