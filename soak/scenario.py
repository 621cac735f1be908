"""A soak's scenario: a small TOML file, checked before anything starts."""

import re
import tomllib
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

SCENARIOS = Path(__file__).with_name("scenarios")
_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*([smhd])")


class BadScenario(Exception):
    """Cannot be used. The message has a line for each fault."""


def seconds(text: object) -> object:
    """`90s`, `10m`, `24h`, `7d`; a number is seconds. Raises `ValueError`."""
    if not isinstance(text, str):
        return text
    found = _DURATION.fullmatch(text.strip())
    if found is None:
        raise ValueError("is no duration such as 90s, 10m, 24h or 7d")
    return float(found.group(1)) * _UNITS[found.group(2)]


Seconds = Annotated[float, BeforeValidator(seconds), Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=0)]
Rate = Annotated[float, Field(ge=0)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Way(_Part):
    """What happens to speakers' packets."""

    loss: Share = 0.0
    jitter_ms: Rate = 0.0
    reorder: Share = 0.0


class Troubles(_Part):
    """What is done to the server's worker; only to a server that the soak started."""

    worker_kills_per_hour: Rate = 0.0
    engine_stalls_per_hour: Rate = 0.0
    stall: Seconds = 5.0


class TalkCalls(_Part):
    """Calls of Nextcloud Talk; only with a server that the soak started."""

    count: Count = 0  # that go on at a time
    speakers: Annotated[int, Field(ge=1)] = 3  # in each
    length: Annotated[Seconds, Field(ge=10)] = 600.0  # then it ends, and begins anew


class Limits(_Part):
    """What a run is held to. 0 leaves the slope unjudged, as a run of minutes has to."""

    memory_slope_mb_per_h: Rate = 1.0
    dropped: Share = 0.01
    errors: Share = 0.001


class Scenario(_Part):
    title: str
    rooms: Annotated[int, Field(ge=1)] = 10
    speakers: Count = 100
    talkers: Share = 0.5  # the others are silent, as a browser is: DTX
    joins_per_minute: Rate = 0.0  # each with a leave
    abrupt: Share = 0.0  # of those who leave: without a word
    listeners: Count = 20  # pages that read, beside one for each room
    slow_readers: Count = 0  # they open their captions and read nothing
    warm_up: Seconds = 120.0
    network: Way = Way()
    faults: Troubles = Troubles()
    calls: TalkCalls = TalkCalls()
    limits: Limits = Limits()
    server: dict[str, str] = Field(default_factory=dict)  # its environment

    @property
    def readers(self) -> int:
        """The pages, and one for each room; nobody where there is no room to read."""
        return self.rooms + self.listeners if self.speakers else 0


def load_scenario(name: str) -> Scenario:
    """A file, or the name of one that is here. Raises `BadScenario`."""
    path = Path(name)
    if not path.is_file():
        path = SCENARIOS / f"{name}.toml"
    if not path.is_file():
        known = ", ".join(sorted(file.stem for file in SCENARIOS.glob("*.toml")))
        raise BadScenario(f"{name}: is neither a file nor one of: {known}")
    return read_scenario(path.read_text(encoding="utf-8"), path.name)


def read_scenario(text: str, name: str) -> Scenario:
    """Raises `BadScenario`."""
    try:
        return check_scenario(tomllib.loads(text), name)
    except tomllib.TOMLDecodeError as error:
        raise BadScenario(f"{name}: is not TOML: {error}") from None


def check_scenario(told: dict[str, Any], name: str) -> Scenario:
    """Raises `BadScenario`."""
    try:
        return Scenario.model_validate(told)
    except ValidationError as error:
        faults = [_fault(dict(each)) for each in error.errors()]
        raise BadScenario("\n".join(f"{name}: {fault}" for fault in faults)) from None


def _fault(error: dict[str, Any]) -> str:
    where = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        return f"{where}: there is no such setting"
    return f"{where}: {error['msg'].removeprefix('Value error, ')}"
