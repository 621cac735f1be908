"""What this process and its machine use: memory and its limit."""

import ctypes
import os
from pathlib import Path

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_CGROUP = Path("/sys/fs/cgroup")


def resident_bytes() -> int:
    """Of this process."""
    resident = Path("/proc/self/statm").read_text(encoding="ascii").split()[1]
    return int(resident) * _PAGE_BYTES


def memory() -> tuple[int, int]:
    """Bytes in use and the most there may be: the cgroup's where it has a limit, else the
    machine's."""
    machine = _meminfo()
    for used, limit in (
        ("memory.current", "memory.max"),
        ("memory/memory.usage_in_bytes", "memory/memory.limit_in_bytes"),
    ):
        most = _number(_CGROUP / limit)
        now = _number(_CGROUP / used)
        if most is not None and now is not None and most < machine["MemTotal"]:
            return now - _reclaimable(), most
    return machine["MemTotal"] - machine["MemAvailable"], machine["MemTotal"]


def _reclaimable() -> int:
    """File pages that count into a cgroup's use and go when memory is short."""
    try:
        lines = (_CGROUP / "memory.stat").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) for line in lines if line.startswith("inactive_file "))


def _number(path: Path) -> int | None:
    try:
        text = path.read_text(encoding="ascii").strip()
    except OSError:
        return None
    return int(text) if text.isdecimal() else None


def _meminfo() -> dict[str, int]:
    found = {}
    for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
        name, _, rest = line.partition(":")
        found[name] = int(rest.split()[0]) * 1024
    return found


def give_back() -> None:
    """Return to the system what the allocator keeps for later. Nothing where it is not glibc's."""
    if (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)) is not None:
        trim(0)
