"""Names in `.local`: the network is asked, and whoever is in it may answer anything. A relay that
is lost."""

import asyncio
import logging
from typing import Any, cast

import aioice
import aioice.mdns
import aioice.stun
import aioice.turn
import dns.flags
import dns.message
import dns.rdata
import dns.rrset
import pytest
import uvloop
from dns.rdataclass import RdataClass
from dns.rdatatype import A

from media import contained
from tests.logs import logged

NAME = "4e1b0f5a-0c1d-4a57-9d0e-8f6f3a2b1c0d.local"
OF_THE_HOST_ALONE = RdataClass.make(0x8001)  # class IN, with the bit that says so


class Line:
    """In place of a socket on port 5353."""

    def __init__(self) -> None:
        self.asked: list[bytes] = []

    def get_extra_info(self, _name: str) -> "Line":
        return self

    def setsockopt(self, *_: object) -> None:
        pass

    def is_closing(self) -> bool:
        return False

    def sendto(self, data: bytes, _address: object) -> None:
        self.asked.append(data)


def answer(address: bytes) -> bytes:
    message = dns.message.QueryMessage(id=0)
    message.flags = dns.flags.QR | dns.flags.AA
    found = dns.rrset.RRset(dns.name.from_text(NAME), OF_THE_HOST_ALONE, A)
    found.add(dns.rdata.GenericRdata(OF_THE_HOST_ALONE, A, address), ttl=120)
    message.answer.append(found)
    return bytes(message.to_wire())


async def test_an_answer_that_cannot_be_read_is_passed_over(
    caplog: pytest.LogCaptureFixture,
) -> None:
    names, line = aioice.mdns.MDnsProtocol(), Line()
    names.connection_made(cast(Any, line))
    resolving = asyncio.create_task(names.resolve(NAME, timeout=5.0))
    await asyncio.sleep(0)
    assert len(line.asked) == 1

    for datagram in (b"", b"\0", bytes(12)[:-1] + b"\1", answer(b"\xc0\0\2"), answer(b"")):
        names.datagram_received(datagram, ("192.0.2.1", 5353))
    assert not resolving.done()
    names.datagram_received(answer(b"\xc0\0\2\7"), ("192.0.2.1", 5353))

    assert await resolving == "192.0.2.7"
    assert [r for r in logged(caplog) if r.levelno > logging.INFO] == []


async def test_where_nobody_can_be_asked_a_name_is_nobodys(monkeypatch: pytest.MonkeyPatch) -> None:
    async def taken() -> aioice.mdns.MDnsProtocol:
        raise OSError(98, "Address already in use")

    monkeypatch.setattr(contained, "_ask_for_names", taken)
    agent = aioice.Connection(True)
    for host in (NAME, "192.0.2.9"):
        line = f"1 1 udp 2130706431 {host} 5000 typ host"
        await agent.add_remote_candidate(aioice.Candidate.from_sdp(line))
    assert [candidate.host for candidate in agent.remote_candidates] == ["192.0.2.9"]
    await agent.close()


async def test_who_could_not_ask_tries_again(monkeypatch: pytest.MonkeyPatch) -> None:
    class Answering(aioice.mdns.MDnsProtocol):
        async def resolve(self, hostname: str, timeout: float | None = 1.0) -> str:
            return "192.0.2.7"

        async def close(self) -> None:
            closed.append(self)

    async def ask() -> aioice.mdns.MDnsProtocol:
        if not free:
            raise OSError(24, "Too many open files")
        return Answering()

    free: list[bool] = []
    closed: list[Answering] = []
    monkeypatch.setattr(contained, "_ask_for_names", ask)
    names = await aioice.mdns.create_mdns_protocol()
    assert await names.resolve(NAME) is None
    free.append(True)
    assert await names.resolve(NAME) == "192.0.2.7"
    await names.close()
    assert len(closed) == 1


def test_who_asks_a_relay_that_is_lost_does_not_wait_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """On uvloop, as in the product: it raises where a lost connection is written to."""
    monkeypatch.setattr(aioice.stun, "RETRY_RTO", 0.01)
    faults: list[dict[str, Any]] = []

    async def hang_up(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async def ask() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, fault: faults.append(fault))
        async with (
            await asyncio.start_server(hang_up, "127.0.0.1", 0) as relay,
            asyncio.timeout(20),
        ):
            with pytest.raises(aioice.stun.TransactionTimeout):
                await aioice.turn.create_turn_endpoint(
                    asyncio.DatagramProtocol,
                    server_addr=relay.sockets[0].getsockname(),
                    username="ada",
                    password="secret",
                    transport="tcp",
                )

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(ask())
    assert faults == []
