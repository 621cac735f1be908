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


class Limits:
    """`hit` is told the name of each limit that someone came to."""

    def __init__(self, settings: LimitSettings, hit: Callable[[str], None]) -> None:
        self.hit = hit
        self._settings = settings
        # of an address: joins that are left, and when that was so
        self._joins: dict[str, tuple[float, float]] = {}
        self._peers: Counter[str] = Counter()

    def take_join(self, address: str, now: float) -> None:
        """Raises `Refused`."""
        most = self._settings.joins_per_minute
        if not most:
            return
        key = _network_of(address)
        left, at = self._joins.pop(key, (float(most), now))
        left = min(float(most), left + (now - at) * most / _MINUTE_S)
        self._joins[key] = (max(0.0, left - 1), now)
        if len(self._joins) > _ADDRESSES:
            del self._joins[next(iter(self._joins))]
        if left < 1:
            wait_s = int((1 - left) * _MINUTE_S / most) + 1
            raise self._refused(
                "joins_per_minute", "too_many_joins", "too many joins; wait a moment", 429, wait_s
            )

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
        most = self._settings.peers_per_address
        key = _network_of(address)
        if most and address and not in_place and self._peers[key] >= most:
            raise self._refused(
                "peers_per_address",
                "too_many_peers",
                "too many speakers from this address",
                429,
                30,
            )
        self._peers[key] += 1

    def give_peer(self, address: str) -> None:
        key = _network_of(address)
        self._peers[key] -= 1
        if not self._peers[key]:
            del self._peers[key]

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
