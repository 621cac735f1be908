"""What is between the bot and the call goes away, and comes back."""

import asyncio
import os
import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

import server.talk_bot
from server.talk_bot import TalkBot
from signaling import hpb
from soak.talk.participant import Participant, participant
from soak.talk.stack import TalkStack
from tests.clients import Network, until
from tests.talk.calls import (
    ROOM,
    Said,
    assert_read,
    final_from,
    finals_of,
    sounds,
    the_call,
)
from tests.talk.conftest import SCRIPTED, Bot, bot_of, settings_for
from tests.talk.relay import Relay, relay

# Five minutes by hand.
CUTS_S = float(os.environ.get("ROOMSCRIBE_TALK_CUTS_S", "15"))
# By hand 40: beyond what the server keeps a session for.
AWAY_S = float(os.environ.get("ROOMSCRIBE_TALK_AWAY_S", "3"))


@pytest_asyncio.fixture
async def way(stack: TalkStack) -> AsyncIterator[Relay]:
    async with relay(stack.signaling.port) as opened:
        yield opened


@pytest_asyncio.fixture
async def far_bot(stack: TalkStack, way: Relay, tmp_path: Path) -> AsyncIterator[Bot]:
    """Its way to the signaling server can be cut."""
    async with bot_of(settings_for(stack, tmp_path, SCRIPTED, hpb_url=way.url)) as started:
        yield started


async def listened(bot: Bot, ada: Participant, ben: Participant) -> Said:
    """Ada and Ben are heard, and Ada reads."""
    await ada.speak(sounds(1000, sound_s=0.7, pause_s=1.0))
    await ben.speak(sounds(1000, sound_s=1.6, pause_s=1.0))
    assert await bot.transcribe(ROOM, ada.talk.nc_session) == 200
    await until(lambda: f"talk-{ROOM}" in bot.server.lobby.rooms)
    said = Said(bot)
    await final_from(ada, ada.session)
    await final_from(ada, ben.session)
    return said


async def come_back(*people: Participant) -> None:
    """As a browser does when the signaling server was away: anew, and in the call again."""
    for someone in people:
        assert not await someone.come_back()
        await someone.stop_publishing()
    for someone in people:
        await someone.enter_call()
        await someone.publish(sounds(1000, sound_s=0.7, pause_s=1.0))


async def test_a_lost_socket_is_resumed_and_every_caption_comes_once(
    stack: TalkStack, far_bot: Bot, way: Relay
) -> None:
    async with participant(stack, ROOM, "Ada") as ada, participant(stack, ROOM, "Ben") as ben:
        said = await listened(far_bot, ada, ben)
        call, session = the_call(far_bot), the_call(far_bot).session
        before = len(said.texts)
        await way.close()
        way.cut()
        await until(lambda: len(said.texts) >= before + 4)  # the media goes on
        assert len(finals_of(ada)) <= before + 1
        await way.open()
        await assert_read(ada, said)
        assert call.session == session
        told = len(said.texts)
        await until(lambda: len(said.texts) >= told + 3)
        await assert_read(ada, said)
        assert _joins(ben, session) == 1


async def test_who_begins_to_speak_while_the_line_is_cut_is_heard_after_it(
    stack: TalkStack, far_bot: Bot, way: Relay
) -> None:
    async with participant(stack, ROOM, "Ada") as ada, participant(stack, ROOM, "Ben") as ben:
        await ada.enter_call()
        assert await far_bot.transcribe(ROOM, ada.talk.nc_session) == 200
        await way.close()
        way.cut()
        await ben.speak(sounds(20))
        assert await far_bot.transcribe(ROOM, ben.talk.nc_session) == 200
        await way.open()
        first = await final_from(ada, ben.session)
        assert (await final_from(ben, ben.session)).text == first.text


async def test_what_a_dead_line_swallowed_is_sent_again(
    stack: TalkStack, far_bot: Bot, way: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server.talk_bot, "_PING_EVERY_S", 4.0)
    async with participant(stack, ROOM, "Ada") as ada, participant(stack, ROOM, "Ben") as ben:
        said = await listened(far_bot, ada, ben)
        before = len(said.texts)
        connections = way.connections
        way.swallow()
        await until(lambda: way.connections > connections, 15.0)  # noticed
        assert len(said.texts) >= before + 2
        way.cut()
        way.flow()
        await assert_read(ada, said, 20.0, may_repeat=1)


async def test_a_server_that_stood_still_reads_all_when_it_goes_on(
    stack: TalkStack, scripted_bot: Bot
) -> None:
    async with participant(stack, ROOM, "Ada") as ada, participant(stack, ROOM, "Ben") as ben:
        said = await listened(scripted_bot, ada, ben)
        before = len(said.texts)
        stack.signaling.freeze()
        await asyncio.sleep(4.0)
        stack.signaling.thaw()
        assert len(said.texts) >= before + 2
        await assert_read(ada, said)


async def test_too_late_to_resume_the_call_goes_on_in_a_new_session(
    stack: TalkStack, far_bot: Bot, way: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    if AWAY_S < 30.0:
        monkeypatch.setattr(hpb, "RESUME_WITHIN_S", AWAY_S / 2)
    async with participant(stack, ROOM, "Ada") as ada, participant(stack, ROOM, "Ben") as ben:
        said = await listened(far_bot, ada, ben)
        call, session = the_call(far_bot), the_call(far_bot).session
        await way.close()
        way.cut()
        await asyncio.sleep(AWAY_S)
        await way.open()
        # what was said meanwhile comes, and then what is said now
        told = len(said.texts)
        await until(lambda: len(said.texts) >= told + 4, 40.0)
        await assert_read(ada, said, may_repeat=1)
        assert call.session not in ("", session)
        room = far_bot.server.lobby.rooms[f"talk-{ROOM}"]
        assert len(room.participants) == 2


async def test_a_signaling_server_that_was_stopped_finds_the_bot_again(
    stack: TalkStack, scripted_bot: Bot
) -> None:
    async with participant(stack, ROOM, "Ada") as ada, participant(stack, ROOM, "Ben") as ben:
        said = await listened(scripted_bot, ada, ben)
        call, session = the_call(scripted_bot), the_call(scripted_bot).session
        await stack.signaling.stop()
        await asyncio.sleep(2.0)
        await stack.signaling.start()
        await come_back(ada, ben)
        await until(lambda: call.session not in ("", session), 30.0)
        told = len(said.texts)
        await until(lambda: len(said.texts) >= told + 4, 30.0)
        await assert_read(ada, said, may_repeat=1)
        assert {t.speaker_session for t in finals_of(ada)[-4:]} <= {ada.session, ben.session}


async def test_a_janus_that_was_killed_is_listened_to_again(
    stack: TalkStack, scripted_bot: Bot
) -> None:
    async with participant(stack, ROOM, "Ada") as ada, participant(stack, ROOM, "Ben") as ben:
        await listened(scripted_bot, ada, ben)
        await stack.restart_janus()
        before = len(finals_of(ada))
        for someone in (ada, ben):
            # as a browser does when its connection has failed
            await someone.leave_call()
            await someone.speak(sounds(1000, sound_s=0.7, pause_s=1.0))
        await until(lambda: _speakers(ada, before) == {ada.session, ben.session}, 30.0)
        assert the_call(scripted_bot).reason is None


async def test_a_listener_who_lost_their_socket_reads_what_they_missed(
    stack: TalkStack, scripted_bot: Bot
) -> None:
    async with participant(stack, ROOM, "Ada") as ada, participant(stack, ROOM, "Ben") as ben:
        said = await listened(scripted_bot, ada, ben)
        before = len(said.texts)
        ada.lose_socket()
        await until(lambda: len(said.texts) >= before + 3)
        assert await ada.come_back()
        await assert_read(ada, said)


async def test_a_peer_that_fails_is_noticed_within_5_s_and_asked_for_again(
    stack: TalkStack, scripted_bot: Bot, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = asyncio.get_running_loop()
    noticed: list[float] = []
    ask_again = TalkBot._ask_again

    def note(self: TalkBot, voice: server.talk_bot._Voice) -> None:
        noticed.append(loop.time())
        ask_again(self, voice)

    monkeypatch.setattr(TalkBot, "_ask_again", note)
    async with participant(stack, ROOM, "Ada") as ada, participant(stack, ROOM, "Ben") as ben:
        await listened(scripted_bot, ada, ben)
        room = scripted_bot.server.lobby.rooms[f"talk-{ROOM}"]
        (peer,) = [p.peer for p in room.participants.values() if p.name == "Ben"]
        assert peer is not None
        assert noticed == []
        Network(peer._connection).vanish()
        began = loop.time()
        await until(lambda: bool(noticed))
        assert noticed[0] - began <= 5.0
        await final_from(ada, ben.session, after=len(finals_of(ada, ben.session)))
        # the signaling server may close the new connection together with the old
        assert len(noticed) <= 2


@pytest.mark.timeout(120 + CUTS_S)
async def test_cut_at_random_moments_every_caption_comes(
    stack: TalkStack, far_bot: Bot, way: Relay
) -> None:
    chance = random.Random(5)
    loop = asyncio.get_running_loop()
    async with participant(stack, ROOM, "Ada") as ada, participant(stack, ROOM, "Ben") as ben:
        said = await listened(far_bot, ada, ben)
        before = len(said.texts)
        until_then, cuts = loop.time() + CUTS_S, 0
        while loop.time() < until_then:
            await asyncio.sleep(chance.uniform(0.2, 3.0))
            way.cut()
            cuts += 1
        assert len(said.texts) >= before + CUTS_S / 3
        await assert_read(ada, said, may_repeat=cuts // 5)
        print(f"{cuts} cuts, {len(said.texts)} finals")  # noqa: T201 - a measured number
        assert the_call(far_bot).reconnects >= cuts / 2  # one may meet another's end


def _joins(reader: Participant, session: str) -> int:
    events = [m.get("event", {}) for m in reader.talking.seen]
    return sum(entry["sessionid"] == session for e in events for entry in e.get("join", ()))


def _speakers(reader: Participant, after: int) -> set[str]:
    return {t.speaker_session for t in finals_of(reader)[after:]}
