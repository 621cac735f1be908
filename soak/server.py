"""A server for a soak or a benchmark: a process of its own, on a free port of loopback."""

import asyncio
import os
import socket
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from soak.host import allow_files

_START_S = 60.0
_STOP_S = 30.0  # memray writes on


class CannotServe(Exception):
    """The server ended, or does not answer. The message has the end of its log."""


@dataclass(frozen=True, slots=True)
class Server:
    url: str
    process: asyncio.subprocess.Process

    @property
    def pid(self) -> int:
        return self.process.pid


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port: int = taken.getsockname()[1]
        return port


def settings(folder: Path, port: int, more: Mapping[str, str] = {}) -> dict[str, str]:
    """The environment of a server whose limits are the machine's: a load asks what fits."""
    return {
        **os.environ,
        "SERVER__PORT": str(port),
        "SERVER__LOG_LEVEL": "warning",
        "MEDIA__HOST_ADDRESSES": "127.0.0.1",
        "DATA_DIR": str(folder / "data"),
        "ADMISSION__MAX_CPU": "0",
        "ADMISSION__MAX_LOOP_LAG_MS": "10000",
        # all of a load come from one address
        "LIMITS__JOINS_PER_MINUTE": "0",
        "LIMITS__READS_PER_MINUTE": "0",
        "LIMITS__PEERS_PER_ADDRESS": "0",
        "LIMITS__SEATS_PER_ADDRESS": "0",
        "LIMITS__LISTENERS_PER_ROOM": "0",
        "LIMITS__PARTICIPANTS_PER_ROOM": "0",
        "LIMITS__ROOMS": "0",
        **more,
    }


OURS: tuple[str, ...] = (sys.executable, "-m", "server")


@asynccontextmanager
async def serving(
    command: Sequence[str], environment: Mapping[str, str], log: Path, ready: str = "/readyz"
) -> AsyncIterator[Server]:
    """Until it is ready, and for as long as the context. Raises `CannotServe`."""
    allow_files()
    url = f"http://127.0.0.1:{environment['SERVER__PORT']}"
    with log.open("ab") as out:
        # pdeathsig: when this process is killed, that ends, too, and what it holds can be taken
        process = await asyncio.create_subprocess_exec(
            *("setpriv", "--pdeathsig", "TERM", *command),
            env=dict(environment),
            stdout=out,
            stderr=out,
        )
    try:
        await _until_up(process, url + ready, log)
        yield Server(url, process)
    finally:
        if process.returncode is None:
            process.terminate()
            try:
                async with asyncio.timeout(_STOP_S):
                    await process.wait()
            except TimeoutError:
                process.kill()
        await process.wait()


async def _until_up(process: asyncio.subprocess.Process, url: str, log: Path) -> None:
    try:
        async with asyncio.timeout(_START_S), aiohttp.ClientSession() as session:
            while process.returncode is None:
                try:
                    async with session.get(url) as answer:
                        if answer.status == 200:
                            return
                except aiohttp.ClientError:
                    pass
                await asyncio.sleep(0.1)
    except TimeoutError:
        pass
    raise CannotServe("\n".join(["the server does not come up; it said:", *_end_of(log)]))


def _end_of(log: Path) -> list[str]:
    return log.read_text(encoding="utf-8", errors="replace").splitlines()[-5:]
