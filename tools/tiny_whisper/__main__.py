"""`python -m tools.tiny_whisper STEP`: synth, train, export, evaluate, or all of them."""

import argparse
import os
import time
from pathlib import Path

from tools.tiny_whisper import corpus
from tools.tiny_whisper.synth import RATE

_STEPS = ("synth", "train", "export", "evaluate")
_ROOT = Path(__file__).parents[2]

_ENGLISH, _FRENCH, _HELD_OUT_EACH = 20_000, 3_600, 40
_TRAINING_SEED, _HELD_OUT_SEED = 1, 2


def say(line: str) -> None:
    print(time.strftime("%H:%M:%S"), line, flush=True)


def synth(work: Path) -> None:
    held_out = corpus.held_out_orders(_HELD_OUT_EACH, _HELD_OUT_SEED)
    training = corpus.training_orders(_ENGLISH, _FRENCH, _TRAINING_SEED, held_out)
    for name, orders in (("held_out", held_out), ("train", training)):
        utterances = []
        for utterance in corpus.say_all(orders, processes=os.cpu_count() or 1):
            utterances.append(utterance)
            if len(utterances) % 2_000 == 0:
                say(f"{name}: {len(utterances)} of {len(orders)} said")
        corpus.save(work / f"{name}.npz", utterances)
        hours = sum(len(u.speech.samples) for u in utterances) / RATE / 3_600
        say(f"{name}: {len(utterances)} sentences, {hours:.1f} h")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tools.tiny_whisper", description=__doc__)
    parser.add_argument("step", choices=(*_STEPS, "all"))
    parser.add_argument("--work", type=Path, default=_ROOT / "build/tiny-whisper")
    parser.add_argument("--model", type=Path, default=_ROOT / "tests/models/tiny-whisper")
    parser.add_argument("--resume", action="store_true", help="train on from the checkpoint")
    given = parser.parse_args()
    work: Path = given.work
    work.mkdir(parents=True, exist_ok=True)
    checkpoint = work / "checkpoint.pt"
    for step in _STEPS if given.step == "all" else (given.step,):
        say(step)
        if step == "synth":
            synth(work)
        elif step == "train":
            from tools.tiny_whisper.train import Plan, train

            train(corpus.load(work / "train.npz"), Plan(), work, say, resume=given.resume)
        elif step == "export":
            from tools.tiny_whisper.export import export

            export(checkpoint, given.model)
        else:
            from tools.tiny_whisper import card

            card.write(given.model, checkpoint, corpus.load(work / "held_out.npz"), say)


if __name__ == "__main__":
    main()
