"""What every room shares."""

from dataclasses import dataclass, field

from server.admission import Admission, Limits
from server.config import Settings
from server.metrics import Metrics
from server.store import Store
from server.turns import Turns
from transcriber.client import EngineClient


@dataclass(frozen=True, slots=True)
class House:
    settings: Settings
    metrics: Metrics
    store: Store
    engine: EngineClient
    admission: Admission = field(default_factory=lambda: Admission(Limits()))
    turns: Turns = field(default_factory=Turns)
