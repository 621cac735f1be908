"""Whole rooms in one process: real peers, the wire, the scripted engine."""

import asyncio
import json
from dataclasses import replace

import aiohttp
import numpy as np
import pytest

from server.app import Running
from soak.talk.heard import Message
from tests.clients import Client, Voice, connected, is_final, joined, until
from tests.speech import Samples, silence, tone
from transcriber.engines.scripted import WORDS
from transcriber.types import Hypothesis


def speech(*seconds: float, level: float = 0.1) -> Samples:
    """Half a second of silence, then tones of these lengths with pauses that end them."""
    pieces = [silence(0.5, 48_000)]
    for length in seconds:
        pieces += [tone(length, 48_000, level), silence(0.7, 48_000)]
    return np.concatenate(pieces)


def assert_words_follow_the_clock(caption: Message) -> None:
    """The scripted engine's words are those of their half seconds: no audio was moved."""
    assert caption["words"]
    for word in caption["words"]:
        assert word["word"].lower() == WORDS[round(word["start"] * 2) % len(WORDS)]


def assert_nothing_twice(client: Client) -> None:
    numbers = [m["seq"] for m in client.seen if m["type"] in ("caption", "gap")]
    assert len(numbers) == len(set(numbers))


def assert_stable_only_grows(client: Client) -> None:
    shown: dict[str, list[str]] = {}
    for message in client.seen:
        if message["type"] == "caption" and not message["final"]:
            words = message["stable"].split()
            before = shown.get(message["segment"], [])
            assert words[: len(before)] == before
            shown[message["segment"]] = words


async def test_everyone_in_a_room_reads_who_said_what(server: Running) -> None:
    async with (
        joined(server.url, "standup", "Ada") as ada,
        joined(server.url, "standup", "Ben") as ben,
    ):
        await ada.speak(Voice(speech(2.0)))
        heard_by_ada = await ada.wait_for_final(ada.participant)
        heard_by_ben = await ben.wait_for_final(ada.participant)

    assert heard_by_ada == heard_by_ben
    assert heard_by_ben["name"] == "Ada"
    assert len(heard_by_ben["stable"].split()) >= 3
    assert heard_by_ben["tentative"] == ""
    assert_words_follow_the_clock(heard_by_ben)
    assert_stable_only_grows(ben)


async def test_two_who_speak_at_once_read_each_other(server: Running) -> None:
    async with (
        joined(server.url, "standup", "Ada") as ada,
        joined(server.url, "standup", "Ben") as ben,
    ):
        await ada.speak(Voice(speech(1.5, 1.0)))
        # loud, and so in capitals
        await ben.speak(Voice(speech(1.5, 1.0, level=0.9)))
        for reader in (ada, ben):
            for speaker in (ada, ben):
                await reader.wait_for(is_final(f"{speaker.participant}-2"))
        assert ada.finals == sorted(ben.finals, key=ada.finals.index)
        assert {(c["segment"], c["name"], c["stable"].isupper()) for c in ada.finals} == {
            ("p1-1", "Ada", False),
            ("p1-2", "Ada", False),
            ("p2-1", "Ben", True),
            ("p2-2", "Ben", True),
        }
        for reader in (ada, ben):
            assert_nothing_twice(reader)
            assert_stable_only_grows(reader)
        for caption in ada.finals:
            assert_words_follow_the_clock(caption)


async def test_captions_come_by_the_data_channel_where_there_is_one(server: Running) -> None:
    async with (
        joined(server.url, "standup", "Ada") as ada,
        joined(server.url, "standup", "Ben") as ben,
    ):
        await ada.speak(Voice(speech(1.5)))
        await ada.wait_until_connected()
        await ada.wait_for_final()
        await ben.wait_for_final()
        captions = [m for m in ada.seen if m["type"] == "caption"]
        assert captions == ada.heard_by_channel
        assert ben.heard_by_channel == []
        # the roster does not
        assert any(m["type"] == "updated" and m["speaking"] for m in ada.seen)


async def test_everyone_sees_who_is_speaking(server: Running) -> None:
    async with (
        joined(server.url, "standup", "Ada") as ada,
        joined(server.url, "standup", "Ben") as ben,
    ):
        await ada.speak(Voice(speech(1.5)))
        began = await ben.wait_for(lambda m: bool(m["type"] == "updated" and m["speaking"]))
        ended = await ben.wait_for(
            lambda m: bool(m["type"] == "updated" and not m["speaking"]),
            since=ben.seen.index(began),
        )
        assert began["participant"] == ended["participant"] == ada.participant


async def test_muting_stops_captions_and_unmuting_brings_them_back(server: Running) -> None:
    async with joined(server.url, "standup", "Ada") as ada:
        await ada.speak(Voice(tone(60, 48_000)))
        await ada.wait_for(lambda m: bool(m["type"] == "caption"))
        await ada.send(type="mute", muted=True)
        final = await ada.wait_for_final()
        seen = len(ada.seen)
        await asyncio.sleep(1.2)
        assert not any(m["type"] == "caption" for m in ada.seen[seen:])
        await ada.send(type="mute", muted=False)
        again = await ada.wait_for(lambda m: bool(m["type"] == "caption"), since=seen)
        assert again["segment"] == "p1-2"
        assert again["start"] > final["end"] + 1.0


async def test_all_of_a_speakers_audio_is_accounted_for_to_the_sample(server: Running) -> None:
    async with (
        aiohttp.ClientSession() as watcher,
        joined(server.url, "standup", "Ada") as ada,
        joined(server.url, "standup", "Ben") as ben,
    ):
        await ada.speak(Voice(speech(1.2, 0.8)))
        # in the middle, too: what is spoken just now is pending
        for segment in ("p1-1", "p1-2"):
            await ben.wait_for(is_final(segment))
            answer = await watcher.get(f"{server.url}/api/v1/rooms/standup")
            told = (await answer.json())["participants"][0]["audio"]
            dropped = told.pop("dropped")
            assert set(dropped) == {"overload", "network", "engine"}
            received = told.pop("received")
            assert received > 16_000
            assert sum(told.values()) + sum(dropped.values()) == received
            assert told["transcribed"] > 8_000
        ledger = server.lobby.rooms["standup"].participants["p1"].ledger()
        heard = ledger.heard + ledger.concealed + ledger.silence
        # chunks of the last moment are on their way between the two counts
        assert abs(received - heard) <= 8_000
        text = await (await watcher.get(f"{server.url}/metrics")).text()
        assert 'roomscribe_speech_seconds_total{fate="transcribed"}' in text


@pytest.mark.slow
async def test_a_language_holds_from_the_next_utterance_on(server: Running) -> None:
    async with joined(server.url, "standup", "Ada", language="de") as ada:
        await ada.speak(Voice(speech(0.8, 0.8)))
        await ada.wait_for(lambda m: bool(m["type"] == "caption"))
        await ada.send(type="language", language="fr")
        for segment, language in (("p1-1", "de"), ("p1-2", "fr")):
            final = await ada.wait_for(is_final(segment))
            assert final["language"] == language


@pytest.mark.slow
async def test_who_loses_the_socket_comes_back_and_misses_nothing(server: Running) -> None:
    async with (
        joined(server.url, "standup", "Ada") as ada,
        joined(server.url, "standup", "Ben") as ben,
    ):
        await ada.speak(Voice(speech(0.8, 0.8, 0.8)))
        first = await ben.wait_for_final(ada.participant)
        (peer,) = server.lobby.rooms["standup"].peers
        await ada.socket.close()
        await ben.socket.close()
        # while both are away
        await until(lambda: server.lobby.rooms["standup"].seq >= first["seq"] + 3)
        async with connected(server.url, "standup") as back:
            welcome = await back.hello("Ben", resume=ben.resume, last_seq=first["seq"])
            assert (welcome["participant"], welcome["resumed"]) == ("p2", True)
            last = await back.wait_for(is_final("p1-3"))
            numbers = [m["seq"] for m in back.seen if m["type"] == "caption"]
            assert numbers == list(range(first["seq"] + 1, last["seq"] + 1))
            assert [c["segment"] for c in back.finals] == ["p1-2", "p1-3"]
        # Ada's connection went on without her socket
        assert server.lobby.rooms["standup"].peers == [peer]


@pytest.mark.slow
async def test_the_transcript_says_what_was_read(server: Running) -> None:
    async with (
        joined(server.url, "standup", "Ada") as ada,
        aiohttp.ClientSession() as browser,
        browser.get(f"{server.url}/api/v1/rooms/standup/captions") as stream,
    ):
        await ada.speak(Voice(speech(0.8, 0.8)))
        for segment in ("p1-1", "p1-2"):
            await ada.wait_for(is_final(segment))
        read = [caption["stable"] for caption in ada.finals]
        answer = await browser.get(f"{server.url}/api/v1/rooms/standup/transcript.json")
        said = await answer.json()
        assert [segment["text"] for segment in said["segments"]] == read
        assert said["text"].split() == " ".join(read).split()

        streamed: list[str] = []
        async with asyncio.timeout(20):
            while len(streamed) < 2:
                line = (await stream.content.readline()).decode()
                if line.startswith("data: "):
                    caption = json.loads(line.removeprefix("data: "))
                    streamed += [caption["stable"]] if caption["final"] else []
        assert streamed == read


async def test_a_revision_that_comes_late_is_dropped(server: Running) -> None:
    async with joined(server.url, "standup", "Ada") as ada:
        await ada.speak(Voice(speech(20)))
        third = await ada.wait_for(lambda m: bool(m["type"] == "caption" and m["revision"] >= 3))
        room = server.lobby.rooms["standup"]
        stream = room.participants["p1"].stream
        assert stream is not None
        late = Hypothesis(stream.stream, 1, third["revision"] - 1, False, "too late", "en")
        before = room.seq
        stream.receive(late)
        stream.receive(replace(late, revision=1, is_final=True))
        assert room.seq == before
