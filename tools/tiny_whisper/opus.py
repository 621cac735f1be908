"""Speech as it sounds after Opus: 16 kHz mono there and back, in 20 ms packets."""

from fractions import Fraction

import av
import numpy as np
import soxr
from av.audio.codeccontext import AudioCodecContext
from av.audio.frame import AudioFrame

from tools.tiny_whisper.synth import RATE, Samples

_DECODED_RATE = 48_000
_PACKET = RATE // 50


def round_trip(samples: Samples, bit_rate: int) -> Samples:
    """As long as it was, and not delayed: what the encoder looks ahead is cut off."""
    encoder = av.CodecContext.create("libopus", "w")
    decoder = av.CodecContext.create("libopus", "r")
    assert isinstance(encoder, AudioCodecContext)
    assert isinstance(decoder, AudioCodecContext)
    encoder.sample_rate, encoder.layout, encoder.format = RATE, "mono", "s16"
    encoder.bit_rate, encoder.time_base = bit_rate, Fraction(1, RATE)
    decoder.sample_rate, decoder.layout = _DECODED_RATE, "mono"
    padded = np.concatenate([samples, np.zeros(2 * _PACKET, np.int16)])
    packets = []
    for start in range(0, len(padded) - _PACKET + 1, _PACKET):
        frame = AudioFrame.from_ndarray(padded[None, start : start + _PACKET], "s16", "mono")
        frame.sample_rate, frame.pts, frame.time_base = RATE, start, Fraction(1, RATE)
        packets += encoder.encode(frame)
    heard = [f.to_ndarray() for packet in packets for f in decoder.decode(packet)]
    values = np.concatenate(heard, axis=1).reshape(-1)
    if values.dtype == np.int16:
        values = values.astype(np.float32) / 32_768
    at_16k = soxr.resample(values.astype(np.float32), _DECODED_RATE, RATE)
    wanted = np.zeros(len(samples), np.float32)
    at_16k = at_16k[_DELAY : _DELAY + len(samples)]
    wanted[: len(at_16k)] = at_16k
    return np.rint(np.clip(wanted, -1, 1) * 32_767).astype(np.int16)


# libopus looks 6.5 ms ahead
_DELAY = round(0.0065 * RATE)
