"""What this process and its machine use, and how much they may: memory, open files."""

import os
import resource
from collections.abc import Iterator
from pathlib import Path

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_PROC = Path("/proc")
_CGROUPS = Path("/sys/fs/cgroup")
# Two sockets and more for each speaker, and one for who reads: a shell's usual 1,024 are few.
_FILES = 65_536


def resident_bytes() -> int:
    """Of this process."""
    resident = Path("/proc/self/statm").read_text(encoding="ascii").split()[1]
    return int(resident) * _PAGE_BYTES


def open_files() -> tuple[int, int]:
    """Of this process: how many are open, and how many may be. Raises `OSError` on older kernels
    where none is left to look with."""
    most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    # Linux 6.2 and newer say it; a list of thousands takes milliseconds
    told = os.stat("/proc/self/fd").st_size
    return told or len(os.listdir("/proc/self/fd")), _FILES if most < 0 else most


def allow_files(wanted: int = _FILES) -> None:
    """Let this process open as many as that, or as near to it as it may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = wanted if hard < 0 else min(hard, wanted)  # -1 is any number
    if 0 <= soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def memory(proc: Path = _PROC, cgroups: Path = _CGROUPS) -> tuple[int, int]:
    """Bytes in use and the most there may be: of the cgroup with the smallest limit that this
    process is in, else the machine's."""
    machine = _meminfo(proc)
    total = machine["MemTotal"]
    limited = [
        (most, folder, used)
        for folder, limit, used in _own_cgroups(proc, cgroups)
        if (most := _number(folder / limit)) is not None and most < total
    ]
    for most, folder, used in sorted(limited):
        if (now := _number(folder / used)) is not None:
            return now - _reclaimable(folder), most
    return total - machine["MemAvailable"], total


def _own_cgroups(proc: Path, cgroups: Path) -> Iterator[tuple[Path, str, str]]:
    """Folders on the way up from this process's cgroup, and the files that say limit and use. In
    a container only the root may be there: it is its own."""
    for line in _lines(proc / "self/cgroup"):
        _, controllers, path = line.split(":", 2)
        if not controllers:
            root, limit, used = cgroups, "memory.max", "memory.current"
        elif "memory" in controllers.split(","):
            root = cgroups / "memory"
            limit, used = "memory.limit_in_bytes", "memory.usage_in_bytes"
        else:
            continue
        own = Path(path.strip("/"))
        for folder in (own, *own.parents):
            yield root / folder, limit, used


def _reclaimable(folder: Path) -> int:
    """File pages that count into a cgroup's use and go when memory is short."""
    pages = dict(line.split(" ", 1) for line in _lines(folder / "memory.stat"))
    # version 1 tells its own apart from those of the cgroups below
    return int(pages.get("total_inactive_file", pages.get("inactive_file", 0)))


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return []


def _number(path: Path) -> int | None:
    try:
        text = path.read_text(encoding="ascii").strip()
    except OSError:
        return None
    return int(text) if text.isdecimal() else None


def _meminfo(proc: Path) -> dict[str, int]:
    found = {}
    for line in (proc / "meminfo").read_text(encoding="ascii").splitlines():
        name, _, rest = line.partition(":")
        found[name] = int(rest.split()[0]) * 1024
    return found
