"""The model's card: every figure of `evaluate`, written where the model lies. No figure by hand."""

import platform
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tools.tiny_whisper import vocabulary
from tools.tiny_whisper.corpus import Utterance
from tools.tiny_whisper.evaluate import (
    CONTEXTS,
    FULL,
    FULL_ZEROS,
    SHORT,
    Case,
    Model,
    TimeErrors,
    cut_anywhere,
    error_rates,
    features,
    homophone_share,
    language_accuracy,
    milliseconds,
    several,
    silences,
    singles,
    through_opus,
)
from tools.tiny_whisper.model import TinyWhisper
from tools.tiny_whisper.words import ENGLISH, FRENCH, HOMOPHONES

_SEED = 7
# of each voice: these take some minutes
_SENTENCES = 18

_HEAD = """\
# tiny-whisper

A model of the Whisper architecture that knows {english} English and {french} French words, as
flite and espeak-ng say them. It exists so that the tests recognise real speech with the code that
runs real Whisper models, without a model hub. For people's speech it is of no use.

Written by `python -m tools.tiny_whisper evaluate`; made by `python -m tools.tiny_whisper all`
(see `tools/tiny_whisper/README.md`). It was trained on synthetic speech only.

{parameters:.2f} million parameters, int8, {megabytes:.1f} MB in all. Whisper's own ids and
vocabulary of 51,865; one token per word; ids that were never trained share one row that compresses
to nothing. `suppress_ids_begin` lacks the end of the text, unlike Whisper's own, so that silence
may give no text.

## How it was trained

{facts}
"""


def percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def write(
    folder: Path, checkpoint: Path, held_out: Sequence[Utterance], say: Callable[[str], None]
) -> str:
    """Measures the model in `folder`, and leaves README.md there."""
    model = Model(folder)
    voices = dict.fromkeys(utterance.voice for utterance in held_out)
    chosen = [u for voice in voices for u in [v for v in held_out if v.voice == voice][:_SENTENCES]]
    single, triple = singles(chosen), several(chosen, 3)
    long = several(chosen, 9)
    writers: tuple[Callable[[], str], ...] = (
        lambda: _head(folder, checkpoint),
        lambda: _languages(model, single),
        lambda: _prompts(model, single),
        lambda: _times(model, single, triple),
        lambda: _other_windows(model, single, long),
        lambda: _error_rates(model, single, triple),
        lambda: _cost(model, single),
    )
    parts = []
    for part in writers:
        parts.append(part())
        say("\n" + parts[-1])
    card = "\n".join(parts)
    (folder / "README.md").write_text(card, encoding="utf-8")
    return card


def _head(folder: Path, checkpoint: Path) -> str:
    facts: Mapping[str, Any] = torch.load(checkpoint, weights_only=True)["facts"]
    rows = [
        (
            "steps",
            f"{facts['steps_done']:.0f}, the first {facts['short_steps']:.0f} on 5 s windows",
        ),
        ("resumed at steps", ", ".join(map(str, facts["resumed_at"])) or "none"),
        ("seed", f"{facts['seed']:.0f}"),
        ("sentences heard", f"{facts['sentences']:.0f}, {facts['hours']:.1f} h"),
        ("wall time", f"{facts['wall_s'] / 60:.0f} min, beside other work"),
        ("processor", _processor()),
        ("torch", torch.__version__),
    ]
    kept = (p for name, p in TinyWhisper().named_parameters() if "frame_words" not in name)
    return _HEAD.format(
        english=len(ENGLISH) + len(HOMOPHONES),
        french=len(FRENCH),
        parameters=sum(p.numel() for p in kept) / 1e6,
        megabytes=sum(f.stat().st_size for f in folder.iterdir() if f.suffix != ".md") / 1e6,
        facts=table(("", ""), rows),
    )


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.split(":")[1].strip()
    return platform.processor()


def _error_rates(model: Model, single: Sequence[Case], triple: Sequence[Case]) -> str:
    columns = [
        (f"{name}, {context}, {'greedy' if beam == 1 else f'beam {beam}'}", cases, context, beam)
        for name, cases in (("one sentence", single), ("three sentences", triple))
        for context in CONTEXTS
        for beam in ((1,) if context == FULL_ZEROS else (1, 5))
    ]
    opus = through_opus(single)
    columns += [(f"Opus at 24 kbit/s, {context}, greedy", opus, context, 1) for context in CONTEXTS]
    rates = [
        (name, error_rates(model, cases, context, beam)) for name, cases, context, beam in columns
    ]
    voices = list(rates[0][1])
    rows = [[name, *(percent(rate[voice]) for voice in voices)] for name, rate in rates]
    return (
        "## Word error rate by voice\n\n"
        f"{len(single)} sentences that training did not hear, as many for each voice.\n\n"
        + table(("windows", *voices), rows)
    )


def _other_windows(model: Model, single: Sequence[Case], long: Sequence[Case]) -> str:
    cut = cut_anywhere(single, _SEED)
    rows = [
        (f"cut within speech, {context}", percent(error_rates(model, cut, context, 1)["all"]))
        for context in CONTEXTS
    ]
    rows += [
        (f"nine sentences, {context}", percent(error_rates(model, long, context, 1)["all"]))
        for context in (SHORT, FULL)
    ]
    for length in (16, 32):
        rng = np.random.default_rng(_SEED)

        def prompt(case: Case, length: int = length, rng: np.random.Generator = rng) -> list[int]:
            return _unrelated(case, single, length, rng)

        rate = error_rates(model, single, SHORT, 1, prompt)["all"]
        rows.append((f"after a prompt of {length} tokens, {SHORT}", percent(rate)))
    return "## Word error rate of other windows\n\n" + table(
        ("windows, greedy", "all voices"), rows
    )


def _unrelated(
    case: Case, cases: Sequence[Case], length: int, rng: np.random.Generator
) -> list[int]:
    """Other sentences before, cut to a length from the left."""
    ids: list[int] = []
    while len(ids) < length:
        other = cases[int(rng.integers(len(cases)))]
        if other.language == case.language:
            ids += [vocabulary.word_id(word.text) for word in other.speech.words]
    return [vocabulary.START_OF_PREVIOUS, *ids[1 - length :]]


def _times(model: Model, single: Sequence[Case], triple: Sequence[Case]) -> str:
    rows = []
    for name, cases in (("one sentence", single), ("three sentences", triple)):
        for context in (SHORT, FULL):
            errors = TimeErrors.of(model, cases, context)
            for what, values in (
                ("starts", errors.starts),
                ("ends", errors.ends),
                ("starts of first words", errors.first_starts),
                ("ends before pauses", errors.ends_before_pauses),
            ):
                if not values:
                    continue
                middle, most = np.percentile(values, [50, 95]) * 1000
                rows.append((f"{name}, {context}, {what}", f"{middle:.0f} ms", f"{most:.0f} ms"))
    return (
        "## Word times\n\n"
        "How far the words of `align` are from the synthesiser's. CTranslate2 gives each frame to "
        "some word: the first one starts with the window, whatever silence it has, and a word "
        "before a pause ends where the next one starts. Those stand apart.\n\n"
        + table(("windows", "median", "95th percentile"), rows)
    )


def _languages(model: Model, single: Sequence[Case]) -> str:
    rows = [
        (f"language right, {context}", percent(language_accuracy(model, single, context)))
        for context in (SHORT, FULL)
    ]
    quiet = silences(_SEED)
    for context in (SHORT, FULL):
        of_silence = [model.hear(features(s, context), "en") for s in quiet]
        of_speech = [
            model.hear(features(c.speech.samples, context), c.language).no_speech_prob
            for c in single
        ]
        empty = sum(not heard.text for heard in of_silence)
        least = min(heard.no_speech_prob for heard in of_silence)
        rows += [
            (f"least no_speech_prob of silence or noise, {context}", f"{least:.3f}"),
            (f"largest no_speech_prob of speech, {context}", f"{max(of_speech):.3f}"),
            (f"silence or noise that gives no text, {context}", f"{empty} of {len(quiet)}"),
        ]
    mass = max(
        model.unused_mass(features(case.speech.samples, SHORT), case.language)
        for case in single[::10]
    )
    rows.append(("largest probability of all untrained ids together, in any step", f"{mass:.1e}"))
    return "## Language, silence, probabilities\n\n" + table(("", ""), rows)


def _prompts(model: Model, single: Sequence[Case]) -> str:
    pairs = ", ".join(f"{common}/{rare}" for common, rare in HOMOPHONES.items())
    cases = (
        ("no prompt", lambda word: None),
        ("the common spelling", lambda word: f" {word}"),
        ("the rare spelling", lambda word: f" {HOMOPHONES[word]}"),
        ("the rare spelling in a glossary", lambda word: f" london, {HOMOPHONES[word]}, budget"),
    )
    rows = [(name, percent(homophone_share(model, single, SHORT, given))) for name, given in cases]
    return (
        f"## Prompts\n\nThe words {pairs} sound alike; how often the rare spelling comes, with "
        "beam 5.\n\n" + table(("the prompt holds", "rare spelling"), rows)
    )


def _cost(model: Model, single: Sequence[Case]) -> str:
    rows = [
        (f"one sentence, {context}", f"{milliseconds(model, single[::5], context):.0f} ms")
        for context in (SHORT, FULL)
    ]
    return "## Cost\n\nOne window on one thread, greedily.\n\n" + table(("", ""), rows)
