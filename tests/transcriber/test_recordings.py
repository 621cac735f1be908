from pathlib import Path

import av
import numpy as np
import pytest

from tests.speech import silence, tone, write_wav
from transcriber.recordings import (
    BadRecording,
    chunks,
    decode,
    read,
    read_folder,
    word_errors,
    words,
)
from transcriber.types import SAMPLE_RATE, Samples


def said(folder: Path, name: str, text: str = "please open", *, language: str = "") -> Path:
    """A pair of audio and text."""
    (folder / f"{name}.txt").write_text(text, encoding="utf-8")
    if language:
        (folder / f"{name}.lang").write_text(f"{language}\n", encoding="utf-8")
    return write_wav(folder / f"{name}.wav", tone(0.5), SAMPLE_RATE)


def encoded(path: Path, codec: str, samples: Samples, rate: int, layout: str = "mono") -> Path:
    """A file of FFmpeg's."""
    channels = 2 if layout == "stereo" else 1
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate, layout=layout)
        assert isinstance(stream, av.AudioStream)
        packed = np.repeat(samples, channels).reshape(1, -1)
        frame = av.AudioFrame.from_ndarray(packed, format="s16", layout=layout)
        frame.sample_rate = rate
        resampler = av.AudioResampler(
            stream.format.name, layout, rate, frame_size=stream.frame_size or 0
        )
        for piece in [*resampler.resample(frame), *resampler.resample(None)]:
            container.mux(stream.encode(piece))
        container.mux(stream.encode(None))
    return path


# Folders


def test_a_folder_is_read_in_the_order_of_its_names(tmp_path: Path) -> None:
    said(tmp_path, "b", "Bonjour à tous.\n", language="fr")
    said(tmp_path, "a", "Please open.")
    first, second = read_folder(tmp_path, "en")
    assert (first.name, first.text, first.language) == ("a", "Please open.", "en")
    assert (second.name, second.text, second.language) == ("b", "Bonjour à tous.", "fr")
    assert len(first.samples) == SAMPLE_RATE // 2


def test_what_is_no_pair_is_passed_over(tmp_path: Path) -> None:
    said(tmp_path, "a")
    (tmp_path / "notes.txt").write_text("no audio beside it")
    (tmp_path / "cover.jpg").write_bytes(b"no audio")
    write_wav(tmp_path / "alone.wav", tone(0.1), SAMPLE_RATE)
    assert [r.name for r in read_folder(tmp_path, "en")] == ["a"]


def test_the_case_of_an_ending_is_no_matter(tmp_path: Path) -> None:
    said(tmp_path, "a").rename(tmp_path / "a.WAV")
    assert len(read_folder(tmp_path, "en")) == 1


# Faults, each one line


def fault(folder: Path) -> str:
    with pytest.raises(BadRecording) as caught:
        read_folder(folder, "en")
    told = str(caught.value)
    assert "\n" not in told
    return told.replace(str(folder), "FOLDER")


def test_a_folder_that_does_not_exist_is_told(tmp_path: Path) -> None:
    assert fault(tmp_path / "none") == "FOLDER is no folder"


def test_a_file_in_place_of_a_folder_is_told(tmp_path: Path) -> None:
    assert fault(said(tmp_path, "a")) == "FOLDER is no folder"


def test_a_folder_without_a_pair_is_told(tmp_path: Path) -> None:
    write_wav(tmp_path / "alone.wav", tone(0.1), SAMPLE_RATE)
    assert fault(tmp_path) == "FOLDER has no pair of audio and text, such as a.wav and a.txt"


def test_a_text_without_words_is_told(tmp_path: Path) -> None:
    said(tmp_path, "a", " …\n")
    assert fault(tmp_path) == "FOLDER/a.txt has no words"


def test_a_text_in_another_encoding_is_told(tmp_path: Path) -> None:
    said(tmp_path, "a")
    (tmp_path / "a.txt").write_bytes("schöne Grüße".encode("latin-1"))
    assert fault(tmp_path) == "FOLDER/a.txt is not UTF-8"


def test_a_language_in_another_encoding_is_told(tmp_path: Path) -> None:
    said(tmp_path, "a")
    (tmp_path / "a.lang").write_bytes("fran\xe7ais".encode("latin-1"))
    assert fault(tmp_path) == "FOLDER/a.lang is not UTF-8"


@pytest.mark.parametrize("content", [b"", b"no audio at all", b"RIFF\x24\0\0\0WAVEfmt "])
def test_a_file_that_is_no_audio_is_told(tmp_path: Path, content: bytes) -> None:
    said(tmp_path, "a").write_bytes(content)
    assert fault(tmp_path) == "FOLDER/a.wav holds no audio that can be read"


def test_a_film_without_sound_is_told(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    (tmp_path / "a.txt").write_text("please open")
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p"
        for _ in range(5):
            picture = av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), format="rgb24")
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    assert fault(tmp_path) == "FOLDER/a.mp4 holds no audio that can be read"


def test_audio_without_a_sample_is_told(tmp_path: Path) -> None:
    said(tmp_path, "a")
    write_wav(tmp_path / "a.wav", silence(0.0), SAMPLE_RATE)
    assert fault(tmp_path).startswith("FOLDER/a.wav holds no audio")


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    audio = said(tmp_path, "a")
    with pytest.raises(BadRecording, match=r"there is no file .*b\.txt$"):
        read(audio, tmp_path / "b.txt", "en")
    with pytest.raises(BadRecording, match=r"there is no file .*b\.wav$"):
        read(tmp_path / "b.wav", tmp_path / "a.txt", "en")


# Audio


def test_a_wav_of_16_khz_is_read_as_it_is(tmp_path: Path) -> None:
    samples = tone(0.5)
    assert np.array_equal(decode(write_wav(tmp_path / "a.wav", samples, SAMPLE_RATE)), samples)


@pytest.mark.parametrize(
    ("ending", "codec", "rate", "layout"),
    [
        ("mp3", "libmp3lame", 44_100, "mono"),
        ("mp3", "libmp3lame", 48_000, "stereo"),
        ("flac", "flac", 44_100, "stereo"),
        ("flac", "flac", 8_000, "mono"),
        ("ogg", "libopus", 48_000, "mono"),
        ("m4a", "aac", 44_100, "mono"),
    ],
)
def test_other_formats_become_16_khz_mono(
    tmp_path: Path, ending: str, codec: str, rate: int, layout: str
) -> None:
    path = encoded(tmp_path / f"a.{ending}", codec, tone(1.0, rate, 0.5), rate, layout)
    samples = decode(path)
    assert samples.dtype == np.int16
    # a codec adds a frame or two
    assert abs(len(samples) - SAMPLE_RATE) < 0.15 * SAMPLE_RATE
    spectrum = np.abs(np.fft.rfft(samples / 32_768))
    loudest = np.argmax(spectrum) * SAMPLE_RATE / len(samples)
    assert loudest == pytest.approx(300, abs=10)
    assert np.abs(samples / 32_768).max() == pytest.approx(0.5, abs=0.1)


def test_a_recording_in_flac_is_a_pair_too(tmp_path: Path) -> None:
    encoded(tmp_path / "a.flac", "flac", tone(0.5), SAMPLE_RATE)
    (tmp_path / "a.txt").write_text("please open")
    (recording,) = read_folder(tmp_path, "de")
    assert (recording.language, len(recording.samples)) == ("de", SAMPLE_RATE // 2)


def test_chunks_cover_all_samples_once() -> None:
    samples = np.arange(10, dtype=np.int16)
    pieces = list(chunks(samples, 4))
    assert [start for start, _ in pieces] == [0, 4, 8]
    assert np.array_equal(np.concatenate([piece for _, piece in pieces]), samples)
    assert list(chunks(samples[:0], 4)) == []


# Words


@pytest.mark.parametrize(
    ("said", "heard", "errors"),
    [
        ("please open the door", "Please open the door.", (0, 4)),
        ("please open the door", "please open door", (1, 4)),
        ("please open the door", "please open up the old door", (2, 4)),
        ("please open the door", "peas open the door", (1, 4)),
        ("please open the door", "", (4, 4)),
        ("don't", "dont", (1, 1)),
        ("don’t", "don't", (0, 1)),
        ("Schöne Grüße", "schöne GRÜSSE", (0, 2)),
        ("हम बिल्कुल ठीक हैं", "हम बिल्कुल ठीक है", (1, 4)),
    ],
)
def test_errors_are_counted_in_words(said: str, heard: str, errors: tuple[int, int]) -> None:
    assert word_errors(said, heard) == errors


def test_words_have_neither_case_nor_punctuation() -> None:
    assert words("«Bonjour», dit-il… C'est ça!") == "bonjour dit il c'est ça"
    assert words("… – !") == ""
