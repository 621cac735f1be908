"""What the load and the benchmarks know of the machine: processes, addresses, a name."""

import contextlib
import os
import platform
import resource
from dataclasses import dataclass
from pathlib import Path

import aioice.ice

_FILES = 65_536
_TICKS = os.sysconf("SC_CLK_TCK")


def allow_files() -> None:
    """Let this process, and those that it starts then, open as many as they may, up to what any
    load needs: it has some three for each speaker, and a shell's usual 1,024 are few."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = _FILES if hard < 0 else min(hard, _FILES)
    if 0 <= soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


@dataclass(frozen=True, slots=True)
class Usage:
    """One process, now."""

    cpu_s: float
    private_mb: float  # what it has written to, and nobody else has
    threads: int
    files: int
    sockets: int


def usage(pid: int) -> Usage:
    """Raises `FileNotFoundError` when the process is gone."""
    process = Path(f"/proc/{pid}")
    fields = (process / "stat").read_text().rpartition(")")[2].split()
    rollup = (process / "smaps_rollup").read_text()
    # Not Private_Clean: that is code of libraries, which is another's, too, while one runs.
    private = sum(
        int(line.split()[1])
        for line in rollup.splitlines()
        if line.startswith(("Private_Dirty", "Private_Hugetlb", "Swap:"))
    )
    files = sockets = 0
    for entry in (process / "fd").iterdir():
        try:
            sockets += os.readlink(entry).startswith("socket:")
        except FileNotFoundError:
            continue
        files += 1
    cpu_s = (int(fields[11]) + int(fields[12])) / _TICKS
    return Usage(cpu_s, private / 1024, int(fields[17]), files, sockets)


def worker_of(server: int) -> int | None:
    """The process of a server's engine, while there is one."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # one of them has ended
        for task in Path(f"/proc/{server}/task").iterdir():
            for pid in (task / "children").read_text(encoding="ascii").split():
                if b"\0transcriber\0" in Path(f"/proc/{pid}/cmdline").read_bytes():
                    return int(pid)
    return None


def describe_machine() -> str:
    model = "unknown processor"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    python = platform.python_version()
    return f"{os.cpu_count()} × {model}, Linux {platform.release()}, Python {python}"


def gather_on_loopback() -> None:
    """Let aioice use loopback, which it leaves out of its host addresses."""

    def loopback(use_ipv4: bool, use_ipv6: bool) -> list[str]:
        return ["127.0.0.1"] if use_ipv4 else []

    aioice.ice.get_host_addresses = loopback
