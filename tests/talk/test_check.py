"""`python -m server talk-check` against the real servers."""

from dataclasses import replace
from pathlib import Path

import pytest

from server.settings import TalkSettings
from server.talk_bot import ice_servers_of
from server.talk_check import check
from soak.talk.participant import participant
from soak.talk.stack import TalkStack
from tests.talk.conftest import settings_for

ROOM = "abc123xy"


async def told(settings: TalkSettings, room: str | None = None) -> tuple[bool, list[str]]:
    lines: list[str] = []
    works = await check(settings, room, lines.append)
    return works, lines


async def test_settings_that_work_are_said_to(stack: TalkStack, tmp_path: Path) -> None:
    settings = settings_for(stack, tmp_path).talk
    works, lines = await told(settings)
    assert works
    assert lines.count("  ok") == 3
    assert "--room" in lines[-1]
    async with participant(stack, ROOM, "Ada"):
        works, lines = await told(settings, ROOM)
    assert works
    assert lines.count("  ok") == 4


async def test_each_fault_has_its_hint(stack: TalkStack, tmp_path: Path) -> None:
    right = settings_for(stack, tmp_path).talk
    faults = {
        "LT_HPB_URL is not set": replace(right, lt_hpb_url=""),
        "LT_INTERNAL_SECRET is not set": replace(right, lt_internal_secret=""),
        "NEXTCLOUD_URL is not set": replace(right, nextcloud_url=""),
        "cannot be reached": replace(right, lt_hpb_url="http://127.0.0.1:9"),
        "is not a signaling server's address": replace(right, lt_hpb_url=stack.backend_url),
        "LT_INTERNAL_SECRET is not the server's": replace(right, lt_internal_secret="wrong"),
        "NEXTCLOUD_URL is none of": replace(right, nextcloud_url="https://elsewhere.example"),
    }
    for hint, settings in faults.items():
        works, lines = await told(settings)
        assert not works
        assert hint in lines[-1], lines


@pytest.mark.parametrize("secret", ["", "s3cret"])
async def test_no_secret_is_said(stack: TalkStack, tmp_path: Path, secret: str) -> None:
    settings = replace(settings_for(stack, tmp_path).talk, lt_internal_secret=secret)
    _, lines = await told(settings)
    assert not secret or all(secret not in line for line in lines)


def test_ice_servers_come_from_talks_settings_and_bad_ones_do_not() -> None:
    found = ice_servers_of(
        {
            "stunservers": [{"urls": ["stun:stun.example:3478"]}, {"urls": ["http://no"]}],
            "turnservers": [
                {
                    "urls": ["turn:turn.example:3478?transport=udp", "nonsense"],
                    "username": "1:a",
                    "credential": "c",
                }
            ],
        }
    )
    assert [s.urls for s in found] == [
        ("stun:stun.example:3478",),
        ("turn:turn.example:3478?transport=udp",),
    ]
    assert (found[1].username, found[1].credential) == ("1:a", "c")
    assert ice_servers_of({}) == ()
