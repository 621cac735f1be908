"""A browser that loses its network, and a server that goes away: people come back."""

import asyncio
import socket
from pathlib import Path

import pytest

from tests.browser.conftest import Network, NewPerson, Person, served
from tests.browser.test_room_page import microphone, until
from tests.speech import OPEN_THE_MEETING

pytestmark = pytest.mark.slow

OFFLINE_S = 10


async def test_after_ten_seconds_offline_one_is_the_same_participant_and_missed_nothing(
    person: NewPerson, network: Network, tmp_path: Path
) -> None:
    sound = microphone(tmp_path, OPEN_THE_MEETING)
    host = network.server_address
    async with served(
        tmp_path,
        host,
        AUTH__OPEN_TO_EVERYONE="true",
        MEDIA__HOST_ADDRESSES=host,
        TRANSCRIBER__ENGINE="pocketsphinx",
    ) as server:
        # a microphone is given to secure pages only, and this address has no certificate
        trusted = (f"--unsafely-treat-insecure-origin-as-secure={server.url}",)
        async with (
            person(sound, executable=network.executable, flags=trusted) as ada,
            person(sound, flags=trusted) as ben,
        ):
            await ada.join(server.url, "standup", "Ada")
            await ben.join(server.url, "standup", "Ben")
            before, ben_id = await ada.participant(), await ben.participant()
            await until(lambda: _has(ada, ben_id, 1))

            network.cut()
            await ada.page.wait_for_selector(
                '#status:not([data-state="connected"])', timeout=30_000
            )
            heard_offline = len(await ben.finals(ben_id))
            await asyncio.sleep(OFFLINE_S)
            network.mend()
            await until(lambda: _has(ben, ben_id, heard_offline + 1))

            await ada.page.wait_for_selector('#status[data-state="connected"]', timeout=30_000)
            said = await _segments_of(ben, ben_id)
            await until(lambda: _shows(ada, said))
            assert await ada.participant() == before
            assert await ada.page.locator("#roster li[data-participant]").count() == 2

            # and is heard again
            heard = len(await ben.finals(before))
            await until(lambda: _has(ben, before, heard + 1))


async def test_after_a_restart_of_the_server_the_page_comes_back_by_itself(
    person: NewPerson, tmp_path: Path
) -> None:
    sound = microphone(tmp_path, OPEN_THE_MEETING)
    port = _free_port()
    async with person(sound) as ada:
        async with served(tmp_path, port=port, TRANSCRIBER__ENGINE="pocketsphinx") as server:
            await ada.join(server.url, "standup", "Ada")
            await until(lambda: _has(ada, None, 1))
        await ada.page.wait_for_selector('#status[data-state="reconnecting"]')
        kept = len(await ada.finals())
        async with served(tmp_path, port=port, TRANSCRIBER__ENGINE="pocketsphinx"):
            await ada.page.wait_for_selector('#status[data-state="connected"]', timeout=60_000)
            await until(lambda: _has(ada, None, kept + 1))


async def _has(who: Person, participant: str | None, count: int) -> bool:
    return len(await who.finals(participant)) >= count


async def _segments_of(who: Person, participant: str) -> set[str]:
    return {s for s in await who.segments() if s.startswith(f"{participant}-")}


async def _shows(who: Person, segments: set[str]) -> bool:
    return segments <= set(await who.segments())


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
