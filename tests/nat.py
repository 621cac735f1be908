"""A router between a peer and a server, on loopback, which may forget its port."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from soak.peer import LoadPeer

_CANDIDATE = re.compile(r"^a=candidate:(\S+ 1 udp \d+) (\S+) (\d+) .*$", re.MULTILINE)
Address = tuple[str, int]


class _Side(asyncio.DatagramProtocol):
    def __init__(self, nat: "Nat") -> None:
        self._nat = nat

    def datagram_received(self, data: bytes, addr: tuple[str | Any, int]) -> None:
        self._nat.passed(self, data, addr)


class Nat:
    """One peer inside, one address outside. The peer is told `address` as the server's."""

    def __init__(self, outside: Address) -> None:
        self.address: Address = ("", 0)
        self._server = outside
        self._peer: Address | None = None
        self._inside: asyncio.DatagramTransport | None = None
        self._outside: asyncio.DatagramTransport | None = None
        self._inner = _Side(self)

    async def open(self) -> None:
        loop = asyncio.get_running_loop()
        self._inside, _ = await loop.create_datagram_endpoint(
            lambda: self._inner, local_addr=("127.0.0.1", 0)
        )
        self.address = self._inside.get_extra_info("sockname")
        await self.rebind()

    async def rebind(self) -> None:
        """What comes to the port of before is lost; what goes out comes from another."""
        before = self._outside
        self._outside, _ = await asyncio.get_running_loop().create_datagram_endpoint(
            lambda: _Side(self), local_addr=("127.0.0.1", 0)
        )
        if before is not None:
            before.close()

    def close(self) -> None:
        for side in (self._inside, self._outside):
            if side is not None:
                side.close()

    def passed(self, side: _Side, data: bytes, addr: Address) -> None:
        assert self._inside is not None
        assert self._outside is not None
        if side is self._inner:
            self._peer = addr
            self._outside.sendto(data, self._server)
        elif self._peer is not None:
            self._inside.sendto(data, self._peer)


class RoutedPeer(LoadPeer):
    """A speaker behind a router: the two ends know only its addresses."""

    router: Nat

    async def _offer(self, sdp: str) -> str:
        answer = await super()._offer(re.sub("a=(candidate|end-of-candidates).*\r\n", "", sdp))
        found = _CANDIDATE.search(answer)
        assert found is not None
        self.router = Nat((found[2], int(found[3])))
        await self.router.open()
        host, port = self.router.address
        return _CANDIDATE.sub(f"a=candidate:{found[1]} {host} {port} typ host", answer)

    def _release(self) -> None:
        super()._release()
        self.router.close()


@asynccontextmanager
async def nat(server: Address) -> AsyncIterator[Nat]:
    between = Nat(server)
    await between.open()
    try:
        yield between
    finally:
        between.close()
