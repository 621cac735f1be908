import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from signaling import messages
from signaling.errors import BadMessage, Refused
from signaling.messages import (
    MAX_MESSAGE_BYTES,
    Answer,
    Bye,
    Candidate,
    CaptionMessage,
    ClientBye,
    ClientMessage,
    EngineMessage,
    EngineSummary,
    Error,
    GapMessage,
    Hello,
    IceServerEntry,
    Joined,
    Language,
    Left,
    Load,
    Mute,
    Offer,
    Ping,
    RosterEntry,
    ServerMessage,
    Updated,
    Welcome,
    WordEntry,
    check_language,
    check_name,
    check_room,
    encode,
    parse,
)

LANGUAGES = ("en", "de", "pt-br", "zh")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"type":"hello","version":1,"name":"Desk 4"}', Hello(version=1, name="Desk 4")),
        (
            '{"type":"hello","version":1,"name":"A","language":"en","token":"t","resume":"r",'
            '"last_seq":812}',
            Hello(version=1, name="A", language="en", token="t", resume="r", last_seq=812),
        ),
        (
            '{"type":"hello","version":1,"name":"A","language":null,"token":null,"resume":null}',
            Hello(version=1, name="A"),
        ),
        ('{"type":"offer","sdp":"v=0"}', Offer(sdp="v=0")),
        (
            '{"type":"candidate","candidate":"candidate:1","sdpMid":"0"}',
            Candidate(candidate="candidate:1", sdpMid="0"),
        ),
        ('{"type":"candidate","candidate":""}', Candidate(candidate="")),
        ('{"type":"language","language":"fr"}', Language(language="fr")),
        ('{"type":"mute","muted":true}', Mute(muted=True)),
        ('{"type":"bye"}', ClientBye()),
        ('{"type":"bye","sent_by":"a newer page"}', ClientBye()),
    ],
)
def test_every_message_of_a_client_is_understood(text: str, message: ClientMessage) -> None:
    assert parse(text) == message


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "the message is not JSON"),
        ("{", "the message is not JSON"),
        ("hello", "the message is not JSON"),
        ('{"type":"hello"', "the message is not JSON"),
        ("[" * 5000, "the message is not JSON"),
        ("[]", "the message: "),
        ("3", "the message: "),
        ("null", "the message: "),
        ("{}", "the message's type is not known"),
        ('{"type":"join"}', "the message's type is not known"),
        ('{"type":7}', "the message's type is not known"),
        ('{"type":"welcome"}', "the message's type is not known"),
        ('{"type":"hello","version":2,"name":"A"}', "hello.version: "),
        ('{"type":"hello","version":1}', "hello.name: "),
        ('{"type":"hello","version":1,"name":4}', "hello.name: "),
        ('{"type":"hello","version":1,"name":"A","last_seq":-1}', "hello.last_seq: "),
        ('{"type":"offer"}', "offer.sdp: "),
        ('{"type":"offer","sdp":null}', "offer.sdp: "),
        ('{"type":"candidate","sdpMid":"0"}', "candidate.candidate: "),
        ('{"type":"candidate","candidate":"c","sdpMid":0}', "candidate.sdpMid: "),
        ('{"type":"language"}', "language.language: "),
        ('{"type":"mute"}', "mute.muted: "),
        ('{"type":"mute","muted":"perhaps"}', "mute.muted: "),
    ],
)
def test_a_bad_message_is_named_by_its_field(text: str, why: str) -> None:
    with pytest.raises(BadMessage) as refusal:
        parse(text)
    assert refusal.value.message.startswith(why)
    assert refusal.value.code == "bad_message"
    assert refusal.value.retryable


def test_a_bad_message_is_never_quoted_back() -> None:
    with pytest.raises(BadMessage) as refusal:
        parse('{"type":"mute","muted":"s3cret"}')
    assert "s3cret" not in refusal.value.message


def message_of_bytes(count: int, letter: str = "a") -> str:
    frame = '{"type":"offer","sdp":""}'
    room = count - len(frame)
    return f'{{"type":"offer","sdp":"{letter * (room // len(letter.encode()))}"}}'


def test_a_message_may_have_64_kib() -> None:
    message = message_of_bytes(MAX_MESSAGE_BYTES)
    assert len(message) == 65536
    assert isinstance(parse(message), Offer)


def test_a_message_over_64_kib_is_bad() -> None:
    with pytest.raises(BadMessage, match="larger than 64 KiB"):
        parse(message_of_bytes(MAX_MESSAGE_BYTES + 1))


def test_the_size_of_a_message_is_its_bytes_not_its_letters() -> None:
    message = message_of_bytes(MAX_MESSAGE_BYTES + 10, "é")
    assert len(message) < MAX_MESSAGE_BYTES
    with pytest.raises(BadMessage, match="larger than 64 KiB"):
        parse(message)


@given(st.text() | st.text(alphabet='{}[]":,typehlo0123 \ud800\x00'))
def test_any_text_is_a_message_or_a_bad_one(text: str) -> None:
    try:
        parse(text)
    except BadMessage as refusal:
        assert refusal.message  # noqa: PT017 - either is right


@given(
    st.dictionaries(
        st.sampled_from(["type", "version", "name", "sdp", "candidate", "language", "muted"]),
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats()
        | st.sampled_from(["hello", "offer", "candidate", "language", "mute", "bye"])
        | st.lists(st.text(max_size=3), max_size=2),
    )
)
def test_any_object_is_a_message_or_a_bad_one(fields: dict[str, object]) -> None:
    try:
        parse(json.dumps(fields))
    except BadMessage as refusal:
        assert refusal.message  # noqa: PT017 - either is right


@pytest.mark.parametrize("room", ["a", "standup", "A-Z_0-9", "-", "_", "x" * 64])
def test_a_room_may_have_this_name(room: str) -> None:
    assert check_room(room) == room


@pytest.mark.parametrize("room", ["", "x" * 65, "a b", "a/b", "..", "é", "a\n", "a.b", "%41"])
def test_a_room_may_not_have_this_name(room: str) -> None:
    with pytest.raises(Refused) as refusal:
        check_room(room)
    assert (refusal.value.code, refusal.value.status) == ("bad_room", 400)


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("Desk 4", "Desk 4"),
        ("  Ada  ", "Ada"),
        ("\tAda\n", "Ada"),
        ("x" * 64, "x" * 64),
        (" " + "x" * 64 + " ", "x" * 64),
        ("Zoë 王", "Zoë 王"),
        ("👩🏽‍🚀", "👩🏽‍🚀"),
    ],
)
def test_a_person_may_have_this_name(name: str, shown: str) -> None:
    assert check_name(name) == shown


@pytest.mark.parametrize(
    "name",
    ["", "   ", "x" * 65, "a\nb", "a\x00b", "a\x1bb", "a\x85b", "a\u2028b", "a\u2029b", "\ud800"],
)
def test_a_person_may_not_have_this_name(name: str) -> None:
    with pytest.raises(Refused) as refusal:
        check_name(name)
    assert (refusal.value.code, refusal.value.status) == ("bad_name", 400)


@pytest.mark.parametrize(
    ("asked", "engine_name"),
    [("en", "en"), ("EN", "en"), ("de-AT", "de"), ("pt-BR", "pt-br"), ("zh-Hant-TW", "zh")],
)
def test_a_language_is_found_by_its_tag_or_its_first_part(asked: str, engine_name: str) -> None:
    assert check_language(asked, LANGUAGES) == engine_name


@pytest.mark.parametrize("language", ["fr", "pt", "", "e", "english", "en_US", "en-", "<b>", "e n"])
def test_a_language_that_the_engine_does_not_know_is_refused(language: str) -> None:
    with pytest.raises(Refused) as refusal:
        check_language(language, LANGUAGES)
    assert (refusal.value.code, refusal.value.status) == ("bad_language", 400)


CAPTION = CaptionMessage(
    seq=812,
    room="standup",
    participant="p3",
    name="Desk 4",
    segment="p3-17",
    revision=4,
    stable="we meet in Paris",
    tentative=" on Mon",
    final=False,
    start=12.48,
    end=14.02,
    language="en",
    words=(),
    latency_ms=640,
    spoken_at="2026-10-05T09:30:00.120Z",
)
SERVER_MESSAGES: list[tuple[ServerMessage, str]] = [
    (
        Welcome(
            participant="p1",
            resume="r",
            room="standup",
            participants=(RosterEntry(participant="p1", name="A", muted=False, speaking=True),),
            ice_servers=(IceServerEntry(urls=("stun:s",)),),
            engine=EngineSummary(
                name="scripted",
                state="ready",
                model="m",
                languages=("en",),
                language="en",
                note="n",
            ),
        ),
        '{"type":"welcome","participant":"p1","resume":"r","room":"standup","participants":'
        '[{"participant":"p1","name":"A","muted":false,"speaking":true}],"ice_servers":'
        '[{"urls":["stun:s"],"username":null,"credential":null}],"engine":{"name":"scripted",'
        '"state":"ready","model":"m","languages":["en"],"language":"en","note":"n",'
        '"detects":false},'
        '"resumed":false,"rights":[]}',
    ),
    (Answer(sdp="v=0"), '{"type":"answer","sdp":"v=0"}'),
    (
        Joined(participant="p2", name="B", muted=False, speaking=False),
        '{"type":"joined","participant":"p2","name":"B","muted":false,"speaking":false}',
    ),
    (
        Updated(participant="p2", name="B", muted=True, speaking=False),
        '{"type":"updated","participant":"p2","name":"B","muted":true,"speaking":false}',
    ),
    (Left(participant="p2", reason="lost"), '{"type":"left","participant":"p2","reason":"lost"}'),
    (
        EngineMessage(state="loading", progress=0.42),
        '{"type":"engine","state":"loading","progress":0.42,"message":"","name":"","model":"",'
        '"languages":[],"note":"","detects":false}',
    ),
    (Load(state="catching_up", lag_s=1.2), '{"type":"load","state":"catching_up","lag_s":1.2}'),
    (
        CAPTION,
        '{"type":"caption","seq":812,"room":"standup","participant":"p3","name":"Desk 4",'
        '"segment":"p3-17","revision":4,"stable":"we meet in Paris","tentative":" on Mon",'
        '"final":false,"start":12.48,"end":14.02,"language":"en","words":[],"latency_ms":640,'
        '"spoken_at":"2026-10-05T09:30:00.120Z"}',
    ),
    (
        GapMessage(seq=3, room="r", participant="p1", name="A", start=1, end=2.5, reason="network"),
        '{"type":"gap","seq":3,"room":"r","participant":"p1","name":"A","start":1.0,"end":2.5,'
        '"reason":"network"}',
    ),
    (
        Error(code="bad_sdp", message="m", retryable=False),
        '{"type":"error","code":"bad_sdp","message":"m","retryable":false}',
    ),
    (Ping(), '{"type":"ping"}'),
    (Bye(reason="shutdown"), '{"type":"bye","reason":"shutdown"}'),
]


@pytest.mark.parametrize(
    ("message", "text"), SERVER_MESSAGES, ids=[m.type for m, _ in SERVER_MESSAGES]
)
def test_every_message_to_a_client_has_its_shape(message: ServerMessage, text: str) -> None:
    assert json.loads(encode(message)) == json.loads(text)


def test_words_are_a_list_of_words_with_times() -> None:
    word = WordEntry(word="Paris", start=13.0, end=13.5, confidence=0.9)
    sent = json.loads(encode(CAPTION.model_copy(update={"words": (word,)})))
    assert sent["words"] == [{"word": "Paris", "start": 13.0, "end": 13.5, "confidence": 0.9}]


@pytest.mark.parametrize(
    ("error", "shape"),
    [
        (BadMessage("why"), Error(code="bad_message", message="why", retryable=True)),
        (Refused("c", "why"), Error(code="c", message="why", retryable=False)),
        (Refused("c", "why", retryable=True), Error(code="c", message="why", retryable=True)),
    ],
)
def test_an_error_is_told_with_its_code(error: BadMessage | Refused, shape: Error) -> None:
    assert messages.error_of(error) == shape
