"""One speaker's stream with an engine that is answered by hand, and a clock by hand."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pytest

from tests.speech import pcm, silence, tone
from tests.transcriber.builders import hypothesis
from transcriber.engines.scripted import WORDS
from transcriber.segmenter import PRE_ROLL
from transcriber.stream import Hearing, SpeakerStream
from transcriber.types import (
    SAMPLE_RATE,
    Caption,
    Evidence,
    Gap,
    GapReason,
    Hypothesis,
    Samples,
    StreamId,
    Window,
    Word,
)
from transcriber.vad import FRAME_SAMPLES

ADA = StreamId("ada")
CHUNK = SAMPLE_RATE // 10
FRAME_S = FRAME_SAMPLES / SAMPLE_RATE


NO_EVIDENCE = Evidence()


class LevelVad:
    """All but digital silence is speech."""

    frames_seen = frames_skipped = 0

    def __init__(self) -> None:
        self._rest = np.empty(0, np.int16)
        self.resets = 0

    def push(self, samples: Samples) -> list[float]:
        heard = np.concatenate([self._rest, samples])
        whole = len(heard) // FRAME_SAMPLES * FRAME_SAMPLES
        self._rest = heard[whole:]
        return [float(frame.any()) for frame in heard[:whole].reshape(-1, FRAME_SAMPLES)]

    def reset(self) -> None:
        self._rest = np.empty(0, np.int16)
        self.resets += 1


class HandEngine:
    """Keeps the windows it is offered; they are answered by hand."""

    def __init__(self) -> None:
        self.cadence_s = 0.0
        self.windows: list[Window] = []
        self.is_ready = True
        self.receive: Callable[[Hypothesis], None] | None = None
        self._unanswered: Window | None = None

    def offer(self, window: Window) -> bool:
        if not window.is_final:
            assert self.can_take_interim(window.stream), "two interims in flight"
            self._unanswered = window
        self.windows.append(window)
        return True

    def can_take_interim(self, stream: StreamId) -> bool:
        return self.is_ready and self._unanswered is None

    def attach(self, stream: StreamId, receive: Callable[[Hypothesis], None]) -> None:
        assert stream == ADA
        self.receive = receive

    def detach(self, stream: StreamId) -> None:
        assert stream == ADA
        self.receive = None

    def answer(self, window: Window, answer: Hypothesis) -> None:
        assert self.receive is not None
        waiting = self._unanswered
        if waiting is window:
            self._unanswered = None
        elif waiting is not None and window.is_final and waiting.utterance <= window.utterance:
            # as the worker does with an interim that its final overtook
            self._unanswered = None
            self.receive(hypothesis(waiting, "", lost=GapReason.OVERLOAD))
        self.receive(answer)

    @property
    def interims(self) -> list[Window]:
        return [w for w in self.windows if not w.is_final]

    @property
    def finals(self) -> list[Window]:
        return [w for w in self.windows if w.is_final]


@dataclass(frozen=True, slots=True)
class Shown:
    """A caption as it is read."""

    utterance: int
    text: str
    is_final: bool


class Scene:
    """A speaker, who speaks in chunks of 100 ms in real time, and who reads along."""

    def __init__(self, utterances_before: int = 0, at: int = 0, language: str = "en") -> None:
        self.engine = HandEngine()
        self.vad = LevelVad()
        self.now = 100.0
        self.at = at
        self.said: list[Caption | Gap] = []
        self.stream = SpeakerStream(
            ADA,
            self.engine,
            self.vad,
            Hearing(language, ("en", "de")),
            self.publish,
            lambda: self.now,
            utterances_before,
        )

    def publish(self, said: Caption | Gap) -> None:
        self.said.append(said)

    # What happens

    def hear(self, samples: Samples) -> "Scene":
        for start in range(0, len(samples), CHUNK):
            self.push(samples[start : start + CHUNK])
        return self

    def speak(self, seconds: float) -> "Scene":
        return self.hear(tone(seconds))

    def pause(self, seconds: float = 0.6) -> "Scene":
        """Long enough to end an utterance."""
        return self.hear(silence(seconds))

    def lose(self, seconds: float, reason: GapReason | None = GapReason.NETWORK) -> "Scene":
        """What comes next does not follow on what came before; time goes on meanwhile."""
        self.at += int(seconds * SAMPLE_RATE)
        self.now += seconds
        self.push(silence(0.1), reason)
        return self

    def push(self, samples: Samples, missing: GapReason | None = None) -> None:
        self.now += len(samples) / SAMPLE_RATE
        self.stream.push(self.at, samples, self.now, missing)
        self.at += len(samples)

    def answer(
        self,
        window: Window,
        text: str = "",
        *,
        after_s: float = 0.0,
        lost: GapReason | None = None,
        absorbed: tuple[int, ...] = (),
        words: tuple[Word, ...] = (),
        evidence: Evidence = NO_EVIDENCE,
    ) -> "Scene":
        self.now += after_s
        answer = hypothesis(window, text, lost=lost, absorbed=absorbed, words=words)
        answer = replace(answer, evidence=evidence)
        self.engine.answer(window, answer)
        return self

    # What came of it

    @property
    def captions(self) -> list[Caption]:
        return [said for said in self.said if isinstance(said, Caption)]

    @property
    def gaps(self) -> list[Gap]:
        return [said for said in self.said if isinstance(said, Gap)]

    @property
    def interim(self) -> Window:
        """The interim that was offered last."""
        return self.engine.interims[-1]

    @property
    def final(self) -> Window:
        return self.engine.finals[-1]


def seconds(samples: int) -> float:
    return samples / SAMPLE_RATE


def assert_captions(scene: Scene, *expected: Shown) -> None:
    shown = [Shown(c.utterance, c.stable + c.tentative, c.is_final) for c in scene.captions]
    assert shown == list(expected)


def assert_gap(scene: Scene, start_s: float, end_s: float, reason: GapReason) -> None:
    (gap,) = scene.gaps
    assert (gap.stream, gap.reason) == (ADA, reason)
    assert seconds(gap.start_sample) == pytest.approx(start_s, abs=FRAME_S)
    assert seconds(gap.end_sample) == pytest.approx(end_s, abs=FRAME_S)


# From speech to captions


def test_a_sentence_becomes_captions_that_grow_and_a_final() -> None:
    scene = Scene().speak(0.6)
    scene.answer(scene.interim, "please open").speak(0.6)
    scene.answer(scene.interim, "please open the").pause()
    scene.answer(scene.final, "Please open the meeting.")
    assert_captions(
        scene,
        Shown(1, "please open", is_final=False),
        Shown(1, "please open the", is_final=False),
        Shown(1, "Please open the meeting.", is_final=True),
    )
    first, second, final = scene.captions
    assert (first.stable, first.tentative) == ("", "please open")
    assert (second.stable, second.tentative) == ("please open", " the")
    assert (final.stable, final.tentative) == ("Please open the meeting.", "")


def test_revisions_of_an_utterance_rise() -> None:
    scene = Scene()
    for _ in range(4):
        scene.speak(0.5)
        scene.answer(scene.interim, "please")
    scene.pause()
    scene.answer(scene.final, "please")
    # the fifth was the interim within the pause
    assert [w.revision for w in scene.engine.windows] == [1, 2, 3, 4, 5, 6]
    assert [c.revision for c in scene.captions] == [1, 2, 3, 4, 6]


def test_utterances_are_counted_on_from_those_before() -> None:
    scene = Scene(utterances_before=7)
    assert scene.stream.utterances == 7
    scene.speak(0.5).pause().speak(0.5).pause()
    assert [w.utterance for w in scene.engine.finals] == [8, 9]
    assert scene.stream.utterances == 9


def test_the_stream_knows_who_speaks_and_how_far_it_heard() -> None:
    scene = Scene()
    assert scene.stream.end_sample is None
    scene.pause()
    assert not scene.stream.is_speaking
    scene.speak(0.5)
    assert scene.stream.is_speaking
    assert scene.stream.end_sample == scene.at
    scene.pause()
    assert not scene.stream.is_speaking


def test_silence_asks_nothing_of_the_engine() -> None:
    scene = Scene().pause(5.0)
    assert scene.engine.windows == []
    assert scene.said == []


def test_a_stream_may_begin_at_any_position() -> None:
    scene = Scene(at=1_000_000).speak(0.5).pause()
    assert scene.final.start_sample == 1_000_000
    assert scene.gaps == []


def test_a_final_holds_the_utterance_with_300_ms_before_it_and_200_ms_after() -> None:
    scene = Scene().pause(1.0).speak(1.0).pause()
    assert scene.final.start_sample == pytest.approx(SAMPLE_RATE - PRE_ROLL, abs=FRAME_SAMPLES)
    assert scene.final.end_sample == pytest.approx(2.2 * SAMPLE_RATE, abs=FRAME_SAMPLES)
    scene.answer(scene.final, "please", words=(word := Word("please", 1, 2, 0.5),))
    (caption,) = scene.captions
    assert seconds(caption.start_sample) == pytest.approx(1.0, abs=FRAME_S)
    assert seconds(caption.end_sample) == pytest.approx(2.0, abs=FRAME_S)
    assert caption.words == (word,)


def test_an_utterance_that_the_engine_hears_nothing_in_shows_nothing() -> None:
    scene = Scene().speak(0.6)
    scene.answer(scene.interim, "").pause()
    scene.answer(scene.final, "")
    assert scene.said == []


def test_a_final_without_text_takes_back_what_was_shown() -> None:
    scene = Scene().speak(0.6)
    scene.answer(scene.interim, "peas").pause()
    scene.answer(scene.final, "")
    assert_captions(scene, Shown(1, "peas", is_final=False), Shown(1, "", is_final=True))


def test_the_last_finals_words_are_the_prompt_of_the_next_window() -> None:
    scene = Scene().speak(0.6)
    assert scene.interim.prompt == ""
    scene.answer(scene.interim, "not this").pause()
    many = " ".join((*WORDS, "quarterly", "budget", "figures", "tomorrow", "afternoon", "upstairs"))
    scene.answer(scene.final, f"{many} please open the meeting").speak(0.6).pause()
    assert scene.interim.prompt == scene.final.prompt
    assert scene.final.prompt.endswith("please open the meeting")
    assert len(scene.final.prompt) == 200


def test_within_an_utterance_a_language_that_was_surely_heard_stays() -> None:
    scene = Scene(language="auto").speak(0.6)
    assert scene.interim.language == ""
    unsure = Evidence(heard_language="de", heard_probability=0.6)
    scene.answer(scene.interim, "please", evidence=unsure).speak(1.1)
    assert scene.interim.language == ""
    sure = Evidence(heard_language="en", heard_probability=0.8)
    scene.answer(scene.interim, "please open", evidence=sure).speak(1.1)
    assert scene.interim.language == "en"
    scene.pause()
    assert scene.final.language == "en"


def test_a_final_without_text_leaves_the_prompt_as_it_was() -> None:
    scene = Scene().speak(0.5).pause()
    scene.answer(scene.final, "please open").speak(0.5).pause()
    scene.answer(scene.final, "").speak(0.5).pause()
    assert scene.final.prompt == "please open"


def test_a_language_that_is_switched_holds_from_the_next_utterance_on() -> None:
    scene = Scene().speak(0.6)
    scene.stream.set_language("de")
    scene.speak(0.6).pause()
    assert {w.language for w in scene.engine.windows} == {"en"}
    scene.answer(scene.interim).speak(0.6).pause()
    assert scene.final.language == "de"
    scene.answer(scene.final, "bitte")
    assert scene.captions[-1].language == "de"


# Interims


def test_the_first_interim_is_asked_for_after_half_a_second_of_speech() -> None:
    scene = Scene().pause(1.024).speak(0.4)
    assert scene.engine.interims == []
    scene.speak(0.1)
    assert len(scene.engine.interims) == 1


def test_an_interim_in_flight_keeps_others_back_and_the_next_has_the_newest_audio() -> None:
    scene = Scene().speak(3.0)
    assert len(scene.engine.interims) == 1
    scene.answer(scene.interim, "please").speak(0.5)
    assert len(scene.engine.interims) == 2
    assert scene.interim.end_sample == scene.at
    assert scene.interim.start_sample == scene.engine.interims[0].start_sample


def test_no_interim_is_asked_for_while_no_worker_is_ready() -> None:
    scene = Scene()
    scene.engine.is_ready = False
    scene.speak(2.0)
    assert scene.engine.windows == []
    scene.engine.is_ready = True
    scene.speak(0.1)
    assert scene.interim.end_sample == scene.at


@pytest.mark.parametrize(
    ("latency_s", "cadence_s"), [(0.05, 0.5), (0.25, 0.5), (0.6, 1.2), (1.2, 2.4), (9.0, 3.0)]
)
def test_interims_become_rarer_as_answers_come_later(latency_s: float, cadence_s: float) -> None:
    scene = Scene().speak(0.5)
    scene.answer(scene.interim, "please", after_s=latency_s)
    heard = scene.interim.end_sample
    while len(scene.engine.interims) == 1:
        scene.speak(0.1)
    assert seconds(scene.interim.end_sample - heard) == pytest.approx(cadence_s, abs=0.11)


def test_interims_become_frequent_again_when_the_engine_is_fast() -> None:
    scene = Scene().speak(0.6)
    scene.answer(scene.interim, "please", after_s=9.0).speak(3.1)
    scene.answer(scene.interim, "please open", after_s=0.0).speak(0.6)
    assert len(scene.engine.interims) == 3


def test_an_interim_that_is_lost_changes_nothing_and_lets_the_next_go() -> None:
    scene = Scene().speak(1.5)
    scene.answer(scene.interim, lost=GapReason.OVERLOAD)
    assert scene.said == []
    assert len(scene.engine.interims) == 2


def test_an_answer_that_comes_after_a_higher_revision_is_dropped() -> None:
    scene = Scene().speak(0.6)
    late = scene.interim
    scene.engine._unanswered = None  # its worker is gone, the answer is still on its way
    scene.speak(0.6)
    scene.answer(scene.interim, "please open")
    scene.answer(late, "peas")
    assert_captions(scene, Shown(1, "please open", is_final=False))


def test_an_answer_that_comes_after_the_final_is_dropped() -> None:
    scene = Scene().speak(0.6)
    late = scene.interim
    scene.pause()
    scene.answer(scene.final, "please").answer(late, "peas")
    assert_captions(scene, Shown(1, "please", is_final=True))


def test_an_answer_that_comes_twice_is_shown_once() -> None:
    scene = Scene().speak(0.6).pause()
    scene.answer(scene.interim, "please").answer(scene.interim, "please")
    assert len(scene.captions) == 1


def test_interims_of_the_next_utterance_do_not_wait_for_the_last_final() -> None:
    scene = Scene().speak(0.6)
    scene.answer(scene.interim, "please").pause()
    scene.answer(scene.interim, "please").speak(0.5)
    assert (scene.interim.utterance, scene.final.utterance) == (2, 1)
    scene.answer(scene.interim, "open").answer(scene.final, "Please.")
    assert_captions(
        scene,
        Shown(1, "please", is_final=False),
        Shown(1, "please", is_final=False),
        Shown(2, "open", is_final=False),
        Shown(1, "Please.", is_final=True),
    )


def test_an_utterance_within_one_chunk_has_its_final() -> None:
    scene = Scene()
    scene.push(np.concatenate([tone(0.5), silence(0.8)]))
    scene.answer(scene.final, "please")
    assert_captions(scene, Shown(1, "please", is_final=True))


# Windows that are not worth sending


def quiet_click() -> Samples:
    """Loud enough to begin an utterance, too short for its whole to be above the floor."""
    return np.concatenate([silence(0.5), tone(0.2, level=0.003), silence(0.8)])


def test_a_window_below_the_floor_is_not_sent() -> None:
    scene = Scene().hear(quiet_click())
    assert scene.stream.utterances == 1
    assert scene.engine.windows == []


async def test_nobody_waits_for_a_final_that_was_not_sent() -> None:
    scene = Scene().hear(quiet_click())
    async with asyncio.timeout(20):
        await scene.stream.drain()


def test_an_utterance_that_was_shown_has_a_final_however_quiet_its_whole_is() -> None:
    # its speech is just above the floor, with the silence after it its whole is not
    scene = Scene().hear(tone(0.5, level=0.0054))
    scene.answer(scene.interim, "hm").pause()
    assert scene.stream.utterances == 1
    scene.answer(scene.final, "")
    assert_captions(scene, Shown(1, "hm", is_final=False), Shown(1, "", is_final=True))


# Timing


def test_a_caption_says_how_late_it_is() -> None:
    scene = Scene().pause(1.024).speak(0.5)
    scene.answer(scene.interim, "please", after_s=0.25)
    (caption,) = scene.captions
    assert caption.timing.latency_s == pytest.approx(0.25)
    assert caption.timing.first_text_s == pytest.approx(0.5 + 0.25, abs=FRAME_S)
    assert caption.timing.final_s is None
    assert (caption.timing.words_shown, caption.timing.words_taken_back) == (1, 0)


def test_only_the_first_text_of_an_utterance_says_how_long_it_took() -> None:
    scene = Scene().speak(0.6)
    scene.answer(scene.interim, "").speak(0.6)
    scene.answer(scene.interim, "please").speak(0.6)
    scene.answer(scene.interim, "please open").pause()
    scene.answer(scene.final, "Please open the")
    firsts = [c.timing.first_text_s for c in scene.captions]
    assert firsts[0] == pytest.approx(1.2, abs=FRAME_S)
    assert firsts[1:] == [None, None]


def test_a_final_says_how_long_after_the_speech_it_came() -> None:
    scene = Scene().speak(1.0).pause(0.6)
    scene.answer(scene.final, "please open", after_s=0.3)
    timing = scene.captions[-1].timing
    assert timing.final_s == pytest.approx(0.6 + 0.3, abs=2 * FRAME_S)
    # its audio ends 200 ms after the speech
    assert timing.latency_s == pytest.approx(0.4 + 0.3, abs=2 * FRAME_S)
    assert timing.first_text_s == pytest.approx(1.9, abs=2 * FRAME_S)


def test_an_interim_that_comes_after_the_speech_does_not_say_how_late_a_final_is() -> None:
    scene = Scene().speak(0.6).pause()
    scene.answer(scene.interim, "please")
    assert scene.captions[-1].timing.final_s is None


def test_words_that_a_final_restates_are_counted_as_taken_back() -> None:
    scene = Scene().speak(0.6)
    scene.answer(scene.interim, "peas open").pause()
    scene.answer(scene.final, "Please open")
    timing = scene.captions[-1].timing
    assert (timing.words_shown, timing.words_taken_back) == (2, 2)


def test_a_hole_does_not_count_into_how_late_the_final_before_it_is() -> None:
    scene = Scene().speak(1.0)
    spoken_until = scene.now
    scene.lose(7.0)
    scene.answer(scene.final, "please", after_s=0.2)
    timing = scene.captions[-1].timing
    # the chunk that ended it came 7.1 s after the speech
    assert timing.final_s == pytest.approx(scene.now - spoken_until, abs=2 * FRAME_S)
    assert timing.final_s == pytest.approx(7.3, abs=2 * FRAME_S)


def test_a_jump_of_the_clock_does_not_count_into_how_late_the_final_before_it_is() -> None:
    scene = Scene().speak(1.0)
    scene.at += 1 << 30
    scene.push(silence(0.1))
    scene.answer(scene.final, "please", after_s=0.2)
    assert scene.captions[-1].timing.final_s == pytest.approx(0.3, abs=2 * FRAME_S)


# Lost audio


@pytest.mark.parametrize("reason", [GapReason.NETWORK, GapReason.OVERLOAD])
def test_lost_audio_is_a_gap_with_its_reason(reason: GapReason) -> None:
    scene = Scene().pause(1.0).lose(0.2, reason)
    assert_gap(scene, 1.0, 1.2, reason)


def test_a_hole_shorter_than_a_syllable_is_not_shown() -> None:
    assert Scene().pause(1.0).lose(0.19).said == []


def test_audio_that_nobody_misses_is_no_gap() -> None:
    # the speaker was muted
    assert Scene().pause(1.0).lose(30.0, reason=None).said == []


def test_a_short_hole_within_speech_is_bridged_with_silence() -> None:
    scene = Scene().speak(1.0)
    scene.answer(scene.interim, "please").lose(0.3).speak(0.5).pause()
    assert_gap(scene, 1.0, 1.3, GapReason.NETWORK)
    assert scene.vad.resets == 0
    (final,) = scene.engine.finals
    assert final.start_sample == 0
    assert final.end_sample == pytest.approx(2.1 * SAMPLE_RATE, abs=FRAME_SAMPLES)
    hole = final.samples[SAMPLE_RATE : int(1.3 * SAMPLE_RATE)]
    assert not hole.any()
    assert final.samples[int(1.4 * SAMPLE_RATE) :].any()


def test_a_hole_of_half_a_second_is_bridged_and_a_longer_one_is_not() -> None:
    assert Scene().speak(1.0).lose(0.3).stream.is_speaking
    scene = Scene().speak(1.0).lose(0.51)
    assert not scene.stream.is_speaking
    assert scene.final.end_sample == SAMPLE_RATE


def test_after_a_long_hole_the_next_utterance_begins_where_the_audio_goes_on() -> None:
    scene = Scene().speak(1.0).lose(5.0).speak(1.0).pause()
    first, second = scene.engine.finals
    assert (first.utterance, second.utterance) == (1, 2)
    assert first.end_sample == SAMPLE_RATE
    assert second.start_sample >= 6 * SAMPLE_RATE
    assert scene.vad.resets == 1
    assert second.end_sample == pytest.approx(7.3 * SAMPLE_RATE, abs=FRAME_SAMPLES)


def test_a_hole_in_silence_keeps_positions_right() -> None:
    scene = Scene().pause(1.0).lose(0.3).pause(1.0).speak(1.0).pause()
    assert seconds(scene.final.start_sample) == pytest.approx(2.4 - 0.3, abs=FRAME_S)


def test_a_chunk_that_overlaps_the_past_is_trimmed() -> None:
    ramp = np.arange(1, 2 * SAMPLE_RATE + 1, dtype=np.int16)
    scene = Scene()
    scene.push(ramp[:16_000])
    # a second peer of the same speaker begins 4000 samples back
    scene.at = 12_000
    scene.push(ramp[12_000:])
    scene.stream.pause()
    assert np.array_equal(scene.final.samples, ramp)
    assert scene.gaps == []


def test_a_chunk_that_was_heard_already_is_dropped() -> None:
    scene = Scene().speak(1.0)
    scene.at = 8000
    scene.push(tone(0.5))
    scene.stream.pause()
    assert scene.final.end_sample == SAMPLE_RATE
    assert scene.stream.end_sample == SAMPLE_RATE


# Finals that are lost or joined


def test_a_lost_final_keeps_the_words_that_were_agreed_on_and_shows_a_gap() -> None:
    scene = Scene().speak(0.6)
    scene.answer(scene.interim, "please open").speak(0.6)
    scene.answer(scene.interim, "please open the").pause()
    scene.answer(scene.final, lost=GapReason.ENGINE)
    assert scene.captions[-1].is_final
    assert (scene.captions[-1].stable, scene.captions[-1].tentative) == ("please open", "")
    assert_gap(scene, 0.0, 1.4, GapReason.ENGINE)


def test_a_lost_final_of_which_nothing_was_shown_is_a_gap_only() -> None:
    scene = Scene().pause(1.0).speak(0.4).pause()
    scene.answer(scene.final, lost=GapReason.OVERLOAD)
    assert scene.captions == []
    assert_gap(scene, 0.7, 1.6, GapReason.OVERLOAD)


def test_a_lost_final_takes_back_what_was_only_tentative() -> None:
    scene = Scene().speak(0.6)
    scene.answer(scene.interim, "peas").pause()
    scene.answer(scene.final, lost=GapReason.ENGINE)
    assert_captions(scene, Shown(1, "peas", is_final=False), Shown(1, "", is_final=True))


def test_a_stream_that_is_given_up_leaves_no_caption_unfinished_and_says_what_is_missing() -> None:
    scene = Scene().speak(0.6)
    scene.answer(scene.interim, "please open").speak(0.6)
    scene.answer(scene.interim, "please open the")
    scene.stream.give_up()
    assert scene.captions[-1].is_final
    assert (scene.captions[-1].stable, scene.captions[-1].tentative) == ("please open", "")
    assert_gap(scene, 0.0, 1.2, GapReason.ENGINE)


def test_utterances_whose_words_stand_in_anothers_final_show_none_of_their_own() -> None:
    scene = Scene()
    scene.engine.is_ready = False
    first = scene.speak(0.6).pause().final
    scene.engine.is_ready = True
    scene.speak(0.6)
    scene.answer(scene.interim, "open").pause()
    scene.answer(first, "please open", absorbed=(2,))
    assert_captions(
        scene,
        Shown(2, "open", is_final=False),
        Shown(1, "please open", is_final=True),
        Shown(2, "", is_final=True),
    )


def test_an_utterance_that_was_joined_before_it_showed_anything_stays_unseen() -> None:
    scene = Scene().speak(0.4).pause().speak(0.4).pause()
    first, _ = scene.engine.finals
    scene.answer(first, "please open", absorbed=(2,))
    assert_captions(scene, Shown(1, "please open", is_final=True))


def test_a_joined_caption_reaches_to_the_end_of_its_last_words() -> None:
    scene = Scene().speak(0.4).pause().speak(0.4).pause()
    first, second = scene.engine.finals
    scene.answer(first, "please open", absorbed=(2,))
    (caption,) = scene.captions
    assert caption.start_sample == 0
    assert seconds(caption.end_sample) == pytest.approx(1.4, abs=FRAME_S)
    assert second.end_sample >= caption.end_sample
    # and it came 0.6 s after them
    assert caption.timing.final_s == pytest.approx(0.6, abs=2 * FRAME_S)


def test_joined_finals_that_are_lost_are_one_gap() -> None:
    scene = Scene().speak(0.4).pause().speak(0.4).pause()
    first, second = scene.engine.finals
    scene.answer(first, lost=GapReason.OVERLOAD, absorbed=(2,))
    assert_gap(scene, 0.0, seconds(second.end_sample), GapReason.OVERLOAD)


async def test_nobody_waits_for_the_finals_of_joined_utterances() -> None:
    scene = Scene().speak(0.4).pause().speak(0.4).pause()
    scene.answer(scene.engine.finals[0], "please open", absorbed=(2, 9))
    async with asyncio.timeout(20):
        await scene.stream.drain()


# Long speech


def steady_tone(length_s: float) -> Samples:
    return pcm(np.full(int(length_s * SAMPLE_RATE), 0.1))


def test_words_that_a_forced_cut_doubles_are_shown_once() -> None:
    scene = Scene().hear(steady_tone(28.0))
    assert scene.final.utterance == 1
    scene.answer(scene.final, "please open the meeting").hear(steady_tone(0.5))
    assert scene.interim.utterance == 2
    scene.answer(scene.interim, "the meeting and").hear(steady_tone(0.5))
    scene.answer(scene.interim, "the meeting and read").pause()
    assert scene.final.start_sample == scene.engine.finals[0].end_sample - SAMPLE_RATE // 5
    scene.answer(scene.final, "The meeting and read")
    after = [c for c in scene.captions if c.utterance == 2]
    assert [c.stable + c.tentative for c in after] == ["and", "and read", "and read"]
    assert sum(c.timing.words_taken_back for c in after) == 0


def test_words_that_two_utterances_share_without_an_overlap_are_both_shown() -> None:
    scene = Scene().speak(0.5).pause()
    scene.answer(scene.final, "no").speak(0.5).pause()
    scene.answer(scene.final, "no")
    assert_captions(scene, Shown(1, "no", is_final=True), Shown(2, "no", is_final=True))


# Ends


def test_pause_ends_the_utterance_at_once() -> None:
    scene = Scene().speak(1.0)
    scene.stream.pause()
    assert scene.final.end_sample == SAMPLE_RATE
    assert not scene.stream.is_speaking
    scene.stream.pause()
    assert len(scene.engine.finals) == 1


def test_speech_after_a_pause_is_a_new_utterance() -> None:
    scene = Scene().speak(1.0)
    scene.stream.pause()
    scene.speak(1.0)
    scene.stream.pause()
    assert [w.utterance for w in scene.engine.finals] == [1, 2]
    first, second = scene.engine.finals
    assert second.start_sample == first.end_sample
    for final, text in ((first, "one"), (second, "two")):
        scene.answer(final, text)
    assert scene.captions[1].start_sample >= scene.captions[0].end_sample


async def test_drain_ends_the_utterance_and_waits_for_the_last_final() -> None:
    scene = Scene().speak(0.5).pause().speak(0.5)
    drained = asyncio.create_task(scene.stream.drain())
    await asyncio.sleep(0)
    first, second = scene.engine.finals
    scene.answer(first, "please")
    await asyncio.sleep(0)
    assert not drained.done()
    scene.answer(second, "open")
    async with asyncio.timeout(20):
        await drained
    assert_captions(scene, Shown(1, "please", is_final=True), Shown(2, "open", is_final=True))


async def test_drain_of_a_silent_stream_does_not_wait() -> None:
    async with asyncio.timeout(20):
        await Scene().stream.drain()
        await Scene().pause().stream.drain()


async def test_drain_can_be_cancelled() -> None:
    scene = Scene().speak(0.5)
    drained = asyncio.create_task(scene.stream.drain())
    await asyncio.sleep(0)
    drained.cancel()
    await asyncio.wait({drained})
    assert drained.cancelled()
    scene.answer(scene.final, "please")
    assert_captions(scene, Shown(1, "please", is_final=True))


def test_close_gives_up_what_is_pending() -> None:
    scene = Scene().speak(0.5)
    scene.stream.close()
    assert scene.engine.receive is None


# A reader that fails


def failing(scene: Scene) -> Scene:
    def publish(said: Caption | Gap) -> None:
        raise RuntimeError("the room is gone")

    scene.stream._publish = publish
    return scene


def test_what_publishing_a_caption_raises_is_raised_by_the_next_push() -> None:
    scene = failing(Scene()).speak(0.6)
    scene.answer(scene.interim, "please")
    with pytest.raises(RuntimeError, match="the room is gone"):
        scene.speak(0.1)


async def test_nobody_waits_for_finals_of_a_stream_that_failed() -> None:
    scene = failing(Scene()).speak(0.5).pause()
    scene.answer(scene.final, "please")
    async with asyncio.timeout(20):
        await scene.stream.drain()


def test_what_publishing_a_gap_raises_is_raised_by_its_push() -> None:
    with pytest.raises(RuntimeError, match="the room is gone"):
        failing(Scene().pause(0.5)).lose(1.0)
