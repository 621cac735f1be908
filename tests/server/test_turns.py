import asyncio
import itertools
import time
from dataclasses import dataclass, field

import pytest

from server.turns import STRETCH_S, Turns


@dataclass
class Clock:
    """Time passes with work only, as `work_s` says."""

    now: float = 0.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Loop:
    """Speakers at work, and how much of it was in which turn of the loop."""

    clock: Clock
    turns: Turns = field(default_factory=Turns)
    turn: int = 0
    done: list[tuple[str, int]] = field(default_factory=list)

    async def speaker(self, name: str, *pieces: float) -> None:
        for work_s in pieces:
            await self.turns.take()
            with self.turns.measured():
                self.clock.now += work_s
            self.done.append((name, self.turn))

    async def count(self) -> None:
        while True:
            self.turn += 1
            await asyncio.sleep(0)

    async def run(self, *speakers: "asyncio.Task[None]") -> None:
        """Until all are done, within as many turns as no work needs."""
        counting = asyncio.create_task(self.count())
        async with asyncio.timeout(10):
            await asyncio.wait(speakers)
        counting.cancel()
        await asyncio.wait({counting})

    def start(self, name: str, *pieces: float) -> "asyncio.Task[None]":
        return asyncio.create_task(self.speaker(name, *pieces), name=name)

    @property
    def order(self) -> list[str]:
        return [name for name, _ in self.done]

    def per_turn(self) -> dict[int, int]:
        """Pieces of work by the turn they were done in."""
        return {turn: [t for _, t in self.done].count(turn) for _, turn in self.done}


@pytest.fixture
def loop(monkeypatch: pytest.MonkeyPatch) -> Loop:
    clock = Clock()
    monkeypatch.setattr(time, "perf_counter", clock)
    return Loop(clock)


def accustomed(loop: Loop, work_s: float) -> None:
    """It has seen so much work of this length that it expects no other."""
    for _ in range(200):
        with loop.turns.measured():
            loop.clock.now += work_s


async def rested(loop: Loop) -> None:
    """A few turns in which nobody works."""
    for _ in range(3):
        await asyncio.sleep(0)


async def test_where_there_is_little_work_nothing_waits(loop: Loop) -> None:
    speakers = [loop.start(f"s{n}", 0.0001) for n in range(10)]
    await loop.run(*speakers)
    assert set(loop.per_turn().values()) == {10}


async def test_a_piece_of_work_that_is_alone_does_not_wait_for_another_turn(loop: Loop) -> None:
    accustomed(loop, 0.0015)
    await rested(loop)
    taken = loop.turns.take()
    with pytest.raises(StopIteration):
        taken.send(None)


@pytest.mark.parametrize(("work_s", "at_most"), [(0.0005, 4), (0.0003, 6), (0.001, 2)])
async def test_in_one_turn_is_two_milliseconds_of_work(
    loop: Loop, work_s: float, at_most: int
) -> None:
    accustomed(loop, work_s)
    await rested(loop)
    speakers = [loop.start(f"s{n}", work_s, work_s) for n in range(20)]
    await loop.run(*speakers)
    pieces = loop.per_turn()
    assert len(loop.done) == 40
    assert max(pieces.values()) <= at_most
    # nor does it dawdle
    assert len(pieces) <= -(-40 // at_most) + 2


async def test_work_that_is_longer_than_a_turn_goes_on_one_by_one(loop: Loop) -> None:
    accustomed(loop, 5 * STRETCH_S)
    await rested(loop)
    await loop.run(*(loop.start(f"s{n}", 5 * STRETCH_S) for n in range(5)))
    assert set(loop.per_turn().values()) == {1}


async def test_work_that_became_heavy_is_spread_once_that_was_seen(loop: Loop) -> None:
    accustomed(loop, 0.00001)
    await rested(loop)
    await loop.run(*(loop.start(f"s{n}", *[0.001] * 10) for n in range(30)))
    pieces = loop.per_turn()
    first, *_, last = sorted(pieces)
    # the first are over the limit by no more than what was expected of one
    assert pieces[first] <= 3
    assert pieces[last] <= 2


async def test_those_who_wait_go_on_in_the_order_they_came(loop: Loop) -> None:
    accustomed(loop, 0.0005)
    await rested(loop)
    names = [f"s{n}" for n in range(30)]
    await loop.run(*(loop.start(name, 0.002) for name in names))
    assert loop.order == names
    await rested(loop)
    taken = loop.turns.take()
    with pytest.raises(StopIteration):
        taken.send(None)


async def test_who_comes_later_does_not_pass_those_who_wait(loop: Loop) -> None:
    accustomed(loop, 0.001)
    await rested(loop)
    early = [loop.start(f"early {n}", 0.001) for n in range(6)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    late = [loop.start(f"late {n}", 0.001) for n in range(3)]
    await loop.run(*early, *late)
    assert loop.order == [f"early {n}" for n in range(6)] + [f"late {n}" for n in range(3)]


async def test_those_who_come_as_others_go_on_add_nothing_to_a_turn(loop: Loop) -> None:
    accustomed(loop, 0.001)
    await rested(loop)
    speakers: list[asyncio.Task[None]] = []

    async def crowd() -> None:
        for n in range(20):  # two in each turn, which is all that fits, and now and then one more
            speakers.extend(
                loop.start(f"s{n}{which}", 0.001) for which in "abc"[: 2 + (n % 4 == 0)]
            )
            await asyncio.sleep(0)
        await asyncio.wait(speakers)

    await loop.run(asyncio.create_task(crowd()))
    assert loop.order == [speaker.get_name() for speaker in speakers]
    assert max(loop.per_turn().values()) <= 2


async def test_one_that_is_cancelled_while_it_waits_does_not_block_the_others(loop: Loop) -> None:
    accustomed(loop, 0.001)
    await rested(loop)
    speakers = [loop.start(f"s{n}", 0.001) for n in range(12)]
    await asyncio.sleep(0)
    for gone in (speakers[3], speakers[4], speakers[11]):
        gone.cancel()
    await loop.run(*speakers)
    assert loop.order == [f"s{n}" for n in range(12) if n not in (3, 4, 11)]
    assert max(loop.per_turn().values()) <= 2


async def test_one_that_is_cancelled_as_its_turn_comes_does_not_block_the_others(
    loop: Loop,
) -> None:
    accustomed(loop, 5 * STRETCH_S)
    await rested(loop)
    speakers = [loop.start(f"s{n}", 5 * STRETCH_S) for n in range(6)]
    while not loop.done:  # noqa: ASYNC110 - turns are what this is about
        await asyncio.sleep(0)
    # the next has its place, and has not run yet
    asyncio.get_running_loop().call_soon(speakers[1].cancel)
    await loop.run(*speakers)
    assert [name for name in loop.order if name != "s1"] == ["s0", "s2", "s3", "s4", "s5"]


async def test_when_all_that_wait_are_cancelled_the_next_does_not_wait(loop: Loop) -> None:
    accustomed(loop, 0.001)
    await rested(loop)
    speakers = [loop.start(f"s{n}", 0.001) for n in range(8)]
    await asyncio.sleep(0)
    for speaker in speakers:
        speaker.cancel()
    await asyncio.wait(speakers)
    await rested(loop)
    taken = loop.turns.take()
    with pytest.raises(StopIteration):
        taken.send(None)


async def test_work_that_fails_counts_as_work(loop: Loop) -> None:
    async def fails() -> None:
        await loop.turns.take()
        with loop.turns.measured():
            loop.clock.now += STRETCH_S
            raise RuntimeError("a speaker failed")

    with pytest.raises(RuntimeError, match="a speaker failed"):
        await fails()
    taken = loop.turns.take()
    taken.send(None)  # it waits
    await rested(loop)
    with pytest.raises(StopIteration):
        taken.send(None)


async def test_sockets_have_their_turn_between(loop: Loop) -> None:
    """What else the loop has to do is done at least once between two stretches of work."""
    accustomed(loop, 0.001)
    await rested(loop)
    others: list[int] = []

    def other() -> None:
        others.append(len(loop.done))
        if len(loop.done) < 20:
            asyncio.get_running_loop().call_soon(other)

    asyncio.get_running_loop().call_soon(other)
    await loop.run(*(loop.start(f"s{n}", 0.001) for n in range(20)))
    steps = [after - before for before, after in itertools.pairwise(others)]
    assert max(steps) <= 2
