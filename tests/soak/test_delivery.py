from soak.delivery import SETTLE_S, Delivery

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


def test_who_came_after_a_final_or_has_left_does_not_miss_it() -> None:
    delivery = with_listeners("ann", "ben")
    delivery.told("ann", 3, 10.0)
    delivery.came("eve", 10.5)
    delivery.came("joe", 9.0)  # at the door
    delivery.left("ben")
    delivery.judge(10.0 + LATER)
    assert delivery.missing == 0


def test_nothing_is_held_of_what_was_judged() -> None:
    delivery = with_listeners("ann")
    for seq in range(1000):
        delivery.told("ann", seq, float(seq))
        delivery.judge(float(seq))
    assert len(delivery._open) <= SETTLE_S + 1
