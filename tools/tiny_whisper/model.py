"""The Whisper architecture, small, over the vocabulary's used ids only.

One hidden dimension is kept free: after the decoder's last norm it will hold a constant, so that
the rows of unused ids can be far below all others. `ALIGNMENT_HEADS` are taught to look at the
word that they are about to say.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from tools.tiny_whisper import vocabulary
from tools.tiny_whisper.positions import sinusoids
from tools.tiny_whisper.words import WORDS

WIDTH, HEADS, INNER = 128, 4, 512
ENCODER_LAYERS, DECODER_LAYERS = 3, 2
MELS, POSITIONS, TEXT_POSITIONS = 80, 1500, 448
FREE_DIMENSION = WIDTH - 1
ALIGNMENT_HEADS = ((DECODER_LAYERS - 1, 0), (DECODER_LAYERS - 1, 1))


def _split(values: Tensor, parts: int) -> tuple[Tensor, ...]:
    """[rows, length, parts * width] to `parts` of [rows, heads, length, width of a head]."""
    rows, length, _ = values.shape
    shaped = values.view(rows, length, parts, HEADS, WIDTH // HEADS)
    return shaped.permute(2, 0, 3, 1, 4).unbind(0)


def _merge(values: Tensor) -> Tensor:
    rows, _, length, _ = values.shape
    return values.transpose(1, 2).reshape(rows, length, WIDTH)


class SelfAttention(nn.Module):
    """Queries, keys and values from one layer; a bias on the keys changes nothing."""

    def __init__(self, *, is_causal: bool) -> None:
        super().__init__()
        self.is_causal = is_causal
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH)
        self.out = nn.Linear(WIDTH, WIDTH)

    def forward(self, values: Tensor) -> Tensor:
        q, k, v = _split(self.qkv(values), 3)
        heard = functional.scaled_dot_product_attention(q, k, v, is_causal=self.is_causal)
        merged: Tensor = self.out(_merge(heard))
        return merged


class CrossAttention(nn.Module):
    """Attention to what was heard; says where each head looked."""

    def __init__(self) -> None:
        super().__init__()
        self.q = nn.Linear(WIDTH, WIDTH)
        self.kv = nn.Linear(WIDTH, 2 * WIDTH)
        self.out = nn.Linear(WIDTH, WIDTH)

    def forward(self, values: Tensor, heard: Tensor) -> tuple[Tensor, Tensor]:
        (q,) = _split(self.q(values), 1)
        k, v = _split(self.kv(heard), 2)
        looked = functional.log_softmax(q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5, dim=-1)
        return self.out(_merge(looked.exp() @ v)), looked


class FeedForward(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(nn.Linear(WIDTH, INNER), nn.GELU(), nn.Linear(INNER, WIDTH))


class EncoderLayer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = SelfAttention(is_causal=False)
        self.attention_norm = nn.LayerNorm(WIDTH)
        self.inner = FeedForward()
        self.inner_norm = nn.LayerNorm(WIDTH)

    def forward(self, values: Tensor) -> Tensor:
        values = values + self.attention(self.attention_norm(values))
        summed: Tensor = values + self.inner(self.inner_norm(values))
        return summed


class DecoderLayer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = SelfAttention(is_causal=True)
        self.attention_norm = nn.LayerNorm(WIDTH)
        self.cross = CrossAttention()
        self.cross_norm = nn.LayerNorm(WIDTH)
        self.inner = FeedForward()
        self.inner_norm = nn.LayerNorm(WIDTH)

    def forward(self, values: Tensor, heard: Tensor) -> tuple[Tensor, Tensor]:
        values = values + self.attention(self.attention_norm(values))
        found, looked = self.cross(self.cross_norm(values), heard)
        values = values + found
        return values + self.inner(self.inner_norm(values)), looked


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv1d(MELS, WIDTH, 3, padding=1)
        self.conv2 = nn.Conv1d(WIDTH, WIDTH, 3, stride=2, padding=1)
        self.positions: Tensor
        fixed = torch.from_numpy(sinusoids(POSITIONS, WIDTH))
        self.register_buffer("positions", fixed, persistent=False)
        self.layers = nn.ModuleList(EncoderLayer() for _ in range(ENCODER_LAYERS))
        self.norm = nn.LayerNorm(WIDTH)

    def forward(self, mels: Tensor, first_position: int = 0) -> Tensor:
        values = functional.gelu(self.conv2(functional.gelu(self.conv1(mels)))).transpose(1, 2)
        values = values + self.positions[first_position : first_position + values.shape[1]]
        for layer in self.layers:
            values = layer(values)
        normed: Tensor = self.norm(values)
        return normed


class Decoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.tokens = nn.Parameter(torch.randn(len(vocabulary.used()), WIDTH) * 0.05)
        self.positions = nn.Parameter(torch.from_numpy(sinusoids(TEXT_POSITIONS, WIDTH)) * 0.05)
        self.layers = nn.ModuleList(DecoderLayer() for _ in range(DECODER_LAYERS))
        self.norm = nn.LayerNorm(WIDTH)
        self.mask: Tensor
        mask = torch.ones(WIDTH)
        mask[FREE_DIMENSION] = 0
        self.register_buffer("mask", mask, persistent=False)

    def forward(self, ids: Tensor, heard: Tensor) -> tuple[Tensor, Tensor]:
        """Logits, and the logarithms of where the last layer's heads look."""
        rows = self.tokens * self.mask
        values = functional.embedding(ids, rows) + self.positions[: ids.shape[1]]
        looked = heard
        for layer in self.layers:
            values, looked = layer(values, heard)
        return self.norm(values) @ rows.T, looked


@dataclass(frozen=True, slots=True)
class Outputs:
    logits: Tensor
    looked: Tensor
    frame_logits: Tensor


class TinyWhisper(nn.Module):
    """`frame_words` names the word of each frame; it helps to learn and is not exported."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = Encoder()
        self.decoder = Decoder()
        self.frame_words = nn.Linear(WIDTH, len(WORDS) + 1)
        for name, weights in self.named_parameters():
            if "conv" in name and weights.dim() == 3:
                # without the gain the convolutions stay so quiet that positions drown them
                nn.init.kaiming_normal_(weights)
                weights.data *= 1.5
            elif weights.dim() == 2 and not name.startswith(("decoder.tokens", "decoder.pos")):
                nn.init.xavier_uniform_(weights)

    def forward(self, mels: Tensor, ids: Tensor, first_position: int = 0) -> Outputs:
        heard = self.encoder(mels, first_position)
        logits, looked = self.decoder(ids, heard)
        return Outputs(logits, looked, self.frame_words(heard))
