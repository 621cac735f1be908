import asyncio

import pytest
import pytest_asyncio

from server.lobby import Lobby
from server.participant import Participant
from server.talk_captions import Captioner
from tests.server.rooms import caption, gap, join

ADA, BEN = "ada-session", "ben-session"


class Clock:
    """The loop's time, by hand."""

    def __init__(self, loop: asyncio.AbstractEventLoop, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = loop.time()
        monkeypatch.setattr(loop, "time", lambda: self.now)

    async def pass_by(self, seconds: float) -> None:
        for _ in range(round(seconds / 0.05)):
            self.now += 0.05
            await asyncio.sleep(0)
            await asyncio.sleep(0)


class Sent:
    """A captioner in a call, and what it sent."""

    def __init__(self, speaker: Participant) -> None:
        self.told: list[tuple[str, str, bool]] = []
        self.at: list[float] = []
        self.numbers: list[int] = []
        self.captioner = Captioner(self._note)
        self.captioner.speaker(speaker.participant, ADA)
        self.captioner.add("nc-ben")
        self._speaker = speaker

    def _note(self, to: str, message: dict[str, object], number: int | None) -> None:
        assert message["speakerSessionId"] == ADA
        assert (number is not None) == message["final"]
        self.told.append((to, str(message["message"]), bool(message["final"])))
        self.at.append(asyncio.get_running_loop().time())
        if number is not None:
            self.numbers.append(number)

    @property
    def texts(self) -> list[str]:
        return [text for _, text, _ in self.told]

    def interim(self, text: str, tentative: str = "") -> None:
        said = caption(self._speaker, text, tentative=tentative, is_final=False)
        self.captioner.take(self._speaker, said)

    def final(self, text: str) -> None:
        self.captioner.take(self._speaker, caption(self._speaker, text))


@pytest.fixture
async def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(asyncio.get_running_loop(), monkeypatch)


@pytest_asyncio.fixture
async def sent(lobby: Lobby) -> Sent:
    """Ben asked for captions, was seen, and Ada speaks."""
    sent = Sent(await join(lobby))
    sent.captioner.seen("nc-ben", BEN)
    sent.captioner.go_on()
    return sent


async def test_a_final_goes_at_once_to_who_asked(sent: Sent) -> None:
    sent.captioner.seen("nc-eve", "eve-session")
    sent.final("we meet")
    assert sent.told == [(BEN, "we meet", True)]


async def test_interims_are_300_ms_apart_and_the_newest_goes(sent: Sent, clock: Clock) -> None:
    for count in range(1, 21):
        sent.interim("we ", "meet " * count)
        await clock.pass_by(0.1)
    await clock.pass_by(1.0)
    assert sent.texts[0] == "we meet "
    assert sent.texts[-1] == "we " + "meet " * 20
    gaps = [b - a for a, b in zip(sent.at, sent.at[1:], strict=False)]
    assert all(0.29 <= gap <= 0.41 for gap in gaps)


async def test_a_final_takes_the_place_of_an_interim_that_waits(sent: Sent, clock: Clock) -> None:
    sent.interim("we")
    sent.interim("we meet")
    sent.final("we meet today")
    await clock.pass_by(1.0)
    assert sent.told == [(BEN, "we", False), (BEN, "we meet today", True)]


async def test_the_same_interim_is_not_sent_twice(sent: Sent, clock: Clock) -> None:
    for _ in range(3):
        sent.interim("we meet")
        await clock.pass_by(0.5)
    sent.interim("we", " meet")
    await clock.pass_by(0.5)
    assert sent.texts == ["we meet"]


async def test_an_empty_final_takes_back_what_was_shown_and_only_that(
    sent: Sent, clock: Clock
) -> None:
    sent.final("")
    assert sent.told == []
    sent.interim("hm")
    sent.final("")
    assert sent.told == [(BEN, "hm", False), (BEN, "", True)]


async def test_a_gap_is_nothing_to_read(sent: Sent, lobby: Lobby) -> None:
    speaker = await join(lobby, "Eve")
    sent.captioner.speaker(speaker.participant, ADA)
    sent.captioner.take(speaker, gap(speaker))
    assert sent.told == []


async def test_who_asked_no_more_reads_no_more(sent: Sent) -> None:
    assert sent.captioner.has_targets
    sent.captioner.remove("nc-ben")
    sent.final("we meet")
    assert sent.told == []
    assert not sent.captioner.has_targets


async def test_finals_wait_for_a_listener_who_is_not_seen_yet(sent: Sent) -> None:
    sent.captioner.add("nc-eve")
    sent.interim("one")
    sent.final("one")
    sent.final("two")
    sent.captioner.seen("nc-eve", "eve-session")
    sent.captioner.seen("nc-eve", "eve-session")
    sent.final("three")
    assert [(text, final) for to, text, final in sent.told if to == "eve-session"] == [
        ("one", True),
        ("two", True),
        ("three", True),
    ]


async def test_a_listener_who_was_seen_before_they_asked_is_known(sent: Sent) -> None:
    sent.captioner.seen("nc-eve", "eve-session")
    sent.captioner.add("nc-eve")
    sent.final("one")
    assert ("eve-session", "one", True) in sent.told


async def test_who_left_is_no_target_but_who_came_back_before_that_is(sent: Sent) -> None:
    sent.captioner.seen("nc-ben", "ben-again")
    sent.captioner.gone(BEN)
    sent.final("one")
    assert sent.told == [("ben-again", "one", True)]
    sent.captioner.gone("ben-again")
    sent.final("two")
    assert len(sent.told) == 1
    assert not sent.captioner.has_targets


async def test_without_a_socket_finals_wait_and_interims_are_skipped(sent: Sent) -> None:
    sent.final("one")
    sent.captioner.read(sent.numbers[-1])
    sent.captioner.hold()
    sent.interim("tw")
    sent.final("two")
    sent.final("three")
    assert sent.texts == ["one"]
    sent.captioner.go_on()
    assert sent.texts == ["one", "two", "three"]


async def test_what_may_not_have_arrived_goes_again_and_before_what_followed(sent: Sent) -> None:
    for text in ("one", "two", "three"):
        sent.final(text)
    sent.captioner.read(sent.numbers[0])
    sent.captioner.hold()
    sent.final("four")
    sent.captioner.go_on()
    assert sent.texts[3:] == ["two", "three", "four"]
    sent.captioner.read(sent.numbers[-1])
    sent.captioner.hold()
    sent.captioner.go_on()
    assert len(sent.texts) == 6


async def test_in_a_new_session_finals_go_to_the_listeners_new_one(sent: Sent) -> None:
    sent.captioner.hold()
    sent.final("one")
    sent.captioner.forget_sessions()
    sent.captioner.go_on()
    assert sent.told == []
    assert not sent.captioner.has_targets
    sent.captioner.seen("nc-ben", "ben-anew")
    assert sent.told == [("ben-anew", "one", True)]


async def test_not_more_than_fifty_finals_wait(sent: Sent) -> None:
    sent.captioner.hold()
    for count in range(60):
        sent.final(f"number {count}")
    sent.captioner.go_on()
    assert sent.texts == [f"number {count}" for count in range(10, 60)]


async def test_closed_it_sends_nothing_that_waited(sent: Sent, clock: Clock) -> None:
    sent.interim("we")
    sent.interim("we meet")
    sent.captioner.close()
    await clock.pass_by(1.0)
    assert sent.texts == ["we"]
