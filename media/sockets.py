"""`MediaLoop`: uvloop, with UDP sockets that are read in sweeps.

A socket of its own for each speaker wakes the loop for every packet: with 50 speakers that
costs as much as decoding. Here one epoll holds all of them. The first packet after a quiet time
is read at once, those that follow together, every `SWEEP_S` of the loop's clock: what else is
done on that beat shares the waking. A sweep takes a bounded number of packets and then lets
others run. What a protocol raises stays with it.
"""

import asyncio
import ipaddress
import select
import socket
from collections.abc import Callable
from typing import Any

import uvloop

SWEEP_S = 0.02
# About 2 ms of work. Taking turns is the kernel's: what was reported goes to the end.
_PACKETS_AT_ONCE = 32
_LONGEST_PACKET = 65_536


class MediaLoop(uvloop.Loop):
    def __init__(self) -> None:
        super().__init__()
        self._sweep: _Sweep | None = None

    async def create_datagram_endpoint(  # type: ignore[override]
        self,
        protocol_factory: Callable[[], asyncio.DatagramProtocol],
        local_addr: tuple[str, int] | None = None,
        remote_addr: tuple[str, int] | None = None,
        **options: Any,
    ) -> tuple[asyncio.DatagramTransport, asyncio.DatagramProtocol]:
        """A socket bound to an address of this machine is swept; others are uvloop's."""
        if local_addr is None or remote_addr is not None or options:
            return await super().create_datagram_endpoint(  # type: ignore[return-value]
                protocol_factory, local_addr, remote_addr, **options
            )
        if self._sweep is None:
            self._sweep = _Sweep(self)
        protocol = protocol_factory()
        return _Endpoint(_bound(*local_addr), protocol, self._sweep, self), protocol

    def close(self) -> None:
        if self._sweep is not None:
            self._sweep.close()
        super().close()


def _bound(host: str, port: int) -> socket.socket:
    """Raises `OSError`."""
    is_ipv6 = ipaddress.ip_address(host).version == 6
    bound = socket.socket(socket.AF_INET6 if is_ipv6 else socket.AF_INET, socket.SOCK_DGRAM)
    try:
        bound.setblocking(False)
        bound.bind((host, port))
    except OSError:
        bound.close()
        raise
    return bound


def until_next_sweep(now: float) -> float:
    """Seconds from `now`, of the loop's clock, to the next beat."""
    rest_s = SWEEP_S - now % SWEEP_S
    # uvloop's timers count milliseconds and may come a little before the beat they were set for
    return rest_s if rest_s > SWEEP_S / 4 else rest_s + SWEEP_S


class _Sweep:
    """Reads the sockets that have something, and rests for `SWEEP_S` in between."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._epoll = select.epoll()
        self._endpoints: dict[int, _Endpoint] = {}
        # For all of them: a packet is told of as long as it is, not cut from one of 64 kB, whose
        # rest would lie about in the allocator's heap.
        self._packet = memoryview(bytearray(_LONGEST_PACKET))
        self._rest: asyncio.TimerHandle | None = None
        loop.add_reader(self._epoll.fileno(), self._wake)

    def add(self, endpoint: "_Endpoint", descriptor: int) -> None:
        self._endpoints[descriptor] = endpoint
        self._epoll.register(descriptor, select.EPOLLIN)

    def remove(self, descriptor: int) -> None:
        del self._endpoints[descriptor]
        self._epoll.unregister(descriptor)

    def take(self, bound: socket.socket) -> tuple[bytes, Any]:
        """A packet, and where it is from. Raises `OSError`."""
        length, address = bound.recvfrom_into(self._packet)
        return bytes(self._packet[:length]), address

    def close(self) -> None:
        if self._rest is not None:
            self._rest.cancel()
        self._epoll.close()

    def _wake(self) -> None:
        # Level-triggered: what comes while it rests would wake the loop again and again.
        self._loop.remove_reader(self._epoll.fileno())
        self._read()

    def _read(self) -> None:
        left = _PACKETS_AT_ONCE
        try:
            while left and (ready := self._epoll.poll(0, left)):
                left -= len(ready)
                for descriptor, _ in ready:
                    # closed by what an earlier one of this sweep brought about
                    if (endpoint := self._endpoints.get(descriptor)) is not None:
                        endpoint.read()
        finally:
            self._go_on(left)

    def _go_on(self, left: int) -> None:
        """Whatever happened: a sweep that is not followed by another makes everyone deaf."""
        if left == _PACKETS_AT_ONCE:
            self._rest = None
            self._loop.add_reader(self._epoll.fileno(), self._wake)
        else:
            rest_s = until_next_sweep(self._loop.time()) if left else 0
            self._rest = self._loop.call_later(rest_s, self._read)


class _Endpoint(asyncio.DatagramTransport):
    def __init__(
        self,
        bound: socket.socket,
        protocol: asyncio.DatagramProtocol,
        sweep: _Sweep,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        super().__init__({"socket": bound, "sockname": bound.getsockname()})
        self._socket = bound
        self._protocol = protocol
        self._sweep = sweep
        self._loop = loop
        self._is_closing = False
        sweep.add(self, bound.fileno())
        protocol.connection_made(self)

    def read(self) -> None:
        """Hand one packet to the protocol."""
        try:
            data, address = self._sweep.take(self._socket)
        except BlockingIOError:
            return
        except OSError as error:
            self._tell(self._protocol.error_received, error)
            return
        self._tell(self._protocol.datagram_received, data, address)

    def _tell(self, receive: Callable[..., None], *what: Any) -> None:
        try:
            receive(*what)
        except Exception as error:
            # The containment of one peer: the sweep goes on with the next socket.
            self._loop.call_exception_handler(
                {"message": "a datagram was not taken", "exception": error, "transport": self}
            )

    def sendto(self, data: Any, addr: Any = None) -> None:
        """Send now or never, as the network does: whoever needs it sends again."""
        if self._is_closing or addr is None:
            return
        try:
            self._socket.sendto(data, addr)
        except BlockingIOError:
            return
        except (OSError, OverflowError) as error:  # the latter for a port that cannot be
            self._tell(self._protocol.error_received, error)

    def is_closing(self) -> bool:
        return self._is_closing

    def close(self) -> None:
        if self._is_closing:
            return
        self._is_closing = True
        self._sweep.remove(self._socket.fileno())
        self._loop.call_soon(self._closed)

    def abort(self) -> None:
        self.close()

    def _closed(self) -> None:
        self._socket.close()
        protocol, self._protocol = self._protocol, asyncio.DatagramProtocol()
        protocol.connection_lost(None)  # and freed, with this one
