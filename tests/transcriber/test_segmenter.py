import itertools
import weakref
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from transcriber.segmenter import END_SILENCE, PRE_ROLL, SILENCE, SPEECH, Cut, Segmenter
from transcriber.types import SAMPLE_RATE, Samples
from transcriber.vad import FRAME_SAMPLES

TAIL = SAMPLE_RATE // 5
OVERLAP = SAMPLE_RATE // 5
END_FRAMES = -(-END_SILENCE // FRAME_SAMPLES)
CUT_FROM_FRAMES = 10 * SAMPLE_RATE // FRAME_SAMPLES + 1
CUT_SOON_FRAMES = 20 * SAMPLE_RATE // FRAME_SAMPLES
LONGEST_FRAMES = 28 * SAMPLE_RATE // FRAME_SAMPLES

Run = tuple[float, int]  # a probability and for how many frames


def speech(frames: int) -> Run:
    return 0.9, frames


def murmur(frames: int) -> Run:
    """Not enough to begin an utterance, enough to go on with one."""
    return (SPEECH + SILENCE) / 2, frames


def quiet(frames: int) -> Run:
    return 0.1, frames


def positions(start: int, count: int) -> Samples:
    """Audio in which each sample is its own position, modulo 16 bit: a cut shows where it is
    from."""
    return np.arange(start, start + count).astype(np.int16)


class Speaker:
    """Feeds a segmenter with runs of frames, and keeps the finals."""

    def __init__(self, chunk: int = FRAME_SAMPLES, start_sample: int = 0) -> None:
        self.segmenter = Segmenter()
        self.finals: list[Cut] = []
        self._chunk = chunk
        self._at = start_sample
        self._judged = start_sample
        self.segmenter.restart(start_sample)

    def hear(self, *runs: Run) -> "Speaker":
        for probability, frames in runs:
            left = frames * FRAME_SAMPLES
            while left:
                count = min(left, self._chunk)
                left -= count
                self.push(positions(self._at, count), probability)
        return self

    def push(self, samples: Samples, probability: float) -> None:
        self._at += len(samples)
        complete = (self._at - self._judged) // FRAME_SAMPLES
        self._judged += complete * FRAME_SAMPLES
        self.finals += self.segmenter.push(samples, [probability] * complete)

    def finish(self) -> "Speaker":
        self.finals += self.segmenter.finish()
        return self


def assert_positions(cut: Cut) -> None:
    assert np.array_equal(cut.samples, positions(cut.start_sample, len(cut.samples)))


# Where an utterance begins


def test_an_utterance_begins_at_the_third_frame_of_five() -> None:
    speaker = Speaker().hear(quiet(20), speech(1), quiet(1), speech(1), quiet(1))
    assert not speaker.segmenter.is_speaking
    speaker.hear(speech(1))
    assert speaker.segmenter.is_speaking
    assert speaker.segmenter.speech_start == 20 * FRAME_SAMPLES


def test_three_frames_spread_over_six_are_no_utterance() -> None:
    speaker = Speaker().hear(quiet(20), speech(1), quiet(2), speech(1), quiet(1), speech(1))
    assert not speaker.segmenter.is_speaking


def test_a_probability_of_one_half_is_speech_and_less_is_not() -> None:
    assert not Speaker().hear((SPEECH - 0.01, 5)).segmenter.is_speaking
    assert Speaker().hear((SPEECH, 3)).segmenter.is_speaking


def test_300_ms_before_the_first_word_are_kept() -> None:
    speaker = Speaker().hear(quiet(20), speech(3))
    cut = speaker.segmenter.interim()
    assert cut is not None
    assert cut.start_sample == 20 * FRAME_SAMPLES - PRE_ROLL
    assert PRE_ROLL == 0.3 * SAMPLE_RATE
    assert_positions(cut)


def test_the_pre_roll_ends_where_the_audio_began() -> None:
    speaker = Speaker(start_sample=1000).hear(quiet(2), speech(3))
    cut = speaker.segmenter.interim()
    assert cut is not None
    assert (cut.start_sample, cut.speech_start) == (1000, 1000 + 2 * FRAME_SAMPLES)
    assert_positions(cut)


def test_the_pre_roll_does_not_repeat_the_utterance_before() -> None:
    speaker = Speaker().hear(speech(10), quiet(END_FRAMES), speech(10), quiet(END_FRAMES))
    first, second = speaker.finals
    assert second.start_sample >= first.end_sample
    assert second.speech_start - second.start_sample <= PRE_ROLL
    assert not second.overlaps


# Where it ends


def test_an_utterance_ends_after_500_ms_of_silence() -> None:
    speaker = Speaker().hear(speech(10), quiet(END_FRAMES - 1))
    assert speaker.finals == []
    assert speaker.segmenter.is_speaking
    speaker.hear(quiet(1))
    assert len(speaker.finals) == 1
    assert not speaker.segmenter.is_speaking
    assert END_SILENCE == SAMPLE_RATE // 2


def test_200_ms_of_the_silence_after_it_are_kept() -> None:
    (final,) = Speaker().hear(quiet(20), speech(10), quiet(END_FRAMES)).finals
    assert final.is_final
    assert final.utterance == 1
    assert final.speech_start == 20 * FRAME_SAMPLES
    assert final.speech_end == 30 * FRAME_SAMPLES
    assert final.end_sample == final.speech_end + TAIL
    assert_positions(final)


def test_a_murmur_goes_on_with_an_utterance_but_begins_none() -> None:
    speaker = Speaker().hear(murmur(10))
    assert not speaker.segmenter.is_speaking
    speaker.hear(speech(3), quiet(END_FRAMES - 1), murmur(1), quiet(END_FRAMES - 1))
    assert speaker.segmenter.is_speaking
    (final,) = speaker.hear(quiet(1)).finals
    assert final.speech_end == (10 + 3 + END_FRAMES) * FRAME_SAMPLES


def test_two_utterances_in_one_push_are_two_finals() -> None:
    runs = [0.9] * 5 + [0.0] * END_FRAMES
    segmenter = Segmenter()
    finals = segmenter.push(positions(0, 2 * len(runs) * FRAME_SAMPLES), runs * 2)
    assert [final.utterance for final in finals] == [1, 2]
    for final in finals:
        assert_positions(final)


def test_finish_ends_the_utterance_with_all_that_was_heard() -> None:
    speaker = Speaker().hear(speech(10))
    speaker.push(positions(10 * FRAME_SAMPLES, 100), 0.9)
    (final,) = speaker.finish().finals
    assert final.is_final
    assert final.end_sample == 10 * FRAME_SAMPLES + 100
    assert speaker.finish().finals == [final]


def test_after_finish_the_next_utterance_holds_nothing_of_the_last() -> None:
    speaker = Speaker().hear(speech(10)).finish().hear(speech(10)).finish()
    first, second = speaker.finals
    assert second.start_sample == first.end_sample
    assert second.utterance == 2


def test_an_utterance_right_after_a_finish_does_not_begin_before_its_audio() -> None:
    speaker = Speaker().hear(speech(10))
    # a part of a frame that is judged after the finish
    speaker.push(positions(10 * FRAME_SAMPLES, 400), 0.9)
    speaker.finish()
    for _ in range(3):
        speaker.push(positions(10 * FRAME_SAMPLES + 400, FRAME_SAMPLES), 0.9)
    cut = speaker.segmenter.interim()
    assert cut is not None
    assert cut.speech_start == cut.start_sample == 10 * FRAME_SAMPLES + 400


def test_finish_in_silence_ends_nothing() -> None:
    assert Speaker().hear(quiet(10)).finish().finals == []


def test_restart_ends_the_utterance_and_goes_on_elsewhere() -> None:
    segmenter = Speaker().hear(speech(10)).segmenter
    (final,) = segmenter.restart(5_000_000)
    assert final.end_sample == 10 * FRAME_SAMPLES
    assert not segmenter.is_speaking
    assert segmenter.end_sample == 5_000_000
    assert segmenter.push(positions(5_000_000, 3 * FRAME_SAMPLES), [0.9] * 3) == []
    cut = segmenter.interim()
    assert cut is not None
    assert (cut.utterance, cut.start_sample) == (2, 5_000_000)
    assert_positions(cut)


def test_frames_before_a_restart_do_not_count_for_a_beginning() -> None:
    segmenter = Speaker().hear(quiet(5), speech(2)).segmenter
    assert segmenter.restart(100_000) == []
    segmenter.push(positions(100_000, FRAME_SAMPLES), [0.9])
    assert not segmenter.is_speaking


# Interims


def test_an_interim_is_the_utterance_so_far() -> None:
    speaker = Speaker().hear(quiet(20), speech(10), quiet(2))
    speaker.push(positions(32 * FRAME_SAMPLES, 200), 0.0)
    cut = speaker.segmenter.interim()
    assert cut is not None
    assert not cut.is_final
    assert cut.utterance == 1
    assert cut.end_sample == speaker.segmenter.end_sample == 32 * FRAME_SAMPLES + 200
    assert (cut.speech_start, cut.speech_end) == (20 * FRAME_SAMPLES, 30 * FRAME_SAMPLES)
    assert_positions(cut)


def test_there_is_no_interim_while_nobody_speaks() -> None:
    speaker = Speaker()
    assert speaker.segmenter.interim() is None
    assert speaker.hear(quiet(20)).segmenter.interim() is None
    assert speaker.hear(speech(5), quiet(END_FRAMES)).segmenter.interim() is None


def test_an_interim_changes_nothing_of_the_final() -> None:
    asked, unasked = Speaker(), Speaker()
    for _ in range(30):
        asked.hear(speech(1)).segmenter.interim()
        unasked.hear(speech(1))
    (one,), (other,) = asked.finish().finals, unasked.finish().finals
    assert (one.start_sample, one.end_sample) == (other.start_sample, other.end_sample)


# Long utterances


def test_from_10_s_on_an_utterance_is_cut_in_the_middle_of_its_longest_pause() -> None:
    before, after = 150, CUT_FROM_FRAMES - 150 - 12 - 8 - 20
    speaker = Speaker().hear(speech(before), quiet(12), speech(after), quiet(8), speech(20 - 1))
    assert speaker.finals == []
    (final,) = speaker.hear(speech(2)).finals
    assert final.end_sample == (before + 6) * FRAME_SAMPLES
    assert not final.overlaps
    assert speaker.segmenter.is_speaking
    rest = speaker.segmenter.interim()
    assert rest is not None
    assert (rest.utterance, rest.start_sample) == (2, final.end_sample)
    assert not rest.overlaps
    assert_positions(rest)


def test_a_pause_in_the_first_3_s_makes_no_crumb() -> None:
    speaker = Speaker().hear(speech(60), quiet(12), speech(CUT_FROM_FRAMES - 72 + 5))
    assert speaker.finals == []


def test_before_20_s_a_pause_of_128_ms_does_not_cut_and_160_ms_do() -> None:
    speaker = Speaker().hear(speech(CUT_FROM_FRAMES), quiet(4), speech(10))
    assert speaker.finals == []
    assert len(speaker.hear(quiet(5), speech(1)).finals) == 1


def test_from_20_s_on_a_short_pause_cuts() -> None:
    speaker = Speaker().hear(speech(CUT_FROM_FRAMES), quiet(2))
    speaker.hear(speech(CUT_SOON_FRAMES - CUT_FROM_FRAMES - 3))
    assert speaker.finals == []
    (final,) = speaker.hear(speech(2)).finals
    assert final.end_sample == (CUT_FROM_FRAMES + 1) * FRAME_SAMPLES


def test_a_single_quiet_frame_cuts_only_at_28_s() -> None:
    speaker = Speaker().hear(speech(CUT_FROM_FRAMES), quiet(1))
    speaker.hear(speech(LONGEST_FRAMES - CUT_FROM_FRAMES - 2))
    assert speaker.finals == []
    (final,) = speaker.hear(speech(1)).finals
    assert final.end_sample == CUT_FROM_FRAMES * FRAME_SAMPLES + FRAME_SAMPLES // 2
    assert not final.overlaps


def test_speech_without_any_pause_is_cut_at_28_s_and_overlaps_200_ms() -> None:
    speaker = Speaker().hear(speech(LONGEST_FRAMES - 1))
    assert speaker.finals == []
    (first,) = speaker.hear(speech(1)).finals
    assert first.end_sample == 28 * SAMPLE_RATE
    assert not first.overlaps
    speaker.hear(speech(20)).finish()
    second = speaker.finals[1]
    assert second.overlaps
    assert second.start_sample == second.speech_start == first.end_sample - OVERLAP
    assert second.utterance == 2
    assert_positions(second)


def test_the_utterance_after_an_overlap_begins_without_one() -> None:
    speaker = Speaker().hear(speech(LONGEST_FRAMES + 20), quiet(END_FRAMES), speech(5)).finish()
    assert [final.overlaps for final in speaker.finals] == [False, True, False]


def test_a_cut_at_a_pause_says_where_the_speech_before_it_ended() -> None:
    speaker = Speaker().hear(speech(CUT_FROM_FRAMES), quiet(6), speech(5))
    (final,) = speaker.finals
    assert final.speech_end <= final.end_sample
    speaker.finish()
    assert speaker.finals[1].speech_start == final.end_sample
    assert speaker.finals[1].speech_end == (CUT_FROM_FRAMES + 11) * FRAME_SAMPLES


def test_after_a_cut_the_end_is_told_from_the_last_word_too() -> None:
    speaker = Speaker().hear(speech(CUT_FROM_FRAMES), quiet(6), speech(1))
    assert len(speaker.finals) == 1
    speaker.hear(quiet(END_FRAMES - 1))
    assert len(speaker.finals) == 1
    speaker.hear(quiet(1))
    assert speaker.finals[1].speech_end == (CUT_FROM_FRAMES + 7) * FRAME_SAMPLES


def test_a_long_utterance_that_ends_leaves_none_without_speech_behind() -> None:
    speaker = Speaker().hear(speech(CUT_FROM_FRAMES + 5), quiet(2 * END_FRAMES)).finish()
    (final,) = speaker.finals
    assert final.speech_end == (CUT_FROM_FRAMES + 5) * FRAME_SAMPLES


# Properties over any speech


def _runs(frames: int, most: int) -> st.SearchStrategy[list[Run]]:
    probabilities = st.sampled_from([0.0, 0.34, 0.4, 0.5, 0.95])
    return st.lists(st.tuples(probabilities, st.integers(1, frames)), max_size=most)


# many turns of a conversation, or a few long speeches
runs = st.one_of(_runs(20, 30), _runs(700, 4))
chunks = st.sampled_from([200, FRAME_SAMPLES, 1600, 10_000])


@dataclass(slots=True)
class Span:
    start: int
    end: int


def spoken_spans(said: list[Run]) -> list[Span]:
    """Where there is speech, by the rules of beginning and end alone."""
    probabilities = [p for p, frames in said for _ in range(frames)]
    spans: list[Span] = []
    speaking, recent = False, list[bool]()
    for index, probability in enumerate(probabilities):
        if speaking:
            if probability >= SILENCE:
                spans[-1].end = index + 1
            elif (index + 1 - spans[-1].end) >= END_FRAMES:
                speaking, recent = False, []
            continue
        recent = [*recent, probability >= SPEECH][-5:]
        if sum(recent) >= 3:
            speaking = True
            spans.append(Span(index + 1 - len(recent) + recent.index(True), index + 1))
    return [Span(s.start * FRAME_SAMPLES, s.end * FRAME_SAMPLES) for s in spans]


def uncovered(span: Span, finals: list[Cut]) -> int:
    """How many samples of the span are in no final."""
    at, missing = span.start, 0
    for final in finals:
        if final.end_sample <= at or at >= span.end:
            continue
        missing += max(0, min(final.start_sample, span.end) - at)
        at = max(at, final.end_sample)
    return missing + max(0, span.end - at)


@given(runs, chunks)
@example([speech(2000)], 1600)
@example([speech(400), quiet(6), speech(300), quiet(3), speech(900)], 1600)
@settings(max_examples=100, deadline=None)
def test_every_sample_of_speech_is_in_a_final(said: list[Run], chunk: int) -> None:
    finals = Speaker(chunk).hear(*said).finish().finals
    for span in spoken_spans(said):
        assert uncovered(span, finals) == 0


@given(runs, chunks)
@example([speech(2000)], 1600)
@settings(max_examples=100, deadline=None)
def test_finals_come_in_order_and_overlap_only_where_they_say_so(
    said: list[Run], chunk: int
) -> None:
    finals = Speaker(chunk).hear(*said).finish().finals
    assert [final.utterance for final in finals] == list(range(1, len(finals) + 1))
    for final in finals:
        assert final.is_final
        assert final.start_sample <= final.speech_start <= final.speech_end <= final.end_sample
        assert_positions(final)
    for before, after in itertools.pairwise(finals):
        if after.overlaps:
            assert after.start_sample == before.end_sample - OVERLAP
        else:
            assert after.start_sample >= before.end_sample


@given(runs, chunks)
@example([speech(CUT_FROM_FRAMES + 5), quiet(40)], 1600)
@settings(max_examples=100, deadline=None)
def test_no_final_is_without_speech(said: list[Run], chunk: int) -> None:
    finals = Speaker(chunk).hear(*said).finish().finals
    spans = spoken_spans(said)
    for index, final in enumerate(finals):
        cut_in_any_case = index > 0 and len(finals[index - 1].samples) >= 27 * SAMPLE_RATE
        assert cut_in_any_case or any(
            span.start < final.end_sample and final.start_sample < span.end for span in spans
        )


@given(runs)
@example([speech(3000)])
@settings(max_examples=100, deadline=None)
def test_no_utterance_is_longer_than_28_s(said: list[Run]) -> None:
    for final in Speaker().hear(*said).finish().finals:
        assert len(final.samples) <= 28 * SAMPLE_RATE + FRAME_SAMPLES


@pytest.mark.parametrize("chunk", [200, 1600, 16_000])
@given(said=runs)
@example(said=[speech(2000), quiet(2000)])
@settings(max_examples=25, deadline=None)
def test_no_more_audio_is_held_than_the_utterance_or_the_pre_roll(
    said: list[Run], chunk: int
) -> None:
    speaker = Speaker()
    held: list[weakref.ref[Samples]] = []
    before_speech = PRE_ROLL + 6 * FRAME_SAMPLES
    at = 0
    for probability, frames in said:
        for _ in range(-(-frames * FRAME_SAMPLES // chunk)):
            samples = positions(at, chunk)
            held = [ref for ref in held if ref() is not None]
            held.append(weakref.ref(samples))
            speaker.push(samples, probability)
            del samples
            at += chunk
            speaker.finals.clear()
            cut = speaker.segmenter.interim()
            # chunks are let go of whole: one may reach over either end
            bound = (before_speech if cut is None else len(cut.samples)) + 2 * chunk
            alive = sum(ref() is not None for ref in held) * chunk
            assert alive <= bound
