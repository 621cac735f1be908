"""`python -m soak.load`: speakers by the hundred, joined through WHIP.

One process, one core: aiortc joins, a thread sends. What it did is printed as JSON; what
the server made of it is read from the server's own `/metrics`.
"""

import argparse
import asyncio
import contextlib
import json
import logging
import random
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field

import aiohttp

from soak.host import allow_files
from soak.peer import LoadPeer, join_all
from soak.sender import Network, Sender, Talker
from soak.speech import Speech, encode, load_speech
from soak.token import add_token, headers_of

# Of a server that does not answer, or is gone.
_TROUBLE = (aiohttp.ClientError, TimeoutError, ConnectionError)


@dataclass(frozen=True, slots=True)
class Load:
    """What to put on a server."""

    url: str
    speakers: int = 10
    rooms: int = 1
    packet_ms: int = 0  # 0: what the answer asks for
    wideband: bool | None = None  # None: what the answer asks for
    dtx: bool = True
    talkers: float = 1.0
    at_once: int = 8
    cycles_per_minute: float = 0.0
    abrupt: float = 0.0
    network: Network = field(default_factory=Network)
    token: str | None = field(default=None, repr=False)

    @property
    def room_names(self) -> list[str]:
        return [f"load-{number}" for number in range(self.rooms)]


class Crowd:
    """The speakers of a load; owns their peers and the sending thread."""

    def __init__(self, load: Load, session: aiohttp.ClientSession) -> None:
        self.load = load
        self.joined = 0
        self.failed = 0
        self.why: Exception | None = None  # the last one failed
        self.left = 0
        self.abrupt = 0
        self.peers: list[LoadPeer] = []
        self._talking: set[LoadPeer] = set()
        self._session = session
        self._sender = Sender(load.network)
        self._speech: dict[tuple[int, bool], Speech] = {}
        self._samples = load_speech()
        self._cycling: asyncio.Task[None] | None = None
        self._numbers = 0
        self._short = 0  # who could not join, and is made up for
        self._random = random.Random(load.network.seed)

    async def gather(self) -> float:
        """Join everyone and begin to send; returns the seconds it took."""
        began = time.monotonic()
        self._short = await self._join(self.load.speakers, self.load.at_once)
        took_s = time.monotonic() - began
        self._sender.start()
        if self.load.cycles_per_minute:
            self._cycling = asyncio.create_task(self._cycle(), name="load-cycle")
        return took_s

    async def _cycle(self) -> None:
        """Let someone go and someone come, until cancelled."""
        pause_s = 60 / self.load.cycles_per_minute
        under_way: set[asyncio.Task[None]] = set()
        async with asyncio.TaskGroup() as tasks:
            while True:
                await asyncio.sleep(pause_s)
                if len(under_way) < self.load.at_once:
                    task = tasks.create_task(self._replace(), name="load-replace")
                    under_way.add(task)
                    task.add_done_callback(under_way.discard)

    async def _replace(self) -> None:
        try:
            if self.peers:
                await self.let_go(self._random.choice(self.peers))
        except _TROUBLE:
            self.failed += 1  # the server did not take the leave
        wanted, self._short = 1 + self._short, 0
        self._short += await self._join(wanted, 1)

    async def _join(self, count: int, at_once: int) -> int:
        """Returns how many could not."""
        joined, failed = await join_all(lambda _: self._make(), count, at_once)
        for peer in joined:
            self.add(peer)
        self.failed += len(failed)
        self.why = failed[-1] if failed else self.why
        return len(failed)

    async def let_go(self, peer: LoadPeer) -> None:
        self.peers.remove(peer)
        self._talking.discard(peer)
        self._sender.remove(peer)
        self.left += 1
        if self._random.random() < self.load.abrupt:
            self.abrupt += 1
            await peer.drop_dead()
        else:
            await peer.leave()

    async def disperse(self) -> None:
        """All leave, and nobody comes any more."""
        cycling, self._cycling = self._cycling, None
        if cycling is not None:
            cycling.cancel()
            await asyncio.wait({cycling})
            if not cycling.cancelled():
                cycling.result()  # what ended it before
        if self._sender.is_alive():
            self._sender.stop()
        for peer in list(self.peers):
            with contextlib.suppress(*_TROUBLE):  # the server is gone
                await self.let_go(peer)

    def suffer(self, network: Network) -> None:
        """From now on the way of everyone's packets is like that."""
        self._sender.suffer(network)

    def report(self) -> dict[str, object]:
        return {
            "speakers": len(self.peers),
            "joined": self.joined,
            "failed": self.failed,
            "left": self.left,
            "abrupt": self.abrupt,
            "packet_ms": sorted({p for p, _ in self._speech}),
            "wideband": sorted({w for _, w in self._speech}),
            "sent": asdict(self._sender.sent),
        }

    @property
    def audio_s(self) -> float:
        return self._sender.sent.audio_s

    def _make(self) -> LoadPeer:
        self._numbers += 1
        room = self.load.room_names[self._numbers % self.load.rooms]
        return LoadPeer(self._session, self.load.url, room, f"Speaker {self._numbers}")

    def add(self, peer: LoadPeer) -> None:
        """One who has joined speaks from now on."""
        load = self.load
        packet_ms = load.packet_ms or peer.wanted.packet_ms
        wideband = peer.wanted.wideband if load.wideband is None else load.wideband
        speech = self._speech.get((packet_ms, wideband))
        if speech is None:
            speech = encode(self._samples, packet_ms, wideband=wideband)
            self._speech[packet_ms, wideband] = speech
        self.joined += 1
        self.peers.append(peer)
        talks = len(self._talking) < round(load.talkers * len(self.peers))
        if talks:
            self._talking.add(peer)
        self._sender.add(Talker(peer, speech, talks, load.dtx))


@asynccontextmanager
async def crowd(load: Load) -> AsyncIterator[Crowd]:
    """A crowd that has not gathered yet; it leaves with the context."""
    allow_files()
    connector = aiohttp.TCPConnector(limit=load.at_once)
    headers = headers_of(load.token)
    async with aiohttp.ClientSession(connector=connector, headers=headers) as session:
        people = Crowd(load, session)
        try:
            yield people
        finally:
            await people.disperse()


async def run(load: Load, seconds: float) -> dict[str, object]:
    """Gather, speak for `seconds`, leave; returns what was done."""
    async with crowd(load) as people:
        joined_s = await people.gather()
        _say(
            f"{len(people.peers)} joined in {joined_s:.1f} s, {people.failed} failed{_why(people)}"
        )
        await asyncio.sleep(seconds)
        report = people.report()
    return {**report, "joined_s": round(joined_s, 2), "spoke_s": seconds}


def _why(people: Crowd) -> str:
    return "" if people.why is None else f", the last of them: {people.why}"


def _say(text: str) -> None:
    sys.stderr.write(f"load: {text}\n")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m soak.load", description=__doc__)
    parser.add_argument("--url", default="http://127.0.0.1:8080")
    add_token(parser)
    parser.add_argument("--speakers", type=int, default=10)
    parser.add_argument("--rooms", type=int, default=1)
    parser.add_argument("--for", dest="seconds", type=float, default=30.0)
    parser.add_argument("--packet-ms", type=int, default=0, choices=(0, 20, 60))
    parser.add_argument("--band", choices=("asked", "wide", "full"), default="asked")
    parser.add_argument("--no-dtx", action="store_true", help="send packets in silence too")
    parser.add_argument("--talkers", type=float, default=1.0, help="share that speaks")
    parser.add_argument("--at-once", type=int, default=8, help="joins under way at a time")
    parser.add_argument("--cycles", type=float, default=0.0, help="leaves and joins a minute")
    parser.add_argument("--abrupt", type=float, default=0.0, help="share that leaves unsaid")
    parser.add_argument("--loss", type=float, default=0.0)
    parser.add_argument("--jitter-ms", type=float, default=0.0)
    parser.add_argument("--reorder", type=float, default=0.0)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    logging.getLogger("aioice").setLevel(logging.WARNING)
    load = Load(
        given.url.rstrip("/"),
        given.speakers,
        given.rooms,
        given.packet_ms,
        {"asked": None, "wide": True, "full": False}[given.band],
        not given.no_dtx,
        given.talkers,
        given.at_once,
        given.cycles,
        given.abrupt,
        Network(given.loss, given.jitter_ms, given.reorder, given.seed),
        given.token,
    )
    with contextlib.suppress(KeyboardInterrupt):
        report = asyncio.run(run(load, given.seconds))
        sys.stdout.write(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
