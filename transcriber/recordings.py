"""Speech with what is said in it, for those who choose an engine: read, compared, pieced."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from transcriber.errors import TranscriberError
from transcriber.filters import is_of_word
from transcriber.types import SAMPLE_RATE, Samples

_AUDIO = (".wav", ".flac", ".mp3", ".ogg", ".opus", ".m4a", ".webm", ".mp4")


class BadRecording(TranscriberError):
    """The message is one line for the person who named it."""


@dataclass(frozen=True, slots=True)
class Recording:
    name: str
    samples: Samples
    text: str
    language: str = ""


def read_folder(folder: Path, language: str) -> list[Recording]:
    """Every audio file that has a text of the same name beside it; `NAME.lang` names its
    language, where it is not `language`. Raises `BadRecording`."""
    if not folder.is_dir():
        raise BadRecording(f"{folder} is no folder")
    recordings = [
        read(path, path.with_suffix(".txt"), language)
        for path in sorted(folder.iterdir())
        if path.suffix.lower() in _AUDIO and path.with_suffix(".txt").is_file()
    ]
    if not recordings:
        raise BadRecording(f"{folder} has no pair of audio and text, such as a.wav and a.txt")
    return recordings


def read(audio: Path, text: Path, language: str) -> Recording:
    """Raises `BadRecording`."""
    for path in (audio, text):
        if not path.is_file():
            raise BadRecording(f"there is no file {path}")
    said = _text_of(text)
    if not words(said):
        raise BadRecording(f"{text} has no words")
    named = audio.with_suffix(".lang")
    if named.is_file():
        language = _text_of(named)
    return Recording(audio.stem, decode(audio), said, language)


def _text_of(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except UnicodeDecodeError:
        raise BadRecording(f"{path} is not UTF-8") from None


def decode(path: Path) -> Samples:
    """16 kHz mono of any file that FFmpeg reads. Raises `BadRecording`."""
    import av

    resampler = av.AudioResampler(format="s16", layout="mono", rate=SAMPLE_RATE)
    pieces: list[Samples] = []

    def take(frame: av.AudioFrame | None) -> None:
        for piece in resampler.resample(frame):
            pieces.append(piece.to_ndarray().reshape(-1).astype(np.int16))

    try:
        with av.open(str(path)) as container:
            for frame in container.decode(audio=0):
                take(frame)
            take(None)
    except (av.FFmpegError, IndexError) as error:
        raise BadRecording(f"{path} holds no audio that can be read") from error
    if not pieces:
        raise BadRecording(f"{path} holds no audio")
    return np.concatenate(pieces)


def words(text: str) -> str:
    """As word error rates compare: without case and punctuation."""
    text = text.casefold().replace("’", "'")
    return " ".join("".join(c if is_of_word(c) or c == "'" else " " for c in text).split())


def word_errors(said: str, heard: str) -> tuple[int, int]:
    """How many words differ, and of how many that were said."""
    import jiwer

    reference = words(said)
    found = jiwer.process_words(reference, words(heard))
    return found.substitutions + found.deletions + found.insertions, len(reference.split())


def chunks(samples: Samples, length: int) -> Iterator[tuple[int, Samples]]:
    for start in range(0, len(samples), length):
        yield start, samples[start : start + length]
