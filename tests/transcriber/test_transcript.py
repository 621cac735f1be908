import json
import re
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transcriber.transcript import (
    LEAST_CUE_MS,
    Transcript,
    TranscriptGap,
    TranscriptSegment,
    TranscriptWord,
    to_json,
    to_srt,
    to_text,
    to_vtt,
)

# 2025-10-09T08:53:20Z
OPENED = 1_760_000_000.0


def segment(
    text: str,
    *,
    at_s: float = 0.0,
    lasting_s: float = 2.0,
    name: str = "Ada",
    participant: str = "p1",
    words: tuple[TranscriptWord, ...] = (),
) -> TranscriptSegment:
    return TranscriptSegment(
        segment=f"{participant}-1",
        participant=participant,
        name=name,
        start=10.0,
        end=10.0 + lasting_s,
        text=text,
        language="en",
        words=words,
        spoken_at=OPENED + at_s,
    )


def transcript(*segments: TranscriptSegment, ended_at: float | None = None) -> Transcript:
    return Transcript(
        room="standup",
        started_at=OPENED,
        ended_at=ended_at,
        language="en",
        participants=(("p1", "Ada"),),
        segments=segments,
        gaps=(),
    )


@dataclass(frozen=True, slots=True)
class Cue:
    start_ms: int
    end_ms: int
    name: str
    text: str


CLOCK = r"(\d\d+):([0-5]\d):([0-5]\d)[.,](\d\d\d)"
ESCAPES = {"&amp;": "&", "&lt;": "<", "&gt;": ">"}


def milliseconds(hours: str, minutes: str, seconds: str, ms: str) -> int:
    return ((int(hours) * 60 + int(minutes)) * 60 + int(seconds)) * 1000 + int(ms)


def cue_times(line: str, point: str) -> tuple[int, int]:
    found = re.fullmatch(f"{CLOCK} --> {CLOCK}", line)
    assert found, f"not a time line: {line!r}"
    assert line.count(point) == 2
    start, end = milliseconds(*found.groups()[:4]), milliseconds(*found.groups()[4:])
    assert start < end
    return start, end


def blocks_of(text: str) -> list[list[str]]:
    """Blocks between blank lines, as every parser of these formats first cuts them."""
    text.encode()
    assert "\0" not in text
    assert text == "" or text.endswith("\n")
    lines = re.split(r"\r\n|\n|\r", text)
    blocks: list[list[str]] = [[]]
    for line in lines:
        if line:
            blocks[-1].append(line)
        elif blocks[-1]:
            blocks.append([])
    return [block for block in blocks if block]


def parse_srt(text: str) -> list[Cue]:
    cues = []
    for number, block in enumerate(blocks_of(text), start=1):
        counter, times, line = block
        assert counter == str(number)
        assert "-->" not in line
        start_ms, end_ms = cue_times(times, ",")
        name, _, said = line.partition(": ")
        cues.append(Cue(start_ms, end_ms, name, said))
    return cues


def unescaped(text: str) -> str:
    assert not re.search(r"[<>]|&(?!amp;|lt;|gt;)", text), f"not escaped: {text!r}"
    return re.sub("&(?:amp|lt|gt);", lambda found: ESCAPES[found.group()], text)


def parse_vtt(text: str) -> list[Cue]:
    head, *blocks = blocks_of(text)
    assert head == ["WEBVTT"]
    cues: list[Cue] = []
    for times, line in blocks:
        assert "-->" not in line
        start_ms, end_ms = cue_times(times, ".")
        assert not cues or cues[-1].start_ms <= start_ms
        found = re.fullmatch(r"<v ([^>]*[^>\s][^>]*)>(.+)", line)
        assert found, f"not a voice span: {line!r}"
        cues.append(Cue(start_ms, end_ms, unescaped(found[1]).strip(), unescaped(found[2])))
    return cues


def test_the_canonical_shape_is_the_one_of_the_wire() -> None:
    word = TranscriptWord("hello", 10.1, 10.5000001, 0.93)
    spoken = Transcript(
        room="standup",
        started_at=OPENED + 0.25,
        ended_at=OPENED + 60,
        language="en",
        participants=(("p1", "Ada"),),
        segments=(segment("hello", at_s=1.5, words=(word,)),),
        gaps=(TranscriptGap("p1", 3.0, 4.5, "network"),),
    )
    assert to_json(spoken) == {
        "version": 1,
        "room": "standup",
        "started_at": "2025-10-09T08:53:20.250Z",
        "ended_at": "2025-10-09T08:54:20.000Z",
        "language": "en",
        "participants": [{"participant": "p1", "name": "Ada"}],
        "segments": [
            {
                "segment": "p1-1",
                "participant": "p1",
                "name": "Ada",
                "start": 10.0,
                "end": 12.0,
                "spoken_at": "2025-10-09T08:53:21.500Z",
                "text": "hello",
                "language": "en",
                "words": [{"word": "hello", "start": 10.1, "end": 10.5, "confidence": 0.93}],
            }
        ],
        "gaps": [{"participant": "p1", "start": 3.0, "end": 4.5, "reason": "network"}],
        "text": "hello",
    }


def test_a_room_that_lives_has_not_ended() -> None:
    assert to_json(transcript())["ended_at"] is None


def test_words_are_a_list_where_the_engine_gave_none() -> None:
    exported = json.loads(json.dumps(to_json(transcript(segment("hello")))))
    assert exported["segments"][0]["words"] == []


def test_the_text_is_one_line_per_segment_without_names() -> None:
    spoken = transcript(segment("and\nyou", at_s=2), segment("  "), segment("hello", at_s=1))
    assert to_json(spoken)["text"] == "hello\nand you"


def test_segments_stand_in_the_order_in_which_they_were_spoken() -> None:
    spoken = transcript(
        segment("second", at_s=7, participant="p1"), segment("first", at_s=4, participant="p2")
    )
    assert [cue.text for cue in parse_srt(to_srt(spoken))] == ["first", "second"]
    assert [cue.text for cue in parse_vtt(to_vtt(spoken))] == ["first", "second"]
    assert to_json(spoken)["text"] == "first\nsecond"


def test_subrip_reads_as_players_expect_it() -> None:
    spoken = transcript(segment("hello", at_s=1.5), segment("bye", at_s=3725, name="Bo"))
    assert to_srt(spoken) == (
        "1\n00:00:01,500 --> 00:00:03,500\nAda: hello\n\n"
        "2\n01:02:05,000 --> 01:02:07,000\nBo: bye\n\n"
    )


def test_webvtt_reads_as_browsers_expect_it() -> None:
    spoken = transcript(segment("a < b & c", at_s=1.5, name="R&D"))
    assert to_vtt(spoken) == (
        "WEBVTT\n\n00:00:01.500 --> 00:00:03.500\n<v R&amp;D>a &lt; b &amp; c\n"
    )


def test_plain_text_has_the_time_and_the_name_on_each_line() -> None:
    spoken = transcript(segment("hello", at_s=59.999), segment("bye\nnow", at_s=3725, name="Bo"))
    assert to_text(spoken) == "[00:00:59] Ada: hello\n[01:02:05] Bo: bye now\n"


def test_a_room_where_nobody_spoke_gives_valid_empty_files() -> None:
    assert to_srt(transcript()) == ""
    assert to_vtt(transcript()) == "WEBVTT\n"
    assert to_text(transcript()) == ""


@pytest.mark.parametrize("text", ["", " \n\t", "\x00\x1b", "\ud800", "\u2028"])
def test_a_text_with_nothing_to_show_makes_no_cue(text: str) -> None:
    spoken = transcript(segment(text))
    assert parse_srt(to_srt(spoken)) == parse_vtt(to_vtt(spoken)) == []


def test_blank_lines_and_arrows_inside_a_text_cannot_end_its_cue() -> None:
    text = "one\n\n2\r\n00:00:01.000 --> 00:00:02.000\u2028three --\x00> four"
    spoken = transcript(segment(text))
    (srt,), (vtt,) = parse_srt(to_srt(spoken)), parse_vtt(to_vtt(spoken))
    assert srt.text == "one 2 00:00:01.000 → 00:00:02.000 three → four"
    assert vtt.text == "one 2 00:00:01.000 --> 00:00:02.000 three --> four"


def test_markup_in_a_name_stays_a_name() -> None:
    spoken = transcript(segment("hello", name="</v><script>&amp;"))
    (cue,) = parse_vtt(to_vtt(spoken))
    assert cue.name == "</v><script>&amp;"


def test_a_name_that_ends_like_an_arrow_makes_none() -> None:
    (cue,) = parse_vtt(to_vtt(transcript(segment("hello", name="Ada--"))))
    assert cue.name == "Ada--"


def test_a_nameless_speaker_goes_by_the_participant() -> None:
    spoken = transcript(segment("hello", name="\x00"))
    assert parse_vtt(to_vtt(spoken))[0].name == "p1"


def test_a_cue_lasts_long_enough_to_be_read() -> None:
    (cue,) = parse_srt(to_srt(transcript(segment("yes", at_s=5, lasting_s=0.1))))
    assert (cue.start_ms, cue.end_ms) == (5000, 5000 + LEAST_CUE_MS)


def test_a_segment_before_the_room_began_is_shown_at_its_start() -> None:
    (cue,) = parse_vtt(to_vtt(transcript(segment("early", at_s=-3.0))))
    assert cue.start_ms == 0


ANY_TEXT = st.text(max_size=40) | st.lists(
    st.sampled_from(["a", "-->", "--", ">", "<", "&", "\n", "\r", "\n\n", " ", "WEBVTT", "1", "\0"])
).map("".join)
ANY_SEGMENT = st.builds(
    segment,
    ANY_TEXT,
    at_s=st.floats(-100, 1_000_000),
    lasting_s=st.floats(-5, 100_000),
    name=ANY_TEXT,
)
ANY_TRANSCRIPT = st.lists(ANY_SEGMENT, max_size=8).map(lambda segments: transcript(*segments))


@given(ANY_TRANSCRIPT)
def test_whatever_was_said_subrip_and_webvtt_are_valid_and_agree(spoken: Transcript) -> None:
    srt, vtt = parse_srt(to_srt(spoken)), parse_vtt(to_vtt(spoken))
    assert [(cue.start_ms, cue.end_ms) for cue in srt] == [
        (cue.start_ms, cue.end_ms) for cue in vtt
    ]
    assert len(to_text(spoken).splitlines()) == len(srt)


@given(ANY_TRANSCRIPT)
def test_whatever_was_said_each_text_that_can_be_shown_is_shown_once(spoken: Transcript) -> None:
    text = to_json(spoken)["text"]
    assert isinstance(text, str)
    assert "\n".join(cue.text for cue in parse_vtt(to_vtt(spoken))) == text
