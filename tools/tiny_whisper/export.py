"""A checkpoint as a CTranslate2 folder, with the full vocabulary and everything a reader expects.

Ids that were never trained get one and the same row: nothing but a negative number in the model's
free dimension, where the decoder's last norm puts a constant. So their logits are far below all
others in whatever is computed over the whole vocabulary, and the rows compress to nothing.
"""

import json
from pathlib import Path
from typing import TypeAlias

import torch
from ctranslate2.specs import common_spec, transformer_spec
from ctranslate2.specs.whisper_spec import WhisperSpec
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor

from tools.tiny_whisper import vocabulary
from tools.tiny_whisper.model import (
    ALIGNMENT_HEADS,
    DECODER_LAYERS,
    ENCODER_LAYERS,
    FREE_DIMENSION,
    HEADS,
    MELS,
    POSITIONS,
    WIDTH,
)
from tools.tiny_whisper.positions import sinusoids

_CONSTANT, _UNUSED = 4.0, -8.0

# It was trained on windows of any length.
_DECLARED = {"short_context": True, "least_context_s": 2}
_PREPROCESSOR = {
    "chunk_length": 30,
    "feature_extractor_type": "WhisperFeatureExtractor",
    "feature_size": MELS,
    "hop_length": 160,
    "n_fft": 400,
    "n_samples": 480_000,
    "nb_max_frames": 3_000,
    "padding_side": "right",
    "padding_value": 0.0,
    "processor_class": "WhisperProcessor",
    "return_attention_mask": False,
    "sampling_rate": 16_000,
}

Weights = dict[str, Tensor]
_Layer: TypeAlias = (
    transformer_spec.TransformerEncoderLayerSpec | transformer_spec.TransformerDecoderLayerSpec
)


def full_rows(compact: Tensor) -> Tensor:
    """The rows of all 51,865 ids, of those of the used ones."""
    rows = torch.zeros(vocabulary.SIZE, WIDTH)
    rows[:, FREE_DIMENSION] = _UNUSED
    used = compact.clone()
    used[:, FREE_DIMENSION] = 0
    rows[list(vocabulary.used())] = used
    return rows


def spec(weights: Weights) -> WhisperSpec:
    found = WhisperSpec(ENCODER_LAYERS, HEADS, DECODER_LAYERS, HEADS)
    encoder, decoder = found.encoder, found.decoder
    for name, layer in (("conv1", encoder.conv1), ("conv2", encoder.conv2)):
        layer.weight, layer.bias = (
            weights[f"encoder.{name}.weight"],
            weights[f"encoder.{name}.bias"],
        )
    encoder.position_encodings.encodings = torch.from_numpy(sinusoids(POSITIONS, WIDTH))
    _norm(encoder.layer_norm, weights, "encoder.norm")
    for index, layer in enumerate(encoder.layer):
        _common(layer, weights, f"encoder.layers.{index}")

    rows = full_rows(weights["decoder.tokens"])
    decoder.embeddings.weight = rows
    decoder.projection.weight = rows
    decoder.position_encodings.encodings = weights["decoder.positions"]
    _norm(decoder.layer_norm, weights, "decoder.norm")
    decoder.layer_norm.gamma[FREE_DIMENSION] = 0
    decoder.layer_norm.beta[FREE_DIMENSION] = _CONSTANT
    for index, layer in enumerate(decoder.layer):
        name = f"decoder.layers.{index}"
        _common(layer, weights, name)
        _norm(layer.attention.layer_norm, weights, f"{name}.cross_norm")
        for place, part in enumerate(("q", "kv", "out")):
            _linear(layer.attention.linear[place], weights, f"{name}.cross.{part}")

    found.register_vocabulary(list(vocabulary.tokens()))
    found.config.suppress_ids = []
    # Whisper's own hold the end too, which makes it say something of silence
    found.config.suppress_ids_begin = vocabulary.encode(" ")
    found.config.lang_ids = [vocabulary.language_id(code) for code in vocabulary.LANGUAGES]
    found.config.alignment_heads = [list(head) for head in ALIGNMENT_HEADS]
    return found


def _common(layer: _Layer, weights: Weights, name: str) -> None:
    _norm(layer.self_attention.layer_norm, weights, f"{name}.attention_norm")
    for place, part in enumerate(("qkv", "out")):
        _linear(layer.self_attention.linear[place], weights, f"{name}.attention.{part}")
    _norm(layer.ffn.layer_norm, weights, f"{name}.inner_norm")
    _linear(layer.ffn.linear_0, weights, f"{name}.inner.0")
    _linear(layer.ffn.linear_1, weights, f"{name}.inner.2")


def _norm(found: common_spec.LayerNormSpec, weights: Weights, name: str) -> None:
    found.gamma = weights[f"{name}.weight"].clone()
    found.beta = weights[f"{name}.bias"].clone()


def _linear(found: common_spec.LinearSpec, weights: Weights, name: str) -> None:
    found.weight, found.bias = weights[f"{name}.weight"], weights[f"{name}.bias"]


def tokeniser() -> Tokenizer:
    """Whole words where there are any, else bytes: no merges."""
    ordinary = {name: index for index, name in enumerate(vocabulary.tokens()[: vocabulary.END])}
    found = Tokenizer(models.BPE(vocab=ordinary, merges=[], ignore_merges=True))
    found.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    found.decoder = decoders.ByteLevel()
    special = vocabulary.tokens()[vocabulary.END : vocabulary.FIRST_TIMESTAMP]
    found.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in special])
    times = vocabulary.tokens()[vocabulary.FIRST_TIMESTAMP :]
    found.add_tokens([AddedToken(name, special=False, normalized=False) for name in times])
    return found


def export(checkpoint: Path, folder: Path) -> None:
    """Replaces the model in `folder`; a card that lies there stays."""
    weights: Weights = torch.load(checkpoint, weights_only=True)["weights"]
    model = spec(weights)
    model.validate()
    model.optimize("int8")
    folder.mkdir(parents=True, exist_ok=True)
    model.save(str(folder))
    tokeniser().save(str(folder / "tokenizer.json"), pretty=False)
    (folder / "preprocessor_config.json").write_text(json.dumps(_PREPROCESSOR, indent=2) + "\n")
    (folder / "roomscribe.json").write_text(json.dumps(_DECLARED) + "\n")
