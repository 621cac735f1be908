"""What every test is held to: it leaves no task, thread, process or socket behind."""

import asyncio
import os
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from server.app import Running, running
from server.config import Settings
from server.settings import (
    AdmissionSettings,
    LimitSettings,
    MediaSettings,
    ServerSettings,
    TranscriberSettings,
)

_SETTLE_S = 15.0
_POOLS = ("asyncio_", "uvloop_")
# Whole rooms in real time, and processes that start and end: not for `make check`.
_SLOW = (
    "loopback",
    "browser",
    "engines/test_whisper.py",
    "engines/test_whisper_live.py",
    "media/test_private.py",
    "media/test_sockets.py",
    "signaling/test_ws.py",
    "sim/test_bad_networks.py",
    "sim/test_drift.py",
    "talk",
    "transcriber/test_process.py",
    "transcriber/test_shared.py",
    "transcriber/test_worker.py",
)
# Kept from browsers.
_MEASURES = ("soak/test_run.py", "loopback/test_floods.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        path = item.path.relative_to(here).as_posix()
        if path.startswith(_SLOW):
            item.add_marker(pytest.mark.slow)
        if path.startswith("talk/"):
            item.add_marker(pytest.mark.talk)
        if path.startswith(_MEASURES):
            item.add_marker(pytest.mark.measures)


def _children() -> set[str]:
    me = os.getpid()
    path = Path(f"/proc/{me}/task/{me}/children")
    return set(path.read_text(encoding="ascii").split())


def _sockets() -> int:
    count = 0
    for entry in os.scandir("/proc/self/fd"):
        try:
            count += os.readlink(entry.path).startswith("socket:")
        except FileNotFoundError:
            continue
    return count


def _tasks() -> set[str]:
    return {t.get_name() for t in asyncio.all_tasks() if t is not asyncio.current_task()}


def _threads() -> set[str]:
    # the loop's own pool for getaddrinfo and files lives as long as the loop
    return {t.name for t in threading.enumerate() if not t.name.startswith(_POOLS)}


@pytest_asyncio.fixture(autouse=True)
async def leaves_nothing_behind() -> AsyncIterator[None]:
    tasks, threads, children, sockets = _tasks(), _threads(), _children(), _sockets()
    yield
    deadline = asyncio.get_running_loop().time() + _SETTLE_S

    def left() -> dict[str, object]:
        return {
            "tasks": _tasks() - tasks,
            "threads": _threads() - threads,
            "processes": _children() - children,
            "sockets": max(0, _sockets() - sockets),
        }

    # Closing a transport takes turns of the loop; what is still there after that is left.
    # No event tells of it.
    while any(left().values()) and asyncio.get_running_loop().time() < deadline:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    assert not any(left().values()), f"left behind: {left()}"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Loopback, a free port, the scripted engine, a store of its own."""
    return Settings(
        server=ServerSettings(port=0),
        media=MediaSettings(host_addresses=("127.0.0.1",)),
        transcriber=TranscriberSettings(engine="scripted", vad="energy"),
        # tests have one address
        limits=LimitSettings(
            joins_per_minute=0, reads_per_minute=0, peers_per_address=0, seats_per_address=0
        ),
        # nor is anyone turned away because another test is at work
        admission=AdmissionSettings(max_cpu=0, max_loop_lag_ms=60_000.0),
        data_dir=tmp_path / "data",
    )


@pytest_asyncio.fixture
async def server(settings: Settings) -> AsyncIterator[Running]:
    """A whole server in this process, its engine ready."""
    async with running(settings) as started:
        async with asyncio.timeout(20):
            await started.lobby.house.engine.ready.wait()
        yield started
