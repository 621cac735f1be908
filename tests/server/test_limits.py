"""How much one address may have. Time is told."""

import contextlib
from collections import Counter

import pytest

from server.limits import Limits
from server.settings import LimitSettings
from signaling.errors import Refused


class Rig:
    def __init__(self, **limits: int) -> None:
        self.hits: Counter[str] = Counter()
        self.limits = Limits(LimitSettings(**limits), lambda name: self.hits.update([name]))

    def joins(self, address: str, times: int, now: float) -> int:
        """How many of so many are let in."""
        let_in = 0
        for _ in range(times):
            with contextlib.suppress(Refused):
                self.limits.take_join(address, now)
                let_in += 1
        return let_in


def test_so_many_join_at_once_and_then_no_more() -> None:
    rig = Rig(joins_per_minute=10)
    assert rig.joins("192.0.2.1", 15, 100.0) == 10
    assert rig.hits == {"joins_per_minute": 5}


def test_who_waits_may_join_again() -> None:
    rig = Rig(joins_per_minute=60)
    assert rig.joins("192.0.2.1", 60, 0.0) == 60
    assert rig.joins("192.0.2.1", 5, 2.5) == 2
    assert rig.joins("192.0.2.1", 100, 1000.0) == 60


def test_who_asks_all_the_time_is_let_in_as_often_as_who_waits() -> None:
    rig = Rig(joins_per_minute=60)
    rig.joins("192.0.2.1", 60, 0.0)
    assert sum(rig.joins("192.0.2.1", 1, n / 4) for n in range(1, 241)) == 60


def test_it_is_said_how_long_to_wait() -> None:
    rig = Rig(joins_per_minute=6)
    rig.joins("192.0.2.1", 6, 0.0)
    with pytest.raises(Refused) as refused:
        rig.limits.take_join("192.0.2.1", 0.0)
    assert (refused.value.code, refused.value.status) == ("too_many_joins", 429)
    assert refused.value.retryable
    wait_s = refused.value.retry_after_s
    assert wait_s is not None
    assert rig.joins("192.0.2.1", 1, float(wait_s)) == 1


def test_one_address_takes_nothing_from_another() -> None:
    rig = Rig(joins_per_minute=5)
    assert rig.joins("192.0.2.1", 50, 0.0) == 5
    assert rig.joins("192.0.2.2", 5, 0.0) == 5


def test_all_of_an_ipv6_network_is_one() -> None:
    rig = Rig(joins_per_minute=5)
    assert sum(rig.joins(f"2001:db8::{n:x}", 1, 0.0) for n in range(20)) == 5
    assert rig.joins("2001:db8:0:1::1", 5, 0.0) == 5


def test_an_ipv4_address_is_the_same_in_either_writing() -> None:
    rig = Rig(joins_per_minute=5)
    assert rig.joins("192.0.2.1", 3, 0.0) + rig.joins("::ffff:192.0.2.1", 3, 0.0) == 5


def test_however_many_come_they_are_not_all_remembered() -> None:
    rig = Rig(joins_per_minute=1)
    for n in range(30_000):
        rig.limits.take_join(f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}", 0.0)
    assert len(rig.limits._joins._left) <= 10_000


def test_zero_lifts_a_limit() -> None:
    rig = Rig(joins_per_minute=0, peers_per_address=0, rooms=0, participants_per_room=0)
    assert rig.joins("192.0.2.1", 500, 0.0) == 500
    for _ in range(500):
        rig.limits.take_peer("192.0.2.1", in_place=False)
    rig.limits.check_rooms(10_000)
    rig.limits.check_participants(10_000)
    assert not rig.hits


def test_speakers_of_an_address_are_given_back() -> None:
    rig = Rig(peers_per_address=2)
    rig.limits.take_peer("192.0.2.1", in_place=False)
    rig.limits.take_peer("192.0.2.1", in_place=False)
    with pytest.raises(Refused, match="too many come"):
        rig.limits.take_peer("192.0.2.1", in_place=False)
    rig.limits.take_peer("192.0.2.2", in_place=False)
    rig.limits.give_peer("192.0.2.1")
    rig.limits.take_peer("192.0.2.1", in_place=False)
    assert rig.hits == {"peers_per_address": 1}


def test_a_speaker_who_comes_anew_is_no_more() -> None:
    rig = Rig(peers_per_address=1)
    rig.limits.take_peer("192.0.2.1", in_place=False)
    rig.limits.take_peer("192.0.2.1", in_place=True)
    rig.limits.give_peer("192.0.2.1")
    rig.limits.give_peer("192.0.2.1")
    assert not rig.limits.held


@pytest.mark.parametrize(
    ("check", "limit", "code"),
    [
        ("check_rooms", "rooms", "too_many_rooms"),
        ("check_participants", "participants_per_room", "room_full"),
        ("check_listeners", "listeners_per_room", "too_many_listeners"),
    ],
)
def test_the_last_one_fits(check: str, limit: str, code: str) -> None:
    rig = Rig(**{limit: 3})
    getattr(rig.limits, check)(2)
    with pytest.raises(Refused) as refused:
        getattr(rig.limits, check)(3)
    assert (refused.value.code, refused.value.status) == (code, 503)
    assert rig.hits == {limit: 1}


def test_seats_of_an_address_are_given_back() -> None:
    rig = Rig(seats_per_address=1)
    rig.limits.take_seat("192.0.2.1")
    with pytest.raises(Refused) as refused:
        rig.limits.take_seat("192.0.2.1")
    assert (refused.value.code, refused.value.status) == ("too_many_seats", 429)
    rig.limits.take_seat("192.0.2.2")
    rig.limits.give_seat("192.0.2.1")
    rig.limits.take_seat("192.0.2.1")
    for address in ("192.0.2.1", "192.0.2.2"):
        rig.limits.give_seat(address)
    assert not rig.limits.held


@pytest.mark.parametrize(
    ("take", "limit", "code"),
    [
        ("take_read", "reads_per_minute", "too_many_reads"),
        ("take_offer", "offers_per_minute", "too_many_offers"),
    ],
)
def test_so_many_reads_and_offers(take: str, limit: str, code: str) -> None:
    rig = Rig(**{limit: 3})
    for _ in range(3):
        getattr(rig.limits, take)("one", 0.0)
    with pytest.raises(Refused) as refused:
        getattr(rig.limits, take)("one", 0.0)
    assert (refused.value.code, refused.value.status) == (code, 429)
    getattr(rig.limits, take)("another", 0.0)
    getattr(rig.limits, take)("one", 25.0)
