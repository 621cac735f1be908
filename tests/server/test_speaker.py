"""Speakers whose audio is put into their feed by hand; the engine is never started."""

import asyncio
import logging
import time

import pytest
from aiortc import RTCConfiguration, RTCPeerConnection
from aiortc.mediastreams import AudioStreamTrack

from media.pcm import CHUNK_SAMPLES, PcmChunk
from media.peer import FEED_CHUNKS, Peer
from media.timeline import Jump
from server.lobby import Lobby
from server.participant import Participant
from signaling.errors import Refused
from tests.clients import until
from tests.logs import logged
from tests.server.rooms import Message, join, received, room_of
from tests.speech import silence, tone

SPEECH = tone(60.0)


@pytest.fixture(autouse=True)
def short_flush(monkeypatch: pytest.MonkeyPatch) -> None:
    """No engine answers here."""
    monkeypatch.setattr("server.speaker._FLUSH_S", 0.1)


def chunk(number: int, *, is_speech: bool = False, jump: Jump | None = None) -> PcmChunk:
    """The chunk of 100 ms that stands at this place."""
    start = number * CHUNK_SAMPLES
    samples = SPEECH[start : start + CHUNK_SAMPLES] if is_speech else silence(0.1)
    return PcmChunk(start, samples, 0.0, jump)


def value(lobby: Lobby, name: str, **labels: str) -> float | None:
    return lobby.house.metrics.registry.get_sample_value(name, labels)


async def attended(lobby: Lobby) -> tuple[Participant, Peer]:
    """A participant whose peer is listened to."""
    ada = await join(lobby)
    await asyncio.sleep(0)  # the room's task begins
    peer = Peer()
    room_of(lobby).attend(ada, peer)
    await received(ada)
    return ada, peer


async def heard(participant: Participant, chunks: int) -> None:
    await until(
        lambda: (
            participant.stream is not None
            and participant.stream.end_sample == chunks * CHUNK_SAMPLES
        )
    )


async def gaps(participant: Participant) -> list[tuple[object, object, object]]:
    events: list[Message] = await received(participant)
    return [(e["start"], e["end"], e["reason"]) for e in events if e["type"] == "gap"]


async def test_what_a_full_feed_dropped_is_a_gap_of_overload(lobby: Lobby) -> None:
    ada, peer = await attended(lobby)
    for number in range(5):
        peer.feed.put(chunk(number))
    await heard(ada, 5)
    for number in range(5, 5 + FEED_CHUNKS + 10):
        peer.feed.put(chunk(number))
    await heard(ada, 5 + FEED_CHUNKS + 10)
    assert await gaps(ada) == [(0.5, 1.5, "overload")]
    room_of(lobby).count_audio()
    assert value(lobby, "roomscribe_chunks_dropped_total", reason="overload") == 10
    assert value(lobby, "roomscribe_gap_seconds_total", reason="overload") == 1.0


@pytest.mark.parametrize(
    ("jump", "shown"), [(Jump.NETWORK, [(0.5, 2.0, "network")]), (Jump.SILENCE, [])]
)
async def test_what_was_lost_on_the_way_is_a_gap_and_what_was_never_sent_is_none(
    lobby: Lobby, jump: Jump, shown: list[tuple[float, float, str]]
) -> None:
    ada, peer = await attended(lobby)
    for number in range(5):
        peer.feed.put(chunk(number))
    peer.feed.put(chunk(20, jump=jump))
    await heard(ada, 21)
    assert await gaps(ada) == shown


async def test_what_the_muted_say_is_not_heard(lobby: Lobby) -> None:
    ada, peer = await attended(lobby)
    ada.set_muted(True)
    for number in range(10):
        peer.feed.put(chunk(number, is_speech=True))
    await until(lambda: not len(peer.feed))
    assert ada.stream is None
    assert not ada.speaking


async def offered() -> str:
    """An offer of someone who then stays away."""
    connection = RTCPeerConnection(RTCConfiguration(iceServers=[]))
    connection.addTrack(AudioStreamTrack())
    await connection.setLocalDescription(await connection.createOffer())
    offer = str(connection.localDescription.sdp)
    await connection.close()
    return offer


async def test_speaking_is_told_when_it_begins_and_when_nothing_more_comes(lobby: Lobby) -> None:
    ada, peer = await attended(lobby)
    await peer.answer(await offered())
    for number in range(10):
        peer.feed.put(chunk(number, is_speech=True))
    await until(lambda: ada.speaking)
    assert [m["speaking"] for m in await received(ada)] == [True]
    # the lobby's sweep sees that no packet ever came
    await until(lambda: not ada.speaking)
    assert [m["speaking"] for m in await received(ada)] == [False]


async def test_who_was_silent_for_less_than_a_pause_still_speaks(
    lobby: Lobby, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.speaker._PAUSE_S", 1e9)
    ada, peer = await attended(lobby)
    await peer.answer(await offered())
    for number in range(10):
        peer.feed.put(chunk(number, is_speech=True))
    await heard(ada, 10)
    room_of(lobby).sweep(time.monotonic())
    await asyncio.sleep(0)
    assert ada.speaking


async def test_what_comes_after_a_pause_is_heard(lobby: Lobby) -> None:
    ada, peer = await attended(lobby)
    for number in range(10):
        peer.feed.put(chunk(number, is_speech=True))
    await heard(ada, 10)
    peer.feed.rouse()
    await until(lambda: not ada.speaking)
    for number in range(40, 60):
        peer.feed.put(chunk(number, is_speech=True, jump=Jump.SILENCE if number == 40 else None))
    await heard(ada, 60)
    assert ada.speaking
    assert [m["speaking"] for m in await received(ada)] == [True]


async def test_finals_that_never_come_hold_nobody_up(
    lobby: Lobby, caplog: pytest.LogCaptureFixture
) -> None:
    ada, peer = await attended(lobby)
    for number in range(10):
        peer.feed.put(chunk(number, is_speech=True))
    await heard(ada, 10)
    with caplog.at_level(logging.WARNING, "roomscribe"):
        peer.end_audio()
        await until(lambda: ada.peer is None)
    assert peer.state == "closed"
    told = [record.message for record in logged(caplog)]
    assert told == ["finals were not flushed in time"]


async def test_a_peer_that_never_connects_is_given_up(
    lobby: Lobby, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.speaker.CONNECT_WITHIN_S", 0.1)
    ada, peer = await attended(lobby)
    await until(lambda: ada.peer is None)
    assert peer.state == "closed"
    # a page can offer again
    assert not ada.has_left


async def test_who_leaves_while_their_offer_is_answered_leaves_no_peer(lobby: Lobby) -> None:
    ada = await join(lobby)
    answering = asyncio.create_task(ada.answer(await offered()))
    await asyncio.sleep(0)
    ada.leave("left")
    with pytest.raises(Refused) as refusal:
        await answering
    assert refusal.value.code == "left"
    assert room_of(lobby).peers == []


async def test_a_pipeline_that_raises_costs_its_speaker_a_peer_and_nothing_else(
    lobby: Lobby, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    ada, peer = await attended(lobby)
    peer.feed.put(chunk(0))
    await heard(ada, 1)
    before = ada.stream
    assert before is not None

    def fail(*_: object) -> None:
        raise RuntimeError("s3cret")

    monkeypatch.setattr(before, "push", fail)
    peer.feed.put(chunk(1))
    await until(lambda: ada.peer is None)
    assert ada.stream is not before
    assert peer.state == "closed"
    assert value(lobby, "roomscribe_speakers_failed_total") == 1
    (told,) = [m for m in await received(ada) if m["type"] == "error"]
    assert (told["code"], told["retryable"]) == ("speaker_failed", True)
    assert "s3cret" not in str(told)
