"""Whole rooms in one process: real peers, the wire, the scripted engine."""

import numpy as np

from server.app import Running
from tests.clients import Voice, joined
from tests.speech import silence, tone
from transcriber.engines.scripted import WORDS


async def test_everyone_in_a_room_reads_who_said_what(server: Running) -> None:
    said = np.concatenate([silence(0.5, 48_000), tone(2.5, 48_000), silence(0.2, 48_000)])
    async with (
        joined(server.url, "standup", "Ada") as ada,
        joined(server.url, "standup", "Ben") as ben,
    ):
        await ada.speak(Voice(said))
        heard_by_ada = await ada.wait_for_final(ada.participant)
        heard_by_ben = await ben.wait_for_final(ada.participant)

    assert heard_by_ada == heard_by_ben
    assert heard_by_ben["name"] == "Ada"
    words = heard_by_ben["stable"].split()
    assert len(words) >= 3
    assert all(word in WORDS for word in words)
