"""Links that let in, the owner's buttons, and what a page says where it may not come in."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from server.tokens import issue
from signaling.grant import Grant, Right
from tests.browser.conftest import NewPerson, Person, ServerProcess, served
from tests.browser.test_room_page import microphone, until
from tests.speech import OPEN_THE_MEETING

pytestmark = pytest.mark.slow

SECRET = "a secret of thirty-two characters"


@asynccontextmanager
async def guarded(tmp_path: Path, **environment: str) -> AsyncIterator[ServerProcess]:
    async with served(
        tmp_path,
        "127.0.0.1",
        0,
        AUTH__SECRET=SECRET,
        TRANSCRIBER__ENGINE="pocketsphinx",
        **environment,
    ) as server:
        yield server


def link(url: str, *may: Right, name: str | None = None, room: str = "standup") -> str:
    token = issue(SECRET, Grant(room, frozenset(may), name), time.time() + 300)
    return f"{url}/r/{room}#token={token}" if room != "*" else f"{url}/#token={token}"


SPEAK = (Right.PUBLISH, Right.LISTEN)


async def enter(person: Person, address: str, name: str, *, listen: bool = False) -> None:
    await person.page.goto(address)
    await person.page.fill("#name", name)
    await person.page.click("#join-listen" if listen else "#join-mic")
    await person.page.wait_for_selector('#status[data-state="connected"]')
    if not listen:
        await person.page.wait_for_selector('html[data-media="open"]', state="attached")


async def says(person: Person, selector: str, text: str) -> None:
    """Wait until it does."""
    await person.page.wait_for_selector(f'{selector}:has-text("{text}")')


async def text_of(person: Person, selector: str) -> str:
    return str(await person.page.text_content(selector))


async def test_a_link_lets_in_and_leaves_the_address_bar(person: NewPerson, tmp_path: Path) -> None:
    async with (
        guarded(tmp_path) as server,
        person(microphone(tmp_path, OPEN_THE_MEETING)) as ada,
    ):
        page = ada.page
        await page.goto(link(server.url, *SPEAK, name="Desk 4"))
        assert page.url == f"{server.url}/r/standup"
        assert await page.input_value("#name") == "Desk 4"
        assert not await page.is_editable("#name")
        await page.click("#join-mic")
        await page.wait_for_selector('html[data-media="open"]', state="attached")

        async def has_final() -> bool:
            return bool(await ada.finals())

        await until(has_final)
        async with page.expect_download() as downloading:
            await page.click("#download-txt")
        download = await downloading.value
        await download.save_as(tmp_path / "said.txt")
        assert "Desk 4" in (tmp_path / "said.txt").read_text(encoding="utf-8")
        assert download.suggested_filename == "standup.txt"

        # a reload finds the token again, and the seat
        participant = await ada.participant()
        await page.reload()
        await page.click("#join-mic")
        await page.wait_for_selector('html[data-media="open"]', state="attached")
        assert await ada.participant() == participant
        assert not ada.problems


async def test_without_a_link_one_is_told_so(person: NewPerson, tmp_path: Path) -> None:
    async with guarded(tmp_path) as server, person() as eve:
        await eve.page.goto(server.url)
        await says(eve, "#rooms-note", "has a link")
        await eve.page.goto(f"{server.url}/r/standup?name=Eve")
        await says(eve, "#who", "Ask whoever invited you")
        await eve.page.click("#join-listen")
        notice = await eve.page.wait_for_selector('.notice[data-code="ended"]')
        assert notice is not None
        assert "a link or a token" in str(await notice.text_content())
        # the same page, with a link after all
        await eve.page.goto(link(server.url, Right.LISTEN))
        await says(eve, "#who", "Nobody is here yet.")


async def test_a_link_for_every_room_shows_them_all(person: NewPerson, tmp_path: Path) -> None:
    async with guarded(tmp_path) as server, person() as ada, person() as ben:
        await enter(ada, link(server.url, *SPEAK), "Ada", listen=True)
        await ben.page.goto(link(server.url, *SPEAK, room="*"))
        await ben.page.click('#rooms [data-room="standup"] a')
        await says(ben, "#who", "In the room: Ada.")


async def test_who_may_only_read_is_offered_no_microphone(
    person: NewPerson, tmp_path: Path
) -> None:
    async with guarded(tmp_path) as server, person() as ada:
        await enter(ada, link(server.url, Right.LISTEN), "Ada", listen=True)
        for button in ("#enable-mic", "#join-mic"):
            assert not await ada.page.is_visible(button)
        assert not ada.problems


async def test_the_owner_mutes_removes_locks_and_ends(person: NewPerson, tmp_path: Path) -> None:
    wav = microphone(tmp_path, OPEN_THE_MEETING)
    async with guarded(tmp_path) as server, person(wav) as olga, person(wav) as ben:
        await enter(ben, link(server.url, *SPEAK), "Ben")
        await enter(olga, link(server.url, Right.ADMIN), "Olga", listen=True)
        row = f'#roster [data-participant="{await ben.participant()}"]'
        own = f'#roster [data-participant="{await olga.participant()}"]'
        assert not await ben.page.query_selector(".acts")
        assert not await ben.page.is_visible("#owner")
        assert not await olga.page.query_selector(f"{own} .acts")

        await olga.page.click(f"{row} >> text=Mute")
        await ben.page.wait_for_selector("#mute:disabled")
        assert "has muted you" in await text_of(ben, "#mic-note")
        await olga.page.screenshot(path=str(tmp_path / "owner.png"))
        await olga.page.click(f"{row} >> text=Let speak")
        await ben.page.wait_for_selector("#mute:enabled")
        await ben.page.click("#mute")
        await olga.page.wait_for_selector(f'{row}[data-muted="false"]')

        await olga.page.click("#lock-room")
        await olga.page.wait_for_selector('#lock-room[aria-pressed="true"]')
        async with person() as eve:
            await eve.page.goto(link(server.url, *SPEAK))
            await eve.page.fill("#name", "Eve")
            await eve.page.click("#join-listen")
            notice = await eve.page.wait_for_selector(".notice")
            assert notice is not None
            assert "locked this room" in str(await notice.text_content())

        await olga.page.click(f"{row} >> text=Remove")
        await ben.page.wait_for_selector('#status[data-state="closed"]')
        assert "has removed you" in await text_of(ben, "#notices")
        await ben.page.click("#join-listen")
        await says(ben, "#notices", "has removed you from")

        await olga.page.click("#end-room")
        assert await text_of(olga, "#end-room") == "Really end?"
        await olga.page.click("#end-room")
        await olga.page.wait_for_selector('#status[data-state="closed"]')
        assert "ended the meeting" in await text_of(olga, "#notices")
        assert not olga.problems
