from soak.delivery import SETTLE_S, CallDelivery, Delivery, Words

LATER = SETTLE_S + 1.0


def with_listeners(*names: str) -> Delivery:
    delivery = Delivery()
    for name in names:
        delivery.came(name, 0.0)
    return delivery


def test_what_everyone_was_told_once_is_in_order() -> None:
    delivery = with_listeners("ann", "ben")
    for seq in (3, 5, 9):
        delivery.told("ann", seq, 10.0 + seq)
        delivery.told("ben", seq, 10.1 + seq)
    delivery.judge(20.0 + LATER)
    assert (delivery.finals, delivery.delivered) == (3, 6)
    assert (delivery.missing, delivery.twice, delivery.late) == (0, 0, 0)


def test_what_one_was_not_told_is_missing_once_it_had_time_to_come() -> None:
    delivery = with_listeners("ann", "ben")
    delivery.told("ann", 3, 10.0)
    delivery.judge(10.0 + SETTLE_S / 2)
    assert delivery.missing == 0
    delivery.judge(10.0 + LATER)
    assert delivery.missing == 1


def test_what_comes_after_it_was_missed_is_late_and_not_missing() -> None:
    delivery = with_listeners("ann", "ben")
    delivery.told("ann", 3, 10.0)
    delivery.judge(10.0 + LATER)
    delivery.told("ben", 3, 12.0 + LATER)
    assert (delivery.missing, delivery.late, delivery.twice) == (0, 1, 0)
    delivery.told("ben", 3, 13.0 + LATER)
    assert delivery.twice == 1


def test_the_same_final_again_is_twice_soon_and_long_after() -> None:
    delivery = with_listeners("ann")
    delivery.told("ann", 3, 10.0)
    delivery.told("ann", 3, 10.1)
    assert delivery.twice == 1
    delivery.judge(10.0 + LATER)
    delivery.told("ann", 3, 11.0 + LATER)
    assert delivery.twice == 2


def test_another_room_of_the_same_name_counts_from_one_again() -> None:
    delivery = with_listeners("ann")
    for seq in (1, 2):
        delivery.told("ann", seq, 10.0)
    delivery.judge(10.0 + LATER)
    delivery.begin_anew()
    delivery.came("ben", 50.0)
    for seq in (1, 2, 2):
        delivery.told("ben", seq, 60.0)
    delivery.judge(60.0 + LATER)
    assert (delivery.finals, delivery.delivered) == (4, 4)
    assert (delivery.missing, delivery.twice) == (0, 1)


def test_who_came_after_a_final_or_had_left_does_not_miss_it() -> None:
    delivery = with_listeners("ann", "ben")
    delivery.left("ben")
    delivery.told("ann", 3, 10.0)
    delivery.came("eve", 10.5)
    delivery.came("joe", 9.0)  # at the door
    delivery.judge(10.0 + LATER)
    assert delivery.missing == 0


def test_who_is_not_known_any_more_misses_what_was_said_before() -> None:
    delivery = with_listeners("ann", "ben")
    delivery.told("ann", 3, 10.0)
    delivery.left("ben")
    delivery.judge(10.0 + LATER)
    assert delivery.missing == 1


def test_nothing_is_held_of_what_was_judged() -> None:
    delivery = with_listeners("ann")
    for seq in range(1000):
        delivery.told("ann", seq, float(seq))
        delivery.judge(float(seq))
    assert len(delivery._open) <= SETTLE_S + 1


HELLO: Words = ("Ann", "hello")
BYE: Words = ("Ann", "bye")
OTHER: Words = ("Ben", "hello")


def call_with(*names: str) -> CallDelivery:
    """They, and the reader of its room, are there since the beginning."""
    call = CallDelivery()
    call.reader_came(0.0)
    for name in names:
        call.came(name, 0.0)
    return call


def counts(call: CallDelivery) -> tuple[int, int, int]:
    return call.delivered, call.missing, call.twice


def test_in_a_call_the_words_tell_which_final_it_is() -> None:
    call = call_with("Ann", "Ben")
    for seq, words in ((3, HELLO), (4, OTHER), (7, BYE)):
        call.said(seq, words, 10.0 + seq)
        for name in ("Ann", "Ben"):
            call.told(name, words, 10.1 + seq)
    assert call.is_settled
    call.end()
    assert (call.finals, *counts(call)) == (3, 6, 0, 0)


def test_a_final_that_one_in_a_call_was_not_told_is_missing() -> None:
    call = call_with("Ann", "Ben")
    call.said(3, HELLO, 10.0)
    call.told("Ann", HELLO, 10.1)
    assert not call.is_settled
    call.judge(10.0 + SETTLE_S / 2)
    assert call.missing == 0
    call.judge(10.0 + LATER)
    assert counts(call) == (1, 1, 0)


def test_the_same_words_again_are_another_final() -> None:
    call = call_with("Ann")
    for seq, at in ((3, 10.0), (5, 14.0)):
        call.said(seq, HELLO, at)
        call.told("Ann", HELLO, at + 0.1)
    call.end()
    assert counts(call) == (2, 0, 0)


def test_one_of_two_finals_of_the_same_words_that_does_not_come_is_missing() -> None:
    call = call_with("Ann")
    call.said(3, HELLO, 10.0)
    call.said(5, HELLO, 14.0)
    call.told("Ann", HELLO, 14.1)
    call.end()
    assert counts(call) == (1, 1, 0)


def test_a_final_that_comes_again_is_twice() -> None:
    call = call_with("Ann")
    call.said(3, HELLO, 10.0)
    call.told("Ann", HELLO, 10.1)
    call.told("Ann", HELLO, 10.2)
    assert not call.is_settled
    call.judge(16.0)
    assert counts(call) == (1, 0, 1)


def test_who_is_told_before_the_reader_of_the_room_is_in_order() -> None:
    call = call_with("Ann")
    call.told("Ann", HELLO, 10.0)
    call.said(3, HELLO, 10.5)
    call.end()
    assert counts(call) == (1, 0, 0)


def test_what_the_reader_of_the_room_was_never_told_is_missing_too() -> None:
    call = call_with("Ann")
    call.told("Ann", HELLO, 10.0)
    call.judge(16.0)
    assert counts(call) == (0, 1, 0)


def test_until_the_reader_of_the_room_is_there_nothing_is_judged() -> None:
    call = CallDelivery()
    call.came("Ann", 0.0)
    call.told("Ann", HELLO, 10.0)
    call.judge(20.0)
    call.reader_came(20.0)
    call.told("Ann", BYE, 21.0)
    call.judge(30.0)
    assert counts(call) == (0, 0, 0)


def test_who_asked_after_a_final_does_not_miss_it() -> None:
    call = call_with("Ann")
    call.said(3, HELLO, 10.0)
    call.told("Ann", HELLO, 10.1)
    call.came("Ben", 13.0)
    call.said(4, HELLO, 20.0)
    call.told("Ann", HELLO, 20.1)
    call.told("Ben", HELLO, 20.1)
    call.end()
    assert counts(call) == (3, 0, 0)


def test_nothing_is_held_of_a_call_that_was_judged() -> None:
    call = call_with("Ann")
    for seq in range(1000):
        call.said(seq, ("Ann", str(seq)), float(seq))
        call.told("Ann", ("Ann", str(seq)), float(seq))
        call.judge(float(seq))
    assert len(call._said) <= 121
