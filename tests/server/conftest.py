from collections.abc import AsyncIterator

import pytest_asyncio
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from server.config import Settings
from server.lobby import Lobby
from server.observer import Observer
from server.routes import Routes
from server.talk import Talk
from tests.server.rooms import open_lobby


@pytest_asyncio.fixture
async def lobby(settings: Settings) -> AsyncIterator[Lobby]:
    async with open_lobby(settings) as opened:
        yield opened


@pytest_asyncio.fixture
async def http(lobby: Lobby) -> AsyncIterator[TestClient[web.Request, web.Application]]:
    """Asks the lobby's routes."""
    app = Routes(lobby, Observer(lobby), Talk(Settings().talk, lobby)).application()
    async with TestClient(TestServer(app)) as client:
        yield client
        # readers of Server-Sent Events end with their rooms
        await lobby.close()
