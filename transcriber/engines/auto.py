"""`auto`: the best engine that runs here, each step said with its reason.

WhisperX where CUDA and the extra are, else Whisper where its model is here or can be
fetched, else pocketsphinx. What is not available leads to the next step; what is there and broken
does not: nobody would look for it behind a weaker engine.
"""

import importlib.util
import logging
from collections.abc import Hashable, Sequence
from dataclasses import replace

from transcriber.engines import Engine, EngineOptions, Tell, expected_info, make_engine
from transcriber.engines.whisper import has_cuda
from transcriber.errors import EngineUnavailable
from transcriber.types import Hypothesis, Window

log = logging.getLogger("roomscribe.worker")


class AutoEngine:
    longest_s = 30.0

    def __init__(self, options: EngineOptions) -> None:
        self._options = options
        self._chosen: Engine | None = None
        self.info = expected_info(options)
        self.batch_limit = 1

    def load(self, tell: Tell) -> None:
        for name in ("whisperx", "whisper", "pocketsphinx"):
            try:
                if name == "whisperx":
                    _check_whisperx()
                engine = make_engine(replace(self._options, engine=name))
                engine.load(tell)
            except EngineUnavailable as error:
                log.info("engine not chosen", extra={"engine": name, "reason": str(error)})
                continue
            self._chosen, self.info = engine, engine.info
            self.batch_limit, self.longest_s = engine.batch_limit, engine.longest_s
            log.info(
                "engine chosen",
                extra={"engine": name, "reason": f"{engine.info.model}. {engine.info.note}"},
            )
            return
        raise EngineUnavailable("no engine runs here")

    def warm_up(self) -> None:
        self._engine.warm_up()

    def kind(self, window: Window) -> Hashable:
        return self._engine.kind(window)

    def transcribe(self, windows: Sequence[Window]) -> list[Hypothesis]:
        return self._engine.transcribe(windows)

    def close(self) -> None:
        self._engine.close()

    @property
    def _engine(self) -> Engine:
        assert self._chosen is not None, "load() first"
        return self._chosen


def _check_whisperx() -> None:
    if importlib.util.find_spec("whisperx") is None:
        raise EngineUnavailable("the extra [whisperx] is not installed")
    if not has_cuda():
        raise EngineUnavailable("there is no CUDA device")
