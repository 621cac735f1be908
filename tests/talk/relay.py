"""A way to the signaling server that can be cut."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Relay:
    """Passes on what comes, both ways, until it is told not to."""

    def __init__(self, port: int) -> None:
        self.port = 0
        self.connections = 0  # since the start
        self._to = port
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._flows = asyncio.Event()
        self._flows.set()

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}/spreed"

    async def open(self) -> None:
        """On the port that it had, if it had one."""
        self._server = await asyncio.start_server(self._pass_on, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """Take nobody; those who are there stay."""
        if self._server is not None:
            self._server.close()
            self._server = None

    def cut(self) -> None:
        """Without a word, at whatever byte."""
        for writer in self._writers:
            writer.transport.abort()

    def swallow(self) -> None:
        """Keep the connections and pass nothing on; what comes meanwhile is lost."""
        self._flows.clear()

    def flow(self) -> None:
        self._flows.set()

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        there: asyncio.StreamWriter | None = None
        self._writers.add(writer)
        try:
            reader_there, there = await asyncio.open_connection("127.0.0.1", self._to)
            self._writers.add(there)
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._copy(reader, there), name="relay")
                tasks.create_task(self._copy(reader_there, writer), name="relay")
        except* OSError:
            pass
        finally:
            for each in (writer, there):
                if each is not None:
                    each.transport.abort()
                    self._writers.discard(each)

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while received := await reader.read(4096):
            if self._flows.is_set():
                writer.write(received)
                await writer.drain()
        raise ConnectionResetError  # the other way ends too


@asynccontextmanager
async def relay(port: int) -> AsyncIterator[Relay]:
    way = Relay(port)
    await way.open()
    try:
        yield way
    finally:
        await way.close()
        way.cut()
