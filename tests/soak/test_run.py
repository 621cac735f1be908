"""A whole run, short: from the command line to the report."""

import asyncio
import json
import os
import re
import signal
import time
from pathlib import Path

import pytest

from server.app import Running
from server.config import Settings
from server.settings import AuthSettings, RoomSettings
from server.tokens import issue
from signaling.grant import EVERY_ROOM, Grant, Right
from soak.folder import Folder
from soak.scenario import load_scenario
from tests.clients import until
from tests.soak.builders import sample
from tests.soak.cli import said_by, soak

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

SECRET = "a secret of thirty-two characters"
SCENARIO = """
title = "Some <b>people</b> for some seconds"
rooms = 2
speakers = 4
joins_per_minute = 30
abrupt = 0.0
listeners = 2
warm_up = "2s"
[faults]
worker_kills_per_hour = 450
[limits]
memory_slope_mb_per_h = 0
[server]
TRANSCRIBER__ENGINE = "scripted"
TRANSCRIBER__VAD = "energy"
ROOMS__LINGER_S = "1"
"""


@pytest.fixture
def scenario(tmp_path: Path) -> Path:
    file = tmp_path / "some.toml"
    file.write_text(SCENARIO)
    return file


async def test_a_run_ends_with_a_report_and_its_verdict(scenario: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    process = await soak(scenario, "--for", "12s", "--out", folder)
    said = await said_by(process)
    assert process.returncode == 0, said
    assert "✓ finals, to each listener once" in said
    told = json.loads((folder / "report.json").read_text())
    assert told["passed"] is True
    assert [event["what"] for event in told["events"]] == ["worker killed"]
    assert told["figures"]["delivered"] > 0
    page = (folder / "report.html").read_text()
    assert "&lt;b&gt;people" in page
    assert page.count("<svg") == 1
    # no host is needed to look at it: names of XML alone look like addresses
    loaded = re.findall(r'(?:src|href)="(?!#)([^"]+)"', page)
    assert loaded == []


def has_ended(pid: int) -> bool:
    """Also where nobody asks how."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return True
    return "State:\tZ" in status


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
async def test_what_was_interrupted_does_not_pass_and_goes_on_where_it_was(
    number: signal.Signals, scenario: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    process = await soak(scenario, "--for", "20s", "--out", folder)
    samples = folder / "samples.jsonl"
    await until(lambda: samples.is_file() and len(samples.read_text().splitlines()) > 1, 60.0)
    server = json.loads(samples.read_text().splitlines()[-1])["server_pid"]
    process.send_signal(number)
    said = await said_by(process)
    if number is signal.SIGINT:
        assert process.returncode == 1, said
        assert "? length of the run" in said
    # where the run was killed, its server is not left alone with the folder
    await until(lambda: has_ended(server), 60.0)
    again = await soak("--resume", folder)
    said = await said_by(again)
    assert again.returncode == 0, said
    parts = [json.loads(line)["part"] for line in samples.read_text().splitlines()]
    assert set(parts) == {0, 1}
    times = [json.loads(line)["at"] for line in samples.read_text().splitlines()]
    assert times == sorted(times)
    assert times[-1] <= 21


@pytest.fixture
def settings(settings: Settings) -> Settings:
    auth, rooms = AuthSettings(secret=SECRET), RoomSettings(linger_s=1)
    return settings.model_copy(update={"auth": auth, "rooms": rooms})


def token(*may: Right) -> str:
    return issue(SECRET, Grant(EVERY_ROOM, frozenset(may)), time.time() + 3600)


async def test_pages_that_are_not_let_in_fail_the_run(scenario: Path, tmp_path: Path) -> None:
    full = 'LIMITS__PARTICIPANTS_PER_ROOM = "2"\n'
    # nobody leaves, so that there is no place for a page
    await asyncio.to_thread(
        scenario.write_text, SCENARIO.replace("per_minute = 30", "per_minute = 0") + full
    )
    process = await soak(scenario, "--for", "8s", "--out", tmp_path / "run")
    said = await said_by(process)
    assert process.returncode == 1, said
    assert "✗ listeners let in: 2 (4)" in said


async def test_a_part_that_ended_before_it_saw_anything_has_a_number_of_its_own(
    tmp_path: Path,
) -> None:
    folder = Folder(tmp_path / "run")
    folder.begin(load_scenario("short"), 60.0, None, memray=False)
    assert [folder.begin_part([]), folder.begin_part([])] == [0, 1]
    assert folder.begin_part([sample(5.0, part=4)]) == 5


async def test_a_server_elsewhere_is_judged_by_what_it_says(
    server: Running, scenario: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    given = token(Right.PUBLISH, Right.LISTEN)
    arguments = (scenario, "--for", "10s", "--url", server.url, "--out", folder)
    process = await soak(*arguments, SOAK_TOKEN=given)
    said = await said_by(process)
    assert process.returncode == 0, said
    assert all(given not in file.read_text() for file in folder.glob("*.*"))
    sample = json.loads((folder / "samples.jsonl").read_text().splitlines()[-1])
    assert sample["server_mb"] > 10
    assert sample["worker_mb"] is None
    assert (folder / "events.jsonl").exists() is False


async def test_a_server_that_dies_is_said(scenario: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    process = await soak(scenario, "--for", "60s", "--out", folder)
    samples = folder / "samples.jsonl"
    await until(lambda: samples.is_file() and len(samples.read_text().splitlines()) > 1, 60.0)
    server = json.loads(samples.read_text().splitlines()[-1])["server_pid"]
    os.kill(server, signal.SIGKILL)
    said = await said_by(process)
    assert process.returncode == 1, said
    assert "✗ the server ended by itself: 1 times" in said


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("nonesuch",), "is neither a file nor one of: calls, day, short"),
        (("--for", "soon"), "is no duration such as"),
        (("--resume", "/nonexistent"), "No such file"),
        (("--resume", "/nonexistent", "--for", "1h"), "goes on with the run as it began"),
        (("day", "--resume", "/nonexistent"), "goes on with the run as it began"),
        (("report", "/nonexistent"), "is no run"),
        (("--url", "http://127.0.0.1:1"), "http://127.0.0.1:1 does not answer: "),
        (("--url", "http://127.0.0.1:1", "--memray"), "needs a server that the soak starts"),
        (("calls", "--url", "http://127.0.0.1:1"), "calls need a server that the soak starts"),
    ],
)
async def test_what_cannot_be_done_is_one_line(arguments: tuple[str, ...], said: str) -> None:
    process = await soak(*arguments)
    told = await said_by(process)
    assert process.returncode == 2
    assert said in told
    assert "Traceback" not in told


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ("", "answers 401 Unauthorized; it wants a token for every room: --token or SOAK_TOKEN"),
        (token(Right.PUBLISH), "answers 403 Forbidden; it wants a token"),
        (token(Right.LISTEN), "the first speaker could not join: the server answered 403"),
    ],
)
async def test_doors_that_stay_shut_are_one_line(
    server: Running, tmp_path: Path, given: str, why: str
) -> None:
    process = await soak("--url", server.url, "--token", given, "--out", tmp_path / "run")
    told = await said_by(process)
    assert process.returncode == 2
    assert why in told.splitlines()[-1]
    assert "Traceback" not in told


async def test_calls_without_the_servers_behind_them_are_one_line(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    process = await soak("calls", "--out", folder, PATH="/nonexistent")
    told = await said_by(process)
    assert process.returncode == 2
    assert told == "soak: calls of Talk: janus is not installed\n"
    assert not folder.exists()
