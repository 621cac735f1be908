"""`SpeakerStream`: one speaker's PCM in, captions and gaps out.

Owns the speaker's voice activity, segmenter and agreement; asks the engine for windows and
takes its hypotheses. Everything runs in the caller's turn of the event loop and nothing
waits but `drain`. Interims are cut when they can be sent: the newest audio always wins.
"""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np

from transcriber.account import Account, Fates
from transcriber.agreement import Agreed, Agreement, without_doubled_start
from transcriber.filters import Never, Told, never_said
from transcriber.language import LanguageChoice, sure_of
from transcriber.segmenter import Cut, Segmenter
from transcriber.types import (
    SAMPLE_RATE,
    Caption,
    Gap,
    GapReason,
    Hypothesis,
    Samples,
    StreamId,
    Timing,
    Window,
)
from transcriber.vad import SILENCE_RMS, Vad, rms

# How much new speech is worth another interim: the knob that gives under load. The first one
# of an utterance is always asked for early: it is what people wait for.
_MIN_CADENCE_S, _MAX_CADENCE_S = 0.5, 3.0
# A hole this short within speech is bridged with silence, so that the sentence stays whole.
_BRIDGE_SAMPLES = SAMPLE_RATE // 2
# Shorter than a syllable; counted in the ledger, not shown.
_GAP_SHOWN_SAMPLES = SAMPLE_RATE // 5
_PROMPT_CHARACTERS = 200

log = logging.getLogger("roomscribe.stream")


class Engine(Protocol):
    """What a stream needs of `WorkerProcess`."""

    def offer(self, window: Window) -> bool: ...

    def can_take_interim(self, stream: StreamId) -> bool: ...

    @property
    def cadence_s(self) -> float:
        """How much new speech an interim should wait for, by how many speak."""
        ...

    def attach(self, stream: StreamId, receive: Callable[[Hypothesis], None]) -> None: ...

    def detach(self, stream: StreamId) -> None: ...


@dataclass(frozen=True, slots=True)
class Hearing:
    """How a speaker is to be understood."""

    language: str  # or `language.AUTO`
    languages: tuple[str, ...] = ()  # among which to detect
    glossary: str = ""


@dataclass(frozen=True, slots=True)
class _Asked:
    """What is to be known of a window once its hypothesis comes."""

    start_sample: int
    end_sample: int
    speech_start: int
    speech_end: int
    heard_at: float
    told: Told


@dataclass(slots=True)
class _Utterance:
    """One that is spoken or whose final is awaited."""

    speech_start_at: float
    language: str
    overlaps: bool = False
    agreement: Agreement = field(default_factory=Agreement)
    revision: int = 0  # of the hypothesis shown last
    asked: dict[int, _Asked] = field(default_factory=dict)  # by revision, those unanswered
    last_asked: int = 0
    end_sample: int = 0
    speech_end_at: float | None = None
    shown: str = ""
    has_text: bool = False
    share: int = 0  # of the audio, once it is over


class SpeakerStream:
    def __init__(
        self,
        stream: StreamId,
        engine: Engine,
        vad: Vad,
        hearing: Hearing,
        publish: Callable[[Caption | Gap], None],
        clock: Callable[[], float],
        utterances_before: int = 0,
        on_never_said: Callable[[Never], None] = lambda _reason: None,
    ) -> None:
        self.stream = stream
        self._engine = engine
        self._vad = vad
        self._choice = LanguageChoice(hearing.language, hearing.languages)
        self._glossary = hearing.glossary
        self._publish = publish
        self._on_never_said = on_never_said
        self._account = Account()
        self._clock = clock
        self._segmenter = Segmenter(utterances_before)
        self._utterances: dict[int, _Utterance] = {}
        self._end_sample: int | None = None
        self._heard_at = 0.0
        self._cadence_s = _MIN_CADENCE_S
        self._said = ""
        self._failure: Exception | None = None
        self._idle = asyncio.Event()
        self._idle.set()
        engine.attach(stream, self.receive)

    @property
    def is_speaking(self) -> bool:
        return self._segmenter.is_speaking

    @property
    def utterances(self) -> int:
        """How many have begun, with those before this stream."""
        return self._segmenter.utterance

    @property
    def end_sample(self) -> int | None:
        """Where the audio so far ends; None before the first."""
        return self._end_sample

    def set_language(self, language: str) -> None:
        """For the utterances that begin from now on."""
        self._choice.want(language)

    @property
    def frames(self) -> tuple[int, int]:
        """Frames of voice activity: seen, and of these too quiet to look at."""
        return self._vad.frames_seen, self._vad.frames_skipped

    @property
    def fates(self) -> Fates:
        """Where the audio went."""
        return self._account.fates()

    def push(
        self, start_sample: int, samples: Samples, heard_at: float, missing: GapReason | None = None
    ) -> None:
        """Take audio that was heard at `heard_at`; `missing` says why it does not follow on
        what came before, if audio was lost. Raises what a hypothesis ran into."""
        if self._failure is not None:
            raise self._failure
        if self._end_sample is not None and start_sample < self._end_sample:
            # two peers of one speaker, the older one's last chunks: heard already
            samples = samples[self._end_sample - start_sample :]
            start_sample = self._end_sample
            if not len(samples):
                return
        if self._end_sample is not None and start_sample != self._end_sample:
            self._skip_to(start_sample, missing)
        elif self._end_sample is None:
            self._send_finals(self._segmenter.restart(start_sample))
        self._account.heard(start_sample, start_sample + len(samples))
        self._hear(samples, heard_at)
        self._end_sample = start_sample + len(samples)

    def pause(self) -> None:
        """Nothing came for a while, or the speaker muted: the utterance ends here."""
        self._send_finals(self._segmenter.finish())

    async def drain(self) -> None:
        """End the utterance and wait until every final is out."""
        self._end_audio()
        await self._idle.wait()

    def give_up(self) -> None:
        """Show what was agreed on of unfinished utterances, and a gap. Only `close` follows."""
        self._end_audio()
        for number, utterance in list(self._utterances.items()):
            revision = utterance.last_asked
            lost = Hypothesis(
                self.stream,
                number,
                revision,
                True,
                "",
                utterance.language,
                lost=GapReason.ENGINE,
            )
            self._finish(lost, utterance, utterance.asked[revision])

    def _end_audio(self) -> None:
        """What is held for an utterance that might begin was silence: none does."""
        self.pause()
        if self._end_sample is not None:
            self._account.silent_to(self._end_sample)

    def close(self) -> None:
        """Give up what is pending. The stream is not used afterwards."""
        self._engine.detach(self.stream)
        # those who are told hold the stream, too
        self._publish = self._on_never_said = _to_nobody

    def receive(self, hypothesis: Hypothesis) -> None:
        """Take what the engine heard. What goes wrong is raised by the next `push`."""
        try:
            self._receive(hypothesis)
        except Exception as error:
            # The containment of one speaker: this runs in the worker's reading loop, which
            # serves all; the speaker's own task is told.
            self._failure = error
            self._idle.set()

    def _receive(self, hypothesis: Hypothesis) -> None:
        utterance = self._utterances.get(hypothesis.utterance)
        if utterance is None:
            return
        asked = utterance.asked.pop(hypothesis.revision, None)
        if asked is None or hypothesis.revision <= utterance.revision:
            return
        if hypothesis.is_final:
            self._finish(hypothesis, utterance, asked)
        elif hypothesis.lost is None:
            self._revise(hypothesis, utterance, asked)
        self._maybe_interim()

    def _hear(self, samples: Samples, heard_at: float) -> None:
        self._heard_at = heard_at
        self._send_finals(self._segmenter.push(samples, self._vad.push(samples)))
        self._account.silent_to(self._segmenter.held_from)
        if self._segmenter.is_speaking:
            number = self._segmenter.utterance
            if number not in self._utterances:
                self._open(number, self._segmenter.speech_start)
            self._maybe_interim()

    def _skip_to(self, start_sample: int, missing: GapReason | None) -> None:
        assert self._end_sample is not None
        hole = start_sample - self._end_sample
        if missing is not None and hole >= _GAP_SHOWN_SAMPLES:
            self._publish(Gap(self.stream, self._end_sample, start_sample, missing))
        if 0 < hole <= _BRIDGE_SAMPLES and self._segmenter.is_speaking:
            if missing is not None:
                self._account.bridged(self._end_sample, start_sample, missing)
            self._hear(np.zeros(hole, np.int16), self._heard_at)
            return
        # before the restart: when its speech was heard is told from where the audio ends
        self._send_finals(self._segmenter.finish())
        self._segmenter.restart(start_sample)
        self._vad.reset()
        self._account.missed(self._end_sample, start_sample, missing)

    def _open(self, number: int, speech_start: int) -> _Utterance:
        utterance = _Utterance(self._heard(speech_start), self._choice.current)
        self._utterances[number] = utterance
        self._idle.clear()
        return utterance

    def _maybe_interim(self) -> None:
        if not self._segmenter.is_speaking or not self._engine.can_take_interim(self.stream):
            return
        utterance = self._utterances.get(self._segmenter.utterance)
        if utterance is None:
            return
        if not utterance.last_asked:
            since, cadence_s = self._segmenter.speech_start, _MIN_CADENCE_S
        else:
            since = utterance.end_sample
            cadence_s = min(_MAX_CADENCE_S, max(self._cadence_s, self._engine.cadence_s))
        if self._segmenter.end_sample - since < cadence_s * SAMPLE_RATE:
            return
        cut = self._segmenter.interim()
        # once it was loud enough to be shown, it goes on however quiet
        if cut is not None and (utterance.last_asked or rms(cut.samples) >= SILENCE_RMS):
            self._ask(cut, utterance)

    def _send_finals(self, cuts: list[Cut]) -> None:
        for cut in cuts:
            utterance = self._utterances.get(cut.utterance)
            if utterance is None:
                utterance = self._open(cut.utterance, cut.speech_start)
            utterance.speech_end_at = self._heard(cut.speech_end)
            utterance.share = self._account.utterance(cut.start_sample, cut.end_sample)
            # what was shown of it needs its final, however quiet
            if rms(cut.samples) < SILENCE_RMS and not utterance.last_asked:
                self._settle(utterance, None, was_said=False)
                self._close_utterance(cut.utterance)
                continue
            self._ask(cut, utterance)

    def _ask(self, cut: Cut, utterance: _Utterance) -> None:
        utterance.last_asked += 1
        utterance.overlaps = cut.overlaps
        utterance.end_sample = cut.end_sample
        told = Told(
            self._said[-_PROMPT_CHARACTERS:], self._glossary, cut.speech_end - cut.speech_start
        )
        utterance.asked[utterance.last_asked] = _Asked(
            cut.start_sample,
            cut.end_sample,
            cut.speech_start,
            cut.speech_end,
            self._heard(cut.end_sample),
            told,
        )
        self._engine.offer(
            Window(
                self.stream,
                cut.utterance,
                utterance.last_asked,
                cut.start_sample,
                cut.samples,
                cut.is_final,
                utterance.language,
                told.prompt,
                glossary=told.glossary,
                detect=self._choice.detect,
            )
        )

    def _heard(self, sample: int) -> float:
        """When a sample near the newest one arrived."""
        return self._heard_at - (self._segmenter.end_sample - sample) / SAMPLE_RATE

    def _revise(self, hypothesis: Hypothesis, utterance: _Utterance, asked: _Asked) -> None:
        latency_s = self._clock() - asked.heard_at
        self._cadence_s = min(_MAX_CADENCE_S, max(_MIN_CADENCE_S, 2 * latency_s))
        if self._was_never_said(hypothesis, asked.told):
            return
        if not utterance.language and hypothesis.text:
            evidence = hypothesis.evidence
            # for all of the utterance: a caption that changes its language cannot be read
            utterance.language = sure_of(evidence.heard_language, evidence.heard_probability)
        text = self._without_overlap(hypothesis.text, utterance)
        agreed = utterance.agreement.update(text)
        if agreed.stable or agreed.tentative or utterance.shown:
            self._show(hypothesis, utterance, asked, agreed)

    def _finish(self, hypothesis: Hypothesis, utterance: _Utterance, asked: _Asked) -> None:
        for number in hypothesis.absorbed:
            if (joined := self._utterances.get(number)) is not None:
                last = joined.asked[joined.last_asked]
                asked = replace(
                    last, start_sample=asked.start_sample, speech_start=asked.speech_start
                )
                utterance.speech_end_at = joined.speech_end_at
        was_said = not self._was_never_said(hypothesis, asked.told)
        if hypothesis.lost is None:
            text = self._without_overlap(hypothesis.text, utterance) if was_said else ""
        else:
            # what was agreed on was said; the rest is part of the gap
            text = utterance.agreement.stable
        if text or utterance.shown:
            self._show(hypothesis, utterance, asked, utterance.agreement.finish(text))
        self._said = text or self._said
        if text:
            evidence = hypothesis.evidence
            self._choice.heard(evidence.heard_language, evidence.heard_probability)
        self._settle(utterance, hypothesis.lost, was_said=was_said)
        for number in hypothesis.absorbed:
            if (joined := self._utterances.get(number)) is not None:
                self._settle(joined, hypothesis.lost, was_said=was_said)
            self._absorb(number)
        if hypothesis.lost is not None:
            self._publish(Gap(self.stream, asked.start_sample, asked.end_sample, hypothesis.lost))
        self._close_utterance(hypothesis.utterance)

    def _absorb(self, number: int) -> None:
        """An utterance whose words stand in another's final shows none of its own."""
        utterance = self._utterances.get(number)
        if utterance is None:
            return
        if utterance.shown:
            asked = utterance.asked[utterance.last_asked]
            empty = Hypothesis(
                self.stream, number, utterance.last_asked, True, "", utterance.language
            )
            self._show(empty, utterance, asked, utterance.agreement.finish(""))
        self._close_utterance(number)

    def _settle(self, utterance: _Utterance, lost: GapReason | None, *, was_said: bool) -> None:
        self._account.settle(utterance.share, lost, was_said=was_said)

    def _was_never_said(self, hypothesis: Hypothesis, told: Told) -> bool:
        reason = never_said(hypothesis, told)
        if reason is None:
            return False
        self._on_never_said(reason)
        if hypothesis.is_final:
            log.info("a text was taken for never said", extra={"reason": reason.value})
        return True

    def _without_overlap(self, text: str, utterance: _Utterance) -> str:
        return without_doubled_start(self._said, text) if utterance.overlaps else text

    def _show(
        self, hypothesis: Hypothesis, utterance: _Utterance, asked: _Asked, agreed: Agreed
    ) -> None:
        now = self._clock()
        text = agreed.stable + agreed.tentative
        first_text_s = final_s = None
        if text and not utterance.has_text:
            utterance.has_text = True
            first_text_s = now - utterance.speech_start_at
        if hypothesis.is_final and utterance.speech_end_at is not None:
            final_s = now - utterance.speech_end_at
        utterance.shown = text
        utterance.revision = hypothesis.revision
        self._publish(
            Caption(
                self.stream,
                hypothesis.utterance,
                hypothesis.revision,
                agreed.stable,
                agreed.tentative,
                hypothesis.is_final,
                asked.speech_start,
                asked.speech_end,
                hypothesis.language,
                hypothesis.words,
                Timing(
                    max(0.0, now - asked.heard_at),
                    first_text_s,
                    final_s,
                    agreed.words_shown,
                    agreed.words_taken_back,
                ),
            )
        )

    def _close_utterance(self, number: int) -> None:
        self._utterances.pop(number, None)
        if not self._utterances:
            self._idle.set()


def _to_nobody(_said: object) -> None:
    pass
