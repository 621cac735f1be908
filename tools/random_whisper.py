"""A Whisper of any public size with random weights, for CTranslate2: for what it costs to run.

It costs what the public checkpoint of that size costs, and understands nothing. Made without
torch and without a download; tokens and their ids are those of the committed tiny model.
"""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

TINY = Path(__file__).resolve().parent.parent / "tests" / "models" / "tiny-whisper"
_CONTEXT, _TEXT = 1500, 448
_VOCABULARY = 51_865


@dataclass(frozen=True, slots=True)
class Size:
    width: int
    encoder: int
    decoder: int
    heads: int
    mels: int = 80


SIZES = {
    "tiny": Size(384, 4, 4, 6),
    "base": Size(512, 6, 6, 8),
    "small": Size(768, 12, 12, 12),
    "large-v3": Size(1280, 32, 32, 20, mels=128),
    "large-v3-turbo": Size(1280, 32, 4, 20, mels=128),
}


def make(size: str, folder: Path, quantization: str = "int8") -> Path:
    """Write the model into `folder`, unless it is there."""
    if (folder / "model.bin").is_file():
        return folder
    from ctranslate2.specs.whisper_spec import WhisperSpec

    of = SIZES[size]
    spec = WhisperSpec(of.encoder, of.heads, of.decoder, of.heads)
    _Filler(of).fill(spec)
    tokens = json.loads((TINY / "vocabulary.json").read_text(encoding="utf-8"))
    spec.register_vocabulary(tokens)
    config = json.loads((TINY / "config.json").read_text(encoding="utf-8"))
    spec.config.lang_ids = config["lang_ids"]
    spec.config.suppress_ids, spec.config.suppress_ids_begin = [], []
    spec.config.alignment_heads = [[of.decoder - 1, head] for head in range(of.heads)]
    spec.validate()
    spec.optimize(quantization=quantization)
    folder.mkdir(parents=True, exist_ok=True)
    spec.save(str(folder))
    shutil.copy(TINY / "tokenizer.json", folder)
    preprocessor = json.loads((TINY / "preprocessor_config.json").read_text(encoding="utf-8"))
    preprocessor["feature_size"] = of.mels
    (folder / "preprocessor_config.json").write_text(json.dumps(preprocessor))
    return folder


class _Filler:
    """Gives every part of a specification its shape."""

    def __init__(self, size: Size) -> None:
        self._size = size
        self._random = np.random.default_rng(0)

    def fill(self, spec: Any) -> None:
        width = self._size.width
        encoder, decoder = spec.encoder, spec.decoder
        encoder.conv1.weight = self._weights(width, self._size.mels, 3)
        encoder.conv2.weight = self._weights(width, width, 3)
        encoder.conv1.bias, encoder.conv2.bias = self._zeros(width), self._zeros(width)
        encoder.position_encodings.encodings = self._weights(_CONTEXT, width)
        decoder.position_encodings.encodings = self._weights(_TEXT, width)
        decoder.embeddings.weight = self._weights(_VOCABULARY, width)
        decoder.projection.weight = decoder.embeddings.weight
        for part in (encoder, decoder):
            self._norm(part.layer_norm)
            for layer in part.layer:
                self._layer(layer)

    def _layer(self, layer: Any) -> None:
        width = self._size.width
        attention: list[tuple[Any, tuple[int, ...]]] = [(layer.self_attention, (3, 1))]
        if hasattr(layer, "attention"):
            attention.append((layer.attention, (1, 2, 1)))
        for each, multiples in attention:
            self._norm(each.layer_norm)
            for linear, multiple in zip(each.linear, multiples, strict=True):
                self._linear(linear, multiple * width, width)
        self._norm(layer.ffn.layer_norm)
        self._linear(layer.ffn.linear_0, 4 * width, width)
        self._linear(layer.ffn.linear_1, width, 4 * width)

    def _linear(self, linear: Any, rows: int, columns: int) -> None:
        linear.weight, linear.bias = self._weights(rows, columns), self._zeros(rows)

    def _norm(self, norm: Any) -> None:
        norm.gamma = np.ones(self._size.width, np.float32)
        norm.beta = self._zeros(self._size.width)

    def _weights(self, *shape: int) -> NDArray[np.float32]:
        return self._random.normal(0, 0.02, shape).astype(np.float32)

    def _zeros(self, length: int) -> NDArray[np.float32]:
        return np.zeros(length, np.float32)
