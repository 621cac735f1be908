"""A line to the signaling server that a test can cut.

A bot that is tested as a whole gives nobody its socket: give it the URL of a `Line` instead.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from soak.talk.stack import TalkStack

_PIECE = 65_536


class Line:
    def __init__(self, port: int) -> None:
        self.url = ""
        self.connections = 0  # ever made
        self.is_down = False
        self._port = port
        self._open: set[asyncio.StreamWriter] = set()
        self._carrying: set[asyncio.Task[None]] = set()

    def cut(self) -> None:
        """Both ends are reset; who comes back gets through, unless the line `is_down`."""
        for writer in self._open:
            writer.transport.abort()

    async def serve(self) -> asyncio.Server:
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/spreed"
        return server

    async def wait_until_idle(self) -> None:
        if self._carrying:
            await asyncio.wait(self._carrying)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        if self.is_down:
            writer.transport.abort()
            return
        task = asyncio.create_task(self._carry(reader, writer), name="talk-line")
        self._carrying.add(task)
        task.add_done_callback(self._carrying.discard)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there, back = await asyncio.open_connection("127.0.0.1", self._port)
        except OSError:
            writer.transport.abort()
            return
        ends = {writer, back}
        self._open |= ends
        ways = [asyncio.create_task(_copy(reader, back)), asyncio.create_task(_copy(there, writer))]
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        for end in ends:
            end.close()
        await asyncio.wait(ways)
        self._open -= ends


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while piece := await reader.read(_PIECE):
            writer.write(piece)
            await writer.drain()


@asynccontextmanager
async def line_to(stack: TalkStack) -> AsyncIterator[Line]:
    line = Line(stack.signaling.port)
    server = await line.serve()
    try:
        yield line
    finally:
        server.close()
        line.cut()
        await line.wait_until_idle()
        await server.wait_closed()
