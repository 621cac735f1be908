"""The servers behind Nextcloud Talk, for a soak or a test: the real Janus and signaling server.

`talk_stack()` starts Debian's `janus` and `nextcloud-spreed-signaling` (1.x) on ports of their
own, with Nextcloud itself played by `nextcloud.py`. Janus skips loopback, so media gets an
address of its own on a veth pair. `TalkStack.environment` is what our server has to be told of it.
Everything is gone when the context is left; a process that outlives this one is ended by the
kernel, and an interface that was left is taken away by the next stack.
"""

import asyncio
import contextlib
import os
import random
import secrets
import shutil
import signal
import socket
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from soak.talk.nextcloud import Nextcloud

JANUS = "janus"
SIGNALING = "nextcloud-spreed-signaling-server"

_PROGRAMS = {
    JANUS: "janus",
    SIGNALING: "nextcloud-spreed-signaling from bookworm-backports",
    "ip": "iproute2",
    "setpriv": "util-linux",
}
# Below 32768 the kernel gives no ports to others, so that they are free again after a restart.
_PORTS = range(20_000, 30_000)
_MEDIA_PORTS = "30000-32767"
_START_S = 10.0
_LINES_SHOWN = 40
_IFACE = "rstalk"
_FOUND_JANUS = "Reconnection to Janus gateway successful"
_FIND_JANUS_S = 40.0  # it looks after 1, 2, 4, 8, 16 s


class CannotStart(Exception):
    """A server ended or opened no port; carries the end of its log."""


class Missing(CannotStart):
    """Calls of Talk need something that is not there."""


class Daemon:
    """A server that is started, stopped and started again on the same port."""

    def __init__(self, name: str, command: list[str], port: int, log: Path) -> None:
        self.port = port
        self.log = log
        self._name = name
        # pdeathsig: when this process is killed, so is that
        self._command = ["setpriv", "--pdeathsig", "KILL", *command]
        self._process: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    async def start(self) -> None:
        """Until its port answers. Raises `CannotStart`."""
        assert self._process is None, f"{self._name} runs already"
        with self.log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *self._command, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        try:
            async with asyncio.timeout(_START_S):
                while not await self._answers():
                    if self._process.returncode is not None:
                        raise CannotStart(f"{self._name} ended:\n{self.end_of_log()}")
                    await asyncio.sleep(0.01)
        except TimeoutError as error:
            raise CannotStart(f"{self._name} has no port:\n{self.end_of_log()}") from error

    async def stop(self) -> None:
        """As an administrator stops it."""
        await self._end(signal.SIGTERM)

    async def kill(self) -> None:
        await self._end(signal.SIGKILL)

    def freeze(self) -> None:
        """It keeps its sockets and says nothing any more."""
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def end_of_log(self) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-_LINES_SHOWN:])

    async def close(self) -> None:
        if self._process is not None:
            await self.kill()

    async def _end(self, number: signal.Signals) -> None:
        assert self._process is not None, f"{self._name} does not run"
        process, self._process = self._process, None
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(number)
        await process.wait()

    async def _answers(self) -> bool:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", self.port)
        except ConnectionRefusedError:
            return False
        writer.close()
        await writer.wait_closed()
        return True


@dataclass(slots=True)
class TalkStack:
    """A running stack."""

    nextcloud: Nextcloud
    signaling: Daemon
    janus: Daemon
    internal_secret: str
    media_address: str

    @property
    def signaling_url(self) -> str:
        return f"ws://127.0.0.1:{self.signaling.port}/spreed"

    @property
    def backend_url(self) -> str:
        return self.nextcloud.url

    @property
    def environment(self) -> dict[str, str]:
        """Settings of a server whose bot is to be in the calls."""
        return {
            "LT_HPB_URL": self.signaling_url,
            "LT_INTERNAL_SECRET": self.internal_secret,
            "NEXTCLOUD_URL": self.backend_url,
            "APP_SECRET": "",
            "MEDIA__HOST_ADDRESSES": self.media_address,
        }

    async def restart_janus(self) -> None:
        """Kill Janus and start it anew, until the signaling server has found it."""
        await self.janus.kill()
        await self.start_janus()

    async def start_janus(self) -> None:
        """After it was stopped or killed, until the signaling server has found it."""
        before = self._times_found()
        await self.janus.start()
        async with asyncio.timeout(_FIND_JANUS_S):
            # the log is the only place that tells
            while self._times_found() == before:  # noqa: ASYNC110
                await asyncio.sleep(0.02)

    def _times_found(self) -> int:
        return self.signaling.log.read_text(errors="replace").count(_FOUND_JANUS)


@asynccontextmanager
async def talk_stack(folder: Path) -> AsyncIterator[TalkStack]:
    """Configuration and logs go into `folder`. Raises `CannotStart`, `Missing`."""
    check_installed()
    nextcloud, internal_secret = Nextcloud(), secrets.token_hex(16)
    with _media_address() as (iface, address):
        async with nextcloud.serving():
            janus = _janus(folder, iface, address)
            signaling = _signaling(folder, nextcloud, internal_secret, janus.port)
            nextcloud.signaling_url = f"http://127.0.0.1:{signaling.port}"
            try:
                await janus.start()
                await signaling.start()
                yield TalkStack(nextcloud, signaling, janus, internal_secret, address)
            finally:
                await signaling.close()
                await janus.close()


def check_installed() -> None:
    """Raises `Missing`."""
    for program, package in _PROGRAMS.items():
        if shutil.which(program) is None:
            raise Missing(f"calls of Talk: {package} is not installed")
    if os.geteuid() != 0:
        raise Missing("calls of Talk: an address of its own for media needs root")


def _janus(folder: Path, iface: str, address: str) -> Daemon:
    port = _free_port()
    (library,) = Path("/usr/lib").glob("*/janus")
    for kind, wanted in (("plugins", "videoroom"), ("transports", "websockets")):
        # Janus loads all that it finds in a folder
        (folder / kind).mkdir()
        name = f"libjanus_{wanted}.so"
        (folder / kind / name).symlink_to(library / kind / name)
    (folder / "janus.jcfg").write_text(
        f"""
        general: {{
            configs_folder = "{folder}"
            plugins_folder = "{folder}/plugins"
            transports_folder = "{folder}/transports"
            interface = "{address}"
            debug_level = 4
            debug_timestamps = true
        }}
        media: {{ ipv6 = false  rtp_port_range = "{_MEDIA_PORTS}" }}
        nat: {{ full_trickle = true  ice_enforce_list = "{iface}" }}
        """
    )
    (folder / "janus.transport.websockets.jcfg").write_text(
        f'general: {{ json = "compact"  ws = true  ws_ip = "127.0.0.1"  ws_port = {port} }}'
    )
    (folder / "janus.plugin.videoroom.jcfg").write_text("general: { }")
    command = [JANUS, "-F", str(folder), "-C", str(folder / "janus.jcfg")]
    return Daemon("Janus", command, port, folder / "janus.log")


def _signaling(folder: Path, nextcloud: Nextcloud, internal_secret: str, janus_port: int) -> Daemon:
    port = _free_port()
    configuration = folder / "signaling.conf"
    configuration.write_text(
        f"""
[http]
listen = 127.0.0.1:{port}
[sessions]
hashkey = {secrets.token_hex(16)}
blockkey = {secrets.token_hex(16)}
[clients]
internalsecret = {internal_secret}
[backend]
backends = nextcloud
timeout = 10
connectionsperhost = 8
[nextcloud]
url = {nextcloud.url}
secret = {nextcloud.secret}
[nats]
url = nats://loopback
[mcu]
type = janus
url = ws://127.0.0.1:{janus_port}
"""
    )
    command = [SIGNALING, "-config", str(configuration)]
    return Daemon("the signaling server", command, port, folder / "signaling.log")


@contextmanager
def _media_address() -> Iterator[tuple[str, str]]:
    """An interface that is not loopback, and its address. One for each process."""
    _remove_what_was_left()
    pid = os.getpid()
    iface, other_end = f"{_IFACE}{pid}", f"{_IFACE}{pid}x"
    address = f"10.78.{pid >> 8 & 255}.{pid & 255}"
    _ip("link", "add", iface, "type", "veth", "peer", "name", other_end)
    try:
        _ip("address", "add", f"{address}/32", "dev", iface)
        _ip("link", "set", other_end, "up")
        _ip("link", "set", iface, "up")
        yield iface, address
    finally:
        _ip("link", "delete", iface)


def _remove_what_was_left() -> None:
    """By a process that was killed."""
    for entry in Path("/sys/class/net").glob(f"{_IFACE}*"):
        pid = entry.name.removeprefix(_IFACE)
        if pid.isdigit() and not Path(f"/proc/{pid}").exists():
            # another process may do the same
            with contextlib.suppress(CannotStart):
                _ip("link", "delete", entry.name)


def _ip(*arguments: str) -> None:
    """Raises `CannotStart`, where root is not let do it."""
    done = subprocess.run(["ip", *arguments], check=False, capture_output=True, text=True)
    if done.returncode:
        raise CannotStart(f"ip {' '.join(arguments)}: {done.stderr.strip()}")


def _free_port() -> int:
    for port in random.sample(_PORTS, 100):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise CannotStart("no port is free")
