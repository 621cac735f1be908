import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from signaling.messages import Error, Ping
from signaling.session import (
    BAD_MESSAGES_AT_MOST,
    CLOSE_NORMAL,
    CLOSE_POLICY,
    AddCandidate,
    AnswerOffer,
    Close,
    Decision,
    Join,
    Leave,
    Send,
    Session,
    SetLanguage,
    SetMuted,
    State,
)

HELLO = '{"type":"hello","version":1,"name":"Ada"}'
OFFER = '{"type":"offer","sdp":"v=0"}'
BYE = '{"type":"bye"}'


def candidate(number: int = 0) -> str:
    return json.dumps({"type": "candidate", "candidate": f"candidate:{number}", "sdpMid": "0"})


def joined_session() -> Session:
    session = Session(now=0.0)
    session.receive(HELLO)
    session.joined()
    return session


def errors(decisions: list[Decision]) -> list[str]:
    return [
        decision.message.code
        for decision in decisions
        if isinstance(decision, Send) and isinstance(decision.message, Error)
    ]


def test_hello_asks_to_join() -> None:
    session = Session(now=0.0)
    (join,) = session.receive(HELLO)
    assert isinstance(join, Join)
    assert join.hello.name == "Ada"
    assert session.state is State.JOINING


def test_a_join_that_was_carried_out_is_nothing_more_to_do() -> None:
    session = Session(now=0.0)
    session.receive(HELLO)
    assert session.joined() == []
    assert session.state is State.JOINED


def test_a_join_that_was_refused_closes_with_the_reason() -> None:
    session = Session(now=0.0)
    session.receive(HELLO)
    error = Error(code="bad_name", message="m", retryable=False)
    assert session.refused(error) == [Send(error), Close(CLOSE_POLICY, "bad_name")]
    assert session.state is State.CLOSED


@pytest.mark.parametrize("text", [OFFER, BYE, candidate(), '{"type":"mute","muted":true}'])
def test_nothing_comes_before_hello(text: str) -> None:
    session = Session(now=0.0)
    decisions = session.receive(text)
    assert errors(decisions) == ["bad_message"]
    assert len(decisions) == 1
    assert session.state is State.WAITING


def test_hello_can_still_come_after_a_bad_message() -> None:
    session = Session(now=0.0)
    session.receive(OFFER)
    (join,) = session.receive(HELLO)
    assert isinstance(join, Join)


def test_hello_comes_only_once() -> None:
    session = joined_session()
    assert errors(session.receive(HELLO)) == ["bad_message"]
    assert session.state is State.JOINED


def test_no_hello_within_five_seconds_closes_the_socket() -> None:
    session = Session(now=100.0)
    assert session.next_deadline() == 105.0
    assert not any(isinstance(d, Close) for d in session.expire(104.99))
    decisions = session.expire(105.0)
    assert errors(decisions) == ["no_hello"]
    assert decisions[-1] == Close(CLOSE_POLICY, "no_hello")
    assert session.state is State.CLOSED


def test_hello_in_time_is_in_time() -> None:
    session = Session(now=100.0)
    session.receive(HELLO)
    session.joined()
    assert session.expire(106.0) == [Send(Ping())]


def test_a_joined_page_is_pinged_every_five_seconds() -> None:
    session = joined_session()
    assert session.expire(4.9) == []
    assert session.expire(5.0) == [Send(Ping())]
    assert session.next_deadline() == 10.0
    assert session.expire(9.9) == []
    assert session.expire(10.0) == [Send(Ping())]


def test_a_closed_session_asks_for_nothing_at_any_time() -> None:
    session = joined_session()
    session.receive(BYE)
    assert session.expire(1000.0) == []
    assert session.next_deadline() > 1000.0
    for text in (HELLO, OFFER, "not JSON"):
        assert session.receive(text) == []
    assert session.receive_binary() == []


def test_an_offer_is_answered() -> None:
    assert joined_session().receive(OFFER) == [AnswerOffer("v=0")]


def test_every_further_offer_is_answered_too() -> None:
    session = joined_session()
    session.receive(OFFER)
    assert session.receive('{"type":"offer","sdp":"v=0 again"}') == [AnswerOffer("v=0 again")]


def test_a_candidate_after_the_offer_is_added() -> None:
    session = joined_session()
    session.receive(OFFER)
    assert session.receive(candidate(1)) == [AddCandidate("candidate:1", "0")]


def test_candidates_before_the_offer_wait_for_it() -> None:
    session = joined_session()
    assert session.receive(candidate(1)) == []
    assert session.receive(candidate(2)) == []
    assert session.receive(OFFER) == [
        AnswerOffer("v=0"),
        AddCandidate("candidate:1", "0"),
        AddCandidate("candidate:2", "0"),
    ]
    assert session.receive(OFFER) == [AnswerOffer("v=0")]


def test_only_so_many_candidates_wait_for_an_offer() -> None:
    session = joined_session()
    for number in range(20):
        assert session.receive(candidate(number)) == []
    assert errors(session.receive(candidate(20))) == ["bad_message"]
    decisions = session.receive(OFFER)
    assert [d.candidate for d in decisions if isinstance(d, AddCandidate)] == [
        f"candidate:{number}" for number in range(20)
    ]


def test_language_and_mute_are_passed_on() -> None:
    session = joined_session()
    assert session.receive('{"type":"language","language":"fr"}') == [SetLanguage("fr")]
    assert session.receive('{"type":"mute","muted":true}') == [SetMuted(True)]
    assert session.receive('{"type":"mute","muted":false}') == [SetMuted(False)]


def test_bye_leaves_and_closes() -> None:
    session = joined_session()
    assert session.receive(BYE) == [Leave("left"), Close(CLOSE_NORMAL, "bye")]
    assert session.state is State.CLOSED


def test_bad_messages_are_told_and_the_tenth_closes() -> None:
    session = joined_session()
    for _ in range(BAD_MESSAGES_AT_MOST - 1):
        decisions = session.receive("not JSON")
        assert errors(decisions) == ["bad_message"]
        assert len(decisions) == 1
    tenth = session.receive("not JSON")
    assert errors(tenth) == ["bad_message"]
    assert tenth[1:] == [Leave("bad_messages"), Close(1008, "bad_message")]
    assert BAD_MESSAGES_AT_MOST == 10


def test_ten_bad_messages_close_also_when_good_ones_stand_between() -> None:
    session = joined_session()
    for _ in range(9):
        session.receive("not JSON")
        session.receive('{"type":"mute","muted":true}')
    assert session.receive("not JSON")[-1] == Close(CLOSE_POLICY, "bad_message")


def test_ten_bad_messages_without_hello_close_and_nobody_leaves() -> None:
    session = Session(now=0.0)
    for _ in range(9):
        session.receive(OFFER)
    tenth = session.receive(OFFER)
    assert tenth[-1] == Close(CLOSE_POLICY, "bad_message")
    assert not any(isinstance(decision, Leave) for decision in tenth)


def test_a_binary_message_is_a_bad_one() -> None:
    session = joined_session()
    assert errors(session.receive_binary()) == ["bad_message"]
    for _ in range(8):
        session.receive_binary()
    assert session.receive_binary()[-1] == Close(CLOSE_POLICY, "bad_message")


KNOWN = [
    HELLO,
    OFFER,
    BYE,
    candidate(),
    '{"type":"language","language":"fr"}',
    '{"type":"mute","muted":true}',
    '{"type":"hello","version":3,"name":""}',
]


@given(
    st.lists(
        st.sampled_from(KNOWN)
        | st.text()
        | st.just(b"")
        | st.floats(0, 3, allow_nan=False).map(lambda passed: ("time", passed)),
        max_size=60,
    )
)
def test_whatever_comes_there_are_only_decisions(
    inputs: list[str | bytes | tuple[str, float]],
) -> None:
    session, now, closes = Session(now=0.0), 0.0, 0
    for given_in in inputs:
        was_closed = session.state is State.CLOSED
        if isinstance(given_in, str):
            decisions = session.receive(given_in)
        elif isinstance(given_in, bytes):
            decisions = session.receive_binary()
        else:
            now += given_in[1]
            decisions = session.expire(now)
        if any(isinstance(decision, Join) for decision in decisions):
            decisions = decisions + session.joined()
        assert all(isinstance(decision, Decision) for decision in decisions)
        assert not (was_closed and decisions)
        closes += sum(isinstance(decision, Close) for decision in decisions)
        assert closes == (session.state is State.CLOSED)
        # Close is the last thing to do, and what is due is never in the past
        assert not any(isinstance(decision, Close) for decision in decisions[:-1])
        if not isinstance(given_in, str | bytes):
            assert session.next_deadline() > now or session.state is State.CLOSED
