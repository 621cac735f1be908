"""A short run with a call on the real Janus and signaling server."""

import itertools
import json
import re
from pathlib import Path

import pytest

from soak.calls import lengths_of
from soak.folder import Folder
from soak.scenario import TalkCalls
from tests.soak.cli import said_by, soak
from tests.talk.stack import skip_without_talk

pytestmark = [pytest.mark.slow, pytest.mark.talk, pytest.mark.timeout(180)]

SCENARIO = """
title = "A call that begins anew"
rooms = 1
speakers = 1
talkers = 1.0
listeners = 0
warm_up = "2s"
[limits]
memory_slope_mb_per_h = 0
[calls]
count = 1
speakers = 2
length = "10s"
[server]
TRANSCRIBER__ENGINE = "scripted"
TRANSCRIBER__VAD = "energy"
ROOMS__LINGER_S = "1"
"""


def test_calls_do_not_end_together() -> None:
    wanted = TalkCalls(count=4, length=100.0)
    ends = [set(itertools.accumulate(itertools.islice(lengths_of(n, wanted), 9))) for n in range(4)]
    assert len(set().union(*ends)) == 4 * 9
    assert all(min(end) >= 50 for end in ends)


async def test_what_a_call_was_told_is_in_the_report(tmp_path: Path) -> None:
    skip_without_talk()
    scenario, folder = tmp_path / "call.toml", tmp_path / "run"
    scenario.write_text(SCENARIO)
    process = await soak(scenario, "--for", "25s", "--out", folder)
    said = await said_by(process)
    assert process.returncode == 0, said
    found = re.search(
        r"✓ finals, to each in a call once: (\d+) delivered, 0 missing, 0 twice", said
    )
    assert found is not None, said
    told = json.loads((folder / "report.json").read_text())
    assert told["figures"]["delivered_in_calls"] > 0
    last = json.loads((folder / "samples.jsonl").read_text().splitlines()[-1])
    assert last["doing"]["calls"] >= 2
    assert last["doing"]["calls_failed"] == 0
    # two who read each final of the room, to the last
    (end,) = Folder(folder).ends()
    in_calls = end.after.in_calls
    assert in_calls.delivered == int(found[1])
    assert in_calls.delivered >= 2 * (in_calls.finals - 2)
