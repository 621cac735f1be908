"""Downmix, resampling as one stream, chunks of 100 ms."""

import numpy as np
import pytest
import soxr
from hypothesis import given
from hypothesis import strategies as st

from media.pcm import CHUNK_SAMPLES, SAMPLE_RATE, Chunker, Downsampler, PcmChunk, Samples, downmix
from media.timeline import Jump
from tests.speech import tone


def ramp(count: int, first: int = 0) -> Samples:
    """Each sample is one more than the one before it, modulo 16 bit."""
    return np.arange(first, first + count).astype(np.int16)


def joined(chunks: list[PcmChunk]) -> Samples:
    return np.concatenate([np.empty(0, np.int16), *(chunk.samples for chunk in chunks)])


def resample_in_pieces(downsampler: Downsampler, samples: Samples, sizes: list[int]) -> Samples:
    out, at = [], 0
    for size in sizes:
        out.append(downsampler.push(samples[at : at + size]))
        at += size
    return np.concatenate([*out, downsampler.push(samples[at:]), downsampler.flush()])


def test_mono_stays_as_it_is() -> None:
    mono = np.array([-32768, 0, 16384, 32767], np.int16)

    assert downmix(mono, 1) is mono


def test_stereo_becomes_the_mean_of_its_channels() -> None:
    mixed = downmix(np.array([16384, 0, -16384, 16384, 32767, 32767], np.int16), 2)

    assert mixed.dtype == np.int16
    assert mixed.tolist() == [8192, 0, 32767]


@pytest.mark.parametrize("rate", [8_000, 44_100, 48_000])
def test_resampling_in_frames_equals_resampling_at_once(rate: int) -> None:
    samples = tone(2.0, rate)

    frames = resample_in_pieces(Downsampler(rate), samples, [rate // 50] * 99)

    at_once = soxr.resample(samples, rate, SAMPLE_RATE, quality="MQ")
    assert len(frames) == pytest.approx(2 * SAMPLE_RATE, abs=1)
    length = min(len(frames), len(at_once))
    # soxr dithers
    assert np.allclose(frames[:length], at_once[:length], rtol=0, atol=3)


@given(sizes=st.lists(st.integers(0, 3_000), max_size=30))
def test_the_cuts_between_frames_are_not_heard(sizes: list[int]) -> None:
    samples = tone(0.5, 48_000)

    frames = resample_in_pieces(Downsampler(48_000), samples, sizes)

    assert np.allclose(frames, resample_in_pieces(Downsampler(48_000), samples, []), rtol=0, atol=3)


def test_what_is_at_16_khz_already_passes_untouched() -> None:
    downsampler = Downsampler(SAMPLE_RATE)
    samples = tone(0.1)

    assert downsampler.push(samples) is samples
    assert len(downsampler.flush()) == 0


def test_the_resampler_holds_back_less_than_50_ms() -> None:
    given_s = 0.2
    got = Downsampler(48_000).push(tone(given_s, 48_000))

    assert len(got) >= (given_s - 0.05) * SAMPLE_RATE


def test_chunks_are_100_ms_and_follow_on_each_other() -> None:
    chunker = Chunker(700, None)

    chunks = chunker.push(ramp(3_500), 1.0)

    assert [chunk.start_sample for chunk in chunks] == [700, 2_300]
    assert [len(chunk.samples) for chunk in chunks] == [CHUNK_SAMPLES, CHUNK_SAMPLES]
    assert chunks[0].end_sample == chunks[1].start_sample
    assert chunker.end_sample == 700 + 3_500


def test_the_rest_comes_as_a_short_chunk() -> None:
    chunker = Chunker(0, None)
    chunker.push(ramp(CHUNK_SAMPLES + 5), 1.0)

    (rest,) = chunker.flush(2.0)

    assert (rest.start_sample, rest.end_sample) == (CHUNK_SAMPLES, CHUNK_SAMPLES + 5)
    assert rest.samples.tolist() == ramp(5, CHUNK_SAMPLES).tolist()
    assert chunker.flush(3.0) == []
    assert chunker.end_sample == CHUNK_SAMPLES + 5


def test_a_chunk_says_when_its_last_sample_came() -> None:
    chunker = Chunker(0, None)

    assert chunker.push(ramp(800), 1.0) == []
    (chunk,) = chunker.push(ramp(800), 1.05)
    chunker.push(ramp(1), 1.07)
    (rest,) = chunker.flush(9.0)

    assert chunk.received_at == 1.05
    assert rest.received_at == 9.0


def test_only_the_first_chunk_of_a_piece_is_marked_with_its_jump() -> None:
    chunker = Chunker(0, Jump.NETWORK)

    chunks = chunker.push(ramp(3 * CHUNK_SAMPLES), 0.0)

    assert [chunk.jump for chunk in chunks] == [Jump.NETWORK, None, None]


def test_a_short_piece_is_marked_with_its_jump_too() -> None:
    chunker = Chunker(0, Jump.SILENCE)
    chunker.push(ramp(10), 0.0)

    assert [chunk.jump for chunk in chunker.flush(0.0)] == [Jump.SILENCE]


def test_concealed_samples_are_counted_in_the_chunks_they_stand_in() -> None:
    chunker = Chunker(0, None)
    chunker.conceal(2_000)

    chunks = chunker.push(ramp(2 * CHUNK_SAMPLES), 0.0)

    assert [chunk.concealed for chunk in chunks] == [1_600, 400]


def test_no_chunk_conceals_more_than_it_has() -> None:
    chunker = Chunker(0, None)
    chunker.push(ramp(10), 0.0)
    chunker.conceal(50)

    assert [chunk.concealed for chunk in chunker.flush(0.0)] == [10]


def test_a_chunk_that_was_handed_on_is_never_written_again() -> None:
    chunker = Chunker(0, None)
    (first,) = chunker.push(ramp(CHUNK_SAMPLES), 0.0)
    before = first.samples.copy()

    chunker.push(ramp(12 * CHUNK_SAMPLES, 5_000), 0.0)  # more than lie in a buffer

    assert first.samples.tolist() == before.tolist()


@given(
    sizes=st.lists(st.tuples(st.integers(0, 4_000), st.booleans()), max_size=20),
)
def test_what_comes_after_a_short_chunk_follows_on_it(sizes: list[tuple[int, bool]]) -> None:
    chunker = Chunker(0, None)
    chunks: list[PcmChunk] = []
    given_samples = 0
    for size, is_flushed in sizes:
        chunks += chunker.push(ramp(size, given_samples), 0.0)
        given_samples += size
        if is_flushed:
            chunks += chunker.flush(0.0)
            assert sum(len(chunk.samples) for chunk in chunks) == given_samples
    chunks += chunker.flush(0.0)

    assert joined(chunks).tolist() == ramp(given_samples).tolist()


@given(
    start=st.integers(0, 10**9),
    sizes=st.lists(st.integers(0, 4_000), max_size=20),
)
def test_chunks_hold_every_sample_once_and_in_place(start: int, sizes: list[int]) -> None:
    chunker = Chunker(start, None)
    chunks: list[PcmChunk] = []
    given_samples = 0
    for size in sizes:
        chunks += chunker.push(ramp(size, given_samples), 0.0)
        given_samples += size
    chunks += chunker.flush(0.0)

    assert joined(chunks).tolist() == ramp(given_samples).tolist()
    assert all(len(chunk.samples) == CHUNK_SAMPLES for chunk in chunks[:-1])
    end = start
    for chunk in chunks:
        assert chunk.start_sample == end
        end = chunk.end_sample
    assert end == chunker.end_sample == start + given_samples
