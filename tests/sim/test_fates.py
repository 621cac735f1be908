"""Where a speaker's audio went, whatever happens to it and to those who hear it."""

import contextlib
from dataclasses import dataclass, replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.sim.test_stream import Scene
from tests.speech import pcm, silence, tone
from tests.transcriber.builders import hypothesis
from transcriber.account import Fates
from transcriber.types import SAMPLE_RATE, Evidence, GapReason, Window

# What an answer may say: a text, nothing, what nobody said, or why it is lost
ANSWERS = ("said", "empty", "never said", *GapReason)


class Audited(Scene):
    """A scene, and a label for each of its samples."""

    def __init__(self, at: int = 0) -> None:
        super().__init__(at=at)
        self.first = at
        self.lost: list[tuple[int, int, GapReason]] = []
        self.answered: list[tuple[Window, str]] = []
        self.ends: dict[int, int] = {}  # how far the audio was, by how many finals there were

    @property
    def unanswered(self) -> list[Window]:
        done = {window.utterance for window, _ in self.answered}
        return [window for window in self.engine.finals if window.utterance not in done]

    def check(self) -> None:
        """At any moment, all that came has one fate."""
        fates = self.stream.fates
        parts = [fates.transcribed, fates.silence, fates.pending, *fates.dropped.values()]
        assert min(parts) >= 0
        assert sum(parts) == fates.received
        if self.stream.end_sample is not None:
            assert fates.received == self.stream.end_sample - self.first

    def miss(self, samples: int, reason: GapReason | None, then_s: float) -> None:
        if self.stream.end_sample is None:
            return
        if reason is not None:
            self.lost.append((self.at, self.at + samples, reason))
        self.at += samples
        self.now += samples / SAMPLE_RATE
        self.push(tone(then_s) if then_s else silence(0.1), reason)

    def answer_final(self, which: int, how: str, joins: int = 0) -> None:
        """Answer one that waits; `joins` of those after it stand in it."""
        waiting = self.unanswered
        if not waiting:
            return
        window, *after = waiting[which % len(waiting) :]
        joined = after[:joins]
        self.answered += [(each, how) for each in (window, *joined)]
        lost = how if isinstance(how, GapReason) else None
        said = hypothesis(
            window,
            "" if lost or how == "empty" else "please open",
            absorbed=tuple(each.utterance for each in joined),
            lost=lost,
        )
        if how == "never said":
            said = replace(said, evidence=Evidence(avg_logprob=-2.0))
        self.engine.answer(window, said)

    def answer_interim(self) -> None:
        if not self.engine.can_take_interim(self.interim.stream if self.engine.interims else ADA):
            self.answer(self.interim, "please")

    def end(self) -> None:
        """The speaker goes: the utterance ends, every final is answered."""
        self.stream.pause()
        if self.stream.end_sample is not None:
            self.ends[len(self.engine.finals)] = self.stream.end_sample - self.first
        while self.unanswered:
            self.answer_final(0, "said")
        drained = self.stream.drain()
        with contextlib.suppress(StopIteration):
            drained.send(None)

    def expected(self) -> Fates:
        """By the windows that were sent: a sample has the fate of the first that holds it."""
        assert self.stream.end_sample is not None
        fate = np.full(self.stream.end_sample - self.first, "silence", dtype="U12")
        is_free = np.ones(len(fate), bool)
        for start, end, reason in self.lost:
            fate[start - self.first : end - self.first] = reason.value
            is_free[start - self.first : end - self.first] = False
        how = {window.utterance: answer for window, answer in self.answered}
        names = {"said": "transcribed", "empty": "transcribed", "never said": "silence"}
        for number, window in enumerate(self.engine.finals):
            # what was silence when a peer ended stays so for the next one
            is_free[: self.ends.get(number, 0)] = False
            at = slice(window.start_sample - self.first, window.end_sample - self.first)
            answer = how[window.utterance]
            fate[at][is_free[at]] = names.get(answer, str(answer))
            is_free[at] = False
        count = dict(zip(*np.unique(fate, return_counts=True), strict=True))
        return Fates(
            len(fate),
            int(count.get("transcribed", 0)),
            int(count.get("silence", 0)),
            0,
            {r: int(count[r.value]) for r in GapReason if r.value in count},
        )


ADA = Scene().stream.stream


@dataclass(frozen=True, slots=True)
class Step:
    """Something that happens."""

    what: str
    seconds: float = 0.0
    samples: int = 0
    reason: GapReason | None = None
    which: int = 0
    how: str = "said"
    joins: int = 0


tenths = st.integers(1, 20).map(lambda n: n / 10)
steps = st.one_of(
    st.builds(Step, st.just("speak"), tenths),
    st.builds(Step, st.just("quiet"), tenths),
    st.builds(Step, st.just("miss"), st.sampled_from([0.0, 0.3]), st.integers(1, 16_000),
              st.sampled_from([GapReason.NETWORK, GapReason.OVERLOAD, None])),
    st.builds(Step, st.just("answer"), which=st.integers(0, 3), how=st.sampled_from(ANSWERS),
              joins=st.sampled_from([0, 0, 0, 1, 2])),
    st.builds(Step, st.sampled_from(["look", "pause", "click", "odd", "overlap", "drain"])),
)  # fmt: skip


def play(scene: Audited, step: Step) -> None:
    match step.what:
        case "speak":
            scene.speak(step.seconds)
        case "quiet":
            scene.pause(step.seconds)
        case "miss":
            scene.miss(step.samples, step.reason, step.seconds)
        case "answer":
            scene.answer_final(step.which, step.how, step.joins)
        case "look":
            scene.answer_interim()
        case "pause":
            scene.stream.pause()
        case "click":  # too quiet as a whole to be sent
            scene.hear(np.concatenate([silence(0.5), tone(0.2, level=0.003), silence(0.8)]))
        case "odd":  # no whole frame
            scene.push(tone(0.1)[:777])
        case "overlap" if scene.at - scene.first > 4000:  # a second peer begins
            scene.at -= 4000
            scene.push(tone(0.5))
        case "drain":
            scene.end()


@settings(max_examples=100, deadline=None)
@given(st.sampled_from([0, 12_345, 1 << 33]), st.lists(steps, max_size=40))
def test_all_audio_has_one_fate_to_the_sample(at: int, happened: list[Step]) -> None:
    scene = Audited(at)
    scene.pause(0.1)
    for step in happened:
        play(scene, step)
        scene.check()
    scene.end()
    scene.check()
    fates = scene.stream.fates
    assert fates.pending == 0
    assert replace(fates, dropped={r: n for r, n in fates.dropped.items() if n}) == (
        scene.expected()
    )


def test_a_minute_without_a_pause_is_counted_once_though_its_cuts_overlap() -> None:
    scene = Audited().hear(pcm(np.full(60 * SAMPLE_RATE, 0.1)))
    assert isinstance(scene, Audited)
    assert len(scene.engine.finals) == 2
    scene.end()
    assert scene.stream.fates == Fates(60 * SAMPLE_RATE, transcribed=60 * SAMPLE_RATE)


def test_what_is_held_for_the_next_utterance_is_pending_until_the_speaker_goes() -> None:
    scene = Audited()
    scene.pause(2.0)
    assert 0 < scene.stream.fates.pending < SAMPLE_RATE // 2
    scene.stream.pause()
    assert scene.stream.fates.pending > 0
    scene.end()
    assert scene.stream.fates == Fates(2 * SAMPLE_RATE, silence=2 * SAMPLE_RATE)


def test_a_stream_that_is_given_up_has_nothing_pending() -> None:
    scene = Audited()
    scene.speak(1.0).pause(1.0).speak(0.5).pause(2.0)
    scene.stream.give_up()
    fates = scene.stream.fates
    assert fates.pending == 0
    assert fates.dropped[GapReason.ENGINE] == sum(len(w.samples) for w in scene.engine.finals)
    scene.check()


def test_a_hole_within_a_sentence_is_dropped_and_the_rest_of_it_transcribed() -> None:
    scene = Audited()
    scene.speak(1.0)
    scene.miss(3200, GapReason.NETWORK, 0.3)
    scene.speak(0.5).pause()
    (final,) = scene.engine.finals
    scene.end()
    assert scene.stream.fates.dropped == {GapReason.NETWORK: 3200}
    assert scene.stream.fates.transcribed == len(final.samples) - 3200


def test_joined_utterances_have_the_fate_of_the_final_that_holds_their_words() -> None:
    for how in ANSWERS:
        scene = Audited()
        scene.speak(0.4).pause().speak(0.4).pause().speak(0.4).pause()
        assert len(scene.unanswered) == 3
        scene.answer_final(0, how, joins=2)
        scene.end()
        assert scene.stream.fates == scene.expected()
