"""Whisper's positions: each a row of sines and cosines, the same for any model of a width. Pure."""

import numpy as np
from numpy.typing import NDArray


def sinusoids(length: int, width: int) -> NDArray[np.float32]:
    step = np.log(10_000) / (width // 2 - 1)
    rates = np.exp(-step * np.arange(width // 2))
    angles = np.arange(length)[:, None] * rates[None, :]
    return np.concatenate([np.sin(angles), np.cos(angles)], axis=1).astype(np.float32)
