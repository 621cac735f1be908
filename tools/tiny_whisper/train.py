"""Trains on a CPU: short windows first, then all lengths up to half a minute.

Three losses: the tokens'; the word of each frame, which the synthesiser knows and which shows the
encoder at once what to listen for; and where the alignment heads look. What is kept is a running
mean of the weights.
"""

import functools
import math
import random
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from tools.tiny_whisper import vocabulary
from tools.tiny_whisper.batches import IGNORED, NO_WORD, Batch, Windows
from tools.tiny_whisper.corpus import Utterance
from tools.tiny_whisper.model import ALIGNMENT_HEADS, POSITIONS, TinyWhisper
from tools.tiny_whisper.synth import RATE
from tools.tiny_whisper.words import HOMOPHONES

_SHORT_S = 5.0
_SECONDS_PER_BATCH = 80
_MOST_ROWS = 16


@dataclass(frozen=True, slots=True)
class Plan:
    """How long to train, in steps."""

    short_steps: int = 3_000
    mixed_steps: int = 5_400
    warmup_steps: int = 200
    peak_rate: float = 1.5e-3
    threads: int = 2
    seed: int = 1
    save_every: int = 100

    @property
    def steps(self) -> int:
        return self.short_steps + self.mixed_steps


@dataclass(frozen=True, slots=True)
class Losses:
    tokens: Tensor
    frames: Tensor
    looks: Tensor

    @property
    def total(self) -> Tensor:
        return self.tokens + self.frames + 0.3 * self.looks


@functools.cache
def _token_weights() -> Tensor:
    """What is seldom needed weighs more: silence, and the spelling of homophones by prompt."""
    weights = torch.ones(len(vocabulary.used()))
    weights[vocabulary.compact()[vocabulary.NO_SPEECH]] = 8
    for word, rare in HOMOPHONES.items():
        weights[vocabulary.compact()[vocabulary.word_id(word)]] = 8
        weights[vocabulary.compact()[vocabulary.word_id(rare)]] = 40
    return weights


def losses(model: TinyWhisper, batch: Batch, first_position: int) -> Losses:
    outputs = model(batch.mels, batch.ids, first_position)
    labels = batch.labels.flatten()
    # no label smoothing: it would make the end everyone's second choice, and a beam search stops
    # when it has seen as many ends as it is wide
    tokens = functional.cross_entropy(
        outputs.logits.flatten(0, 1), labels, weight=_token_weights(), ignore_index=IGNORED
    )
    # most frames of a long window hold nothing
    weight = torch.ones(NO_WORD + 1)
    weight[NO_WORD] = 0.2
    frames = functional.cross_entropy(
        outputs.frame_logits.flatten(0, 1),
        batch.frame_words.flatten(),
        weight=weight,
        ignore_index=IGNORED,
    )
    heads = [head for _, head in ALIGNMENT_HEADS]
    wanted = batch.looks[:, None]
    looks = -(outputs.looked[:, heads] * wanted).sum() / (len(heads) * wanted.sum().clamp(min=1))
    return Losses(tokens, frames, looks)


def rate(plan: Plan, step: int) -> float:
    """Up in a line, down in a cosine to a fiftieth."""
    if step < plan.warmup_steps:
        return plan.peak_rate * (step + 1) / plan.warmup_steps
    done = (step - plan.warmup_steps) / max(1, plan.steps - plan.warmup_steps)
    return plan.peak_rate * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * done)))


def window_seconds(plan: Plan, step: int, rng: random.Random) -> float:
    if step < plan.short_steps:
        return _SHORT_S
    chance = rng.random()
    if chance < 0.35:
        return rng.uniform(1.2, 7)
    if chance < 0.65:
        return rng.uniform(7, 15)
    if chance < 0.82:
        return rng.uniform(15, 29)
    return 30.0


def batch_rows(seconds: float) -> int:
    return max(3, min(_MOST_ROWS, int(_SECONDS_PER_BATCH / seconds)))


def first_position(plan: Plan, step: int, frames: int, rng: random.Random) -> int:
    """Early, speech is heard anywhere in the half minute, so that no position is strange later."""
    if step >= plan.short_steps or rng.random() < 0.5:
        return 0
    return rng.randint(0, POSITIONS - frames)


def train(
    utterances: list[Utterance],
    plan: Plan,
    folder: Path,
    say: Callable[[str], None],
    *,
    resume: bool = False,
) -> None:
    """Leaves `folder/checkpoint.pt`, written anew every `save_every` steps.

    To resume is to go on from the weights there, with an optimiser that has forgotten the past.
    """
    torch.set_num_threads(plan.threads)
    # what is never asked for fades into denormal numbers, which slow a processor threefold;
    # said before the first thread starts, as threads inherit it
    torch.set_flush_denormal(True)
    torch.manual_seed(plan.seed)
    checkpoint = folder / "checkpoint.pt"
    model = TinyWhisper()
    first, earlier_s, resumed_at = 0, 0.0, []
    if resume:
        kept = torch.load(checkpoint, weights_only=True)
        model.load_state_dict(kept["weights"])
        first, earlier_s = kept["facts"]["steps_done"], kept["facts"]["wall_s"]
        resumed_at = [*kept["facts"]["resumed_at"], first]
    rng = random.Random(plan.seed + first)
    windows = Windows(utterances, plan.seed + first)
    mean = torch.optim.swa_utils.AveragedModel(
        model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.995)
    )
    optimiser = torch.optim.AdamW(model.parameters(), 1e-3, betas=(0.9, 0.98), weight_decay=0.01)
    say(f"{sum(p.numel() for p in model.parameters()) / 1e6:.2f} M parameters, {plan.steps} steps")
    started = time.monotonic() - earlier_s
    hours = sum(len(u.speech.samples) for u in utterances) / RATE / 3_600
    facts = {**asdict(plan), "sentences": len(utterances), "hours": hours, "resumed_at": resumed_at}
    for step in range(first, plan.steps):
        for group in optimiser.param_groups:
            group["lr"] = rate(plan, step) * min(1, (step - first + 1) / plan.warmup_steps)
        seconds = window_seconds(plan, step, rng)
        batch = windows.batch(seconds, batch_rows(seconds))
        position = first_position(plan, step, batch.frame_words.shape[1], rng)
        found = losses(model, batch, position)
        optimiser.zero_grad()
        found.total.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        mean.update_parameters(model)
        done = step + 1
        if done % 50 == 0:
            say(_line(done, time.monotonic() - started, seconds, found))
        if done % plan.save_every == 0 or done == plan.steps:
            facts |= {"steps_done": done, "wall_s": time.monotonic() - started}
            part = folder / "checkpoint.part"
            torch.save({"weights": mean.module.state_dict(), "facts": facts}, part)
            part.replace(checkpoint)


def _line(step: int, wall_s: float, seconds: float, found: Losses) -> str:
    return (
        f"step {step}, {wall_s / 60:.1f} min, {seconds:.1f} s windows: tokens {found.tokens:.3f}, "
        f"frames {found.frames:.3f}, looks {found.looks:.3f}"
    )
