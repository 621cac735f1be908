"""Those who speak in a call come, go, come back and have trouble of their own."""

import asyncio
import json

import pytest
from aiortc.mediastreams import VideoStreamTrack

from server.participant import Participant as InRoom
from server.speaker import Speaker
from soak.talk.nextcloud import IN_CALL, WITH_AUDIO, WITH_VIDEO
from soak.talk.participant import participant
from soak.talk.stack import TalkStack
from tests.clients import until
from tests.talk.calls import ROOM, final_from, finals_of, right, sounds, speech, the_call
from tests.talk.conftest import Bot

SENTENCE = "please send the quick report"
OTHER = "robert will open the window on friday"


async def test_a_bot_that_comes_late_hears_who_speaks_already(stack: TalkStack, bot: Bot) -> None:
    async with participant(stack, ROOM, "Ada") as ada, participant(stack, ROOM, "Ben") as ben:
        await ada.speak(speech(SENTENCE, times=8))
        await ben.speak(speech(OTHER, "rms", times=8))
        await asyncio.sleep(1.0)  # in the middle of what they say
        assert await bot.transcribe(ROOM, ada.talk.nc_session) == 200
        for someone, text in ((ada, SENTENCE), (ben, OTHER)):
            # the first may be of a sentence that had begun
            heard = await final_from(ada, someone.session, after=1)
            assert right(text, [heard]) >= 0.8


async def test_a_listener_who_is_not_in_the_call_reads_along(
    stack: TalkStack, scripted_bot: Bot
) -> None:
    async with participant(stack, ROOM, "Ada") as ada, participant(stack, ROOM, "Eve") as eve:
        await ada.speak(sounds(6))
        assert await scripted_bot.transcribe(ROOM, eve.talk.nc_session) == 200
        await final_from(eve, ada.session)


async def test_only_who_asked_reads_and_until_they_ask_no_more(
    stack: TalkStack, scripted_bot: Bot
) -> None:
    async with (
        participant(stack, ROOM, "Ada") as ada,
        participant(stack, ROOM, "Ben") as ben,
        participant(stack, ROOM, "Eve") as eve,
    ):
        assert await scripted_bot.transcribe(ROOM, ada.talk.nc_session) == 200
        await ada.speak(sounds(30))
        await ben.enter_call()
        await eve.enter_call()
        await final_from(ada, ada.session)
        assert await scripted_bot.transcribe(ROOM, eve.talk.nc_session) == 200
        first = await final_from(eve, ada.session)
        both = [t.text for t in finals_of(ada)]
        assert first.text in both
        assert await scripted_bot.transcribe(ROOM, ada.talk.nc_session, enable=False) == 200
        before = len(ada.transcripts)
        await final_from(eve, ada.session, after=len(finals_of(eve)) + 1)
        assert len(ada.transcripts) <= before + 1
        assert ben.transcripts == []


async def test_who_leaves_the_call_and_comes_back_is_heard_again(
    stack: TalkStack, bot: Bot
) -> None:
    async with participant(stack, ROOM, "Ada") as ada, participant(stack, ROOM, "Ben") as ben:
        await ben.enter_call()
        await ada.speak(speech(SENTENCE))
        assert await bot.transcribe(ROOM, ben.talk.nc_session) == 200
        assert right(SENTENCE, [await final_from(ben, ada.session)]) >= 0.8
        await ada.leave_call()
        await until(lambda: the_call(bot).speakers == 0)
        room = bot.server.lobby.rooms[f"talk-{ROOM}"]
        await until(lambda: not room.participants and not room.peers)
        await ada.enter_call()
        await ada.publish(speech(OTHER, "rms"))
        assert right(OTHER, [await final_from(ben, ada.session, after=1)]) >= 0.8
        assert len(finals_of(ben)) == 2


async def test_who_publishes_anew_without_a_word_is_heard_again(stack: TalkStack, bot: Bot) -> None:
    async with participant(stack, ROOM, "Ada") as ada, participant(stack, ROOM, "Ben") as ben:
        await ben.enter_call()
        await ada.speak(speech(SENTENCE))
        assert await bot.transcribe(ROOM, ben.talk.nc_session) == 200
        await final_from(ben, ada.session)
        await ada.stop_publishing()
        await asyncio.sleep(0.5)  # an offer that meets the end of the one before gets no answer
        await ada.publish(speech(OTHER, "rms", times=6))
        # what they say until the bot has noticed is lost
        heard = await final_from(ben, ada.session, after=2)
        assert right(OTHER, [heard]) >= 0.8
        room = bot.server.lobby.rooms[f"talk-{ROOM}"]
        assert len(room.participants) == 1


async def test_one_who_sends_video_too_is_heard(stack: TalkStack, bot: Bot) -> None:
    async with participant(stack, ROOM, "Ada") as ada:
        await ada.enter_call(IN_CALL | WITH_AUDIO | WITH_VIDEO)
        assert await bot.transcribe(ROOM, ada.talk.nc_session) == 200
        await ada.publish(speech(SENTENCE, times=3), VideoStreamTrack())
        # the bot may come when the first of them has begun
        await until(
            lambda: any(right(SENTENCE, [said]) >= 0.8 for said in finals_of(ada, ada.session))
        )
        (peer,) = bot.server.lobby.rooms[f"talk-{ROOM}"].peers
        assert peer.state == "connected"


async def test_one_speakers_trouble_stays_with_that_speaker(
    stack: TalkStack, scripted_bot: Bot, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with participant(stack, ROOM, "Ada") as ada, participant(stack, ROOM, "Ben") as ben:
        await ada.speak(sounds(40))
        await ben.speak(sounds(40))
        assert await scripted_bot.transcribe(ROOM, ada.talk.nc_session) == 200
        await final_from(ada, ada.session)
        await final_from(ada, ben.session)
        broken = _break_speaker("Ben", monkeypatch)
        await until(lambda: broken[0] > 0)
        before = len(finals_of(ada, ben.session))
        peer = _peer_of(scripted_bot, "Ada")
        await final_from(ada, ada.session, after=len(finals_of(ada, ada.session)) + 1)
        assert _peer_of(scripted_bot, "Ada") is peer
        monkeypatch.undo()
        # they are asked for again, and heard
        await final_from(ada, ben.session, after=before + 1)


async def test_an_offer_that_cannot_be_answered_troubles_nobody_else(
    stack: TalkStack, scripted_bot: Bot, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = InRoom.answer
    refused: list[str] = []

    async def fail_at_first(self: InRoom, sdp: str) -> str:
        if self.name == "Ben" and len(refused) < 2:
            refused.append(self.name)
            raise RuntimeError("broken")
        return await answer(self, sdp)

    monkeypatch.setattr(InRoom, "answer", fail_at_first)
    async with participant(stack, ROOM, "Ada") as ada, participant(stack, ROOM, "Ben") as ben:
        await ada.speak(sounds(40))
        await ben.speak(sounds(40))
        assert await scripted_bot.transcribe(ROOM, ada.talk.nc_session) == 200
        await final_from(ada, ada.session)
        await final_from(ada, ben.session)
        assert len(refused) == 2


async def test_a_call_is_on_sse_and_in_the_exports(stack: TalkStack, bot: Bot) -> None:
    async with participant(stack, ROOM, "Ada") as ada, participant(stack, ROOM, "Ben") as ben:
        await ben.enter_call()
        assert await bot.transcribe(ROOM, ben.talk.nc_session) == 200
        await ada.enter_call()
        await ada.publish(speech(SENTENCE, times=3))
        await final_from(ben, ada.session)
        told = await _final_on_sse(bot)
        assert (told["room"], told["name"]) == (f"talk-{ROOM}", "Ada")
        heard = await final_from(ben, ada.session, after=1)
        text = await bot.read(f"/api/v1/rooms/talk-{ROOM}/transcript.txt")
        for final in finals_of(ben):
            assert final.text in text
        assert "Ada" in text
        segments = json.loads(await bot.read(f"/api/v1/rooms/talk-{ROOM}/transcript.json"))
        assert heard.text in json.dumps(segments)


async def test_what_is_said_after_the_language_was_set_is_of_it(
    stack: TalkStack, scripted_bot: Bot
) -> None:
    async with participant(stack, ROOM, "Ada") as ada:
        await ada.speak(sounds(40))
        assert await scripted_bot.transcribe(ROOM, ada.talk.nc_session) == 200
        assert (await final_from(ada, ada.session)).language == "en"
        asked = {"roomToken": ROOM, "langId": "de"}
        assert (await scripted_bot.ask("POST", "/api/v1/call/set-language", json=asked))[0] == 200
        await ada.wait_for_transcript(lambda t: t.is_final and t.language == "de")


def _break_speaker(name: str, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Whatever is heard of one of them fails; the count of times."""
    broken = [0]
    stream = Speaker._stream

    def fail(self: Speaker, chunk: object) -> object:
        if self.participant.name == name:
            broken[0] += 1
            raise RuntimeError("broken")
        return stream(self, chunk)  # type: ignore[arg-type]

    monkeypatch.setattr(Speaker, "_stream", fail)
    return broken


def _peer_of(bot: Bot, name: str) -> object:
    room = bot.server.lobby.rooms[f"talk-{ROOM}"]
    (peer,) = [p.peer for p in room.participants.values() if p.name == name]
    assert peer is not None
    return peer


async def _final_on_sse(bot: Bot) -> dict[str, object]:
    url = f"{bot.server.url}/api/v1/rooms/talk-{ROOM}/captions"
    async with asyncio.timeout(20), bot.http.get(url) as stream:
        assert stream.status == 200
        async for line in stream.content:
            if line.startswith(b"data:"):
                told: dict[str, object] = json.loads(line[5:])
                if told.get("type") == "caption" and told["final"]:
                    return told
    raise AssertionError("the stream ended")
