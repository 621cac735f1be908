"""WHIP by a real client: an offer over HTTP, audio over WebRTC."""

import re
from collections.abc import Callable

import numpy as np
import pytest
from aiohttp import ClientResponse

from media.peer import Peer
from server.app import Running
from server.participant import Participant
from tests.clients import Voice, WhipSpeaker, joined, until, whip_speaker
from tests.speech import silence, tone
from transcriber.engines.scripted import WORDS


def sentence(seconds: float = 2.0) -> Voice:
    return Voice(np.concatenate([silence(0.3, 48_000), tone(seconds, 48_000)]))


def participants(server: Running) -> dict[str, Participant]:
    found = server.lobby.rooms.get("standup")
    return {} if found is None else found.participants


def the_peer(server: Running) -> Peer:
    (peer,) = server.lobby.rooms["standup"].peers
    return peer


async def connected(server: Running) -> None:
    await until(lambda: the_peer(server).state == "connected")


async def gone(server: Running, within_s: float = 5.0) -> None:
    """Nobody is left, and no peer."""
    await until(
        lambda: not participants(server) and not server.lobby.rooms["standup"].peers, within_s
    )


async def assert_refused(response: ClientResponse, status: int, code: str) -> None:
    body = await response.json()
    assert (response.status, body["error"]["code"]) == (status, code)


async def post(speaker: WhipSpeaker, **query: str) -> None:
    response = await speaker.post("standup", await speaker.make_offer(), **query)
    assert response.status == 201, await response.text()


async def test_a_whip_speaker_is_read_by_the_room_and_ends_by_delete(server: Running) -> None:
    async with (
        joined(server.url, "standup", "Ada") as ada,
        whip_speaker(server.url, sentence()) as speaker,
    ):
        response = await speaker.post("standup", await speaker.make_offer(), name="Desk 4")
        assert response.status == 201
        assert response.content_type == "application/sdp"
        assert re.fullmatch(r"/whip/standup/[\w-]{32,}", response.headers["Location"])
        assert response.headers["ETag"] == '"p2"'
        assert response.headers["Accept-Patch"] == "application/trickle-ice-sdpfrag"

        came = await ada.wait_for(lambda m: bool(m["type"] == "joined"))
        assert (came["participant"], came["name"]) == ("p2", "Desk 4")
        final = await ada.wait_for_final("p2")
        assert final["name"] == "Desk 4"
        assert all(word in WORDS for word in final["stable"].split())

        assert (await speaker.end()).status == 200
        left = await ada.wait_for(lambda m: bool(m["type"] == "left"))
        assert (left["participant"], left["reason"]) == ("p2", "left")
        await assert_refused(await speaker.end(), 404, "no_such_session")
        await until(lambda: not server.lobby.rooms["standup"].peers)


async def test_delete_in_the_middle_of_a_sentence_still_brings_its_final(server: Running) -> None:
    async with (
        joined(server.url, "standup", "Ada") as ada,
        whip_speaker(server.url, sentence(20)) as speaker,
    ):
        await post(speaker)
        await ada.wait_for(lambda m: bool(m["type"] == "caption" and m["stable"]))
        await speaker.end()
        final = await ada.wait_for_final("p2")
        assert len(final["stable"].split()) >= 2


async def test_without_a_name_a_speaker_is_called_whip(server: Running) -> None:
    async with whip_speaker(server.url, sentence()) as speaker:
        await post(speaker)
        assert participants(server)["p1"].name == "WHIP"


async def test_a_whip_speaker_names_their_language(server: Running) -> None:
    async with whip_speaker(server.url, sentence()) as speaker:
        await post(speaker, language="de-AT")
        assert participants(server)["p1"].language == "de"


async def test_a_whip_speaker_whose_connection_closes_leaves(server: Running) -> None:
    async with whip_speaker(server.url, sentence()) as speaker:
        await post(speaker)
        await connected(server)
        await speaker.connection.close()
        await gone(server)


async def test_candidates_are_trickled(server: Running) -> None:
    async with whip_speaker(server.url, sentence()) as speaker:
        offer = await speaker.make_offer()
        lines = offer.splitlines()
        candidates = [line for line in lines if line.startswith("a=candidate:")]
        bare = [
            line for line in lines if not line.startswith(("a=candidate:", "a=end-of-candidates"))
        ]
        assert candidates
        response = await speaker.post("standup", "\r\n".join([*bare, ""]))
        assert response.status == 201
        fragment = ["a=ice-ufrag:x", "a=ice-pwd:y", "m=audio 9 UDP/TLS/RTP/SAVPF 0", "a=mid:0"]
        patched = await speaker.trickle("\r\n".join([*fragment, *candidates, ""]))
        assert patched.status == 204
        transceiver = the_peer(server)._connection.getTransceivers()[0]
        known = transceiver.receiver.transport.transport.getRemoteCandidates()
        ports = {str(candidate.port) for candidate in known}
        assert {line.split()[5] for line in candidates} <= ports
        await connected(server)


async def test_a_trickle_that_cannot_be_used_is_refused_and_audio_goes_on(
    server: Running,
) -> None:
    async with whip_speaker(server.url, sentence(20)) as speaker:
        await post(speaker)
        await connected(server)
        refused = await speaker.trickle("a=mid:0\r\na=candidate:nonsense\r\n")
        await assert_refused(refused, 400, "bad_candidate")
        refused = await speaker.trickle("a=mid:0\r\n", "application/sdp")
        await assert_refused(refused, 415, "bad_content_type")
        refused = await speaker.trickle("a" * 65537)
        await assert_refused(refused, 413, "too_large")
        refused = await speaker.trickle("", **{"If-Match": "*"})
        await assert_refused(refused, 422, "no_ice_restart")
        assert the_peer(server).state == "connected"


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda sdp: "", "bad_sdp"),
        (lambda sdp: "hello", "bad_sdp"),
        (lambda sdp: sdp.replace("a=fingerprint:", "a=fingerprit:"), "bad_sdp"),
        (lambda sdp: sdp.replace("a=ice-ufrag:", "a=ice-ufrog:"), "bad_sdp"),
        (lambda sdp: sdp.replace("a=setup:actpass", "a=setup:perhaps"), "bad_sdp"),
        (lambda sdp: re.sub(r"m=audio \d+", "m=audio x", sdp), "bad_sdp"),
        (lambda sdp: sdp.replace("m=audio", "m=video"), "no_audio"),
        (lambda sdp: sdp.split("m=audio")[0], "no_audio"),
        (lambda sdp: sdp + "m=audio 9 UDP/TLS/RTP/SAVPF 96\r\n" * 20, "bad_sdp"),
    ],
)
async def test_an_offer_that_cannot_be_used_is_refused_and_nobody_stays(
    server: Running, change: Callable[[str], str], code: str
) -> None:
    async with whip_speaker(server.url, sentence()) as speaker:
        offer = change(await speaker.make_offer())
        await assert_refused(await speaker.post("standup", offer), 400, code)
        assert participants(server) == {}
        # what is seen at a glance opens no room
        assert ("standup" in server.lobby.rooms) == (
            offer.startswith("v=0") and "\nm=audio" in offer
        )


async def test_a_whip_speaker_who_connected_in_time_stays(
    server: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.speaker.CONNECT_WITHIN_S", 4.0)
    async with (
        joined(server.url, "standup", "Ada") as ada,
        whip_speaker(server.url, sentence(20)) as speaker,
    ):
        await post(speaker)
        await ada.wait_for(lambda m: bool(m["type"] == "caption" and m["end"] > 5.0))
        assert "p2" in participants(server)


async def test_a_whip_speaker_who_never_connects_does_not_stay(
    server: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.speaker.CONNECT_WITHIN_S", 0.3)
    async with whip_speaker(server.url, sentence()) as speaker:
        offer = await speaker.make_offer()
        bare = re.sub(r"a=(candidate:.*|end-of-candidates)\r\n", "", offer)
        response = await speaker.session.post(
            f"{server.url}/whip/standup",
            data=bare.encode(),
            headers={"Content-Type": "application/sdp"},
        )
        assert response.status == 201
        assert participants(server)
        await gone(server)
