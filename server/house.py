"""What every room shares."""

from dataclasses import dataclass, field

from server.admission import Admission, Limits
from server.config import Settings
from server.metrics import Metrics
from server.store import Store
from transcriber.process import WorkerProcess


@dataclass(frozen=True, slots=True)
class House:
    settings: Settings
    metrics: Metrics
    store: Store
    engine: WorkerProcess
    admission: Admission = field(default_factory=lambda: Admission(Limits()))
