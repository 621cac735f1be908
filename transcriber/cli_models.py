"""`python -m transcriber models`: which models are here, and fetching one ahead."""

import sys

from transcriber.engines import models

_WIDTH = 40


def main(name: str | None) -> int:
    """Raises `EngineUnavailable`."""
    if name is not None:
        folder = models.find(name)
        if folder is None:
            print(f"fetching {name}")  # noqa: T201 - the answer to a command
            folder = models.fetch(name, _show)
            print()  # noqa: T201
        print(f"{name} is at {folder}")  # noqa: T201
        return 0
    here = {model.name: model for model in models.installed()}
    for name in sorted({*models.KNOWN, *here}, key=lambda n: (n not in here, n)):
        model = here.get(name)
        note = f"{model.size_bytes >> 20} MB at {model.folder}" if model else "not here"
        print(f"{name:20} {note}")  # noqa: T201
    if not here:
        print("none is installed; fetch one with: python -m transcriber models --fetch base")  # noqa: T201
    return 0


def _show(share: float) -> None:
    done = "#" * round(share * _WIDTH)
    sys.stdout.write(f"\r[{done:{_WIDTH}}] {share:4.0%}")
    sys.stdout.flush()
