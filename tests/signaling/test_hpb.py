import hashlib
import hmac
import itertools
import json
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from signaling import hpb
from signaling.hpb import (
    AddCandidate,
    Answer,
    CloseSocket,
    Connect,
    Decision,
    Drop,
    Ended,
    Forgotten,
    Gone,
    HpbCall,
    InCall,
    Resumed,
    Seen,
    Send,
    State,
)

ROOM, BOT, ADA, BEN = "abc123", "bot-session", "ada-session", "ben-session"
SDP = "v=0\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111\r\n"


class Talk:
    """A bot in a call, and what it was told to do."""

    def __init__(self) -> None:
        self.call = HpbCall(ROOM, "s3cret", "https://cloud.example", random.Random(1))
        self.now = 100.0
        self.decisions: list[Decision] = []

    def do(self, decisions: list[Decision]) -> list[Decision]:
        self.decisions += decisions
        return decisions

    def receive(self, message: object) -> list[Decision]:
        return self.do(self.call.received(json.dumps(message), self.now))

    def wait(self, seconds: float) -> list[Decision]:
        """Tick by tick."""
        done: list[Decision] = []
        until = self.now + seconds
        while self.now < until:
            self.now += 0.25
            done += self.do(self.call.tick(self.now))
        return done

    def connect(self) -> list[dict[str, Any]]:
        return sent(self.do(self.call.connected(self.now)))

    def hello(self, session: str = BOT) -> list[dict[str, Any]]:
        return sent(self.receive(hello(session)))

    def join(self) -> "Talk":
        """Into the call."""
        self.connect()
        self.hello()
        self.receive({"id": "3", "type": "room", "room": {"roomid": ROOM, "properties": {}}})
        return self

    def speaks(self, session: str, flags: int = 3) -> "Talk":
        self.receive(update(user(session, flags)))
        self.wait(0.25)
        return self

    def sent_to(self, session: str, kind: str) -> list[dict[str, Any]]:
        return [
            m["message"]["data"]
            for m in sent(self.decisions)
            if m["type"] == "message"
            and m["message"]["recipient"]["sessionid"] == session
            and m["message"]["data"]["type"] == kind
        ]

    def asked(self, session: str) -> int:
        return len(self.sent_to(session, "requestoffer"))

    def last_id(self) -> str:
        return str(sent(self.decisions)[-1]["id"])


def sent(decisions: list[Decision]) -> list[dict[str, Any]]:
    return [json.loads(d.text) for d in decisions if isinstance(d, Send)]


def hello(session: str = BOT) -> dict[str, object]:
    return {"id": "1", "type": "hello", "hello": {"sessionid": session, "resumeid": "resume-1"}}


def user(session: str, flags: int, **more: object) -> dict[str, object]:
    return {
        "sessionId": session,
        "inCall": flags,
        "nextcloudSessionId": f"nc-{session}",
        **more,
    }


def update(*users: dict[str, object]) -> dict[str, object]:
    told = {"roomid": ROOM, "users": list(users)}
    return {
        "type": "event",
        "event": {"target": "participants", "type": "update", "update": told},
    }


def from_speaker(session: str, **data: object) -> dict[str, object]:
    sender = {"type": "session", "sessionid": session}
    return {"type": "message", "message": {"sender": sender, "data": data}}


def offer(session: str, sid: str = "sid-1") -> dict[str, object]:
    return from_speaker(
        session, type="offer", sid=sid, roomType="video", payload={"type": "offer", "sdp": SDP}
    )


def candidate(session: str, sid: str = "sid-1", text: str = "candidate:1") -> dict[str, object]:
    told = {"candidate": text, "sdpMid": "0", "sdpMLineIndex": 0}
    return from_speaker(session, type="candidate", sid=sid, payload={"candidate": told})


def error(code: str, answers: str | None = None) -> dict[str, object]:
    return {"id": answers, "type": "error", "error": {"code": code, "message": "no"}}


# Into the call


def test_the_bot_says_hello_with_a_proof_that_it_knows_the_secret() -> None:
    (said,) = Talk().connect()
    assert (said["type"], said["hello"]["version"]) == ("hello", "2.0")
    auth = said["hello"]["auth"]
    assert auth["type"] == "internal"
    told = auth["params"]
    assert len(told["random"]) >= 32
    expected = hmac.new(b"s3cret", told["random"].encode(), hashlib.sha256).hexdigest()
    assert told["token"] == expected
    assert told["backend"] == "https://cloud.example"


def test_each_hello_has_a_random_of_its_own() -> None:
    one, other = Talk().connect()[0], Talk().connect()[0]
    assert one["hello"]["auth"]["params"]["random"] != other["hello"]["auth"]["params"]["random"]


def test_a_server_that_knows_only_the_older_hello_gets_that() -> None:
    talk = Talk()
    talk.connect()
    (again,) = sent(talk.receive(error("invalid_hello_version", talk.last_id())))
    assert again["hello"]["version"] == "1.0"


def test_after_hello_it_is_in_the_call_and_joins_the_room() -> None:
    talk = Talk()
    talk.connect()
    in_call, room = talk.hello()
    assert in_call["internal"] == {"type": "incall", "incall": {"incall": 1}}
    assert room["room"] == {"roomid": ROOM, "sessionid": BOT}
    decisions = talk.receive({"type": "room", "room": {"roomid": ROOM}})
    assert decisions == [InCall()]
    assert talk.call.state is State.IN_CALL


def test_to_have_joined_already_is_to_be_in_the_call() -> None:
    talk = Talk()
    talk.connect()
    talk.hello()
    assert InCall() in talk.receive(error("already_joined", talk.last_id()))


@pytest.mark.parametrize("code", ["invalid_token", "auth_failed", "no_such_room"])
def test_a_refusal_that_will_not_pass_ends_it_with_its_code(code: str) -> None:
    talk = Talk()
    talk.connect()
    (ended,) = [d for d in talk.receive(error(code)) if isinstance(d, Ended)]
    assert ended.code == code
    assert talk.call.state is State.ENDED


def test_a_server_that_does_not_answer_is_left() -> None:
    talk = Talk()
    talk.connect()
    assert CloseSocket() not in talk.wait(4.5)
    assert CloseSocket() in talk.wait(1.0)


# Speakers


def test_who_speaks_is_asked_for_an_offer_and_its_answer_bears_its_sid() -> None:
    talk = Talk().join().speaks(ADA)
    assert talk.asked(ADA) == 1
    assert talk.sent_to(ADA, "requestoffer")[0]["roomType"] == "video"
    assert talk.receive(offer(ADA, "sid-7")) == [Answer(ADA, "sid-7", SDP)]
    talk.do(talk.call.answered(ADA, "sid-7", "the answer"))
    (answer,) = talk.sent_to(ADA, "answer")
    assert (answer["to"], answer["sid"], answer["roomType"]) == (ADA, "sid-7", "video")
    assert answer["payload"]["sdp"] == "the answer"


@pytest.mark.parametrize("flags", [0, 1, 2, 5])
def test_who_has_no_audio_in_the_call_is_not_asked(flags: int) -> None:
    assert Talk().join().speaks(ADA, flags).asked(ADA) == 0


def test_the_bot_and_others_of_the_house_are_not_asked() -> None:
    talk = Talk().join()
    talk.receive(update(user(BOT, 3), user("recording", 3, internal=True)))
    talk.wait(1.0)
    assert talk.asked(BOT) == talk.asked("recording") == 0


def test_one_question_at_a_time_for_each_and_another_if_no_offer_comes() -> None:
    talk = Talk().join().speaks(ADA)
    for _ in range(5):
        talk.speaks(ADA)
    assert talk.asked(ADA) == 1
    talk.wait(9.0)
    assert talk.asked(ADA) == 1
    talk.wait(4.0)
    assert talk.asked(ADA) == 2


@pytest.mark.parametrize("code", ["client_not_found", "processing_failed"])
def test_a_question_that_is_refused_is_put_again_ever_later(code: str) -> None:
    talk = Talk().join().speaks(ADA)
    gaps = []
    for count in range(1, 6):
        talk.receive(error(code, talk.last_id()))
        began = talk.now
        while talk.asked(ADA) == count:
            talk.wait(0.25)
        gaps.append(talk.now - began)
    assert gaps == sorted(gaps)
    assert gaps[0] <= 1.25
    assert gaps[-1] >= 8.0


def test_candidates_before_their_offer_wait_for_it() -> None:
    talk = Talk().join().speaks(ADA)
    assert talk.receive(candidate(ADA, "sid-2", "candidate:a")) == []
    assert talk.receive(candidate(ADA, "other", "candidate:b")) == []
    assert talk.receive(offer(ADA, "sid-2")) == [
        Answer(ADA, "sid-2", SDP),
        AddCandidate(ADA, "sid-2", "candidate:a", "0"),
    ]
    added = [AddCandidate(ADA, "sid-2", "candidate:c", "0")]
    assert talk.receive(candidate(ADA, "sid-2", "candidate:c")) == added


def test_an_answer_to_an_offer_that_was_replaced_is_not_sent() -> None:
    talk = Talk().join().speaks(ADA)
    talk.receive(offer(ADA, "sid-1"))
    talk.receive(offer(ADA, "sid-2"))
    assert talk.call.answered(ADA, "sid-1", "late") == []
    assert talk.call.answered(ADA, "sid-2", "right") != []


def test_who_is_silent_though_in_the_call_is_asked_again() -> None:
    talk = Talk().join().speaks(ADA)
    talk.receive(offer(ADA, "sid-1"))
    talk.do(talk.call.answered(ADA, "sid-1", "a"))
    talk.do(talk.call.lost(ADA, "an older one", talk.now))
    talk.wait(1.0)
    assert talk.asked(ADA) == 1
    talk.do(talk.call.lost(ADA, "sid-1", talk.now))
    talk.wait(1.0)
    assert talk.asked(ADA) == 2


@pytest.mark.parametrize("flags", [0, 1])
def test_who_leaves_the_call_or_stops_speaking_is_dropped(flags: int) -> None:
    talk = Talk().join().speaks(ADA)
    talk.receive(offer(ADA))
    decisions = talk.receive(update(user(ADA, flags)))
    assert Drop(ADA, has_left=not flags) in decisions
    talk.wait(20.0)
    assert talk.asked(ADA) == 1


def test_who_leaves_the_room_is_dropped_and_gone() -> None:
    talk = Talk().join().speaks(ADA)
    event = {"target": "room", "type": "leave", "leave": [ADA]}
    decisions = talk.receive({"type": "event", "event": event})
    assert decisions == [Drop(ADA, has_left=True), Gone(ADA)]


def test_who_left_the_room_is_not_asked_though_the_server_lists_them_still() -> None:
    talk = Talk().join().speaks(ADA)
    talk.receive({"type": "event", "event": {"target": "room", "type": "leave", "leave": [ADA]}})
    talk.speaks(ADA)
    assert talk.asked(ADA) == 1
    entry = {"sessionid": ADA, "user": {"displayname": "Ada"}}
    talk.receive({"type": "event", "event": {"target": "room", "type": "join", "join": [entry]}})
    talk.speaks(ADA)
    assert talk.asked(ADA) == 2


def test_who_re_publishes_is_asked_anew() -> None:
    talk = Talk().join().speaks(ADA)
    talk.receive(update(user(ADA, 1)))
    talk.speaks(ADA)
    assert talk.asked(ADA) == 2


def test_names_and_listeners_are_known_by_their_sessions() -> None:
    talk = Talk().join()
    entry = {"sessionid": ADA, "roomsessionid": "nc-ada", "user": {"displayname": "Ada"}}
    event = {"target": "room", "type": "join", "join": [entry]}
    assert talk.receive({"type": "event", "event": event}) == [Seen("nc-ada", ADA)]
    assert talk.call.names[ADA] == "Ada"


# Captions


def test_a_caption_is_of_the_shape_that_talk_reads() -> None:
    talk = Talk().join()
    decision = talk.call.transcript(BEN, {"message": "hi", "final": True, "langId": "en"})
    talk.do([decision])
    assert talk.sent_to(BEN, "transcript") == [
        {
            "type": "transcript",
            "roomType": "video",
            "message": "hi",
            "final": True,
            "langId": "en",
        }
    ]


# The end


@pytest.mark.parametrize(
    ("event", "code"),
    [
        (
            {
                "target": "participants",
                "type": "update",
                "update": {"roomid": ROOM, "incall": 0, "all": True},
            },
            "call_ended",
        ),
        (
            {"target": "roomlist", "type": "disinvite", "disinvite": {"roomid": ROOM}},
            "kicked",
        ),
        ({"target": "room", "type": "delete", "delete": {}}, "deleted"),
    ],
)
def test_the_calls_end_is_the_bots(event: dict[str, object], code: str) -> None:
    talk = Talk().join().speaks(ADA)
    decisions = talk.receive({"type": "event", "event": event})
    assert Drop(ADA, has_left=True) in decisions
    assert sent(decisions)[-1]["type"] == "bye"
    assert isinstance(decisions[-1], Ended)
    assert decisions[-1].code == code
    assert talk.receive(offer(ADA)) == talk.wait(5.0) == talk.call.disconnected(talk.now) == []


def test_another_rooms_end_is_not_ours() -> None:
    talk = Talk().join()
    event = {"target": "roomlist", "type": "disinvite", "disinvite": {"roomid": "other"}}
    assert talk.receive({"type": "event", "event": event}) == []


def test_alone_for_a_minute_it_leaves() -> None:
    talk = Talk().join().speaks(ADA)
    talk.receive(update(user(ADA, 0)))
    assert not any(isinstance(d, Ended) for d in talk.wait(59.0))
    talk.receive(update(user(BEN, 1)))
    assert not any(isinstance(d, Ended) for d in talk.wait(59.0))
    talk.receive(update(user(BEN, 0)))
    assert [d.code for d in talk.wait(61.0) if isinstance(d, Ended)] == ["alone"]


def test_asked_to_leave_it_says_bye() -> None:
    talk = Talk().join()
    *_, bye, ended = talk.call.leave()
    assert isinstance(bye, Send)
    assert isinstance(ended, Ended)
    assert ended.code == "left"


# A lost socket


def test_within_30_s_the_session_is_resumed_and_not_joined_again() -> None:
    talk = Talk().join().speaks(ADA)
    talk.receive(offer(ADA))
    assert talk.do(talk.call.disconnected(talk.now)) == [Connect(0.0)]
    talk.now += 29.0
    (resumed,) = talk.connect()
    assert resumed["hello"] == {"version": "2.0", "resumeid": "resume-1"}
    # the media never stopped: nobody is asked or dropped
    assert talk.receive(hello()) == [Resumed()]
    assert talk.call.state is State.IN_CALL
    talk.wait(3.0)
    assert talk.asked(ADA) == 1


def test_a_socket_lost_before_the_room_was_joined_joins_it_after_the_resume() -> None:
    talk = Talk()
    talk.connect()
    talk.hello()
    talk.do(talk.call.disconnected(talk.now))
    talk.connect()
    _, room = talk.hello()
    assert room["room"] == {"roomid": ROOM, "sessionid": BOT}
    assert InCall() in talk.receive(error("already_joined", talk.last_id()))


def test_a_server_that_wants_fewer_requests_is_left_for_a_while() -> None:
    talk = Talk()
    talk.connect()
    assert talk.receive(error("too_many_requests", talk.last_id())) == [CloseSocket()]


def test_an_older_server_is_resumed_by_its_own_hello() -> None:
    talk = Talk()
    talk.connect()
    talk.receive(error("invalid_hello_version", talk.last_id()))
    talk.hello()
    talk.receive({"type": "room", "room": {"roomid": ROOM}})
    talk.do(talk.call.disconnected(talk.now))
    (resumed,) = talk.connect()
    assert resumed["hello"]["version"] == "1.0"


def test_nobody_is_alone_before_the_update_that_says_so() -> None:
    talk = Talk().join()
    talk.wait(30.0)
    talk.do(talk.call.disconnected(talk.now))
    talk.now += 35.0
    talk.join()
    assert not any(isinstance(d, Ended) for d in talk.wait(5.0))


def test_one_malformed_user_takes_nothing_from_the_others() -> None:
    talk = Talk().join().speaks(ADA)
    broken = update(user(ADA, 0), {"inCall": 3}, user(BEN, 3))
    assert Drop(ADA, has_left=True) in talk.receive(broken)
    talk.wait(0.25)
    assert talk.asked(BEN) == 1
    endless = json.dumps(update(user("eve", 3))).replace('"inCall": 3', '"inCall": 1e999')
    assert talk.do(talk.call.received(endless, talk.now)) == []
    assert talk.call.ignored == {"malformed entry": 2}


def test_a_name_that_is_empty_gives_way_to_one() -> None:
    talk = Talk().join()
    entry = {"sessionid": ADA, "user": {"displayname": ""}}
    talk.receive({"type": "event", "event": {"target": "room", "type": "join", "join": [entry]}})
    talk.receive(update(user(ADA, 3, displayName="Ada")))
    assert talk.call.names[ADA] == "Ada"


def test_after_30_s_all_begins_anew() -> None:
    talk = Talk().join().speaks(ADA)
    talk.do(talk.call.disconnected(talk.now))
    talk.now += 31.0
    decisions = talk.do(talk.call.connected(talk.now))
    assert Drop(ADA, has_left=False) in decisions
    assert "auth" in sent(decisions)[0]["hello"]
    talk.hello("another session")
    talk.receive({"type": "room", "room": {"roomid": ROOM}})
    talk.speaks(ADA)
    assert talk.asked(ADA) == 2


def test_a_session_that_the_server_forgot_begins_anew_on_the_same_socket() -> None:
    talk = Talk().join().speaks(ADA)
    talk.do(talk.call.disconnected(talk.now))
    talk.connect()
    decisions = talk.receive(error("no_such_session", talk.last_id()))
    assert Drop(ADA, has_left=False) in decisions
    assert "auth" in sent(decisions)[0]["hello"]


def test_it_tries_five_times_ever_later_then_gives_up() -> None:
    talk = Talk()
    waits = []
    for _ in range(5):
        (connect,) = talk.call.disconnected(talk.now)
        assert isinstance(connect, Connect)
        waits.append(connect.after_s)
    assert waits[0] == 0.0
    for n, wait in enumerate(waits[1:], start=1):
        assert 0.5 * 2**n <= wait <= 2**n
    (ended,) = talk.call.disconnected(talk.now)
    assert isinstance(ended, Ended)
    assert ended.code == "unreachable"


def test_a_call_it_was_in_is_tried_for_two_minutes_and_often() -> None:
    talk = Talk().join()
    began = talk.now
    while not any(isinstance(d, Ended) for d in talk.do(talk.call.disconnected(talk.now))):
        connect = talk.decisions[-1]
        assert isinstance(connect, Connect)
        assert connect.after_s <= 4.0
        talk.now += connect.after_s
    assert 120.0 <= talk.now - began <= 124.0


def test_a_session_that_is_no_more_is_said_to_be_before_anyone_is_seen_anew() -> None:
    talk = Talk().join().speaks(ADA)
    talk.do(talk.call.disconnected(talk.now))
    talk.connect()
    decisions = talk.receive(error("no_such_session", talk.last_id()))
    assert decisions[0] == Forgotten()


def test_whoever_came_back_may_be_lost_as_often_again() -> None:
    talk = Talk().join()
    for _ in range(20):
        assert talk.call.disconnected(talk.now) == [Connect(0.0)]
        talk.connect()
        talk.hello()
        talk.now += 5.0


def test_a_bye_for_a_session_resumed_elsewhere_ends_the_socket_only() -> None:
    talk = Talk().join()
    assert talk.receive({"type": "bye", "bye": {"reason": "session_resumed"}}) == [CloseSocket()]


# Whatever comes, in whatever order

MESSAGES: list[dict[str, object]] = [
    {"type": "welcome", "welcome": {"version": "1.2.4", "features": []}},
    hello(),
    {"type": "room", "room": {"roomid": ROOM, "properties": {}}},
    update(user(ADA, 3), user(BEN, 1)),
    offer(ADA),
    candidate(ADA),
]


@pytest.mark.parametrize("order", list(itertools.permutations(range(len(MESSAGES))))[::7])
def test_in_any_order_nothing_is_raised_and_the_bot_gets_its_speaker(
    order: tuple[int, ...],
) -> None:
    talk = Talk()
    talk.connect()
    for index in order:
        talk.receive(MESSAGES[index])
    for index in (1, 2, 3, 4):
        talk.receive(MESSAGES[index])
        talk.wait(0.25)
    assert any(isinstance(d, Answer) for d in talk.decisions)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                [
                    *("type", "hello", "room", "event", "message", "target", "update", "users"),
                    *("sessionid", "sessionId", "inCall", "data", "sender", "sid", "payload"),
                    *("join", "leave", "error", "code", "id", "sdp", "candidate", "roomid"),
                ]
            ),
            inner
            | st.sampled_from(
                ["hello", "room", "event", "message", "error", "bye", "offer", "candidate", ADA]
            ),
            max_size=6,
        )
    ),
    max_leaves=20,
)


@given(st.lists(JSON | st.binary().map(repr), max_size=12), st.booleans())
def test_no_message_raises(messages: list[object], joined: bool) -> None:
    talk = Talk()
    if joined:
        talk.join().speaks(ADA)
    else:
        talk.connect()
    for message in messages:
        talk.receive(message)
        talk.wait(0.5)


def test_what_means_nothing_is_counted() -> None:
    talk = Talk().join()
    talk.do(talk.call.received("no json", talk.now))
    talk.receive({"type": "dialout"})
    talk.receive({"type": "event", "event": {"target": "room", "type": "federated"}})
    talk.receive(from_speaker(ADA, type="mute"))
    talk.receive(offer("a stranger"))
    assert talk.call.ignored == {
        "malformed": 1,
        "dialout": 1,
        "event room/federated": 1,
        "message mute": 1,
        "offer of a stranger": 1,
    }
    assert hpb.ALONE_FOR_S == 60.0
