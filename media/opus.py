"""Opus to 16 kHz mono, by libopus itself where it is to be had.

libopus decodes straight to the rate we need, restores a lost packet from the next one's
in-band copy (FEC) and conceals longer losses; FFmpeg's wrapper does none of the three. It is
the system's library, else the copy inside PyAV's wheel, else PyAV at 48 kHz and a resampler.
"""

import ctypes
import ctypes.util
import functools
from enum import StrEnum
from pathlib import Path
from typing import Protocol

import av
import numpy as np

from media.pcm import SAMPLE_RATE, Downsampler, Samples, downmix

_RESET_STATE = 4028  # opus_defines.h
# The longest packet there is (RFC 6716 3.2.5); the shortest is 2.5 ms.
_MOST_SAMPLES = 120 * SAMPLE_RATE // 1000
_LEAST_SAMPLES = SAMPLE_RATE // 400


class OpusSource(StrEnum):
    """Where the decoder comes from."""

    SYSTEM = "system"
    WHEEL = "wheel"
    PYAV = "pyav"


class Decoder(Protocol):
    """One track's decoder; what it returns is valid until its next call."""

    def decode(self, payload: bytes, skip: int = 0) -> Samples:
        """Without its first `skip` samples. Raises `ValueError` for a payload that is none."""
        ...

    def restore(self, payload: bytes, samples: int) -> Samples:
        """What was in the packet lost before the one of `payload`, as well as can be had."""
        ...

    def conceal(self, samples: int) -> Samples:
        """Something to put in place of what was lost."""
        ...

    def finish(self) -> Samples:
        """End the piece: what is still held of it. What comes next does not follow on it."""
        ...


class LibopusDecoder:
    """libopus at 16 kHz mono."""

    def __init__(self, library: ctypes.CDLL) -> None:
        error = ctypes.c_int()
        self._library = library
        self._decode = library.opus_decode
        self._state = library.opus_decoder_create(SAMPLE_RATE, 1, ctypes.byref(error))
        if error.value or not self._state:
            raise MemoryError("libopus gave no decoder")
        self._pcm = np.empty(_MOST_SAMPLES, np.int16)
        self._at = self._pcm.ctypes.data

    def __del__(self) -> None:
        if getattr(self, "_state", None):
            self._library.opus_decoder_destroy(self._state)

    def decode(self, payload: bytes, skip: int = 0) -> Samples:
        if not payload:
            raise ValueError("an empty packet")  # libopus would conceal 120 ms
        pcm = self._run(payload, _MOST_SAMPLES, 0)
        return pcm[skip:] if skip else pcm

    def restore(self, payload: bytes, samples: int) -> Samples:
        try:
            pcm = self._run(payload, _whole(samples), 1)
        except ValueError:
            return self.conceal(samples)
        return pcm[len(pcm) - samples :]

    def conceal(self, samples: int) -> Samples:
        return self._run(None, _whole(samples), 0)[:samples]

    def finish(self) -> Samples:
        # Without this the filters would ring on from before the pause, and click.
        self._library.opus_decoder_ctl(self._state, _RESET_STATE)
        return self._pcm[:0]

    def _run(self, payload: bytes | None, samples: int, fec: int) -> Samples:
        length = 0 if payload is None else len(payload)
        decoded = self._decode(self._state, payload, length, self._at, samples, fec)
        if decoded < 0:
            raise ValueError("not an Opus packet")
        return self._pcm[:decoded]


class FfmpegDecoder:
    """Any of FFmpeg's decoders, resampled from its own rate. Conceals with silence."""

    def __init__(self, codec: str, clock_rate: int, rate: int) -> None:
        decoder = av.CodecContext.create(codec, "r")
        assert isinstance(decoder, av.AudioCodecContext)
        decoder.layout = "mono"
        decoder.sample_rate = clock_rate
        if codec == "libopus":
            decoder.format = "s16"
        self._decoder = decoder
        self._rate = rate
        self._downsampler = Downsampler(rate)

    def decode(self, payload: bytes, skip: int = 0) -> Samples:
        if not payload:
            raise ValueError("an empty packet")  # FFmpeg would end the stream
        try:
            frames = self._decoder.decode(av.Packet(payload))
        except av.FFmpegError as error:
            raise ValueError("not a packet of this codec") from error
        pcm = np.concatenate([np.empty(0, np.int16), *map(_mono, frames)])
        # before the resampler, which gives what it has later and in pieces of its own
        return self._downsampler.push(pcm[skip * self._rate // SAMPLE_RATE :])

    def restore(self, payload: bytes, samples: int) -> Samples:
        return self.conceal(samples)

    def conceal(self, samples: int) -> Samples:
        return self._downsampler.push(np.zeros(samples * self._rate // SAMPLE_RATE, np.int16))

    def finish(self) -> Samples:
        rest, self._downsampler = self._downsampler.flush(), Downsampler(self._rate)
        return rest


def make_opus_decoder() -> Decoder:
    library = libopus()
    if library is None:
        return FfmpegDecoder("libopus", 48_000, 48_000)
    return LibopusDecoder(library)


def opus_source() -> OpusSource:
    return _find()[0]


def libopus() -> ctypes.CDLL | None:
    return _find()[1]


def packet_samples(payload: bytes) -> int:
    """How long a packet is at 16 kHz, by its first bytes (RFC 6716 3.1). 0 for what is none."""
    if not payload:
        return 0
    configuration = payload[0] >> 3
    if configuration < 12:
        frame = (160, 320, 640, 960)[configuration & 3]
    elif configuration < 16:
        frame = (160, 320)[configuration & 1]
    else:
        frame = (40, 80, 160, 320)[configuration & 3]
    code = payload[0] & 3
    if code < 3:
        return frame if code == 0 else 2 * frame
    samples = frame * (payload[1] & 63) if len(payload) > 1 else 0
    return samples if samples <= _MOST_SAMPLES else 0


@functools.cache
def _find() -> tuple[OpusSource, ctypes.CDLL | None]:
    system = ctypes.util.find_library("opus")
    wheel = sorted(Path(av.__file__).parent.parent.glob("av.libs/libopus*"))
    for source, names in (
        (OpusSource.SYSTEM, [system] if system else []),
        (OpusSource.WHEEL, [str(file) for file in wheel]),
    ):
        for name in names:
            library = open_libopus(name)
            if library is not None:
                return source, library
    return OpusSource.PYAV, None


def open_libopus(name: str) -> ctypes.CDLL | None:
    """The library of that name or path, with its signatures; None if it is not one."""
    try:
        # PyDLL keeps the interpreter's lock: a packet takes 10 to 30 µs, less than getting the
        # lock back from another thread can.
        library = ctypes.PyDLL(name)
        library.opus_decoder_create.restype = ctypes.c_void_p
        library.opus_decoder_destroy.argtypes = [ctypes.c_void_p]
        library.opus_decoder_ctl.argtypes = [ctypes.c_void_p, ctypes.c_int]
        library.opus_decode.argtypes = [
            ctypes.c_void_p,
            ctypes.c_char_p,
            ctypes.c_int32,
            ctypes.c_void_p,
            ctypes.c_int,
            ctypes.c_int,
        ]
    except (OSError, AttributeError):
        return None
    return library


def _whole(samples: int) -> int:
    """libopus conceals in steps of 2.5 ms."""
    return min(-(-samples // _LEAST_SAMPLES) * _LEAST_SAMPLES, _MOST_SAMPLES)


def _mono(frame: av.AudioFrame) -> Samples:
    samples = frame.to_ndarray().reshape(-1).astype(np.int16, copy=False)
    return downmix(samples, frame.layout.nb_channels)
