"""A call ends for the bot in many ways, and each leaves nothing behind."""

import asyncio
import contextlib
import gc
import os
from collections import Counter

import pytest

import server.talk_bot
from server.machine import resident_bytes
from server.participant import Participant as InRoom
from signaling import hpb
from soak.talk.nextcloud import OUT_OF_CALL
from soak.talk.participant import participant
from soak.talk.stack import TalkStack
from tests.clients import until
from tests.talk.calls import ROOM, all_closed, final_from, over, sounds, the_call
from tests.talk.conftest import Bot
from transcriber.allocator import give_back

CALLS = 50


async def test_the_end_for_all_is_the_bots(stack: TalkStack, scripted_bot: Bot) -> None:
    async with participant(stack, ROOM, "Ada") as ada:
        await ada.speak(sounds(10))
        assert await scripted_bot.transcribe(ROOM, ada.talk.nc_session) == 200
        await final_from(ada, ada.session)
        call = the_call(scripted_bot)
        await stack.nextcloud.end_call_for_all(ROOM)
        assert await over(scripted_bot, call) == "call_ended"
        await all_closed(scripted_bot)


async def test_a_room_that_is_deleted_is_left(stack: TalkStack, scripted_bot: Bot) -> None:
    async with participant(stack, ROOM, "Ada") as ada:
        await ada.speak(sounds(10))
        assert await scripted_bot.transcribe(ROOM, ada.talk.nc_session) == 200
        await until(lambda: the_call(scripted_bot).speakers == 1)
        call = the_call(scripted_bot)
        await stack.nextcloud.delete_room(ROOM)
        assert await over(scripted_bot, call) == "deleted"
        await all_closed(scripted_bot)


async def test_a_bot_that_is_kicked_goes(stack: TalkStack, scripted_bot: Bot) -> None:
    async with participant(stack, ROOM, "Ada") as ada:
        await ada.speak(sounds(10))
        assert await scripted_bot.transcribe(ROOM, ada.talk.nc_session) == 200
        await until(lambda: the_call(scripted_bot).speakers == 1)
        call = the_call(scripted_bot)
        await stack.nextcloud.disinvite(ROOM, call.session)
        assert await over(scripted_bot, call) == "kicked"
        await all_closed(scripted_bot)


async def test_a_participant_who_is_kicked_is_heard_no_more(
    stack: TalkStack, scripted_bot: Bot
) -> None:
    async with participant(stack, ROOM, "Ada") as ada, participant(stack, ROOM, "Ben") as ben:
        await ben.enter_call()
        await ada.speak(sounds(10))
        assert await scripted_bot.transcribe(ROOM, ben.talk.nc_session) == 200
        await until(lambda: the_call(scripted_bot).speakers == 1)
        await stack.nextcloud.kick(ada.talk)
        await until(lambda: the_call(scripted_bot).speakers == 0)
        assert not the_call(scripted_bot).is_over


async def test_alone_in_the_call_it_leaves(
    stack: TalkStack, scripted_bot: Bot, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hpb, "ALONE_FOR_S", 1.0)
    async with participant(stack, ROOM, "Ada") as ada:
        await ada.enter_call()
        assert await scripted_bot.transcribe(ROOM, ada.talk.nc_session) == 200
        call = the_call(scripted_bot)
        await asyncio.sleep(1.5)
        assert not call.is_over
        await ada.enter_call(OUT_OF_CALL)
        assert await over(scripted_bot, call, 10.0) == "alone"
        await all_closed(scripted_bot)


@pytest.mark.parametrize("how", ["asked no more", "left the room", "never came"])
async def test_when_nobody_who_asked_is_there_it_leaves(
    stack: TalkStack, scripted_bot: Bot, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    monkeypatch.setattr(server.talk_bot, "_NO_TARGET_S", 1.0)
    async with participant(stack, ROOM, "Ada") as ada, participant(stack, ROOM, "Ben") as ben:
        await ben.enter_call()
        await ada.enter_call()
        asks = "someone-who-never-came" if how == "never came" else ada.talk.nc_session
        assert await scripted_bot.transcribe(ROOM, asks) == 200
        call = the_call(scripted_bot)
        if how != "never came":
            await asyncio.sleep(1.5)
            assert not call.is_over
        if how == "asked no more":
            assert await scripted_bot.transcribe(ROOM, asks, enable=False) == 200
        elif how == "left the room":
            await ada.leave_call()
            await ada.leave_room()
        assert await over(scripted_bot, call, 10.0) == "left"
        await all_closed(scripted_bot)


async def test_one_who_asks_again_in_time_keeps_it(
    stack: TalkStack, scripted_bot: Bot, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server.talk_bot, "_NO_TARGET_S", 2.0)
    async with participant(stack, ROOM, "Ada") as ada:
        await ada.enter_call()
        for _ in range(3):
            assert await scripted_bot.transcribe(ROOM, ada.talk.nc_session) == 200
            call = the_call(scripted_bot)
            assert await scripted_bot.transcribe(ROOM, ada.talk.nc_session, enable=False) == 200
            await asyncio.sleep(1.0)
            assert not call.is_over


async def test_leaving_closes_everything_within_5_s(stack: TalkStack, scripted_bot: Bot) -> None:
    loop = asyncio.get_running_loop()
    async with participant(stack, ROOM, "Ada") as ada, participant(stack, ROOM, "Ben") as ben:
        await ada.speak(sounds(20))
        await ben.speak(sounds(20))
        assert await scripted_bot.transcribe(ROOM, ada.talk.nc_session) == 200
        await final_from(ada, ada.session)
        await final_from(ada, ben.session)
        session = the_call(scripted_bot).session
        began = loop.time()
        assert await scripted_bot.leave(ROOM) == 200
        await all_closed(scripted_bot, 5.0 - (loop.time() - began))
        # the others see it go at once
        await ada.talking.wait_for(
            lambda m: session in m.get("event", {}).get("leave", ()), within_s=5.0
        )


async def test_leaving_a_server_that_does_not_answer_takes_no_longer(
    stack: TalkStack, scripted_bot: Bot
) -> None:
    loop = asyncio.get_running_loop()
    async with participant(stack, ROOM, "Ada") as ada:
        await ada.speak(sounds(20))
        assert await scripted_bot.transcribe(ROOM, ada.talk.nc_session) == 200
        await final_from(ada, ada.session)
        stack.signaling.freeze()
        try:
            began = loop.time()
            assert await scripted_bot.leave(ROOM) == 200
            await all_closed(scripted_bot, 5.0 - (loop.time() - began))
        finally:
            stack.signaling.thaw()


async def test_a_bot_that_leaves_while_it_asks_for_offers_leaves_no_one_in_the_room(
    stack: TalkStack, scripted_bot: Bot
) -> None:
    async with participant(stack, ROOM, "Ada") as ada, participant(stack, ROOM, "Ben") as ben:
        await ada.speak(sounds(20))
        await ben.speak(sounds(20))
        for wait_ms in range(0, 200, 20):
            assert await scripted_bot.transcribe(ROOM, ada.talk.nc_session) == 200
            await asyncio.sleep(wait_ms / 1000)
            assert await scripted_bot.leave(ROOM) == 200
            await all_closed(scripted_bot)


async def test_leaving_does_not_wait_for_an_offer_that_takes_long_to_answer(
    stack: TalkStack, scripted_bot: Bot, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer, begun = InRoom.answer, asyncio.Event()

    async def answer_late(self: InRoom, sdp: str) -> str:
        begun.set()
        await asyncio.sleep(20.0)  # as gathering may, with a relay that does not answer
        return await answer(self, sdp)

    monkeypatch.setattr(InRoom, "answer", answer_late)
    async with participant(stack, ROOM, "Ada") as ada:
        await ada.speak(sounds(20))
        assert await scripted_bot.transcribe(ROOM, ada.talk.nc_session) == 200
        await asyncio.wait_for(begun.wait(), 10.0)
        assert await scripted_bot.leave(ROOM) == 200
        await all_closed(scripted_bot)


async def test_fifty_calls_leave_nothing_behind(stack: TalkStack, scripted_bot: Bot) -> None:
    bot = scripted_bot
    async with participant(stack, ROOM, "Ada") as ada:
        await ada.speak(sounds(200, sound_s=0.5, pause_s=0.5))

        async def call() -> None:
            assert await bot.transcribe(ROOM, ada.talk.nc_session) == 200
            await until(lambda: _is_heard(bot))
            assert await bot.leave(ROOM) == 200
            await all_closed(bot)
            for kept in (ada.talking.seen, ada.talking.arrived, stack.nextcloud.requests):
                kept.clear()  # by the test itself

        for _ in range(5):  # what is made on first use
            await call()
        before = _left()
        for _ in range(CALLS):
            await call()
        with contextlib.suppress(TimeoutError):  # the loop closes what it was told to
            await until(lambda: not _tasks() - before.tasks)
        after = _left()
        assert dict(after.tasks - before.tasks) == {}
        # the signaling server asks Nextcloud, which is in this process, on up to 8 connections
        assert after.descriptors <= before.descriptors + 8
        grown_kb = (after.memory - before.memory) / 1024
        print(f"{CALLS} calls grew {grown_kb:.0f} KB")  # noqa: T201 - a measured number
        assert grown_kb < 1024


def _is_heard(bot: Bot) -> bool:
    room = bot.server.lobby.rooms.get(f"talk-{ROOM}")
    return room is not None and any(peer.received_at for peer in room.peers)


def _tasks() -> Counter[str]:
    """By what they do. How often it is asked at once is up to who asks."""
    names = Counter(getattr(t.get_coro(), "__qualname__", "") for t in asyncio.all_tasks())
    del names["RequestHandler.start"]
    return names


class _left:  # noqa: N801 - read as a verb
    """What is there now."""

    def __init__(self) -> None:
        for _ in range(3):
            gc.collect()
        give_back()
        self.tasks = _tasks()
        self.descriptors = len(os.listdir("/proc/self/fd"))
        self.memory = resident_bytes()
