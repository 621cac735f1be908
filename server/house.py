"""What every room shares."""

from dataclasses import dataclass, field

from server.admission import Admission, Ceilings
from server.config import Settings
from server.doors import Doors
from server.limits import Limits
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
    doors: Doors
    limits: Limits
    admission: Admission = field(default_factory=lambda: Admission(Ceilings()))
    turns: Turns = field(default_factory=Turns)
