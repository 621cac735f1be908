"""Whole peers and servers run on the loop that the product runs on."""

import asyncio
from collections.abc import Callable

from media.sockets import MediaLoop


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"media": MediaLoop}
