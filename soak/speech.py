"""Speech as packets: encoded once, sent by every speaker.

libopus itself does the encoding (through ctypes), because FFmpeg's wrapper cannot switch
DTX on.
"""

import ctypes
import ctypes.util
import math
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

RATE = 48_000
_FILE = Path(__file__).with_name("speech.opus")

# opus_defines.h
_APPLICATION_VOIP = 2048
_SET_BITRATE, _SET_MAX_BANDWIDTH, _SET_INBAND_FEC = 4002, 4004, 4012
_SET_PACKET_LOSS, _SET_DTX = 4014, 4016
_WIDEBAND, _FULLBAND = 1103, 1105
_DTX_BYTES = 2  # libopus: a packet of so few need not be sent


@dataclass(frozen=True, slots=True)
class Packet:
    """One packet of speech; `is_silence` if DTX would not send it."""

    payload: bytes
    level: int  # RFC 6464: -dBov, 0 loud to 127 silent
    is_silence: bool


@dataclass(frozen=True, slots=True)
class Speech:
    """A loop of packets of one length."""

    packet_ms: int
    packets: tuple[Packet, ...]

    @property
    def timestamp_step(self) -> int:
        return self.packet_ms * RATE // 1000


def load_speech() -> NDArray[np.float32]:
    """The repo's half minute of speech, 48 kHz mono."""
    with av.open(str(_FILE)) as reader:
        frames = [frame.to_ndarray() for frame in reader.decode(audio=0)]
    mono: NDArray[np.float32] = np.concatenate([f.mean(axis=0) for f in frames]).astype(np.float32)
    return mono


def encode(samples: NDArray[np.float32], packet_ms: int, *, wideband: bool) -> Speech:
    """As a browser does: variable rate, in-band FEC; wideband as the answer asks for it."""
    opus = _libopus()
    error = ctypes.c_int()
    encoder = opus.opus_encoder_create(RATE, 1, _APPLICATION_VOIP, ctypes.byref(error))
    if error.value:
        raise RuntimeError("libopus gave no encoder")
    settings = (
        (_SET_BITRATE, 20_000 if wideband else 32_000),
        (_SET_MAX_BANDWIDTH, _WIDEBAND if wideband else _FULLBAND),
        (_SET_INBAND_FEC, 1),
        (_SET_PACKET_LOSS, 5),
        (_SET_DTX, 1),
    )
    for request, value in settings:
        opus.opus_encoder_ctl(encoder, request, ctypes.c_int(value))
    step = packet_ms * RATE // 1000
    room = ctypes.create_string_buffer(1500)
    packets = []
    for start in range(0, len(samples) - step, step):
        frame = np.ascontiguousarray(samples[start : start + step])
        length = opus.opus_encode_float(
            encoder, frame.ctypes.data_as(ctypes.c_void_p), step, room, len(room)
        )
        packets.append(Packet(room.raw[:length], _level(frame), length <= _DTX_BYTES))
    opus.opus_encoder_destroy(encoder)
    return Speech(packet_ms, tuple(packets))


def decode_all(payloads: list[bytes]) -> float:
    """Decode at 16 kHz as fast as it goes; returns the seconds of audio."""
    opus = _libopus()
    error = ctypes.c_int()
    decoder = opus.opus_decoder_create(16_000, 1, ctypes.byref(error))
    room = (ctypes.c_float * 1920)()
    samples = 0
    for payload in payloads:
        samples += opus.opus_decode_float(decoder, payload, len(payload), room, 1920, 0)
    opus.opus_decoder_destroy(decoder)
    return samples / 16_000


def _level(frame: NDArray[np.float32]) -> int:
    rms = float(np.sqrt(np.mean(np.square(frame))))
    return min(127, max(0, round(-20 * math.log10(max(rms, 1e-7)))))


def _libopus() -> ctypes.CDLL:
    name = ctypes.util.find_library("opus")
    if name is None:
        raise RuntimeError("the load generator needs libopus: apt-get install libopus0")
    opus = ctypes.CDLL(name)
    opus.opus_encoder_create.restype = ctypes.c_void_p
    opus.opus_encoder_ctl.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_int]
    opus.opus_encode_float.argtypes = [
        ctypes.c_void_p,
        ctypes.c_void_p,
        ctypes.c_int,
        ctypes.c_char_p,
        ctypes.c_int32,
    ]
    opus.opus_encoder_destroy.argtypes = [ctypes.c_void_p]
    opus.opus_decoder_create.restype = ctypes.c_void_p
    opus.opus_decoder_destroy.argtypes = [ctypes.c_void_p]
    opus.opus_decode_float.argtypes = [
        ctypes.c_void_p,
        ctypes.c_char_p,
        ctypes.c_int32,
        ctypes.c_void_p,
        ctypes.c_int,
        ctypes.c_int,
    ]
    return opus
