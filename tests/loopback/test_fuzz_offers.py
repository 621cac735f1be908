"""Spoilt offers and candidates to new peers: each is answered or refused, and leaves nothing.

Where `test_peer_offers` looks for the smallest offer that fails, this one goes on for long,
and gives what was answered spoilt candidates too. ROOMSCRIBE_FUZZ_S is that of `test_fuzz`.
"""

import asyncio
import contextlib
import gc
import os
import random
import re
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from media.errors import BadOffer, RemoteMediaError
from media.peer import Peer
from tests.media.pages import Page, on_loopback

FUZZ_S = float(os.environ.get("ROOMSCRIBE_FUZZ_S", "60"))
CANDIDATE = "candidate:1467250027 1 udp 2122260223 127.0.0.1 46243 typ host generation 0"
WORDS = (
    *("", " ", "0", "-1", "1", "65535", "65536", "4294967296", "9" * 40, "x", "é", "\x00"),
    *("a=", "m=", "audio", "video", "application", "opus/48000/2", "opus/0/2", "G722/8000"),
    *("sendrecv", "inactive", "active", "passive", "holdconn", "sha-256", "BUNDLE", "UDP"),
    *("::1", "127.0.0.1", "0.0.0.0", "fe80::1%2", "host", "relay", "tcp", "useinbandfec=1"),
)


@pytest_asyncio.fixture(autouse=True)
async def loopback(caplog: pytest.LogCaptureFixture) -> AsyncIterator[None]:
    with on_loopback():
        yield
        gc.collect()  # a task that failed tells of it when it goes
    told = [r.getMessage() for r in caplog.get_records("call") if r.exc_info is not None]
    assert not told, f"{len(told)} faults, the first: {told[0]}"


def spoil_line(chance: random.Random, line: str) -> str:
    if chance.random() < 0.5:
        words = re.split(r"([ :/=;])", line)
        words[chance.randrange(len(words))] = chance.choice(WORDS)
        return "".join(words)
    start = chance.randrange(len(line) + 1)
    end = chance.randint(start, min(len(line), start + 6))
    return line[:start] + chance.choice(WORDS) + line[end:]


def spoil_lines(chance: random.Random, sdp: str) -> str:
    """The same after one to four accidents."""
    lines = sdp.split("\r\n")
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(lines))
        match chance.randrange(8):
            case 0 if len(lines) > 1:
                del lines[at]
            case 1:
                lines.insert(chance.randrange(len(lines)), lines[at])
            case 2:
                lines.insert(chance.randrange(len(lines)), lines.pop(at))
            case 3:
                lines[at:at] = lines[chance.randrange(len(lines)) :][:12]
            case _:
                lines[at] = spoil_line(chance, lines[at])
    return "\r\n".join(lines)


async def offers() -> list[str]:
    """Of audio alone, with a data channel, and with video and candidates beside it."""
    made = []
    for channel in (None, "captions"):
        page = Page(channel=channel)
        made.append(await page.offer())
        await page.connection.close()
    page = Page()
    page.connection.addTransceiver("video", direction="sendonly")
    made.append(await page.offer())
    await page.connection.close()
    return made


@pytest.mark.parametrize("seed", [1, 2])
async def test_spoilt_offers_and_candidates_are_taken_or_refused(seed: int) -> None:
    chance, loop = random.Random(seed), asyncio.get_running_loop()
    good, end = await offers(), loop.time() + FUZZ_S / 12
    while True:
        offer = spoil_lines(chance, chance.choice(good))
        try:
            await answered_or_refused(chance, offer)
        except Exception as error:
            raise AssertionError(f"raised by {offer!r}") from error
        if loop.time() > end:
            break


async def answered_or_refused(chance: random.Random, offer: str) -> None:
    """Anything but an answer or a refusal raises, at the offer or at a candidate."""
    peer = Peer()
    try:
        with contextlib.suppress(BadOffer):
            assert (await peer.answer(offer)).startswith("v=0")
        for _ in range(chance.randint(0, 4)):
            candidate = spoil_line(chance, CANDIDATE)
            with contextlib.suppress(RemoteMediaError):
                await peer.add_candidate(candidate, chance.choice((None, "0", "1", "x")))
        await asyncio.sleep(0)
    finally:
        await peer.close()
