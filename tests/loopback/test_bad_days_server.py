"""What goes wrong inside: a listener who does not read, a speaker's pipeline, the engine."""

import asyncio
import os
import signal

import aiohttp
import numpy as np
import pytest

from server.app import Running
from server.participant import Participant
from server.room import Room
from soak.talk.heard import Message
from tests.clients import Client, Network, Voice, is_final, joined
from tests.server.rooms import caption
from tests.speech import silence, tone

LONG = "word " * 4000


def voice(*seconds: float) -> Voice:
    pieces = [silence(0.3, 48_000)]
    for length in seconds:
        pieces += [tone(length, 48_000), silence(0.7, 48_000)]
    return Voice(np.concatenate(pieces))


def the_room(server: Running) -> Room:
    return server.lobby.rooms["standup"]


def value(server: Running, name: str, **labels: str) -> float | None:
    return server.lobby.house.metrics.registry.get_sample_value(name, labels)


async def words(client: Client, *, since: int = 0) -> Message:
    """The next caption that says something."""
    return await client.wait_for(
        lambda m: bool(m["type"] == "caption" and (m["stable"] or m["tentative"])), since=since
    )


async def talk_until_left(room: Room, speaker: Participant, listener: Client) -> None:
    """Publish finals, as fast as those who read take them, until the listener is let go."""
    utterance = 100
    async with asyncio.timeout(60):
        while listener.participant in room.participants:
            utterance += 1
            room.publish(speaker, caption(speaker, LONG, utterance=utterance))
            await asyncio.sleep(0.005)


# Listeners


async def test_a_page_that_never_reads_its_captions_is_let_go_and_the_others_read_on(
    server: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    # nor does it answer pings, which a slow machine would see first
    monkeypatch.setattr("signaling.ws._HEARTBEAT_S", 600.0)
    async with (
        joined(server.url, "standup", "Ada") as ada,
        joined(server.url, "standup", "Ben") as ben,
    ):
        room = the_room(server)
        speaker = room.participants[ada.participant]
        ben.fall_silent()
        await talk_until_left(room, speaker, ben)
        left = await ada.wait_for(lambda m: bool(m["type"] == "left"))
        assert (left["participant"], left["reason"]) == ("p2", "slow_reader")
        assert value(server, "roomscribe_listeners_dropped_total") == 1
        room.publish(speaker, caption(speaker, utterance=999_999))
        await ada.wait_for(is_final("p1-999999"))
        numbers = [m["seq"] for m in ada.seen if m["type"] == "caption"]
        assert numbers == list(range(1, room.seq + 1))


async def test_a_data_channel_that_is_never_read_is_let_go_and_the_others_read_on(
    server: Running,
) -> None:
    async with (
        joined(server.url, "standup", "Ada") as ada,
        joined(server.url, "standup", "Ben") as ben,
    ):
        await ben.speak(voice())
        await ben.wait_until_connected()
        assert ben.connection is not None
        Network(ben.connection).take_in_nothing()
        room = the_room(server)
        speaker = room.participants[ada.participant]
        # interims are the first to give way
        for utterance in range(10):
            room.publish(speaker, caption(speaker, LONG, utterance=utterance))
        room.publish(speaker, caption(speaker, LONG, utterance=11, is_final=False))
        assert value(server, "roomscribe_captions_skipped_total") == 1
        assert ben.participant in room.participants
        await talk_until_left(room, speaker, ben)
        left = await ada.wait_for(lambda m: bool(m["type"] == "left"))
        assert (left["participant"], left["reason"]) == ("p2", "slow_reader")
        bye = await ben.wait_for(lambda m: bool(m["type"] == "bye"))
        assert bye["reason"] == "slow_reader"
        room.publish(speaker, caption(speaker, utterance=999_999))
        await ada.wait_for(is_final("p1-999999"))


# A speaker whose pipeline raises


@pytest.mark.slow
async def test_a_speaker_whose_pipeline_raises_is_told_and_can_go_on(
    server: Running, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("s3cret words")

    async with (
        joined(server.url, "standup", "Ada") as ada,
        joined(server.url, "standup", "Ben") as ben,
    ):
        await ada.speak(voice(1.0, 30))
        await ben.speak(voice(30))
        first = await ben.wait_for(is_final("p1-1"))
        await ben.wait_for(lambda m: bool(m["type"] == "caption" and m["segment"] == "p1-2"))
        stream = the_room(server).participants["p1"].stream
        assert stream is not None
        monkeypatch.setattr(stream, "push", fail)
        told = await ada.wait_for(lambda m: bool(m["type"] == "error"))
        assert (told["code"], told["retryable"]) == ("speaker_failed", True)
        assert value(server, "roomscribe_speakers_failed_total") == 1
        assert "a speaker failed" in [record.message for record in caplog.records]

        # nobody else notices: Ben goes on, and Ada is still here
        await ada.wait_for(
            lambda m: bool(m["type"] == "caption" and m["participant"] == "p2"),
            since=len(ada.seen),
        )
        assert not any(m["type"] in ("left", "error") for m in ben.seen)

        assert ada.connection is not None
        await ada.connection.close()
        await ada.speak(voice(1.0))
        # p1-2 had begun when it failed; segments are counted on, and positions go on
        again = await ben.wait_for(is_final("p1-3"))
        assert again["start"] > first["end"]
        assert again["stable"]


# The engine


def kill_engine(server: Running) -> int:
    pid = server.lobby.house.engine.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    return pid


@pytest.mark.slow
async def test_an_engine_that_is_killed_is_back_within_5_s_and_no_final_is_lost(
    server: Running,
) -> None:
    async with (
        joined(server.url, "standup", "Ada") as ada,
        joined(server.url, "standup", "Ben") as ben,
        joined(server.url, "elsewhere", "Eve") as eve,
    ):
        await ada.speak(voice(0.6, 1.6, 0.6))
        await ben.wait_for(is_final("p1-1"))
        await ben.wait_for(lambda m: bool(m["type"] == "caption" and m["segment"] == "p1-2"))
        pid = kill_engine(server)
        for page in (ada, ben, eve):
            await page.wait_for(
                lambda m: bool(m["type"] == "engine" and m["state"] == "restarting"), within_s=5
            )
            await page.wait_for(
                lambda m: bool(m["type"] == "engine" and m["state"] == "ready"), within_s=5
            )
        assert server.lobby.house.engine.pid not in (None, pid)

        for page in (ada, ben):
            await page.wait_for(is_final("p1-3"))
            finals = [m for m in page.seen if m["type"] == "caption" and m["final"]]
            assert [m["segment"] for m in finals] == ["p1-1", "p1-2", "p1-3"]
            assert len(finals[1]["stable"].split()) >= 2
            assert not any(m["type"] == "gap" for m in page.seen)
            numbers = [m["seq"] for m in page.seen if m["type"] == "caption"]
            assert len(numbers) == len(set(numbers))
        assert value(server, "roomscribe_engine_restarts_total") == 1


async def test_a_final_that_was_asked_for_when_the_engine_died_comes_once(
    server: Running,
) -> None:
    async with (
        joined(server.url, "standup", "Ada") as ada,
        joined(server.url, "standup", "Ben") as ben,
    ):
        await ada.speak(voice(30))
        await words(ben)
        kill_engine(server)
        # the utterance ends while there is no engine
        await ada.send(type="mute", muted=True)
        for page in (ada, ben):
            await page.wait_for_final("p1")
        await asyncio.sleep(0.5)
        for page in (ada, ben):
            assert len([m for m in page.seen if m["type"] == "caption" and m["final"]]) == 1


async def test_what_the_engine_never_answered_is_a_gap_on_every_page_and_in_the_transcript(
    server: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A final is given to a second engine too; here the first one's death is enough."""
    monkeypatch.setattr("transcriber.client._GIVEN_AT_MOST", 1)
    async with (
        joined(server.url, "standup", "Ada") as ada,
        joined(server.url, "standup", "Ben") as ben,
    ):
        await ada.speak(voice(30))
        await ben.wait_for(lambda m: bool(m["type"] == "caption" and m["stable"]))
        pid = server.lobby.house.engine.pid
        assert pid is not None
        # it hears nothing any more, so that the final is with it when it dies
        os.kill(pid, signal.SIGSTOP)
        await ada.send(type="mute", muted=True)
        await ben.wait_for(lambda m: bool(m["type"] == "updated" and m["muted"]))
        os.kill(pid, signal.SIGKILL)
        for page in (ada, ben):
            gap = await page.wait_for(lambda m: bool(m["type"] == "gap"))
            assert (gap["participant"], gap["reason"]) == ("p1", "engine")
            assert gap["end"] > gap["start"]
            # what two hearings had agreed on stays
            final = await page.wait_for_final("p1")
            assert final["stable"]
        said = await server.lobby.house.store.transcript("standup")
        assert said is not None
        assert [lost.reason for lost in said.gaps] == ["engine"]


async def test_while_the_engine_is_away_the_server_says_that_it_is_not_ready(
    server: Running,
) -> None:
    async with aiohttp.ClientSession() as watcher, joined(server.url, "standup", "Ada") as ada:
        assert (await watcher.get(f"{server.url}/readyz")).status == 200
        kill_engine(server)
        await ada.wait_for(lambda m: bool(m["type"] == "engine" and m["state"] == "restarting"))
        assert (await watcher.get(f"{server.url}/readyz")).status == 503
        health = await (await watcher.get(f"{server.url}/healthz")).json()
        assert health["status"] == "degraded"
        await ada.wait_for(lambda m: bool(m["type"] == "engine" and m["state"] == "ready"))
        assert (await watcher.get(f"{server.url}/readyz")).status == 200
