"""`python -m tools.recordings DIR`: held-out sentences as pairs of audio and text, for `evaluate`.

The same sentences at every call: what one engine makes of them can be held against another.
"""

import argparse
import wave
from pathlib import Path

import numpy as np

from tools.tiny_whisper.corpus import held_out_orders, said
from tools.tiny_whisper.synth import RATE, Samples

_SEED = 2  # of those that the tiny model was never trained on


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tools.recordings", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--each", type=int, default=4, help="sentences of each voice")
    parser.add_argument("--language", default="en", choices=("en", "fr", "all"))
    parser.add_argument("--noise-db", type=float, help="white noise so far below the speech")
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    count = 0
    for number, order in enumerate(held_out_orders(given.each, _SEED)):
        if given.language not in (order.language, "all"):
            continue
        speech = said(order).speech
        name = given.folder / f"{order.voice.name}-{number:03}"
        _write(name.with_suffix(".wav"), _with_noise(speech.samples, given.noise_db))
        name.with_suffix(".txt").write_text(order.text + "\n", encoding="utf-8")
        name.with_suffix(".lang").write_text(order.language + "\n", encoding="utf-8")
        count += 1
    print(f"{count} recordings are in {given.folder}")  # noqa: T201 - the answer to a command


def _with_noise(samples: Samples, below_db: float | None) -> Samples:
    if below_db is None:
        return samples
    level = np.sqrt(np.mean(samples.astype(np.float64) ** 2)) * 10 ** (-below_db / 20)
    noisy = samples + np.random.default_rng(0).normal(0, level, len(samples))
    return np.clip(noisy, -32_768, 32_767).astype(np.int16)


def _write(path: Path, samples: Samples) -> None:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(samples.tobytes())


if __name__ == "__main__":
    main()
