import logging
from collections.abc import Hashable, Sequence

import pytest

from tests.logs import logged
from tests.transcriber.builders import hypothesis, window
from transcriber.engines import EngineOptions, Tell, auto, tell_nobody
from transcriber.engines.auto import AutoEngine
from transcriber.errors import EngineError, EngineUnavailable
from transcriber.types import EngineInfo, EngineState, Hypothesis, Window


class Played:
    """An engine that loads, or says why not."""

    def __init__(self, name: str, error: Exception | None = None) -> None:
        self.info = EngineInfo(name, f"{name}'s model", ("en", "de"), f"A note on {name}.", True)
        self.batch_limit, self.longest_s = 7, 12.0
        self.error = error
        self.calls: list[str] = []

    def load(self, tell: Tell) -> None:
        tell(EngineState.LOADING, None, self.info.name)
        if self.error is not None:
            raise self.error

    def warm_up(self) -> None:
        self.calls.append("warm_up")

    def kind(self, window: Window) -> Hashable:
        return window.language

    def transcribe(self, windows: Sequence[Window]) -> list[Hypothesis]:
        return [hypothesis(w, self.info.name) for w in windows]

    def close(self) -> None:
        self.calls.append("close")


class Machine:
    """What runs here: engines by name, CUDA, the extra."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.engines = {name: Played(name) for name in ("whisperx", "whisper", "pocketsphinx")}
        self.has_cuda = self.has_whisperx = True
        self.asked: list[EngineOptions] = []
        monkeypatch.setattr(auto, "make_engine", self._make)
        monkeypatch.setattr(auto, "has_cuda", lambda: self.has_cuda)
        monkeypatch.setattr(
            "importlib.util.find_spec", lambda name: object() if self.has_whisperx else None
        )

    def _make(self, options: EngineOptions) -> Played:
        self.asked.append(options)
        return self.engines[options.engine]

    def fails(self, *names: str) -> None:
        for name in names:
            self.engines[name].error = EngineUnavailable(f"no {name} here")


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(monkeypatch)


def loaded(options: EngineOptions | None = None, tell: Tell = tell_nobody) -> AutoEngine:
    engine = AutoEngine(options or EngineOptions("auto"))
    engine.load(tell)
    return engine


def test_whisperx_is_chosen_where_cuda_and_the_extra_are(machine: Machine) -> None:
    assert loaded().info.name == "whisperx"


def test_without_cuda_or_the_extra_it_is_whisper(machine: Machine) -> None:
    machine.has_cuda = False
    assert loaded().info.name == "whisper"
    machine.has_cuda, machine.has_whisperx = True, False
    assert loaded().info.name == "whisper"
    # that is known without making it
    assert [options.engine for options in machine.asked] == ["whisper", "whisper"]


def test_without_a_model_it_is_pocketsphinx(machine: Machine) -> None:
    machine.fails("whisperx", "whisper")
    assert loaded().info.name == "pocketsphinx"


def test_where_nothing_runs_it_is_unavailable(machine: Machine) -> None:
    machine.fails("whisperx", "whisper", "pocketsphinx")
    with pytest.raises(EngineUnavailable, match="no engine runs here"):
        loaded()


def test_an_engine_that_breaks_is_no_reason_for_another(machine: Machine) -> None:
    # a model that is here and torn is for an operator to see
    machine.engines["whisperx"].error = EngineError("the model could not be loaded")
    with pytest.raises(EngineError, match="could not be loaded"):
        loaded()
    assert [options.engine for options in machine.asked] == ["whisperx"]


def test_each_step_is_logged_with_its_reason(
    machine: Machine, caplog: pytest.LogCaptureFixture
) -> None:
    machine.has_cuda = False
    machine.fails("whisper")
    with caplog.at_level(logging.INFO, "roomscribe.worker"):
        loaded()
    assert [(r.message, vars(r)["engine"], vars(r)["reason"]) for r in logged(caplog)] == [
        ("engine not chosen", "whisperx", "there is no CUDA device"),
        ("engine not chosen", "whisper", "no whisper here"),
        ("engine chosen", "pocketsphinx", "pocketsphinx's model. A note on pocketsphinx."),
    ]


def test_the_one_that_is_chosen_decides_everything(machine: Machine) -> None:
    machine.has_cuda = False
    engine = loaded()
    chosen = machine.engines["whisper"]
    assert (engine.info, engine.batch_limit, engine.longest_s) == (chosen.info, 7, 12.0)
    engine.warm_up()
    assert engine.kind(window(language="de")) == "de"
    assert engine.transcribe([window("ada"), window("bob")])[1].text == "whisper"
    engine.close()
    assert chosen.calls == ["warm_up", "close"]


def test_all_other_options_go_to_the_one_that_is_tried(machine: Machine) -> None:
    machine.fails("whisperx")
    loaded(EngineOptions("auto", model="small", language="de", beams=2))
    assert machine.asked[-1] == EngineOptions("whisper", model="small", language="de", beams=2)


def test_what_it_is_at_is_told(machine: Machine) -> None:
    machine.fails("whisperx")
    told: list[str] = []
    loaded(tell=lambda _state, _progress, message: told.append(message))
    assert told == ["whisperx", "whisper"]


def test_before_it_is_loaded_it_expects_what_whisper_can() -> None:
    engine = AutoEngine(EngineOptions("auto"))
    assert engine.info.name == "auto"
    assert engine.info.detects
    assert "de" in engine.info.languages
