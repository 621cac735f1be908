"""Offers that a stranger may send: each is answered, or is a `BadOffer`, and leaves nothing."""

import contextlib
import re
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from aiortc.sdp import SessionDescription
from hypothesis import given, settings
from hypothesis import strategies as st

from media.answer import Asked
from media.errors import BadOffer
from media.peer import Peer
from tests.media.pages import Page, on_loopback

# As Chromium offers a microphone and a data channel, its candidates cut down to one.
CHROMIUM = """v=0
o=- 4611731400430051336 2 IN IP4 127.0.0.1
s=-
t=0 0
a=group:BUNDLE 0 1
a=extmap-allow-mixed
a=msid-semantic: WMS 5f0a7a2e
m=audio 9 UDP/TLS/RTP/SAVPF 111 63 9 0 8 13 110 126
c=IN IP4 0.0.0.0
a=rtcp:9 IN IP4 0.0.0.0
a=candidate:1467250027 1 udp 2122260223 127.0.0.1 46243 typ host generation 0 network-id 1
a=ice-ufrag:x6Ao
a=ice-pwd:jKfH6vUYV7bTtyhTGV0DCWkZ
a=ice-options:trickle
a=fingerprint:sha-256 {fingerprint}
a=setup:actpass
a=mid:0
a=extmap:1 urn:ietf:params:rtp-hdrext:ssrc-audio-level
a=extmap:4 urn:ietf:params:rtp-hdrext:sdes:mid
a=sendrecv
a=msid:5f0a7a2e 0c1f3e2d
a=rtcp-mux
a=rtpmap:111 opus/48000/2
a=rtcp-fb:111 transport-cc
a=fmtp:111 minptime=10;useinbandfec=1
a=rtpmap:63 red/48000/2
a=fmtp:63 111/111
a=rtpmap:9 G722/8000
a=rtpmap:0 PCMU/8000
a=rtpmap:8 PCMA/8000
a=rtpmap:13 CN/8000
a=rtpmap:110 telephone-event/48000
a=rtpmap:126 telephone-event/8000
a=ssrc:2231627014 cname:4TOk42mSjXCkVIa6
m=application 9 UDP/DTLS/SCTP webrtc-datachannel
c=IN IP4 0.0.0.0
a=ice-ufrag:x6Ao
a=ice-pwd:jKfH6vUYV7bTtyhTGV0DCWkZ
a=ice-options:trickle
a=fingerprint:sha-256 {fingerprint}
a=setup:actpass
a=mid:1
a=sctp-port:5000
a=max-message-size:262144
""".replace("{fingerprint}", ":".join(f"{byte:02X}" for byte in range(160, 192))).replace(
    "\n", "\r\n"
)
NOTHING_IN_COMMON = re.sub(r"a=rtpmap:.*\r\n", "", CHROMIUM.replace("9 0 8 13", "13"))
UNBUNDLED = CHROMIUM.replace("a=group:BUNDLE 0 1\r\n", "")
LINES = CHROMIUM.splitlines()
SESSION, AUDIO, CHANNEL = LINES[:7], LINES[7:35], LINES[35:]


@pytest_asyncio.fixture(autouse=True)
async def loopback() -> AsyncIterator[None]:
    with on_loopback():
        yield


def offer(*sections: list[str]) -> str:
    return "\r\n".join(line for section in sections for line in section) + "\r\n"


def replaced(pattern: str, by: str) -> str:
    changed, count = re.subn(pattern, by, CHROMIUM)
    assert count
    return changed


async def answer(sdp: str) -> str:
    """What a new peer answers; it ends closed."""
    peer = Peer()
    try:
        return await peer.answer(sdp)
    finally:
        await peer.close()


async def test_an_offer_of_chromium_is_answered() -> None:
    answered = await answer(CHROMIUM)

    assert re.findall("^m=([a-z]+)", answered, re.MULTILINE) == ["audio", "application"]
    assert "a=rtpmap:111 opus/48000/2" in answered


async def test_what_is_asked_of_chromium_stands_in_the_answer_and_its_levels_too() -> None:
    answered = SessionDescription.parse(await answer(CHROMIUM))

    audio, channel = answered.media
    (opus,) = [codec for codec in audio.rtp.codecs if codec.name == "opus"]
    assert opus.payloadType == 111
    assert opus.parameters["usedtx"] == "1"
    assert opus.parameters["maxplaybackrate"] == 16_000
    extensions = {extension.uri: extension.id for extension in audio.rtp.headerExtensions}
    assert extensions["urn:ietf:params:rtp-hdrext:ssrc-audio-level"] == 1
    assert channel.kind == "application"


async def test_a_peer_asks_for_what_it_was_told_to() -> None:
    peer = Peer(asked=Asked(packet_ms=20, dtx=False, playback_rate=24_000))
    try:
        answered = await peer.answer(CHROMIUM)
    finally:
        await peer.close()

    audio, channel = answered.split("m=application")
    assert "a=ptime:20\r\n" in audio
    assert "a=maxptime:20\r\n" in audio
    assert "usedtx=0;" in audio
    assert "maxplaybackrate=24000\r\n" in audio
    assert "ptime" not in channel
    assert "fmtp" not in channel


@pytest.mark.parametrize(
    "sdp",
    [
        "",
        "\r\n",
        "hello",
        "{}",
        "<sdp/>",
        "m=audio 9 UDP/TLS/RTP/SAVPF 111",
        "V=0\r\n",
        "\x00" * 50,
    ],
)
async def test_what_is_not_sdp_is_refused(sdp: str) -> None:
    with pytest.raises(BadOffer) as refused:
        await answer(sdp)

    assert refused.value.code == "bad_sdp"


@pytest.mark.parametrize(
    "sections",
    [
        [SESSION],
        [SESSION, CHANNEL],
        [SESSION, ["m=video 9 UDP/TLS/RTP/SAVPF 96", *AUDIO[1:]]],
        [SESSION, ["m=audiovisual 9 UDP/TLS/RTP/SAVPF 96"]],
    ],
)
async def test_an_offer_without_audio_is_refused(sections: list[list[str]]) -> None:
    with pytest.raises(BadOffer) as refused:
        await answer(offer(*sections))

    assert refused.value.code == "no_audio"


async def test_an_offer_of_a_page_with_only_video_is_refused() -> None:
    page = Page()
    page.connection.getTransceivers()[0].direction = "inactive"
    sdp = (await page.offer()).replace("m=audio ", "m=video ")
    await page.connection.close()

    with pytest.raises(BadOffer, match="no audio"):
        await answer(sdp)


@pytest.mark.parametrize(
    "sdp",
    [
        NOTHING_IN_COMMON,
        replaced("a=fingerprint:.*\r\n", ""),
        offer(SESSION, AUDIO, [line for line in CHANNEL if "fingerprint" not in line]),
        replaced("BUNDLE 0 1", "BUNDLE 7 8"),
        replaced("a=mid:0\r\n", ""),
        replaced("a=ice-pwd:.*\r\n", ""),
    ],
)
async def test_an_offer_that_could_never_connect_is_refused(sdp: str) -> None:
    with pytest.raises(BadOffer) as refused:
        await answer(sdp)

    assert refused.value.code == "bad_sdp"


@pytest.mark.parametrize("count", [9, 100, 5_000])
async def test_an_offer_of_many_sections_is_refused(count: int) -> None:
    sections = [[line.replace("a=mid:0", f"a=mid:{n}") for line in AUDIO] for n in range(count)]

    with pytest.raises(BadOffer, match="too many") as refused:
        await answer(offer(SESSION, *sections))

    assert refused.value.code == "bad_sdp"
    assert not refused.value.retryable


async def test_an_offer_of_a_megabyte_leaves_nothing() -> None:
    with contextlib.suppress(BadOffer):
        await answer(CHROMIUM + "a=candidate:1 1 udp 1 127.0.0.1 9 typ host\r\n" * 20_000)


@pytest.mark.parametrize(
    "sdp",
    [
        replaced("a=fingerprint:.*\r\n", ""),
        replaced("a=fingerprint:.*\r\n", "a=fingerprint:sha-256\r\n"),
        replaced("a=fingerprint:.*\r\n", "a=fingerprint:md5 00:11\r\n"),
        replaced("a=fingerprint:sha-256 A0", "a=fingerprint:sha-256 ZZ"),
        replaced("a=setup:actpass", "a=setup:"),
        replaced("a=setup:actpass\r\n", ""),
        replaced("a=ice-ufrag:.*\r\n", ""),
        replaced("a=ice-pwd:.*\r\n", ""),
        replaced("a=ice-pwd:.*\r\n", "a=ice-pwd:\r\n"),
        replaced("a=candidate:.*\r\n", "a=candidate:\r\n"),
        replaced("a=candidate:.*\r\n", "a=candidate:1 1 udp x 127.0.0.1 9 typ host\r\n"),
        replaced("46243", "0"),
        replaced("46243", "70000"),
        replaced(" 127.0.0.1 46243", " 300.1.2.3 46243"),
        replaced("a=mid:0\r\n", ""),
        replaced("a=mid:1", "a=mid:0"),
        replaced("a=group:BUNDLE 0 1", "a=group:BUNDLE 7 8"),
        replaced("a=group:BUNDLE 0 1", "a=group:BUNDLE"),
        replaced("a=group:BUNDLE 0 1\r\n", ""),
        replaced("opus/48000/2", "opus"),
        replaced("opus/48000/2", "opus/many/2"),
        replaced("111 63 9 0 8 13 110 126", "13"),
        replaced("111 63 9 0 8 13 110 126", ""),
        replaced("111 63 9 0 8 13 110 126", "one two"),
        replaced("a=extmap:1 urn", "a=extmap:one urn"),
        replaced("a=sctp-port:5000", "a=sctp-port:five"),
        replaced("a=sctp-port:5000", "a=sctp-port:99999999"),
        replaced("a=max-message-size:262144", "a=max-message-size:-1"),
        replaced("m=audio 9", "m=audio nine"),
        replaced("m=audio 9 UDP/TLS/RTP/SAVPF", "m=audio 9 RTP/AVP"),
        replaced("c=IN IP4 0.0.0.0", "c=IN"),
        replaced("a=ssrc:2231627014", "a=ssrc:99999999999999"),
        replaced("a=sendrecv", "a=sideways"),
        replaced("t=0 0", "t="),
        replaced("a=rtcp:9 IN IP4 0.0.0.0", "a=rtcp:"),
        replaced("a=fmtp:111 .*\r\n", "a=fmtp:111\r\n"),
        replaced("v=0\r\n", "v=0\n\n\n"),
        CHROMIUM.replace("\r\n", "\r"),
        CHROMIUM.replace("\r\n", "\n"),
        CHROMIUM + CHROMIUM,
    ],
)
async def test_an_offer_that_is_off_is_answered_or_refused(sdp: str) -> None:
    await _answered_or_refused(sdp)


async def test_a_name_that_looks_like_a_codec_is_no_codec() -> None:
    named = replaced("a=mid:0", "a=mid:a=rtpmap:99 opus/48000").replace("BUNDLE 0 1", "BUNDLE 1")

    answered = await answer(named)

    assert "a=fmtp:111 minptime=10" in answered


async def test_an_offer_cut_off_anywhere_is_answered_or_refused() -> None:
    for end in range(0, len(CHROMIUM), 97):
        await _answered_or_refused(CHROMIUM[:end])


GARBAGE = st.sampled_from(
    [
        "",
        " ",
        ":",
        "/",
        "0",
        "-1",
        "65536",
        "4294967296",
        "9" * 40,
        "x",
        "é",
        "\x00",
        "\r\n",
        "a=",
        "m=",
    ]
) | st.text(max_size=8)


@st.composite
def spoilt_offers(draw: st.DrawFn) -> str:
    """A good offer after some accidents."""
    lines = list(LINES)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(lines) - 1))
        match draw(st.sampled_from(["cut", "word", "drop", "twice", "move"])):
            case "cut":
                start = draw(st.integers(0, len(lines[at])))
                end = draw(st.integers(start, len(lines[at])))
                lines[at] = lines[at][:start] + draw(GARBAGE) + lines[at][end:]
            case "word":
                words = re.split(r"([ :/=;])", lines[at])
                words[draw(st.integers(0, len(words) - 1))] = draw(GARBAGE)
                lines[at] = "".join(words)
            case "drop" if len(lines) > 1:
                del lines[at]
            case "twice":
                lines.insert(at, lines[at])
            case "move":
                lines.insert(draw(st.integers(0, len(lines) - 1)), lines.pop(at))
    return "\r\n".join(lines) + "\r\n"


@settings(deadline=None, max_examples=60)
@given(sdp=spoilt_offers())
async def test_a_spoilt_offer_is_answered_or_refused(sdp: str) -> None:
    await _answered_or_refused(sdp)


@settings(deadline=None, max_examples=60)
@given(first=st.sampled_from([CHROMIUM, UNBUNDLED]), sdp=spoilt_offers())
async def test_a_spoilt_later_offer_is_answered_or_refused(first: str, sdp: str) -> None:
    peer = Peer()
    try:
        await peer.answer(first)
        with contextlib.suppress(BadOffer):
            assert (await peer.answer(sdp)).startswith("v=0")
    finally:
        await peer.close()


@pytest.mark.parametrize(
    "later",
    [
        CHROMIUM.replace("a=mid:1", "a=mid:5").replace("BUNDLE 0 1", "BUNDLE 5 0"),
        CHROMIUM.replace("a=mid:0", "a=mid:5").replace("BUNDLE 0 1", "BUNDLE 5 1"),
        CHROMIUM.replace("a=mid:0", "a=mid:5").replace("BUNDLE 0 1", "BUNDLE 1 5"),
        CHROMIUM.replace("BUNDLE 0 1", "BUNDLE 1 0"),
        offer(SESSION, CHANNEL, AUDIO),
    ],
)
@pytest.mark.parametrize("first", [CHROMIUM, UNBUNDLED])
async def test_a_later_offer_that_renames_its_sections_leaves_nothing(
    first: str, later: str
) -> None:
    peer = Peer()
    try:
        await peer.answer(first)
        with pytest.raises(BadOffer):
            await peer.answer(later)
    finally:
        await peer.close()


async def test_after_a_bad_offer_a_good_one_is_answered_by_a_new_peer() -> None:
    with pytest.raises(BadOffer):
        await answer(NOTHING_IN_COMMON)

    assert (await answer(CHROMIUM)).startswith("v=0")


async def test_a_bad_later_offer_is_refused() -> None:
    peer = Peer()
    try:
        await peer.answer(CHROMIUM)

        with pytest.raises(BadOffer):
            await peer.answer("hello")
        with pytest.raises(BadOffer):
            await peer.answer(NOTHING_IN_COMMON)

        assert peer.is_same_session(CHROMIUM)
    finally:
        await peer.close()


async def _answered_or_refused(sdp: str) -> None:
    """Anything but an answer or a `BadOffer` fails the test."""
    with contextlib.suppress(BadOffer):
        assert (await answer(sdp)).startswith("v=0")
