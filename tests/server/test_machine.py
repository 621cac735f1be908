"""Memory, files and their limits, where the kernel says them."""

import resource
from pathlib import Path

import pytest

from server.machine import allow_files, memory, open_files, resident_bytes

MB = 1 << 20
OF_MACHINE = (600 * MB, 1000 * MB)


class Kernel:
    """Its files, by hand: a machine of 1,000 MB, 600 of them in use."""

    def __init__(self, root: Path) -> None:
        self.proc, self.cgroups = root / "proc", root / "cgroup"
        self.say(self.proc / "meminfo", "MemTotal: 1024000 kB\nMemAvailable: 409600 kB")
        self.cgroups.mkdir()

    def say(self, file: Path, text: object) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{text}\n", encoding="ascii")

    def belong(self, *lines: str) -> None:
        self.say(self.proc / "self/cgroup", "\n".join(lines))

    def limit(self, path: str, most_mb: int | None, used_mb: int, files_mb: int = 0) -> None:
        """A cgroup of version 2."""
        folder = self.cgroups / path
        self.say(folder / "memory.max", "max" if most_mb is None else most_mb * MB)
        self.say(folder / "memory.current", used_mb * MB)
        self.say(folder / "memory.stat", f"anon 7\ninactive_file {files_mb * MB}\nactive_file 9")

    def limit_by_version_1(self, path: str, most: int, used_mb: int, files_mb: int = 0) -> None:
        folder = self.cgroups / "memory" / path
        self.say(folder / "memory.limit_in_bytes", most)
        self.say(folder / "memory.usage_in_bytes", used_mb * MB)
        self.say(
            folder / "memory.stat",
            f"inactive_file {MB}\ntotal_rss 7\ntotal_inactive_file {files_mb * MB}",
        )

    def memory(self) -> tuple[int, int]:
        return memory(self.proc, self.cgroups)


@pytest.fixture
def kernel(tmp_path: Path) -> Kernel:
    return Kernel(tmp_path)


def test_without_cgroups_it_is_the_machines(kernel: Kernel) -> None:
    assert kernel.memory() == OF_MACHINE


def test_without_a_limit_it_is_the_machines(kernel: Kernel) -> None:
    kernel.belong("0::/user.slice")
    kernel.limit("user.slice", None, 100)
    assert kernel.memory() == OF_MACHINE


def test_a_limit_beyond_the_machine_is_none(kernel: Kernel) -> None:
    kernel.belong("0::/user.slice")
    kernel.limit("user.slice", 2000, 100)
    assert kernel.memory() == OF_MACHINE


def test_in_a_container_its_own_limit_is_at_the_root(kernel: Kernel) -> None:
    kernel.belong("0::/")
    kernel.limit("", 500, 200, files_mb=50)
    assert kernel.memory() == (150 * MB, 500 * MB)


def test_a_service_has_the_limit_of_its_own_cgroup(kernel: Kernel) -> None:
    kernel.belong("0::/system.slice/roomscribe.service")
    kernel.limit("system.slice", None, 600)
    kernel.limit("system.slice/roomscribe.service", 400, 90, files_mb=10)
    assert kernel.memory() == (80 * MB, 400 * MB)


def test_the_smallest_limit_on_the_way_up_holds(kernel: Kernel) -> None:
    kernel.belong("0::/system.slice/roomscribe.service/worker")
    kernel.limit("system.slice", 300, 250)
    kernel.limit("system.slice/roomscribe.service", 400, 90)
    kernel.limit("system.slice/roomscribe.service/worker", None, 80)
    assert kernel.memory() == (250 * MB, 300 * MB)


def test_version_1_has_files_of_its_own(kernel: Kernel) -> None:
    kernel.belong("12:cpu,cpuacct:/other", "9:memory:/docker/abc", "0::/docker/abc")
    kernel.limit_by_version_1("", 1 << 63, 600)
    kernel.limit_by_version_1("docker/abc", 500 * MB, 200, files_mb=50)
    assert kernel.memory() == (150 * MB, 500 * MB)


def test_in_a_container_of_version_1_the_path_may_be_the_hosts(kernel: Kernel) -> None:
    kernel.belong("9:memory:/docker/abc")
    kernel.limit_by_version_1("", 500 * MB, 200)
    assert kernel.memory() == (200 * MB, 500 * MB)


def test_the_machine_has_memory_and_we_use_some() -> None:
    used, limit = memory()
    assert 0 < used < limit
    assert 0 < resident_bytes() < limit


# Files


def test_open_files_are_counted(tmp_path: Path) -> None:
    before, _ = open_files()
    with (tmp_path / "one").open("w"), (tmp_path / "two").open("w"):
        assert open_files()[0] == before + 2


@pytest.mark.parametrize(
    ("soft", "hard", "wanted", "allowed"),
    [
        (256, 4_096, 1_000, 1_000),
        (256, 512, 1_000, 512),
        (2_000, 4_096, 1_000, 2_000),
        (256, resource.RLIM_INFINITY, 1_000, 1_000),
        (resource.RLIM_INFINITY, resource.RLIM_INFINITY, 1_000, resource.RLIM_INFINITY),
    ],
)
def test_as_many_files_are_allowed_as_may_be(
    monkeypatch: pytest.MonkeyPatch, soft: int, hard: int, wanted: int, allowed: int
) -> None:
    limits = [soft, hard]
    monkeypatch.setattr(resource, "getrlimit", lambda _: tuple(limits))
    monkeypatch.setattr(resource, "setrlimit", lambda _, both: limits.__setitem__(slice(2), both))
    allow_files(wanted)
    assert limits == [allowed, hard]
