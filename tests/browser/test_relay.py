"""A page over HTTPS with a certificate of the server's own, from a link, through a TURN relay
alone: the way of a guest in another network. The relay is Debian's coturn."""

import asyncio
import contextlib
import json
import re
import shutil
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.browser.conftest import NewPerson
from tests.browser.test_links import SPEAK, enter, guarded, link
from tests.browser.test_room_page import microphone, until
from tests.speech import OPEN_THE_MEETING, words_right

TURNSERVER = shutil.which("turnserver")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(TURNSERVER is None, reason="coturn is not installed"),
]

SECRET = "what the relay and the server know"
# Whatever way there is besides the relay, it is not taken.
RELAY_ONLY = """
const Plain = RTCPeerConnection;
window.pairs = async () => [];
globalThis.RTCPeerConnection = class extends Plain {
  constructor(configuration) {
    super({ ...configuration, iceTransportPolicy: "relay" });
    window.asked = configuration.iceServers;
    window.pairs = async () => {
      const stats = [...(await this.getStats()).values()];
      const used = stats.filter((s) => s.type === "candidate-pair" && s.nominated);
      return used.map((s) => stats.find((other) => other.id === s.localCandidateId).candidateType);
    };
  }
};
"""


@dataclass
class Relay:
    port: int
    log: Path

    @property
    def users(self) -> set[str]:
        """Who was given a relay."""
        text = self.log.read_text(encoding="utf-8", errors="replace")
        return set(re.findall(r"user <([^>]*)>: incoming packet ALLOCATE processed, success", text))


@asynccontextmanager
async def coturn(folder: Path) -> AsyncIterator[Relay]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    log = folder / "coturn.log"
    assert TURNSERVER is not None
    process = await asyncio.create_subprocess_exec(
        TURNSERVER,
        "-n",
        "--listening-ip=127.0.0.1",
        "--relay-ip=127.0.0.1",
        f"--listening-port={port}",
        "--use-auth-secret",
        f"--static-auth-secret={SECRET}",
        "--realm=roomscribe",
        "--allow-loopback-peers",
        # without it, that option is refused
        "--cli-password=unused",
        "--no-cli",
        "--no-tls",
        "--no-dtls",
        "--verbose",
        f"--userdb={folder}/turn.db",
        f"--pidfile={folder}/turn.pid",
        f"--log-file={log}",
        "--simple-log",
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        async with asyncio.timeout(15):
            while not log.exists() or "IPv4. UDP listener opened" not in log.read_text():  # noqa: ASYNC110
                await asyncio.sleep(0.1)
        yield Relay(port, log)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        await process.wait()


@pytest.mark.browser
async def test_a_guest_comes_in_over_https_and_a_relay_alone(
    person: NewPerson, tmp_path: Path
) -> None:
    async with (
        coturn(tmp_path) as relay,
        guarded(
            tmp_path,
            SERVER__TLS="auto",
            MEDIA__ICE_SERVERS=json.dumps([{"urls": f"turn:127.0.0.1:{relay.port}"}]),
            MEDIA__TURN_SECRET=SECRET,
        ) as server,
        person(
            microphone(tmp_path, OPEN_THE_MEETING), flags=("--ignore-certificate-errors",)
        ) as ada,
    ):
        assert server.url.startswith("https://")
        await ada.page.add_init_script(RELAY_ONLY)
        await enter(ada, link(server.url, *SPEAK), "Ada")

        async def is_read() -> bool:
            return any(words_right(text, OPEN_THE_MEETING) >= 0.9 for text in await ada.finals())

        await until(is_read)
        assert await ada.page.evaluate("window.pairs()") == ["relay"]
        (asked,) = await ada.page.evaluate("window.asked")
        # credentials of her own, for a day at most
        expires, _, whose = asked["username"].partition(":")
        assert expires.isdecimal()
        assert whose.endswith(f"-{await ada.participant()}")
        assert asked["username"] in relay.users
        assert not ada.problems
