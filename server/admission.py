"""Who may still come in: speakers are admitted while the event loop, the processor and the
memory allow, so that those inside keep their quality. Pure: measurements come in.
"""

from dataclasses import dataclass

# What a speaker is taken to cost before enough are here to measure (docs/performance.md).
_ASSUMED_CPU = 0.002  # of one core
_ASSUMED_BYTES = 500_000
_ENOUGH_SPEAKERS = 10


@dataclass(frozen=True, slots=True)
class Limits:
    """Beyond any of these no speaker is admitted; 0 speakers: as many as the rest allows."""

    loop_lag_s: float = 0.1
    cpu: float = 0.85  # of one core: this process has one thread that matters
    memory: float = 0.8  # of the cgroup's limit, or the machine's
    speakers: int = 0


@dataclass(frozen=True, slots=True)
class Measured:
    """The last second."""

    loop_lag_s: float  # the worst
    cpu: float  # of one core
    memory_used: int
    memory_limit: int
    own_bytes: int
    speakers: int


class Admission:
    """In: `measure` each second, `admit` for each who wants in."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._now = Measured(0.0, 0.0, 0, 0, 0, 0)
        self._idle_cpu: float | None = None
        self._idle_bytes: int | None = None
        self._room = 0
        self._admitted = 0
        self.reason: str | None = None

    @property
    def admissible(self) -> int:
        """How many more speakers would fit."""
        return max(0, self._room - self._admitted)

    def measure(self, now: Measured) -> None:
        """Take what the last second was like."""
        self._now = now
        self._admitted = 0
        if now.speakers == 0:
            self._idle_cpu, self._idle_bytes = now.cpu, now.own_bytes
        self.reason = self._find_reason()
        self._room = 0 if self.reason is not None else self._find_room()

    def admit(self) -> bool:
        """Whether one more speaker may come in now."""
        if self._now.memory_limit == 0:  # nothing is measured yet
            return True
        if self.admissible == 0:
            return False
        self._admitted += 1
        return True

    def _find_reason(self) -> str | None:
        now, limits = self._now, self._limits
        if limits.speakers and now.speakers >= limits.speakers:
            return "speakers"
        if now.loop_lag_s > limits.loop_lag_s:
            return "loop_lag"
        if now.cpu > limits.cpu:
            return "cpu"
        if now.memory_used > limits.memory * now.memory_limit:
            return "memory"
        return None

    def _find_room(self) -> int:
        now, limits = self._now, self._limits
        cpu_each, bytes_each = _ASSUMED_CPU, float(_ASSUMED_BYTES)
        if now.speakers >= _ENOUGH_SPEAKERS:
            cpu_each = max(1e-4, (now.cpu - (self._idle_cpu or 0.0)) / now.speakers)
            grown = now.own_bytes - (self._idle_bytes or now.own_bytes)
            bytes_each = max(50_000.0, grown / now.speakers)
        by_cpu = (limits.cpu - now.cpu) / cpu_each
        by_memory = (limits.memory * now.memory_limit - now.memory_used) / bytes_each
        room = int(min(by_cpu, by_memory))
        return min(room, limits.speakers - now.speakers) if limits.speakers else room
