"""One file per engine behind the `Engine` protocol; `make_engine` makes the one asked for.

Only the worker process loads one; an engine's library is imported there and nowhere else.
"""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from transcriber.engines.languages import WHISPER_LANGUAGES
from transcriber.errors import EngineUnavailable
from transcriber.types import EngineInfo, EngineState, Hypothesis, Window

EngineName = Literal["auto", "whisperx", "whisper", "pocketsphinx", "scripted"]

# What an engine is at while it loads, how far it is, and what to tell people.
Tell = Callable[[EngineState, float | None, str], None]


def tell_nobody(_state: EngineState, _progress: float | None, _message: str) -> None:
    """For those who do not want to know."""


def _option(default: str | int | float | bool, meaning: str) -> "field[object]":  # type: ignore[valid-type]
    return field(default=default, metadata={"meaning": meaning})


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """What the settings say about the engine; the worker takes each as an option of its own."""

    engine: str = _option("auto", "auto, whisperx, whisper, pocketsphinx or scripted")
    model: str = _option("", "a model's name on the hub, or a folder")
    language: str = _option("en", "language of those who name none")
    device: str = _option("auto", "auto, cpu or cuda")
    compute_type: str = _option("auto", "CTranslate2's: int8, float16, ...")
    threads: int = _option(0, "processor threads of the engine; 0: all but one")
    auto_download: bool = _option(True, "fetch a model that is not here")
    short_context: str = _option("auto", "on, off, or auto: as the model declares")
    short_context_min_s: float = _option(8.0, "least context where it is short, in seconds")
    beams: int = _option(5, "beams for finals")
    batch: int = _option(0, "most windows in a batch; 0: as the engine sees fit")
    diarize: bool = _option(False, "tell apart several people at one microphone (whisperx)")


class Engine(Protocol):
    """Runs in the worker's engine thread, one call at a time; `kind` in any."""

    info: EngineInfo  # may be another after `load`
    batch_limit: int  # the same
    longest_s: float  # of a window

    def load(self, tell: Tell) -> None:
        """Get ready; may take long. Raises `EngineUnavailable` or `EngineError`."""
        ...

    def warm_up(self) -> None:
        """Run once, so that the first speaker does not wait for what is made on first use."""
        ...

    def kind(self, window: Window) -> Hashable:
        """Windows of one kind may share a batch. Asked after `load` only."""
        ...

    def transcribe(self, windows: Sequence[Window]) -> list[Hypothesis]:
        """One hypothesis per window of one kind, in their order. Raises `OutOfMemory`."""
        ...

    def close(self) -> None: ...


def make_engine(options: EngineOptions) -> Engine:
    """The engine the options ask for, not loaded. Raises `EngineUnavailable`."""
    match options.engine:
        case "scripted":
            from transcriber.engines.scripted import ScriptedEngine

            return ScriptedEngine()
        case "pocketsphinx":
            from transcriber.engines.pocketsphinx import PocketsphinxEngine

            return PocketsphinxEngine()
        case "whisper":
            from transcriber.engines.whisper import WhisperEngine

            return WhisperEngine(options)
        case "whisperx":
            from transcriber.engines.whisperx import WhisperxEngine

            return WhisperxEngine(options)
        case "auto":
            from transcriber.engines.auto import AutoEngine

            return AutoEngine(options)
    raise EngineUnavailable(f"there is no engine named {options.engine!r}")


def expected_info(options: EngineOptions) -> EngineInfo:
    """What the pages read until the engine is loaded and knows better. Raises
    `EngineUnavailable` for a name that is none."""
    if options.engine in ("auto", "whisper", "whisperx"):
        from transcriber.engines.models import shown

        return EngineInfo(options.engine, shown(options.model), WHISPER_LANGUAGES, "", detects=True)
    return make_engine(options).info
