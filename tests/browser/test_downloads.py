"""The download buttons give files that players take."""

import json
import re
from pathlib import Path

import pytest

from tests.browser.conftest import NewPerson, ServerProcess
from tests.browser.test_room_page import microphone, until
from tests.speech import OPEN_THE_MEETING, words_right

pytestmark = pytest.mark.slow

_SRT_TIME = r"\d\d:\d\d:\d\d,\d{3}"
_VTT_TIME = r"(?:\d\d:)?\d\d:\d\d\.\d{3}"


async def test_the_downloads_are_valid_and_hold_what_was_said(
    server: ServerProcess, person: NewPerson, tmp_path: Path
) -> None:
    async with person(microphone(tmp_path, OPEN_THE_MEETING)) as ada:
        await ada.join(server.url, "standup", "Ada")

        async def has_said_it() -> bool:
            return any(words_right(t, OPEN_THE_MEETING) >= 0.9 for t in await ada.finals())

        await until(has_said_it)
        files = {}
        for kind in ("txt", "srt", "vtt", "json"):
            async with ada.page.expect_download() as waiting:
                await ada.page.click(f"#download-{kind}")
            download = await waiting.value
            assert download.suggested_filename == f"standup.{kind}"
            files[kind] = _read(await download.path())

    for kind, text in files.items():
        assert "agenda for today" in text, kind
    assert "Ada" in files["txt"]
    for number, cue in enumerate(_blocks(files["srt"]), start=1):
        head, times, *lines = cue
        assert head == str(number)
        assert re.fullmatch(f"{_SRT_TIME} --> {_SRT_TIME}", times)
        assert lines
        assert lines[0].startswith("Ada: ")
    first, *cues = _blocks(files["vtt"])
    assert first[0] == "WEBVTT"
    for cue in cues:
        assert re.fullmatch(f"{_VTT_TIME} --> {_VTT_TIME}", cue[0])
        assert cue[1].startswith("<v Ada>")
    transcript = json.loads(files["json"])
    assert transcript["version"] == 1
    assert transcript["room"] == "standup"
    assert transcript["segments"][0]["words"]


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def _blocks(text: str) -> list[list[str]]:
    return [block.splitlines() for block in re.split(r"\n\n+", text.strip())]
