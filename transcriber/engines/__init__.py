"""One file per engine behind the `Engine` protocol; `load_engine` chooses.

Only the worker process calls `load_engine`; an engine's library is imported there and
nowhere else.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from transcriber.errors import EngineUnavailable
from transcriber.types import EngineInfo, Hypothesis, Window


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """What the settings say about the engine."""

    engine: str = "auto"
    model: str = ""
    language: str = "en"


class Engine(Protocol):
    """Runs in the worker's engine thread, one call at a time."""

    info: EngineInfo
    batch_limit: int

    def load(self) -> None:
        """Get ready; may take long. Raises `EngineUnavailable` or `EngineError`."""
        ...

    def transcribe(self, windows: Sequence[Window]) -> list[Hypothesis]:
        """One hypothesis per window, in their order."""
        ...

    def close(self) -> None: ...


def make_engine(options: EngineOptions) -> tuple[Engine, list[str]]:
    """The engine the options ask for, and the steps of `auto` with their reasons."""
    if options.engine == "scripted":
        from transcriber.engines.scripted import ScriptedEngine

        return ScriptedEngine(), []
    if options.engine in ("auto", "pocketsphinx"):
        from transcriber.engines.pocketsphinx import PocketsphinxEngine

        steps = ["pocketsphinx: its model comes with it"] if options.engine == "auto" else []
        return PocketsphinxEngine(), steps
    raise EngineUnavailable(f"there is no engine named {options.engine!r}")
