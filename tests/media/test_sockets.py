"""`MediaLoop` with real sockets on loopback."""

import asyncio
import gc
import itertools
import os
import socket
import tracemalloc
import weakref
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from media import sockets
from media.sockets import SWEEP_S, MediaLoop, until_next_sweep

LOCALHOST = "127.0.0.1"
_PATIENCE_S = 10.0

Address = tuple[Any, ...]


class Ear(asyncio.DatagramProtocol):
    """Notes all that it is told."""

    def __init__(self, on_packet: Callable[[bytes], None] = lambda _: None) -> None:
        self.packets: list[bytes] = []
        self.senders: list[Address] = []
        self.errors: list[Exception] = []
        self.lost: list[Exception | None] = []
        self.transport: asyncio.DatagramTransport
        self._on_packet = on_packet

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]

    def datagram_received(self, data: bytes, addr: Address) -> None:
        self.packets.append(data)
        self.senders.append(addr)
        self._on_packet(data)

    def error_received(self, exc: Exception) -> None:
        self.errors.append(exc)

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.append(exc)

    @property
    def address(self) -> Address:
        address: Address = self.transport.get_extra_info("sockname")
        return address


class Echo(Ear):
    def datagram_received(self, data: bytes, addr: Address) -> None:
        super().datagram_received(data, addr)
        self.transport.sendto(data, addr)


async def ear(made: Ear | None = None, host: str = LOCALHOST) -> Ear:
    made = made or Ear()
    loop = asyncio.get_running_loop()
    _, protocol = await loop.create_datagram_endpoint(lambda: made, local_addr=(host, 0))
    assert protocol is made
    return made


async def until(holds: Callable[[], object]) -> None:
    async with asyncio.timeout(_PATIENCE_S):
        while not holds():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


@pytest.fixture
def unseen() -> list[dict[str, Any]]:
    """What the loop's exception handler was told."""
    return []


@pytest.fixture
def run(unseen: list[dict[str, Any]]) -> Callable[[Callable[[], Awaitable[None]]], None]:
    """Run a test on a loop of its own, as the product does; it leaves no socket behind."""

    def run_it(test: Callable[[], Awaitable[None]]) -> None:
        async def body() -> None:
            asyncio.get_running_loop().set_exception_handler(lambda _, told: unseen.append(told))
            await test()

        gc.collect()
        before = descriptors()
        with asyncio.Runner(loop_factory=MediaLoop, debug=True) as runner:
            runner.run(body())
        gc.collect()
        assert descriptors() == before

    return run_it


Run = Callable[[Callable[[], Awaitable[None]]], None]


def descriptors() -> int:
    """Sockets and epolls; the pipe that uvloop makes once stays with the process."""
    links = [os.readlink(f"/proc/self/fd/{name}") for name in _open_descriptors()]
    return sum(not link.startswith("pipe:") for link in links)


def _open_descriptors() -> list[str]:
    return [name for name in os.listdir("/proc/self/fd") if is_open(int(name))]


def is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


# Packets


@pytest.mark.parametrize("host", [LOCALHOST, "::1"])
def test_packets_come_and_go_in_their_order(run: Run, host: str) -> None:
    async def test() -> None:
        echo, own = await ear(Echo(), host), await ear(host=host)
        sent = [str(n).encode() for n in range(50)]
        for packet in sent:
            own.transport.sendto(packet, echo.address)
        await until(lambda: len(own.packets) == len(sent))

        assert own.packets == echo.packets == sent
        assert set(echo.senders) == {own.address}
        assert set(own.senders) == {echo.address}
        echo.transport.close()
        own.transport.close()
        await until(lambda: echo.lost and own.lost)

    run(test)


def test_an_endpoint_tells_its_socket_and_its_address(run: Run) -> None:
    async def test() -> None:
        own = await ear()
        host, port = own.transport.get_extra_info("sockname")
        inner = own.transport.get_extra_info("socket")

        assert (host, port) == inner.getsockname()
        assert host == LOCALHOST
        assert port > 0
        assert own.transport.get_extra_info("peername") is None
        own.transport.abort()

    run(test)


def test_an_empty_packet_and_the_longest_come_whole(run: Run) -> None:
    async def test() -> None:
        one, other = await ear(), await ear()
        sent = [b"", bytes(65_507)]
        for packet in sent:
            one.transport.sendto(packet, other.address)
        await until(lambda: len(other.packets) == 2)

        assert other.packets == sent
        one.transport.close()
        other.transport.close()

    run(test)


def test_a_packet_takes_no_more_than_it_is_long(run: Run) -> None:
    most: list[int] = []

    def look(_packet: bytes) -> None:
        _, peak = tracemalloc.get_traced_memory()
        most.append(peak)

    async def test() -> None:
        hearing, own = await ear(Ear(look)), await ear()
        own.transport.sendto(b"the first makes what is made once", hearing.address)
        await until(lambda: most)
        tracemalloc.start()
        try:
            tracemalloc.reset_peak()
            own.transport.sendto(b"x" * 160, hearing.address)
            await until(lambda: len(most) > 1)
        finally:
            tracemalloc.stop()

        assert most[1] < 30_000
        hearing.transport.close()
        own.transport.close()
        await until(lambda: hearing.lost and own.lost)

    run(test)


def test_a_place_that_is_taken_is_an_error(run: Run) -> None:
    async def test() -> None:
        own = await ear()
        with pytest.raises(OSError, match="in use"):
            await asyncio.get_running_loop().create_datagram_endpoint(Ear, own.address)
        own.transport.close()

    run(test)


def test_an_error_of_sending_is_told_to_the_protocol_and_no_more(run: Run) -> None:
    async def test() -> None:
        own, other = await ear(), await ear()
        own.transport.sendto(bytes(65_508), other.address)
        own.transport.sendto(b"to IPv6", ("::1", 9))
        own.transport.sendto(b"to no port", (LOCALHOST, 70_000))
        own.transport.sendto(b"to nobody")
        own.transport.sendto(b"after", other.address)
        await until(lambda: other.packets)

        assert [type(error) for error in own.errors] == [OSError, socket.gaierror, OverflowError]
        assert other.packets == [b"after"]
        own.transport.close()
        other.transport.close()

    run(test)


# Sweeps


def test_what_stands_in_a_socket_is_read_in_one_sweep(run: Run) -> None:
    """A burst need not wait for as many sweeps as it has packets."""

    async def test() -> None:
        one, other = await ear(), await ear()
        loop = asyncio.get_running_loop()
        started = loop.time()
        for n in range(40):
            one.transport.sendto(bytes([n]), other.address)
        await until(lambda: len(other.packets) == 40)

        assert loop.time() - started < 10 * SWEEP_S
        one.transport.close()
        other.transport.close()

    run(test)


def test_a_flood_lets_others_run_in_between(run: Run) -> None:
    packets = 1_000

    async def test() -> None:
        loop = asyncio.get_running_loop()
        turns: list[int] = []

        def turn() -> None:
            turns.append(len(flooded.packets))
            if len(flooded.packets) < packets:
                loop.call_soon(turn)

        flooded, sender = await ear(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        flooded.transport.get_extra_info("socket").setsockopt(
            socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20
        )
        # all of them stand there before the loop turns again
        for n in range(packets):
            sender.sendto(n.to_bytes(2, "big"), flooded.address)
        loop.call_soon(turn)
        await until(lambda: len(flooded.packets) == packets)

        assert flooded.packets == [n.to_bytes(2, "big") for n in range(packets)]
        assert max(b - a for a, b in itertools.pairwise(turns)) <= 32
        sender.close()
        flooded.transport.close()

    run(test)


def test_a_flood_of_one_socket_does_not_keep_another_waiting(run: Run) -> None:
    async def test() -> None:
        flooded, other = await ear(), await ear()
        before: list[int] = []
        heard = await ear(Ear(lambda _: before.append(len(flooded.packets))))
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            for _ in range(200):
                sender.sendto(b"flood", flooded.address)
            sender.sendto(b"voice", heard.address)
            await until(lambda: len(flooded.packets) == 200 and before)

        assert before[0] <= 2
        for protocol in (flooded, other, heard):
            protocol.transport.close()

    run(test)


def test_packets_that_follow_each_other_are_read_on_the_beat(run: Run) -> None:
    """Of those that come every 5 ms, all but the first wait for the sweep, together."""

    async def test() -> None:
        loop = asyncio.get_running_loop()
        came: list[float] = []
        own = await ear(Ear(lambda _: came.append(loop.time())))
        began = loop.time()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            for _ in range(100):
                sender.sendto(b"voice", own.address)
                await asyncio.sleep(0.005)
        await until(lambda: len(came) == 100)

        beats = sorted({round(at, 3) for at in came})
        # some two of three would come alone if none waited
        assert len(beats) < 1.6 * (loop.time() - began) / SWEEP_S
        own.transport.close()

    run(test)


@pytest.mark.parametrize(
    "now", [0.0, 1.02, 10.0, 10.013, 123_456.02, 123_456.0199, 9.99999, 10.0195]
)
def test_the_next_sweep_is_on_the_beat_and_never_at_once(now: float) -> None:
    pause_s = until_next_sweep(now)

    assert SWEEP_S / 20 <= pause_s < 1.3 * SWEEP_S
    beats = (now + pause_s) / SWEEP_S
    assert beats == pytest.approx(round(beats), abs=1e-4)


def test_on_every_beat_of_the_clock_the_next_is_a_whole_one_away() -> None:
    """20 ms is no number of a computer's: a beat may look as if it were still to come."""
    pauses = [until_next_sweep(beat * 20 / 1000) for beat in range(1_000, 100_000)]

    assert min(pauses) > 0.9 * SWEEP_S


def test_an_idle_loop_does_not_wake(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[float] = []
    read = sockets._Sweep._read

    def noted(sweep: sockets._Sweep) -> None:
        reads.append(asyncio.get_running_loop().time())
        read(sweep)

    monkeypatch.setattr(sockets._Sweep, "_read", noted)

    async def test() -> None:
        reads_before: list[int] = []
        one, other = await ear(), await ear(Ear(lambda _: reads_before.append(len(reads))))
        await asyncio.sleep(5 * SWEEP_S)
        assert reads == []

        one.transport.sendto(b"voice", other.address)
        await until(lambda: other.packets)
        await asyncio.sleep(10 * SWEEP_S)
        # one that read it, and one that found no more
        assert len(reads) == 2

        one.transport.sendto(b"again", other.address)
        await until(lambda: len(other.packets) == 2)
        assert reads_before == [1, 3]
        one.transport.close()
        other.transport.close()

    run(test)


def test_a_packet_after_a_quiet_time_is_read_at_once(run: Run) -> None:
    async def test() -> None:
        one, other = await ear(), await ear()
        loop = asyncio.get_running_loop()
        waited: list[float] = []
        for n in range(5):
            await asyncio.sleep(3 * SWEEP_S)
            sent = loop.time()
            one.transport.sendto(b"voice", other.address)
            while len(other.packets) == n:  # noqa: ASYNC110
                await asyncio.sleep(0)
            waited.append(loop.time() - sent)

        assert min(waited) < SWEEP_S / 4
        one.transport.close()
        other.transport.close()

    run(test)


# What goes wrong stays with its socket


def fail(_: bytes) -> None:
    raise RuntimeError("of this speaker")


def test_a_protocol_that_raises_takes_no_other_along(
    run: Run, unseen: list[dict[str, Any]]
) -> None:
    async def test() -> None:
        broken, whole, sender = await ear(Ear(fail)), await ear(), await ear()
        for _ in range(3):
            for to in (broken, whole):
                sender.transport.sendto(b"voice", to.address)
        await until(lambda: len(whole.packets) == len(broken.packets) == 3)

        assert [repr(told["exception"]) for told in unseen] == [
            "RuntimeError('of this speaker')"
        ] * 3
        assert {told["transport"] for told in unseen} == {broken.transport}
        assert not broken.transport.is_closing()
        for protocol in (broken, whole, sender):
            protocol.transport.close()

    run(test)


class Unwilling(Ear):
    """Takes no errors."""

    def error_received(self, exc: Exception) -> None:
        super().error_received(exc)
        raise RuntimeError("of this speaker")


class Refusing(socket.socket):
    """What it reads is an error once: that of an earlier packet of its own, as ICMP brings it."""

    errors = 1

    def recvfrom_into(self, *args: Any) -> Any:
        came = super().recvfrom_into(*args)
        if self.errors:
            self.errors -= 1
            raise ConnectionRefusedError
        return came


def test_a_protocol_that_takes_no_errors_leaves_none_deaf(
    run: Run, unseen: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test() -> None:
        sender, other = await ear(), await ear()
        with monkeypatch.context() as patched:
            patched.setattr(socket, "socket", Refusing)
            broken = await ear(Unwilling())
        for n in (1, 2):
            for to in (broken, other):
                sender.transport.sendto(b"voice", to.address)
            await until(lambda n=n: len(other.packets) == n)  # type: ignore[misc]
        await until(lambda: broken.packets)

        assert [type(error) for error in broken.errors] == [ConnectionRefusedError]
        broken.transport.sendto(bytes(65_508), other.address)
        assert len(broken.errors) == 2
        assert [repr(told["exception"]) for told in unseen] == [
            "RuntimeError('of this speaker')"
        ] * 2
        for protocol in (broken, other, sender):
            protocol.transport.close()

    run(test)


class Stop(BaseException):
    """Not contained with its peer."""


def test_a_sweep_that_is_broken_off_is_followed_by_another(
    run: Run, unseen: list[dict[str, Any]]
) -> None:
    def stop(packet: bytes) -> None:
        if packet == b"stop":
            raise Stop

    async def test() -> None:
        own, sender = await ear(Ear(stop)), await ear()
        for packet in (b"stop", b"stop", b"voice"):
            sender.transport.sendto(packet, own.address)
        await until(lambda: own.packets == [b"stop", b"stop", b"voice"])

        assert [type(told["exception"]) for told in unseen] == [Stop, Stop]
        own.transport.close()
        sender.transport.close()

    run(test)


def test_a_socket_that_anothers_packet_closes_hears_no_more(run: Run) -> None:
    async def test() -> None:
        both: list[Ear] = []

        def close_both(_: bytes) -> None:
            for protocol in both:
                protocol.transport.close()

        both += [await ear(Ear(close_both)), await ear(Ear(close_both))]
        third, sender = await ear(), await ear()
        # they stand there together, and one sweep finds them
        for protocol in (*both, *both, third):
            sender.transport.sendto(b"voice", protocol.address)
        await until(lambda: third.packets and both[0].lost and both[1].lost)

        assert sorted(len(protocol.packets) for protocol in both) == [0, 1]
        third.transport.close()
        sender.transport.close()

    run(test)


def test_closing_is_told_once_and_frees_the_descriptor(run: Run) -> None:
    async def test() -> None:
        own, other = await ear(), await ear()
        descriptor = own.transport.get_extra_info("socket").fileno()
        assert not own.transport.is_closing()

        own.transport.close()
        own.transport.close()
        own.transport.abort()

        assert own.transport.is_closing()
        assert own.lost == []  # never from within close
        own.transport.sendto(b"too late", other.address)
        await until(lambda: own.lost)
        await asyncio.sleep(2 * SWEEP_S)
        assert own.lost == [None]
        assert not is_open(descriptor)
        assert other.packets == []
        assert own.errors == []
        other.transport.close()

    run(test)


def test_a_closed_endpoint_lets_go_of_its_protocol(run: Run) -> None:
    async def test() -> None:
        own = await ear()
        transport, lost, reference = own.transport, own.lost, weakref.ref(own)
        transport.close()
        await until(lambda: lost)
        gc.disable()
        try:
            del own
            assert reference() is None
        finally:
            gc.enable()
        assert transport.is_closing()

    run(test)


def test_a_descriptor_that_is_used_again_is_anothers(run: Run) -> None:
    async def test() -> None:
        sender = await ear()
        for n in range(20):
            own = await ear()
            sender.transport.sendto(bytes([n]), own.address)
            if n % 2:
                await until(lambda own=own: own.packets)  # type: ignore[misc]
            own.transport.close()
            await until(lambda own=own: own.lost)  # type: ignore[misc]
            assert own.packets == ([bytes([n])] if n % 2 else [])
        sender.transport.close()

    run(test)


def test_a_loop_that_closes_with_a_sweep_to_come_closes(run: Run) -> None:
    async def test() -> None:
        one, other = await ear(), await ear()
        one.transport.sendto(b"voice", other.address)
        await until(lambda: other.packets)
        one.transport.close()
        other.transport.close()
        await asyncio.sleep(0)

    run(test)


# uvloop's own


@pytest.mark.parametrize(
    "options",
    [
        {"local_addr": (LOCALHOST, 0), "remote_addr": (LOCALHOST, 9)},
        {"local_addr": (LOCALHOST, 0), "reuse_port": True},
        {"remote_addr": (LOCALHOST, 9)},
        {"family": socket.AF_INET},
    ],
)
def test_any_other_socket_is_uvloops(run: Run, options: dict[str, Any]) -> None:
    async def test() -> None:
        loop = asyncio.get_running_loop()
        transport, protocol = await loop.create_datagram_endpoint(Ear, **options)
        assert isinstance(protocol, Ear)
        assert not isinstance(transport, sockets._Endpoint)
        transport.close()
        await until(lambda: protocol.lost)

    run(test)


def test_a_loop_without_a_socket_has_no_sweep(run: Run) -> None:
    async def test() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, MediaLoop)
        assert loop._sweep is None

    run(test)
