"""What is asked of a sender stands in the answer, and nothing else is changed."""

import re

import pytest
from aiortc.sdp import SessionDescription

from media.answer import Asked, ask

SESSION = "v=0\r\no=- 1 2 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0 1 2\r\n"
AUDIO = (
    "m=audio 9 UDP/TLS/RTP/SAVPF 111 0\r\n"
    "c=IN IP4 0.0.0.0\r\n"
    "a=recvonly\r\n"
    "a=mid:0\r\n"
    "a=extmap:1 urn:ietf:params:rtp-hdrext:ssrc-audio-level\r\n"
    "a=rtcp-mux\r\n"
    "a=rtpmap:111 opus/48000/2\r\n"
    "a=rtpmap:0 PCMU/8000\r\n"
    "a=ice-ufrag:abcd\r\n"
    "a=ice-pwd:0123456789012345678901\r\n"
    "a=fingerprint:sha-256 " + ":".join(["AA"] * 32) + "\r\n"
    "a=setup:active\r\n"
)
VIDEO = (
    AUDIO.replace("m=audio", "m=video")
    .replace("mid:0", "mid:1")
    .replace("opus/48000/2", "VP8/90000")
)
CHANNEL = (
    "m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\n"
    "c=IN IP4 0.0.0.0\r\na=mid:2\r\na=sctp-port:5000\r\n"
)
ANSWER = SESSION + AUDIO + VIDEO + CHANNEL
FMTP = (
    "a=fmtp:111 minptime=10;useinbandfec=1;usedtx=1;stereo=0;sprop-stereo=0;maxplaybackrate=16000"
)


def sections(sdp: str) -> list[str]:
    return re.split(r"(?m)^(?=m=)", sdp)


def test_the_audio_section_asks_and_the_others_stay_as_they_were() -> None:
    before, after = sections(ANSWER), sections(ask(ANSWER, Asked()))

    assert len(after) == len(before)
    assert [after[n] for n in (0, 2, 3)] == [before[n] for n in (0, 2, 3)]
    asked = after[1].split("\r\n")
    assert asked[asked.index("a=rtpmap:111 opus/48000/2") + 1] == FMTP
    assert asked[-3:] == ["a=ptime:60", "a=maxptime:60", ""]
    assert [line for line in asked if line not in (FMTP, "a=ptime:60", "a=maxptime:60")] == (
        before[1].split("\r\n")
    )


def test_a_codec_is_named_where_a_line_begins() -> None:
    named = ANSWER.replace("a=mid:0", "a=mid:a=rtpmap:99 opus/48000")

    asked = ask(named, Asked())

    assert asked.count("a=fmtp:") == 1
    assert f"a=rtpmap:111 opus/48000/2\r\n{FMTP}\r\n" in asked


def test_what_is_asked_can_be_chosen() -> None:
    asked = ask(ANSWER, Asked(packet_ms=20, dtx=False, playback_rate=48_000))

    assert "usedtx=0;" in asked
    assert "maxplaybackrate=48000" in asked
    assert "a=ptime:20\r\n" in asked
    assert "a=maxptime:20\r\n" in asked


def test_what_the_answer_said_before_is_replaced() -> None:
    said = AUDIO + "a=ptime:20\r\na=maxptime:120\r\na=fmtp:111 stereo=1\r\na=fmtp:0 x=1\r\n"

    asked = ask(SESSION + said, Asked())

    assert re.findall(r"a=(?:max)?ptime:\d+|a=fmtp:.*?(?=\r)", asked) == [
        FMTP,
        "a=fmtp:0 x=1",
        "a=ptime:60",
        "a=maxptime:60",
    ]
    assert ask(asked, Asked()) == asked


@pytest.mark.parametrize(
    "sdp",
    [
        "",
        SESSION,
        SESSION + VIDEO + CHANNEL,
        SESSION + AUDIO.replace("a=rtpmap:111 opus/48000/2\r\n", ""),
        SESSION + AUDIO.replace("opus/48000/2", "red/48000/2"),
    ],
)
def test_an_answer_without_opus_stays_as_it_was(sdp: str) -> None:
    assert ask(sdp, Asked()) == sdp


def test_opus_is_known_by_any_case_and_payload_type() -> None:
    asked = ask(SESSION + AUDIO.replace("111", "96").replace("opus", "OPUS"), Asked())

    assert "a=fmtp:96 minptime=10;" in asked


def test_each_audio_section_asks() -> None:
    asked = ask(SESSION + AUDIO + CHANNEL + AUDIO.replace("mid:0", "mid:3"), Asked())

    assert asked.count(FMTP) == asked.count("a=ptime:60") == 2


def test_aiortc_reads_what_was_asked() -> None:
    audio = SessionDescription.parse(ask(ANSWER, Asked())).media[0]

    (opus,) = [codec for codec in audio.rtp.codecs if codec.name == "opus"]
    assert opus.parameters["useinbandfec"] == 1
    assert opus.parameters["usedtx"] == "1"
    assert opus.parameters["maxplaybackrate"] == 16_000
    assert [extension.id for extension in audio.rtp.headerExtensions] == [1]
