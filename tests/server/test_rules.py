"""What an owner decided holds for a token, whatever name it comes under."""

import pytest

from server.rules import Rules
from signaling.errors import Refused
from signaling.grant import OPEN, Grant, Right

GUEST = Grant("standup", frozenset({Right.PUBLISH, Right.LISTEN}), token_id="guest")
OWNER = Grant("standup", frozenset({Right.ADMIN}), token_id="owner")


def code_of(rules: Rules, grant: Grant, *, comes_in: bool) -> str:
    try:
        (rules.check_in if comes_in else rules.check)(grant)
    except Refused as refused:
        return refused.code
    return "welcome"


def test_at_first_everyone_may() -> None:
    rules = Rules()
    assert {code_of(rules, g, comes_in=True) for g in (GUEST, OWNER, OPEN)} == {"welcome"}
    assert not rules.silences(GUEST)


def test_a_locked_room_lets_nobody_in_but_its_owner_and_those_inside_read_on() -> None:
    rules = Rules()
    rules.is_locked = True
    assert code_of(rules, GUEST, comes_in=True) == "locked"
    assert code_of(rules, GUEST, comes_in=False) == "welcome"
    assert code_of(rules, OWNER, comes_in=True) == "welcome"


@pytest.mark.parametrize("comes_in", [True, False])
def test_who_is_barred_neither_comes_in_nor_reads_on_and_no_owner_is(comes_in: bool) -> None:
    rules = Rules()
    rules.bar("guest")
    rules.bar("owner")
    assert code_of(rules, GUEST, comes_in=comes_in) == "removed"
    assert code_of(rules, OWNER, comes_in=comes_in) == "welcome"
    assert code_of(rules, OPEN, comes_in=comes_in) == "welcome"


def test_who_is_silenced_is_so_until_they_may_speak_again() -> None:
    rules = Rules()
    rules.silence("guest", held=True)
    assert (rules.silences(GUEST), rules.silences(OWNER), rules.silences(OPEN)) == (
        True,
        False,
        False,
    )
    rules.silence("guest", held=False)
    rules.silence("guest", held=False)
    assert not rules.silences(GUEST)
