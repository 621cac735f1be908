"""The servers behind Talk, for each test anew, and a server whose bot is in their calls."""

import asyncio
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest_asyncio

from media.sockets import MediaLoop
from server.app import Running, running
from server.config import Settings
from server.settings import AdmissionSettings, MediaSettings, ServerSettings, TranscriberSettings
from soak.talk.stack import TalkStack
from tests.talk.stack import talk_stack
from tests.tiny import MODEL


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"media": MediaLoop}


@pytest_asyncio.fixture
async def talk(tmp_path: Path) -> AsyncIterator[TalkStack]:
    """Up in a tenth of a second."""
    folder = tmp_path / "talk"
    folder.mkdir()
    async with talk_stack(folder) as stack:
        yield stack
    # pytest shows it where the test failed
    for daemon in (stack.janus, stack.signaling):
        sys.stdout.write(f"{daemon.log.name}:\n{daemon.end_of_log()}\n")


@pytest_asyncio.fixture
async def stack(talk: TalkStack) -> TalkStack:
    return talk


@dataclass(slots=True)
class Bot:
    """The server, asked as Nextcloud asks it."""

    server: Running
    http: aiohttp.ClientSession

    async def ask(self, method: str, path: str, **given: Any) -> tuple[int, dict[str, Any]]:
        async with self.http.request(method, f"{self.server.url}{path}", **given) as answer:
            return answer.status, await answer.json()

    async def read(self, path: str) -> str:
        async with self.http.get(f"{self.server.url}{path}") as answer:
            answer.raise_for_status()
            return await answer.text()

    async def transcribe(self, room: str, nc_session: str, **more: Any) -> int:
        asked = {"roomToken": room, "ncSessionId": nc_session, "enable": True, "langId": "en"}
        status, _ = await self.ask("POST", "/api/v1/call/transcribe", json={**asked, **more})
        return status

    async def leave(self, room: str) -> int:
        return (await self.ask("POST", "/api/v1/call/leave", json={"roomToken": room}))[0]


WHISPER = TranscriberSettings(engine="whisper", model=str(MODEL), auto_download=False, vad="silero")
SCRIPTED = TranscriberSettings(engine="scripted", vad="energy")


def settings_for(
    stack: TalkStack, folder: Path, engine: TranscriberSettings = WHISPER, **more: Any
) -> Settings:
    return Settings(
        server=ServerSettings(port=0),
        media=MediaSettings(host_addresses=(stack.media_address,)),
        transcriber=engine,
        # the tests share their machine and their loop with the server
        admission=AdmissionSettings(max_loop_lag_ms=60_000, max_cpu=0),
        data_dir=folder / "data",
        lt_hpb_url=more.pop("hpb_url", stack.signaling_url),
        lt_internal_secret=more.pop("secret", stack.internal_secret),
        nextcloud_url=stack.backend_url,
        **more,
    )


@asynccontextmanager
async def bot_of(settings: Settings) -> AsyncIterator[Bot]:
    async with running(settings) as server, aiohttp.ClientSession() as http:
        await server.lobby.house.engine.ready.wait()
        yield Bot(server, http)


@pytest_asyncio.fixture
async def bot(stack: TalkStack, tmp_path: Path) -> AsyncIterator[Bot]:
    async with bot_of(settings_for(stack, tmp_path)) as started:
        yield started


@pytest_asyncio.fixture
async def scripted_bot(stack: TalkStack, tmp_path: Path) -> AsyncIterator[Bot]:
    """Where it matters that something is heard, not what."""
    async with bot_of(settings_for(stack, tmp_path, SCRIPTED)) as started:
        yield started


@pytest_asyncio.fixture
async def any_bot(tmp_path: Path) -> AsyncIterator[Bot]:
    """Where no signaling server is needed: AppAPI's secret is set."""
    settings = Settings(
        server=ServerSettings(port=0),
        transcriber=SCRIPTED,
        data_dir=tmp_path / "data",
        lt_hpb_url="ws://127.0.0.1:1/spreed",
        app_secret="s3cret",
    )
    async with bot_of(settings) as started:
        yield started
