import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.speech import FULL_SCALE, OPEN_THE_MEETING, pcm, silence, spoken, tone
from transcriber.segmenter import SILENCE, SPEECH
from transcriber.types import SAMPLE_RATE, Samples
from transcriber.vad import FRAME_SAMPLES, SILENCE_RMS, EnergyVad, SileroVad, Vad, make_vad, rms


def noise(seconds: float, level: float, seed: int = 7) -> Samples:
    """White noise of an RMS."""
    samples = np.random.default_rng(seed).normal(0.0, level, int(seconds * SAMPLE_RATE))
    return pcm(samples)


def share_of_speech(vad: Vad, samples: Samples) -> float:
    probabilities = vad.push(samples)
    return sum(p >= SPEECH for p in probabilities) / len(probabilities)


def in_chunks(vad: Vad, samples: Samples, sizes: list[int]) -> list[float]:
    heard: list[float] = []
    at = 0
    for size in sizes:
        heard += vad.push(samples[at : at + size])
        at += size
    return heard + vad.push(samples[at:])


def test_rms_is_the_level_of_a_window() -> None:
    assert rms(np.full(100, -16_384, np.int16)) == pytest.approx(0.5)
    assert rms(pcm(np.array([0.3, -0.4]))) == pytest.approx(0.125**0.5, abs=1e-4)
    assert rms(np.full(16_000, -32_768, np.int16)) == pytest.approx(1.0)
    assert rms(np.empty(0, np.int16)) == 0.0


def test_the_detector_is_chosen_by_its_name() -> None:
    assert isinstance(make_vad("silero"), SileroVad)
    assert isinstance(make_vad("energy"), EnergyVad)


# Any detector


@pytest.mark.parametrize("name", ["silero", "energy"])
def test_a_spoken_sentence_is_mostly_speech(name: str) -> None:
    assert share_of_speech(make_vad(name), spoken(OPEN_THE_MEETING)) > 0.7  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["silero", "energy"])
def test_silence_and_a_hiss_below_the_gate_are_no_speech(name: str) -> None:
    vad = make_vad(name)  # type: ignore[arg-type]
    assert set(vad.push(silence(2.0))) == {0.0}
    assert max(vad.push(noise(2.0, SILENCE_RMS / 2))) < SILENCE


@pytest.mark.parametrize("name", ["silero", "energy"])
def test_a_frame_has_a_probability_only_once_it_is_whole(name: str) -> None:
    vad = make_vad(name)  # type: ignore[arg-type]
    sound = tone(1.0)
    assert vad.push(sound[:0]) == []
    assert vad.push(sound[: FRAME_SAMPLES - 1]) == []
    assert len(vad.push(sound[FRAME_SAMPLES - 1 : 2 * FRAME_SAMPLES])) == 2


@pytest.mark.parametrize("name", ["silero", "energy"])
def test_after_a_reset_frames_begin_anew(name: str) -> None:
    vad = make_vad(name)  # type: ignore[arg-type]
    vad.push(tone(1.0)[: FRAME_SAMPLES - 1])
    vad.reset()
    assert vad.push(tone(1.0)[:1]) == []


@pytest.mark.parametrize("name", ["silero", "energy"])
def test_speakers_by_turns_are_heard_as_each_alone(name: str) -> None:
    sounds = [spoken(OPEN_THE_MEETING)[:20_000], noise(1.25, 0.1), tone(1.25)]
    vads = [make_vad(name) for _ in sounds]  # type: ignore[arg-type]
    heard: list[list[float]] = [[] for _ in sounds]
    for at in range(0, 20_000, 700):
        for vad, sound, own in zip(vads, sounds, heard, strict=True):
            own += vad.push(sound[at : at + 700])

    alone = [in_chunks(make_vad(name), sound, [700] * 28) for sound in sounds]  # type: ignore[arg-type]
    assert heard == alone


# Energy


def test_a_tone_well_above_the_floor_is_speech() -> None:
    assert min(EnergyVad().push(tone(2.0))) > 0.99


def test_a_steady_hum_is_no_speech_after_a_while_and_a_voice_over_it_still_is() -> None:
    vad = EnergyVad()
    vad.push(noise(40.0, 0.02))
    assert max(vad.push(noise(1.0, 0.02))) < SILENCE
    assert min(vad.push(noise(1.0, 0.2))) > SPEECH


def test_the_floor_falls_at_once() -> None:
    vad = EnergyVad()
    vad.push(noise(40.0, 0.1))
    vad.push(noise(0.1, 0.003))
    assert min(vad.push(noise(0.5, 0.03))) > SPEECH


def test_digital_silence_does_not_lower_the_floor() -> None:
    vad = EnergyVad()
    vad.push(noise(40.0, 0.02))
    vad.push(silence(1.0))
    assert max(vad.push(noise(0.5, 0.02))) < SILENCE


@given(st.lists(st.integers(0, 3000), max_size=30))
def test_energy_heard_in_any_chunks_equals_energy_heard_at_once(sizes: list[int]) -> None:
    sound = np.concatenate([noise(0.5, 0.005), tone(0.7), silence(0.3), noise(0.4, 0.1)])
    assert in_chunks(EnergyVad(), sound, sizes) == EnergyVad().push(sound)


# Silero


def test_silero_takes_loud_noise_for_no_speech() -> None:
    assert share_of_speech(SileroVad(), noise(3.0, 0.1)) < 0.1


def test_silero_hears_where_a_sentence_begins_and_ends() -> None:
    sentence = spoken(OPEN_THE_MEETING)
    probabilities = SileroVad().push(np.concatenate([silence(1.0), sentence, silence(1.0)]))
    hot = [index for index, p in enumerate(probabilities) if p >= SPEECH]
    seconds = FRAME_SAMPLES / SAMPLE_RATE
    assert hot[0] * seconds == pytest.approx(1.0, abs=0.3)
    assert hot[-1] * seconds == pytest.approx(1.0 + len(sentence) / SAMPLE_RATE, abs=0.4)


def test_the_gate_skips_silence() -> None:
    vad = SileroVad()
    assert vad.push(silence(0.96)) == [0.0] * 30
    assert (vad.frames_seen, vad.frames_skipped) == (30, 30)
    vad.push(spoken(OPEN_THE_MEETING)[: 10 * FRAME_SAMPLES])
    assert (vad.frames_seen, vad.frames_skipped) == (40, 30)


def test_half_a_second_of_silence_after_speech_is_still_judged() -> None:
    vad = SileroVad()
    vad.push(tone(0.32))
    for _ in range(40):
        vad.push(silence(FRAME_SAMPLES / SAMPLE_RATE))
    assert vad.frames_seen - vad.frames_skipped == 10 + 16


def test_silence_within_a_chunk_counts_from_its_last_loud_frame() -> None:
    vad = SileroVad()
    vad.push(np.concatenate([tone(0.32), silence(0.32)]))
    for _ in range(40):
        vad.push(silence(FRAME_SAMPLES / SAMPLE_RATE))
    assert vad.frames_seen - vad.frames_skipped == 20 + 6


def test_after_long_silence_or_a_reset_silero_hears_as_for_the_first_time() -> None:
    sentence = spoken(OPEN_THE_MEETING)[: 40 * FRAME_SAMPLES]
    first = SileroVad().push(sentence)
    for again in (SileroVad(), SileroVad()):
        again.push(noise(1.6, 0.1, seed=3)[: 50 * FRAME_SAMPLES])
        again.push(silence(0.512))
        again.push(silence(0.512))
        assert again.push(sentence) == pytest.approx(first, abs=1e-4)
    reset = SileroVad()
    reset.push(noise(1.6, 0.1))
    reset.reset()
    assert reset.push(sentence) == pytest.approx(first, abs=1e-4)


@given(st.lists(st.integers(0, 6000), max_size=12))
@settings(max_examples=25, deadline=None)
def test_silero_heard_in_any_chunks_equals_silero_heard_at_once(sizes: list[int]) -> None:
    # with a floor of noise above the gate: what the gate skips is skipped by the chunk
    said = spoken(OPEN_THE_MEETING) / FULL_SCALE
    sentence = pcm(said + noise(10.0, 0.005)[: len(said)] / FULL_SCALE)
    assert in_chunks(SileroVad(), sentence, sizes) == pytest.approx(
        SileroVad().push(sentence), abs=1e-3
    )
