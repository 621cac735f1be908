"""Who may still come in: speakers are admitted while the event loop, the processor, the memory and
the files that may be open allow, so that those inside keep their quality. Pure: measurements come
in.
"""

from dataclasses import dataclass

# What a speaker is taken to cost before enough are here to measure (docs/performance.md).
_ASSUMED_CPU = 0.002  # of one core
_ASSUMED_BYTES = 500_000
_ASSUMED_FILES = 4  # their sockets
_ENOUGH_SPEAKERS = 10


@dataclass(frozen=True, slots=True)
class Ceilings:
    """Beyond any of these no speaker is admitted; 0 of the processor, or 0 speakers: as much, or as
    many, as the rest allows."""

    loop_lag_s: float = 0.1
    cpu: float = 0.85  # of one core: this process has one thread that matters
    memory: float = 0.8  # of the cgroup's limit, or the machine's
    speakers: int = 0
    files: float = 0.9  # of those that may be open: who only reads needs one, too


@dataclass(frozen=True, slots=True)
class Measured:
    """The last second."""

    loop_lag_s: float  # the worst
    cpu: float  # of one core; 0 while it is not known yet
    memory_used: int
    memory_limit: int
    own_bytes: int
    files: int  # open
    files_limit: int
    speakers: int


class Admission:
    """In: `measure` each second, `admit` for each who wants in, and `settle` for each who was
    admitted."""

    def __init__(self, limits: Ceilings) -> None:
        self._limits = limits
        self._now = Measured(0.0, 0.0, 0, 0, 0, 0, 0, 0)
        self._idle_cpu: float | None = None
        self._idle_bytes: int | None = None
        self._idle_files: int | None = None
        self._room = 0
        self._scarce = ""  # what is least, in `room`
        self._pending = 0  # admitted, and neither come nor failed
        self._came = 0  # since the last measurement

    @property
    def admissible(self) -> int:
        """How many more speakers would fit."""
        return max(0, self._room - self._pending - self._came)

    @property
    def reason(self) -> str | None:
        """Why nobody may come in now; None while someone may."""
        # without a limit nothing is measured yet
        return self._scarce if self._now.memory_limit and not self.admissible else None

    def measure(self, now: Measured) -> None:
        """Take what the last second was like."""
        self._now = now
        self._came = 0
        if now.speakers == 0:
            self._idle_bytes, self._idle_files = now.own_bytes, now.files
            if now.cpu:
                # The least: seconds in which many are about to come are not idle.
                self._idle_cpu = min(self._idle_cpu or now.cpu, now.cpu)
        self._room, self._scarce = self._find_room()

    def none_left(self, scarce: str) -> None:
        """Nobody comes in until the next measurement: there was no `scarce` to make this one."""
        self._room, self._scarce = 0, scarce

    def admit(self) -> bool:
        """Whether one more speaker may come in now."""
        if self.reason is not None:
            return False
        self._pending += 1
        return True

    def settle(self, *, came: bool) -> None:
        """What became of one who was admitted: they are a speaker, or they failed."""
        self._pending -= 1
        self._came += came

    def _find_room(self) -> tuple[int, str]:
        now, limits = self._now, self._limits
        if now.loop_lag_s > limits.loop_lag_s:
            return 0, "loop_lag"
        cpu_each, bytes_each, files_each = self._find_cost()
        left = [
            ((limits.memory * now.memory_limit - now.memory_used) / bytes_each, "memory"),
            ((limits.files * now.files_limit - now.files) / files_each, "files"),
        ]
        if limits.cpu:
            left.append(((limits.cpu - now.cpu) / cpu_each, "cpu"))
        if limits.speakers:
            left.append((limits.speakers - now.speakers, "speakers"))
        room, scarce = min(left)
        return int(room), scarce

    def _find_cost(self) -> tuple[float, float, float]:
        """What each speaker costs of the processor, in memory, and in files."""
        now = self._now
        if now.speakers < _ENOUGH_SPEAKERS:
            return _ASSUMED_CPU, _ASSUMED_BYTES, _ASSUMED_FILES
        cpu_each = (now.cpu - (self._idle_cpu or 0.0)) / now.speakers
        bytes_each = (now.own_bytes - (self._idle_bytes or now.own_bytes)) / now.speakers
        files_each = (now.files - (self._idle_files or now.files)) / now.speakers
        # Those of readers are not the speakers'.
        files_each = min(_ASSUMED_FILES * 2, files_each)
        # Half of what is assumed at least: many may be silent now.
        return (
            max(_ASSUMED_CPU / 2, cpu_each),
            max(_ASSUMED_BYTES / 2, bytes_each),
            max(_ASSUMED_FILES / 2, files_each),
        )
