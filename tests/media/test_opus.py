"""The decoders, held to each other and to libopus itself."""

import ctypes
import ctypes.util
import functools
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from media import opus
from media.opus import (
    Decoder,
    FfmpegDecoder,
    LibopusDecoder,
    OpusSource,
    libopus,
    make_opus_decoder,
    open_libopus,
    opus_source,
    packet_samples,
)
from media.pcm import SAMPLE_RATE
from tests.media.rtp import correlation, encoded, encoded_wideband
from tests.speech import FULL_SCALE, OPEN_THE_MEETING, Samples, level, peak, spoken

SAMPLES_60_MS = 960


def system_library() -> ctypes.CDLL | None:
    name = ctypes.util.find_library("opus")
    return open_libopus(name) if name else None


def wheels_library() -> ctypes.CDLL | None:
    files = sorted(Path(av.__file__).parent.parent.glob("av.libs/libopus*"))
    return open_libopus(str(files[0])) if files else None


def decoder_of(source: OpusSource) -> Decoder:
    if source is OpusSource.PYAV:
        return FfmpegDecoder("libopus", 48_000, 48_000)
    library = system_library() if source is OpusSource.SYSTEM else wheels_library()
    if library is None:
        pytest.skip(f"no libopus of the {source} here")
    return LibopusDecoder(library)


def libopus_decoder() -> LibopusDecoder:
    library = libopus()
    if library is None:
        pytest.skip("no libopus here")
    return LibopusDecoder(library)


@functools.cache
def said() -> Samples:
    return spoken(OPEN_THE_MEETING)


@functools.cache
def wideband() -> tuple[bytes, ...]:
    """60 ms a packet, with FEC."""
    return tuple(encoded_wideband(said(), 60))


@functools.cache
def full_band() -> tuple[bytes, ...]:
    """20 ms a packet, as aiortc sends it."""
    return tuple(encoded(spoken(OPEN_THE_MEETING, rate=48_000)))


def heard(decoder: Decoder, payloads: tuple[bytes, ...]) -> Samples:
    pieces = [decoder.decode(payload).copy() for payload in payloads]
    return np.concatenate([*pieces, decoder.finish()])


@pytest.mark.parametrize("payloads", [wideband, full_band])
def test_the_three_sources_give_the_same_audio(
    payloads: "functools._lru_cache_wrapper[tuple[bytes, ...]]",
) -> None:
    sounds = {source: heard(decoder_of(source), payloads()) for source in OpusSource}

    for one in sounds.values():
        for other in sounds.values():
            alike, delay_ms = correlation(one, other)
            assert alike > 0.98
            assert abs(delay_ms) < 7
            assert len(one) == pytest.approx(len(other), abs=2)


@pytest.mark.parametrize("source", OpusSource)
def test_speech_is_heard_as_it_was_said(source: OpusSource) -> None:
    alike, delay_ms = correlation(heard(decoder_of(source), full_band()), said())

    assert alike > 0.94
    assert 0 <= delay_ms < 15


def test_the_decoder_is_the_systems_where_it_is_there() -> None:
    assert opus_source() is (
        OpusSource.SYSTEM
        if system_library()
        else OpusSource.WHEEL
        if wheels_library()
        else OpusSource.PYAV
    )
    kind = FfmpegDecoder if opus_source() is OpusSource.PYAV else LibopusDecoder
    assert isinstance(make_opus_decoder(), kind)


def test_without_libopus_pyav_decodes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opus, "_find", lambda: (OpusSource.PYAV, None))

    assert isinstance(make_opus_decoder(), FfmpegDecoder)


def test_what_is_no_libopus_is_not_opened(tmp_path: Path) -> None:
    file = tmp_path / "libopus.so"
    file.write_bytes(b"\x7fELF and nothing more")

    assert open_libopus(str(file)) is None
    assert open_libopus("libno-such-library.so") is None
    assert open_libopus("libm.so.6") is None


# What was lost


def spoken_packets() -> list[int]:
    """The packets that hold speech, and follow on speech."""
    loud = [
        level(said()[n * SAMPLES_60_MS : (n + 1) * SAMPLES_60_MS]) > 0.03
        for n in range(len(wideband()) - 2)
    ]
    return [n for n in range(4, len(loud)) if loud[n] and loud[n - 1] and loud[n + 1]]


def in_place_of(lost: int, *, restore: bool) -> float:
    """How alike what stands in place of a lost packet is to what was in it."""
    whole, lossy = libopus_decoder(), libopus_decoder()
    for payload in wideband()[:lost]:
        whole.decode(payload)
        lossy.decode(payload)
    original = whole.decode(wideband()[lost])
    if restore:
        instead = lossy.restore(wideband()[lost + 1], SAMPLES_60_MS)
    else:
        instead = lossy.conceal(SAMPLES_60_MS)
    assert len(instead) == len(original) == SAMPLES_60_MS
    alike, _ = correlation(instead, original, within_ms=0)
    return alike


def test_a_lost_packet_is_restored_from_the_next() -> None:
    lost = spoken_packets()
    assert len(lost) >= 10
    restored = np.mean([in_place_of(n, restore=True) for n in lost])
    concealed = np.mean([in_place_of(n, restore=False) for n in lost])

    assert restored > 0.8
    assert restored > concealed + 0.3


def test_a_packet_without_a_copy_is_concealed() -> None:
    payloads = encoded_wideband(said(), 60, fec=False)
    one, other = libopus_decoder(), libopus_decoder()
    for payload in payloads[:20]:
        one.decode(payload)
        other.decode(payload)

    restored = one.restore(payloads[21], SAMPLES_60_MS).copy()

    assert np.allclose(restored, other.conceal(SAMPLES_60_MS), atol=0.05 * FULL_SCALE)


@pytest.mark.parametrize("samples", [1, 39, 40, 41, 160, 321, 960, 1_919, 1_920])
def test_what_stands_for_a_loss_is_as_long_as_it(samples: int) -> None:
    decoder = libopus_decoder()
    for payload in wideband()[:10]:
        decoder.decode(payload)

    assert len(decoder.conceal(samples)) == samples
    assert len(decoder.restore(wideband()[11], samples)) == samples
    assert len(decoder.restore(b"\xff\xff", samples)) == samples


def test_pyav_conceals_with_as_much_silence() -> None:
    decoder = decoder_of(OpusSource.PYAV)

    total = sum(len(decoder.conceal(samples)) for samples in (320, 41, 960))
    total += len(decoder.restore(wideband()[0], 320))
    total += len(decoder.finish())

    assert total == pytest.approx(320 + 41 + 960 + 320, abs=1)


def test_the_head_of_a_packet_can_be_left_out() -> None:
    whole, cut = libopus_decoder(), libopus_decoder()
    for payload in wideband()[:20]:
        assert np.array_equal(whole.decode(payload)[100:], cut.decode(payload, 100))


def test_a_resampled_packet_is_cut_before_the_resampler() -> None:
    whole, cut = (FfmpegDecoder("pcm_mulaw", 8_000, 8_000) for _ in range(2))
    payload = bytes(range(160))

    pieces = [cut.decode(payload, 100), cut.decode(payload), cut.finish()]
    uncut = [whole.decode(payload), whole.decode(payload), whole.finish()]

    assert sum(map(len, uncut)) - sum(map(len, pieces)) == 100


# Pieces and garbage


@pytest.mark.parametrize("source", OpusSource)
def test_after_the_end_of_a_piece_nothing_of_it_rings(source: OpusSource) -> None:
    used = decoder_of(source)
    loud = [payload for n in spoken_packets() for payload in wideband()[n : n + 1]]
    for payload in loud:
        used.decode(payload)
    used.finish()

    after = np.concatenate([used.conceal(320).copy() for _ in range(20)])

    assert peak(after) < 1e-4


def test_after_the_end_of_a_piece_a_decoder_is_as_new() -> None:
    used = libopus_decoder()
    heard(used, wideband()[:30])

    assert np.array_equal(heard(used, wideband()), heard(libopus_decoder(), wideband()))


def test_a_piece_that_holds_nothing_ends() -> None:
    for source in OpusSource:
        decoder = decoder_of(source)
        assert len(decoder.finish()) == len(decoder.finish()) == 0


garbage = (
    st.binary(max_size=60)
    | st.tuples(st.integers(0, 255), st.binary(max_size=400)).map(lambda p: bytes([p[0]]) + p[1])
    | st.tuples(st.sampled_from(range(50)), st.integers(0, 80), st.integers(0, 255)).map(
        lambda p: bytes(
            byte ^ (p[2] if at == p[1] else 0) for at, byte in enumerate(wideband()[p[0]])
        )
    )
)


@pytest.mark.parametrize("source", OpusSource)
@settings(deadline=None, max_examples=100)
@given(payloads=st.lists(garbage, min_size=1, max_size=5))
def test_any_payload_is_audio_or_a_value_error(source: OpusSource, payloads: list[bytes]) -> None:
    decoder = decoder_of(source)
    for payload in payloads:
        try:
            pcm = decoder.decode(payload)
        except ValueError:
            continue
        if isinstance(decoder, LibopusDecoder):
            assert len(pcm) == packet_samples(payload)
        assert pcm.dtype == np.int16
        decoder.restore(payload, 320)


@pytest.mark.parametrize("source", OpusSource)
@settings(deadline=None, max_examples=20)
@given(payloads=st.lists(garbage, min_size=1, max_size=3))
def test_speech_is_heard_after_garbage(source: OpusSource, payloads: list[bytes]) -> None:
    decoder = decoder_of(source)
    for payload in payloads:
        try:
            decoder.decode(payload)
        except ValueError:
            decoder.conceal(320)
    decoder.finish()

    alike, _ = correlation(heard(decoder, wideband()), said())

    assert alike > 0.9


def test_a_payload_that_is_refused_changes_nothing() -> None:
    spoilt, straight = libopus_decoder(), libopus_decoder()
    for payload in wideband():
        for bad in (b"", b"\x03", b"\xff\xff\xff\xff", b"\x01\x00", b"\x03\x00"):
            with pytest.raises(ValueError, match="packet"):
                spoilt.decode(bad)
        assert np.array_equal(spoilt.decode(payload), straight.decode(payload))


# Lengths


def told_by_libopus(payload: bytes) -> int:
    library = libopus()
    if library is None:
        pytest.skip("no libopus here")
    return int(library.opus_packet_get_nb_samples(payload, len(payload), SAMPLE_RATE))


@pytest.mark.parametrize("toc", range(0, 256, 4))
def test_a_packet_is_as_long_as_libopus_says(toc: int) -> None:
    frames = [bytes([toc | code]) + b"\x00" * 9 for code in range(3)]
    counted = [bytes([toc | 3, count]) + b"\x00" * 9 for count in range(256)]
    for payload in [*frames, *counted, bytes([toc]), bytes([toc | 3])]:
        assert packet_samples(payload) == max(0, told_by_libopus(payload)), payload


def test_nothing_is_no_packet() -> None:
    assert packet_samples(b"") == 0


# Memory


def memory_bytes() -> int:
    resident = Path("/proc/self/statm").read_text(encoding="ascii").split()[1]
    return int(resident) * 4096


def test_decoders_that_are_dropped_are_freed() -> None:
    def make(count: int) -> None:
        for _ in range(count):
            libopus_decoder().decode(wideband()[0])

    make(100)
    before = memory_bytes()
    make(10_000)

    # each holds 18 to 27 KB
    assert memory_bytes() - before < 4 << 20


def test_a_decoder_that_cannot_be_made_is_an_error_and_ends_well() -> None:
    class Empty:
        @staticmethod
        def opus_decoder_create(*_: object) -> None:
            return None

        opus_decode = None

    with pytest.raises(MemoryError):
        LibopusDecoder(Empty())  # type: ignore[arg-type]
