"""What is read of a token, and what is not believed."""

import base64
import json
import time

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.tokens import OF_THE_SECRET, header_of, issue, read
from signaling.errors import Refused
from signaling.grant import EVERY_ROOM, Grant, Right

SECRET = "a secret of thirty-two characters"
HOUR = 3600.0


def made(**claims: object) -> str:
    return jwt.encode({"room": "standup", "exp": time.time() + HOUR, **claims}, SECRET, "HS256")


def assert_refused(token: str, code: str, **options: str) -> None:
    with pytest.raises(Refused) as refused:
        read(token, SECRET, (OF_THE_SECRET,), **options)
    assert (refused.value.code, refused.value.status) == (code, 401)
    assert token not in refused.value.message


@pytest.mark.parametrize(
    "grant",
    [
        Grant("standup", frozenset({Right.LISTEN}), "Ada", "1"),
        Grant(EVERY_ROOM, frozenset({Right.ADMIN}), None, "2"),
        Grant("standup", frozenset({Right.PUBLISH, Right.LISTEN}), "Łukasz 🎙", "3"),
    ],
)
def test_what_is_issued_is_read_again(grant: Grant) -> None:
    token = issue(SECRET, grant, time.time() + HOUR)
    assert header_of(token) == ("HS256", None)
    assert read(token, SECRET, (OF_THE_SECRET,)) == grant


def test_each_token_has_a_name_of_its_own() -> None:
    grant = Grant("standup", frozenset({Right.LISTEN}))
    first, second = (issue(SECRET, grant, time.time() + HOUR) for _ in range(2))
    ids = {read(token, SECRET, (OF_THE_SECRET,)).token_id for token in (first, second)}
    assert len(ids) == 2
    assert None not in ids


def test_a_token_without_a_name_has_one_of_its_own_all_the_same() -> None:
    first, second = made(), made(name="Ada")
    ids = [read(token, SECRET, (OF_THE_SECRET,)).token_id for token in (first, first, second)]
    assert ids[0] == ids[1] != ids[2]


def test_of_a_provider_it_counts_who_it_is_and_not_which_token() -> None:
    options = {"audience": "roomscribe"}

    def whose(**claims: object) -> str | None:
        given = made(aud="roomscribe", **claims)
        return read(given, SECRET, (OF_THE_SECRET,), **options).token_id

    ada = whose(sub="ada@example.org", jti="1")
    assert ada == whose(sub="ada@example.org", jti="2", name="Ada")
    assert ada != whose(sub="ben@example.org", jti="1")
    assert "ada" not in (ada or "")


def test_a_token_that_says_no_more_lets_speak_and_read() -> None:
    grant = read(made(), SECRET, (OF_THE_SECRET,))
    assert (grant.room, grant.name) == ("standup", None)
    assert grant.rights == {Right.PUBLISH, Right.LISTEN}


@pytest.mark.parametrize("may", ["listen publish", "listen,publish", ["publish", "listen"]])
def test_rights_are_a_list_or_a_text(may: object) -> None:
    assert read(made(may=may), SECRET, (OF_THE_SECRET,)).rights == {Right.PUBLISH, Right.LISTEN}


@pytest.mark.parametrize(
    "claims",
    [
        {"room": ""},
        {"room": "a b"},
        {"room": None},
        {"room": 7},
        {"room": ["standup"]},
        {"may": ["fly"]},
        {"may": 7},
        {"may": [1]},
        {"may": {"publish": 1, "fly": 2}},
        {"name": ""},
        {"name": "a\nb"},
        {"name": 7},
        {"name": "x" * 65},
    ],
)
def test_claims_that_say_nothing_let_nobody_in(claims: dict[str, object]) -> None:
    assert_refused(made(**claims), "bad_token")


def test_a_token_without_an_end_is_none() -> None:
    assert_refused(jwt.encode({"room": "standup"}, SECRET, "HS256"), "bad_token")


def test_an_expired_token_says_so() -> None:
    assert_refused(made(exp=time.time() - 60), "token_expired")


def test_clocks_may_differ_a_little() -> None:
    assert read(made(exp=time.time() - 3), SECRET, (OF_THE_SECRET,)).room == "standup"


def test_a_token_of_another_secret_is_none() -> None:
    forged = jwt.encode({"room": "*", "exp": time.time() + HOUR}, "x" * 32, "HS256")
    assert_refused(forged, "bad_token")


def test_another_digest_is_not_taken_for_the_agreed_one() -> None:
    strong = jwt.encode({"room": "*", "exp": time.time() + HOUR}, SECRET * 3, "HS512")
    assert_refused(strong, "bad_token")


def test_none_is_no_algorithm() -> None:
    def part(value: object) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")

    claims = {"room": "*", "may": ["admin"], "exp": int(time.time() + HOUR)}
    for name in ("none", "None", "NONE"):
        for signature in ("", "x"):
            assert_refused(f"{part({'alg': name})}.{part(claims)}.{signature}", "bad_token")


def test_a_token_has_to_be_made_out_for_us_where_that_is_asked() -> None:
    for_us = made(aud="roomscribe", iss="https://id")
    options = {"audience": "roomscribe", "issuer": "https://id"}
    assert read(for_us, SECRET, (OF_THE_SECRET,), **options).room == "standup"
    assert_refused(made(), "bad_token", audience="roomscribe")
    assert_refused(made(aud="mail"), "bad_token", audience="roomscribe")
    assert_refused(made(aud="roomscribe"), "bad_token", **options)
    assert_refused(made(aud="roomscribe", iss="https://other"), "bad_token", **options)


@pytest.mark.parametrize("header", [{"alg": 7}, {"alg": None}, {"alg": "HS256", "kid": 7}, {}, []])
def test_a_header_that_is_none(header: object) -> None:
    part = base64.urlsafe_b64encode(json.dumps(header).encode()).decode().rstrip("=")
    with pytest.raises(Refused, match="not valid"):
        header_of(f"{part}.e30.x")


def test_a_token_of_other_letters_is_none() -> None:
    for text in ("\xff.e30.AA", "ä.ö.ü", "\udcff.e30.AA"):
        with pytest.raises(Refused, match="not valid"):
            header_of(text)


def test_a_token_too_long_to_read_is_not_read() -> None:
    with pytest.raises(Refused, match="not valid"):
        header_of(made(name="x" * 10_000))


@given(st.text(max_size=200))
def test_any_text_is_refused_and_nothing_else_happens(text: str) -> None:
    for attempt in (header_of, lambda given: read(given, SECRET, (OF_THE_SECRET,))):
        with pytest.raises(Refused):
            attempt(text)
