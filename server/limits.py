"""`Limits`: how much one address, one room and all of them may have. Time comes in as `now`.

Who is over a limit is refused, and nobody else notices. What a socket may send is in
`signaling.bounds`; both count here.
"""

from collections import Counter
from collections.abc import Callable
from ipaddress import IPv6Address, ip_address

from server.settings import LimitSettings
from signaling.errors import Refused

_MINUTE_S = 60.0
# Of those who have come lately; the oldest is forgotten beyond it.
_ADDRESSES = 10_000


class _Buckets:
    """So many at once of an address, and as many again within a minute."""

    def __init__(self, per_minute: int) -> None:
        self._per_minute = per_minute
        # what is left of an address, and when that was so
        self._left: dict[str, tuple[float, float]] = {}

    def take(self, key: str, now: float) -> int | None:
        """Takes one; where none is left, in how many seconds there is."""
        most = float(self._per_minute)
        left, at = self._left.pop(key, (most, now))
        left = min(most, left + (now - at) * most / _MINUTE_S)
        # who is refused is none the poorer, however often they ask
        self._left[key] = (left - 1 if left >= 1 else left, now)
        if len(self._left) > _ADDRESSES:
            del self._left[next(iter(self._left))]
        return None if left >= 1 else int((1 - left) * _MINUTE_S / most) + 1


class Limits:
    """`hit` is told the name of each limit that someone came to."""

    def __init__(self, settings: LimitSettings, hit: Callable[[str], None]) -> None:
        self.hit = hit
        self._settings = settings
        self._joins = _Buckets(settings.joins_per_minute)
        self._reads = _Buckets(settings.reads_per_minute)
        self._offers = _Buckets(settings.offers_per_minute)
        self._peers: Counter[str] = Counter()
        self._seats: Counter[str] = Counter()

    @property
    def held(self) -> int:
        """Peers and seats that have not been given back."""
        return self._peers.total() + self._seats.total()

    def take_join(self, address: str, now: float) -> None:
        """Raises `Refused`."""
        if self._settings.joins_per_minute:
            wait_s = self._joins.take(_network_of(address), now)
            self._refuse_for(wait_s, "joins_per_minute", "too_many_joins", "too many joins")

    def take_read(self, address: str, now: float) -> None:
        """A transcript, a stream, or a return to one's place. Raises `Refused`."""
        if self._settings.reads_per_minute:
            wait_s = self._reads.take(_network_of(address), now)
            self._refuse_for(wait_s, "reads_per_minute", "too_many_reads", "too many requests")

    def take_offer(self, participant: str, now: float) -> None:
        """Raises `Refused`."""
        if self._settings.offers_per_minute:
            wait_s = self._offers.take(participant, now)
            self._refuse_for(wait_s, "offers_per_minute", "too_many_offers", "too many offers")

    def check_rooms(self, rooms: int) -> None:
        """Whether one more may be. Raises `Refused`."""
        if 0 < self._settings.rooms <= rooms:
            raise self._refused("rooms", "too_many_rooms", "no more rooms can be opened", 503, 30)

    def check_participants(self, participants: int) -> None:
        """Raises `Refused`."""
        if 0 < self._settings.participants_per_room <= participants:
            raise self._refused("participants_per_room", "room_full", "the room is full", 503, 30)

    def check_listeners(self, listeners: int) -> None:
        """Raises `Refused`."""
        if 0 < self._settings.listeners_per_room <= listeners:
            raise self._refused(
                "listeners_per_room", "too_many_listeners", "too many read this room", 503, 30
            )

    def take_peer(self, address: str, *, in_place: bool) -> None:
        """One more speaker from there, to be given back; one in place of another is no more.
        Raises `Refused`."""
        most = 0 if in_place else self._settings.peers_per_address
        self._take(self._peers, address, most, "peers_per_address", "too_many_peers")

    def give_peer(self, address: str) -> None:
        _give(self._peers, address)

    def take_seat(self, address: str) -> None:
        """One more who is in a room or reads it, to be given back. Raises `Refused`."""
        most = self._settings.seats_per_address
        self._take(self._seats, address, most, "seats_per_address", "too_many_seats")

    def give_seat(self, address: str) -> None:
        _give(self._seats, address)

    def _take(self, counter: Counter[str], address: str, most: int, limit: str, code: str) -> None:
        key = _network_of(address)
        if address and 0 < most <= counter[key]:
            raise self._refused(limit, code, "too many come from this address", 429, 30)
        counter[key] += 1

    def _refuse_for(self, wait_s: int | None, limit: str, code: str, message: str) -> None:
        if wait_s is not None:
            raise self._refused(limit, code, f"{message}; wait a moment", 429, wait_s)

    def check_candidates(self, candidates: int) -> None:
        """Raises `Refused`."""
        if candidates > self._settings.candidates:
            self.hit("candidates")
            raise Refused("too_many_candidates", "too many candidates in this session", status=429)

    def _refused(
        self, limit: str, code: str, message: str, status: int, retry_after_s: int
    ) -> Refused:
        self.hit(limit)
        return Refused(code, message, retryable=True, status=status, retry_after_s=retry_after_s)


def _give(counter: Counter[str], address: str) -> None:
    key = _network_of(address)
    counter[key] -= 1
    if not counter[key]:
        del counter[key]


def _network_of(address: str) -> str:
    """Whoever has an IPv6 address has all of its /64."""
    try:
        ip = ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(ip, IPv6Address):
        if ip.ipv4_mapped is not None:
            return str(ip.ipv4_mapped)
        return str(IPv6Address(int(ip) >> 64 << 64))
    return str(ip)
