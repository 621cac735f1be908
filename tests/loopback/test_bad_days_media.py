"""What goes wrong between a speaker and the server: offers, candidates, the way of the audio."""

import asyncio
import re

import numpy as np
import pytest
from aiortc import RTCConfiguration, RTCPeerConnection
from aiortc.mediastreams import AudioStreamTrack, VideoStreamTrack

from media.peer import Peer
from server.app import Running
from server.participant import Participant
from soak.talk.heard import Message
from tests.clients import Client, Network, Voice, joined, until
from tests.speech import silence, tone
from transcriber.engines.scripted import WORDS


def voice(seconds: float = 60.0) -> Voice:
    return Voice(np.concatenate([silence(0.3, 48_000), tone(seconds, 48_000)]))


def the_peer(server: Running) -> Peer:
    (peer,) = server.lobby.rooms["standup"].peers
    return peer


def the_speaker(server: Running) -> Participant:
    return server.lobby.rooms["standup"].participants["p1"]


async def error(client: Client, code: str, *, since: int = 0) -> Message:
    return await client.wait_for(
        lambda m: bool(m["type"] == "error" and m["code"] == code), since=since, within_s=10
    )


async def words(client: Client, *, since: int = 0) -> Message:
    """The next caption that says something."""
    return await client.wait_for(
        lambda m: bool(m["type"] == "caption" and (m["stable"] or m["tentative"])), since=since
    )


def assert_words_follow_the_clock(caption: Message) -> None:
    assert caption["words"]
    for word in caption["words"]:
        assert word["word"] == WORDS[round(word["start"] * 2) % len(WORDS)]


async def audio_offer() -> str:
    connection = RTCPeerConnection(RTCConfiguration(iceServers=[]))
    connection.addTrack(AudioStreamTrack())
    await connection.setLocalDescription(await connection.createOffer())
    sdp = connection.localDescription.sdp
    await connection.close()
    return sdp


async def video_offer() -> str:
    connection = RTCPeerConnection(RTCConfiguration(iceServers=[]))
    connection.addTrack(VideoStreamTrack())
    await connection.setLocalDescription(await connection.createOffer())
    sdp = connection.localDescription.sdp
    await connection.close()
    return sdp


async def channel_offer() -> str:
    connection = RTCPeerConnection(RTCConfiguration(iceServers=[]))
    connection.createDataChannel("captions")
    await connection.setLocalDescription(await connection.createOffer())
    sdp = connection.localDescription.sdp
    await connection.close()
    return sdp


# Offers


async def test_an_offer_that_is_not_sdp_is_told_and_the_next_one_is_answered(
    server: Running,
) -> None:
    async with joined(server.url, "standup", "Ada") as ada:
        for sdp in ("", "hello", "v=0", "v=0\r\nm=audio", "\x00" * 100, "v=0\r\n" * 5000):
            since = len(ada.seen)
            await ada.send(type="offer", sdp=sdp)
            told = await ada.wait_for(lambda m: bool(m["type"] == "error"), since=since)
            assert told["code"] in ("bad_sdp", "no_audio", "too_large")
            assert told["retryable"] is False
        assert server.lobby.rooms["standup"].peers == []
        await ada.speak(voice())
        await words(ada)


@pytest.mark.parametrize("make_offer", [video_offer, channel_offer])
async def test_an_offer_without_audio_is_told(server: Running, make_offer: "type[object]") -> None:
    async with joined(server.url, "standup", "Ada") as ada:
        await ada.send(type="offer", sdp=await make_offer())  # type: ignore[misc]
        await error(ada, "no_audio")
        assert server.lobby.rooms["standup"].peers == []


async def test_of_audio_and_video_only_the_audio_is_taken(server: Running) -> None:
    async with joined(server.url, "standup", "Ada") as ada:
        ada.connection = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        ada.connection.addTrack(VideoStreamTrack())
        ada.connection.addTrack(voice())
        await ada.negotiate()
        answer = await ada.wait_for(lambda m: bool(m["type"] == "answer"))
        _, of_video, of_audio = re.split(r"^m=", answer["sdp"], flags=re.MULTILINE)
        assert of_video.startswith("video")
        assert "a=inactive" in of_video
        assert "a=recvonly" in of_audio
        await words(ada)


async def test_a_second_offer_of_the_same_connection_is_a_renegotiation(server: Running) -> None:
    async with joined(server.url, "standup", "Ada") as ada:
        await ada.speak(voice())
        await words(ada)
        peer = the_peer(server)
        await ada.negotiate()
        assert the_peer(server) is peer
        since = len(ada.seen)
        later = await words(ada, since=since)
        assert later["segment"] == "p1-1"

        # one that cannot be used is told, and leaves the connection as it is
        assert ada.connection is not None
        offer = ada.connection.localDescription.sdp
        await ada.send(type="offer", sdp=offer.replace("a=setup:", "a=setup:perhaps-"))
        await error(ada, "bad_sdp")
        await words(ada, since=len(ada.seen))
        assert the_peer(server) is peer
        assert peer.state == "connected"


async def test_a_new_connection_replaces_the_old_and_positions_go_on(server: Running) -> None:
    async with (
        joined(server.url, "standup", "Ada") as ada,
        joined(server.url, "standup", "Ben") as ben,
    ):
        await ada.speak(voice())
        await words(ben)
        old, old_peer = ada.connection, the_peer(server)
        assert old is not None
        await ada.speak(Voice(np.concatenate([silence(1.0, 48_000), tone(60, 48_000)])))
        final = await ben.wait_for_final("p1")
        since = ben.seen.index(final)
        following = await ben.wait_for(
            lambda m: bool(m["type"] == "caption" and m["segment"] == "p1-2"), since=since
        )
        # its second of silence stands after what was said before, and nothing of it is cut
        assert following["start"] >= final["end"] + 0.8
        await until(lambda: old_peer not in server.lobby.rooms["standup"].peers)
        assert old_peer.state == "closed"
        assert the_peer(server) is not old_peer
        assert not any(m["type"] == "left" for m in ben.seen)
        await ada.send(type="mute", muted=True)
        last = await ben.wait_for_final("p1", since=since + 1)
        assert last["segment"] == "p1-2"
        assert_words_follow_the_clock(last)
        await old.close()


async def test_candidates_before_the_offer_are_used(server: Running) -> None:
    async with joined(server.url, "standup", "Ada") as ada:
        ada.connection = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        ada.connection.addTrack(voice())
        await ada.connection.setLocalDescription(await ada.connection.createOffer())
        lines = ada.connection.localDescription.sdp.splitlines()
        for line in lines:
            if line.startswith("a=candidate:"):
                await ada.send(type="candidate", candidate=line.removeprefix("a="), sdpMid="0")
        bare = [
            line for line in lines if not line.startswith(("a=candidate:", "a=end-of-candidates"))
        ]
        await ada.send(type="offer", sdp="\r\n".join([*bare, ""]))
        await ada.wait_for(lambda m: bool(m["type"] == "answer"))
        # The client does not learn the server's candidates: only ours can connect the two.
        ice = the_peer(server)._connection.getTransceivers()[0].receiver.transport.transport
        ports = {line.split()[5] for line in lines if line.startswith("a=candidate:")}
        assert {str(c.port) for c in ice.getRemoteCandidates()} == ports
        assert not any(m["type"] == "error" for m in ada.seen)


async def test_a_candidate_that_cannot_be_used_is_told_and_audio_goes_on(server: Running) -> None:
    async with joined(server.url, "standup", "Ada") as ada:
        await ada.speak(voice())
        await words(ada)
        for candidate in ("candidate:nonsense", "a" * 60_000, "candidate:1 1 udp x 127.0.0.1 y z"):
            since = len(ada.seen)
            await ada.send(type="candidate", candidate=candidate, sdpMid="0")
            await error(ada, "bad_candidate", since=since)
        await ada.send(type="candidate", candidate="", sdpMid="0")
        await words(ada, since=len(ada.seen))


async def test_a_data_channel_of_another_name_is_closed_and_told(server: Running) -> None:
    async with joined(server.url, "standup", "Ada") as ada:
        await ada.speak(voice(), channel="files")
        await error(ada, "bad_channel")
        channel = ada.channel
        assert channel is not None
        await until(lambda: channel.readyState == "closed")
        # captions then come by the socket
        await words(ada)
        assert ada.heard_by_channel == []


async def test_what_a_client_says_on_the_data_channel_is_not_minded(server: Running) -> None:
    async with joined(server.url, "standup", "Ada") as ada:
        await ada.speak(voice())
        await ada.wait_until_connected()
        assert ada.channel is not None
        for said in ("hello", b"\x00" * 10_000, '{"type":"bye"}'):
            ada.channel.send(said)
        await words(ada, since=len(ada.seen))
        assert "p1" in server.lobby.rooms["standup"].participants


# The way of the audio


@pytest.mark.slow
async def test_a_track_that_stops_and_starts_ends_an_utterance_and_begins_another(
    server: Running,
) -> None:
    async with joined(server.url, "standup", "Ada") as ada:
        await ada.speak(voice())
        await ada.wait_for(lambda m: bool(m["type"] == "caption" and m["end"] > 1.4))
        assert ada.connection is not None
        (sender,) = ada.connection.getSenders()
        sender.replaceTrack(None)
        first = await ada.wait_for_final()
        since = len(ada.seen)
        sender.replaceTrack(voice())
        second = await words(ada, since=since)
        assert second["segment"] != first["segment"]
        assert second["start"] >= first["end"]
        await ada.send(type="mute", muted=True)
        assert_words_follow_the_clock(await ada.wait_for_final(since=since))


@pytest.mark.parametrize("jump", [10_000_000, 0x7FFFFFFF, -48_000 * 3], ids=["on", "far", "back"])
async def test_a_timestamp_that_jumps_moves_nothing(server: Running, jump: int) -> None:
    async with joined(server.url, "standup", "Ada") as ada:
        pcm = np.concatenate([silence(0.5, 48_000), tone(30, 48_000)])
        await ada.speak(Voice(pcm, jump_at_s=1.6, jump_by=jump))
        began = asyncio.get_running_loop().time()
        await ada.wait_for(lambda m: bool(m["type"] == "caption" and m["end"] > 2.4))
        await ada.send(type="mute", muted=True)
        await ada.wait_for_final()
        passed = asyncio.get_running_loop().time() - began
        finals = ada.finals
        assert finals[-1]["end"] <= passed + 1.0
        heard = [word for final in finals for word in final["words"]]
        # from half a second on, every half second has its word, and nothing stands twice
        starts = [word["start"] for word in heard]
        assert starts == sorted(set(starts))
        assert len(starts) >= 3
        for final in finals:
            assert_words_follow_the_clock(final)
        assert not [m for m in ada.seen if m["type"] == "gap" and m["end"] - m["start"] > 1.0]


@pytest.mark.slow
async def test_with_a_third_lost_and_some_late_the_words_stand_where_they_were_said(
    server: Running,
) -> None:
    async with joined(server.url, "standup", "Ada") as ada:
        await ada.speak(voice())
        await ada.wait_until_connected()
        assert ada.connection is not None
        Network(ada.connection).lose(0.3)
        await ada.wait_for(lambda m: bool(m["type"] == "caption" and m["end"] > 4.0))
        await ada.send(type="mute", muted=True)
        await ada.wait_for_final()
        ledger = the_speaker(server).ledger()
        assert ledger.concealed + ledger.network > 16_000 * 0.3
        heard = [word for final in ada.finals for word in final["words"]]
        assert len(heard) >= 5
        for final in ada.finals:
            assert_words_follow_the_clock(final)
        # what was lost is said by the room too
        answer = server.lobby.rooms["standup"].participants["p1"].dropped_s()
        assert answer["network"] > 0.3
        assert answer["overload"] == 0.0


async def test_a_peer_that_vanishes_without_a_word_is_gone_and_its_words_are_kept(
    server: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As below, with shorter waits."""
    monkeypatch.setattr("aioice.ice.CONSENT_INTERVAL", 0.2)
    monkeypatch.setattr("signaling.ws._HEARTBEAT_S", 1.0)
    monkeypatch.setattr("server.room.RESUME_WITHIN_S", 1.5)
    await vanish(server, within_s=10.0)


@pytest.mark.slow
async def test_a_peer_that_vanishes_without_a_word_is_gone_within_35_s(server: Running) -> None:
    await vanish(server, within_s=35.0)


async def vanish(server: Running, within_s: float) -> None:
    async with (
        joined(server.url, "standup", "Ada") as ada,
        joined(server.url, "standup", "Ben") as ben,
    ):
        await ada.speak(voice())
        await ada.wait_until_connected()
        said = await words(ben)
        assert ada.connection is not None
        Network(ada.connection).vanish()
        ada.fall_silent()
        left = await ben.wait_for(lambda m: bool(m["type"] == "left"), within_s=within_s)
        assert (left["participant"], left["reason"]) == ("p1", "lost")
        final = await ben.wait_for_final("p1")
        assert len(final["stable"].split()) >= len((said["stable"] + said["tentative"]).split())
        transcript = await server.lobby.house.store.transcript("standup")
        assert transcript is not None
        assert [segment.text for segment in transcript.segments] == [final["stable"]]
        await until(lambda: not server.lobby.rooms["standup"].peers, within_s)
