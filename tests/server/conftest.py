import asyncio
from collections.abc import AsyncIterator

import pytest_asyncio
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from server.config import Settings
from server.house import House
from server.lobby import Lobby
from server.metrics import Metrics
from server.observer import Observer
from server.routes import Routes
from server.store import Store
from server.talk import Talk
from transcriber.engines import EngineOptions
from transcriber.process import WorkerProcess


@pytest_asyncio.fixture
async def lobby(settings: Settings) -> AsyncIterator[Lobby]:
    """A lobby with a store, and an engine that is never started."""
    async with Store.open(settings.data_dir / "roomscribe.sqlite3") as store:
        engine = WorkerProcess(EngineOptions("scripted"))
        opened = Lobby(House(settings, Metrics(), store, engine))
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(store.run(), name="store")
            running = tasks.create_task(opened.run(), name="lobby")
            await asyncio.sleep(0)
            yield opened
            await opened.close()
            await asyncio.wait({running})
            await store.close()


@pytest_asyncio.fixture
async def http(lobby: Lobby) -> AsyncIterator[TestClient[web.Request, web.Application]]:
    """Asks the lobby's routes."""
    app = Routes(lobby, Observer(lobby), Talk(Settings().talk, lobby)).application()
    async with TestClient(TestServer(app)) as client:
        yield client
        # readers of Server-Sent Events end with their rooms
        await lobby.close()
