"""Speech with the times of its words, by flite and espeak-ng through their libraries.

Free of torch, so that tests may ask for fresh speech. Raises `SynthesiserMissing` where a
library is absent. One process may use each library from one thread only: both keep global state.
"""

import ctypes
import functools
from dataclasses import dataclass

import numpy as np
import soxr
from numpy.typing import NDArray

RATE = 16_000
FLITE_VOICES = ("slt", "rms", "awb", "kal16")
Samples = NDArray[np.int16]


class SynthesiserMissing(RuntimeError):
    """A library or a voice of flite or espeak-ng is not installed."""


@dataclass(frozen=True, slots=True)
class Word:
    """One word of a sentence, in samples at 16 kHz."""

    text: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Speech:
    """A sentence as it sounds."""

    samples: Samples
    words: tuple[Word, ...]


@dataclass(frozen=True, slots=True)
class Voice:
    """`name` is one of flite's, or one of espeak-ng's such as `en-us+f2` or `fr`."""

    name: str
    speed: float = 1.0
    pitch: float = 1.0


def synthesise(text: str, voice: Voice) -> Speech:
    """Say `text`, which is words with single spaces between them."""
    said = _flite(text, voice) if voice.name in FLITE_VOICES else _espeak(text, voice)
    samples, rate, spans = said
    at_16k = soxr.resample(samples.astype(np.float32) / 32_768, rate, RATE)
    # every voice as loud as the next
    loud = at_16k * (0.5 / max(1e-4, float(np.abs(at_16k).max())))
    words = tuple(
        Word(word, round(start * RATE), min(round(end * RATE), len(loud)))
        for word, (start, end) in zip(text.split(), spans, strict=True)
    )
    return Speech(np.rint(loud * 32_767).astype(np.int16), words)


_Said = tuple[Samples, int, list[tuple[float, float]]]


# --- flite


class _Wave(ctypes.Structure):
    # cst_wave.h
    _fields_ = (
        ("type", ctypes.c_char_p),
        ("sample_rate", ctypes.c_int),
        ("num_samples", ctypes.c_int),
        ("num_channels", ctypes.c_int),
        ("samples", ctypes.POINTER(ctypes.c_short)),
    )


class _FliteVoice(ctypes.Structure):
    # the start of cst_voice.h's struct
    _fields_ = (("name", ctypes.c_char_p), ("features", ctypes.c_void_p))


def _library(name: str, package: str) -> ctypes.CDLL:
    try:
        return ctypes.CDLL(name, mode=ctypes.RTLD_GLOBAL)
    except OSError as error:
        raise SynthesiserMissing(f"{name} is missing: apt-get install {package}") from error


@functools.cache
def _flite_library() -> ctypes.CDLL:
    flite = _library("libflite.so.1", "flite")
    for part in ("usenglish", "cmulex"):
        _library(f"libflite_{part}.so.1", "flite")
    pointer, text = ctypes.c_void_p, ctypes.c_char_p
    for function, result, arguments in (
        ("flite_init", ctypes.c_int, []),
        ("flite_synth_text", pointer, [text, pointer]),
        ("flite_feat_set_float", None, [pointer, text, ctypes.c_float]),
        ("flite_ffeature_float", ctypes.c_float, [pointer, text]),
        ("utt_wave", ctypes.POINTER(_Wave), [pointer]),
        ("utt_relation", pointer, [pointer, text]),
        ("relation_head", pointer, [pointer]),
        ("item_next", pointer, [pointer]),
        ("delete_utterance", None, [pointer]),
    ):
        symbol = getattr(flite, function)
        symbol.restype, symbol.argtypes = result, arguments
    flite.flite_init()
    return flite


@functools.cache
def _flite_voice(name: str) -> int:
    _flite_library()
    register = _library(f"libflite_cmu_us_{name}.so.1", "flite")[f"register_cmu_us_{name}"]
    register.restype = ctypes.c_void_p
    register.argtypes = [ctypes.c_void_p]
    return int(register(None))


# the pitch that each diphone voice speaks at; the other voices take a factor
_KAL_PITCH_HZ = 95.0

_START = b"R:SylStructure.daughter1.daughter1.R:Segment.p.end"
_END = b"R:SylStructure.daughtern.daughtern.R:Segment.end"


def _flite(text: str, voice: Voice) -> _Said:
    flite, pointer = _flite_library(), _flite_voice(voice.name)
    features = _FliteVoice.from_address(pointer).features
    flite.flite_feat_set_float(features, b"duration_stretch", 1 / voice.speed)
    if voice.name == "kal16":
        flite.flite_feat_set_float(features, b"int_f0_target_mean", _KAL_PITCH_HZ * voice.pitch)
    else:
        flite.flite_feat_set_float(features, b"f0_shift", voice.pitch)
    utterance = flite.flite_synth_text(text.encode(), pointer)
    try:
        wave = flite.utt_wave(utterance).contents
        samples = np.ctypeslib.as_array(wave.samples, (wave.num_samples,)).astype(np.int16)
        spans = []
        item = flite.relation_head(flite.utt_relation(utterance, b"Word"))
        while item:
            start, end = (flite.flite_ffeature_float(item, path) for path in (_START, _END))
            spans.append((start, end))
            item = flite.item_next(item)
        return samples, wave.sample_rate, spans
    finally:
        flite.delete_utterance(utterance)


# --- espeak-ng (speak_lib.h)

_SYNCHRONOUS, _UTF8, _CHARACTER = 2, 1, 1
_RATE_PARAMETER, _PITCH_PARAMETER = 1, 3
_WORD_EVENT, _END_EVENT = 1, 5
_NORMAL_RATE, _NORMAL_PITCH = 160, 50


class _Event(ctypes.Structure):
    _fields_ = (
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", ctypes.c_char * 8),
    )


_Callback = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event)
)


class _Espeak:
    """The one synthesiser of this process: its callback cannot be taken away again."""

    def __init__(self) -> None:
        self._library = _library("libespeak-ng.so.1", "espeak-ng")
        self._library.espeak_Synth.argtypes = [
            ctypes.c_char_p,
            ctypes.c_size_t,
            ctypes.c_uint,
            ctypes.c_int,
            ctypes.c_uint,
            ctypes.c_uint,
            ctypes.c_void_p,
            ctypes.c_void_p,
        ]
        self.rate = int(self._library.espeak_Initialize(_SYNCHRONOUS, 0, None, 0))
        if self.rate <= 0:
            raise SynthesiserMissing("espeak-ng has no data: apt-get install espeak-ng")
        self._callback = _Callback(self._receive)
        self._library.espeak_SetSynthCallback(self._callback)
        self._parts: list[Samples] = []
        self._words: list[tuple[int, int]] = []
        self._end = 0

    def _receive(
        self,
        samples: "ctypes._Pointer[ctypes.c_short]",
        count: int,
        events: "ctypes._Pointer[_Event]",
    ) -> int:
        if samples and count:
            part = np.ctypeslib.as_array(samples, (count,))
            self._parts.append(part.astype(np.int16))
        index = 0
        while (event := events[index]).type:
            if event.type == _WORD_EVENT:
                self._words.append((event.text_position - 1, event.audio_position))
            elif event.type == _END_EVENT:
                self._end = event.audio_position
            index += 1
        return 0

    def say(self, text: str, voice: Voice) -> tuple[Samples, list[tuple[int, int]], int]:
        """The samples; where in the text and at which millisecond words start; the end in ms."""
        if self._library.espeak_SetVoiceByName(voice.name.encode()):
            raise SynthesiserMissing(f"espeak-ng has no voice {voice.name}")
        speed, pitch = round(_NORMAL_RATE * voice.speed), round(_NORMAL_PITCH * voice.pitch)
        self._library.espeak_SetParameter(_RATE_PARAMETER, speed, 0)
        self._library.espeak_SetParameter(_PITCH_PARAMETER, pitch, 0)
        self._parts, self._words, self._end = [], [], 0
        encoded = text.encode()
        self._library.espeak_Synth(encoded, len(encoded) + 1, 0, _CHARACTER, 0, _UTF8, None, None)
        return np.concatenate(self._parts), self._words, self._end


@functools.cache
def _espeak_library() -> _Espeak:
    return _Espeak()


def _espeak(text: str, voice: Voice) -> _Said:
    espeak = _espeak_library()
    samples, events, end_ms = espeak.say(text, voice)
    starts = _word_starts(text, events, end_ms)
    loud = np.flatnonzero(np.abs(samples.astype(np.int32)) > 200)
    end_s = min(end_ms / 1000, (int(loud[-1]) + 1) / espeak.rate)
    ends = [*starts[1:], max(end_s, starts[-1] + 0.05)]
    return samples, espeak.rate, list(zip(starts, ends, strict=True))


def _word_starts(text: str, events: list[tuple[int, int]], end_ms: int) -> list[float]:
    """Seconds. A pair like "in the" may be one event; its time is shared by letters."""
    offsets = [0]
    for word in text.split():
        offsets.append(offsets[-1] + len(word) + 1)
    known = {position: at_ms for position, at_ms in events if position in offsets}
    known[offsets[-1]] = end_ms
    known.setdefault(0, 0)
    positions = sorted(known)
    times = [known[position] / 1000 for position in positions]
    return [float(np.interp(offset, positions, times)) for offset in offsets[:-1]]
