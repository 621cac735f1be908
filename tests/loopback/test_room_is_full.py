"""A server that is full turns speakers away and keeps those inside."""

import aiohttp
import pytest

from server.app import Running
from server.config import Settings
from tests.clients import Voice, joined, until, whip_speaker
from tests.speech import tone

RATE = 48_000


@pytest.fixture
def settings(settings: Settings) -> Settings:
    one = settings.admission.model_copy(update={"max_speakers": 1})
    return settings.model_copy(update={"admission": one})


async def test_a_speaker_too_many_is_told_and_reads_along(server: Running) -> None:
    async with (
        joined(server.url, "standup", "Ada") as ada,
        joined(server.url, "standup", "Ben") as ben,
        whip_speaker(server.url, Voice(tone(0.1, RATE))) as another,
    ):
        await ada.speak(Voice(tone(3.0, RATE)))
        await ben.send(type="offer", sdp=await another.make_offer())
        told = await ben.wait_for(lambda m: bool(m["type"] == "error"))
        assert (told["code"], told["retryable"]) == ("full", True)
        assert (await ben.wait_for_final(ada.participant))["stable"]


async def test_whip_and_readiness_say_when_it_is_full(server: Running) -> None:
    async with joined(server.url, "standup", "Ada") as ada:
        await ada.speak(Voice(tone(0.1, RATE)))
        await ada.wait_until_connected()
        async with whip_speaker(server.url, Voice(tone(0.1, RATE))) as another:
            answer = await another.post("standup", await another.make_offer())
            assert answer.status == 503
            assert int(answer.headers["Retry-After"]) > 0
            assert (await answer.json())["error"]["code"] == "full"
        assert server.lobby.house.admission.reason == "speakers"
        async with aiohttp.ClientSession() as session:
            async with session.get(f"{server.url}/readyz") as ready:
                assert ready.status == 503
                assert (await ready.json())["error"]["code"] == "full"
            async with session.get(f"{server.url}/metrics") as metrics:
                text = await metrics.text()
    assert "roomscribe_speakers_refused_total" in text
    assert "roomscribe_admissible_speakers 0.0" in text


async def test_when_someone_has_left_there_is_room_again(server: Running) -> None:
    async with joined(server.url, "standup", "Ada") as ada:
        await ada.speak(Voice(tone(0.1, RATE)))
        await until(lambda: ada.channel is not None and ada.channel.readyState == "open")
        await ada.send(type="bye")
        admission = server.lobby.house.admission
        await until(lambda: admission.admissible == 1)
        async with joined(server.url, "standup", "Ben") as ben:
            await ben.speak(Voice(tone(0.1, RATE)))
            await until(lambda: ben.channel is not None and ben.channel.readyState == "open")


async def test_an_offer_that_fails_leaves_its_place_at_once(server: Running) -> None:
    async with whip_speaker(server.url, Voice(tone(0.1, RATE))) as speaker:
        for _ in range(3):
            answer = await speaker.post("standup", "v=0\r\nm=audio 9 nothing\r\n")
            assert answer.status == 400
        answer = await speaker.post("standup", await speaker.make_offer())
        assert answer.status == 201
        await until(lambda: speaker.connection.connectionState == "connected")
