"""Chromium for tests: people with a microphone that plays a WAV, and a network to cut.

Skips where Chromium is missing; tests that cut the network also need root and `ip`.
"""

import asyncio
import contextlib
import itertools
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio

playwright_api = pytest.importorskip("playwright.async_api", reason="playwright is not installed")

from playwright.async_api import BrowserContext, Page, Playwright, async_playwright  # noqa: E402

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
    "--disable-features=WebRtcHideLocalIpsWithMdns",
]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.browser)
            if CHROMIUM is None:
                item.add_marker(pytest.mark.skip(reason="chromium is not installed"))


@dataclass
class ServerProcess:
    """The product as a person starts it."""

    url: str
    process: asyncio.subprocess.Process

    async def end(self, number: int = signal.SIGTERM) -> int:
        if self.process.returncode is None:
            self.process.send_signal(number)
        return await self.process.wait()


@asynccontextmanager
async def served(
    data_dir: Path, host: str = "127.0.0.1", port: int = 0, **environment: str
) -> AsyncIterator[ServerProcess]:
    """`python -m server` from another folder than the project's."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "server",
        cwd=data_dir,
        env={
            **os.environ,
            "PYTHONPATH": str(Path(__file__).parents[2]),
            "SERVER__HOST": host,
            "SERVER__PORT": str(port),
            "DATA_DIR": str(data_dir / "data"),
            # a machine that is busy elsewhere keeps nobody out
            "ADMISSION__MAX_CPU": "0",
            "ADMISSION__MAX_LOOP_LAG_MS": "10000",
            **environment,
        },
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    async with asyncio.timeout(30):
        line = (await process.stdout.readline()).decode()
    server = ServerProcess(line.split()[-1], process)
    try:
        yield server
    finally:
        await server.end()


@pytest_asyncio.fixture
async def server(tmp_path: Path) -> AsyncIterator[ServerProcess]:
    """The default engine on loopback."""
    async with served(tmp_path, TRANSCRIBER__ENGINE="pocketsphinx") as started:
        yield started


@pytest_asyncio.fixture
async def playwright() -> AsyncIterator[Playwright]:
    async with async_playwright() as started:
        yield started


@dataclass
class Person:
    """A page of someone's browser; `problems` is what its console complained of."""

    page: Page
    problems: list[str]

    async def join(self, url: str, room: str, name: str, *, listen: bool = False) -> None:
        await self.page.goto(f"{url}/r/{room}?name={name}")
        await self.page.click("#join-listen" if listen else "#join-mic")
        await self.page.wait_for_selector('#status[data-state="connected"]')
        if not listen:
            await self.page.wait_for_selector('html[data-media="open"]', state="attached")

    async def participant(self) -> str:
        return str(await self.page.evaluate("document.documentElement.dataset.participant"))

    async def finals(self, participant: str | None = None) -> list[str]:
        """Texts of the finals on the page, of everyone or of one."""
        who = f'[data-participant="{participant}"]' if participant else ""
        texts = await self.page.eval_on_selector_all(
            f'#captions [data-segment][data-final="true"]{who} .stable',
            "spans => spans.map(span => span.textContent.trim())",
        )
        return [text for text in texts if text]

    async def segments(self) -> list[str]:
        """Ids of the finals on the page."""
        found: list[str] = await self.page.eval_on_selector_all(
            '#captions [data-segment][data-final="true"]',
            "segments => segments.map(segment => segment.dataset.segment)",
        )
        return found


NewPerson = Callable[..., "contextlib.AbstractAsyncContextManager[Person]"]


@pytest.fixture
def person(playwright: Playwright, tmp_path: Path) -> NewPerson:
    """`async with person(wav)`: a browser of their own, its microphone playing `wav`."""
    numbers = itertools.count()

    @asynccontextmanager
    async def start(
        wav: Path | None = None,
        *,
        executable: str | None = None,
        microphone: bool = True,
        flags: tuple[str, ...] = (),
    ) -> AsyncIterator[Person]:
        capture = [f"--use-file-for-fake-audio-capture={wav}"] if wav is not None else []
        given = [f for f in FLAGS if microphone or f != "--use-fake-ui-for-media-stream"]
        context: BrowserContext = await playwright.chromium.launch_persistent_context(
            str(tmp_path / f"browser-{next(numbers)}"),
            executable_path=executable or CHROMIUM,
            headless=True,
            args=[*given, *capture, *flags],
            permissions=["microphone"] if microphone else [],
            accept_downloads=True,
        )
        page = context.pages[0]
        problems: list[str] = []
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on(
            "console",
            lambda line: problems.append(line.text) if line.type == "error" else None,
        )
        try:
            yield Person(page, problems)
        finally:
            await context.close()

    return start


@dataclass
class Network:
    """A cable between the server's host and the browser's."""

    server_address: str
    namespace: str
    device: str
    executable: str

    def cut(self) -> None:
        _ip("link", "set", self.device, "down")

    def mend(self) -> None:
        _ip("link", "set", self.device, "up")


@pytest.fixture
def network(tmp_path: Path) -> Iterator[Network]:
    """A network namespace with a veth pair, and a Chromium that lives in it."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("cutting the network needs root and iproute2")
    number = os.getpid() % 200
    name, device, inner = f"rs{number}", f"rsa{number}", f"rsb{number}"
    server_address, browser_address = f"10.77.{number}.1", f"10.77.{number}.2"
    executable = tmp_path / "chromium-in-namespace"
    executable.write_text(f'#!/bin/sh\nexec ip netns exec {name} {CHROMIUM} "$@"\n')
    executable.chmod(0o755)
    _ip("netns", "add", name)
    try:
        _ip("link", "add", device, "type", "veth", "peer", "name", inner, "netns", name)
        _ip("address", "add", f"{server_address}/30", "dev", device)
        _ip("link", "set", device, "up")
        _ip("-n", name, "address", "add", f"{browser_address}/30", "dev", inner)
        _ip("-n", name, "link", "set", inner, "up")
        _ip("-n", name, "link", "set", "lo", "up")
        yield Network(server_address, name, device, str(executable))
    finally:
        _ip("netns", "delete", name)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)
