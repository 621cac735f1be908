"""A process that stores finals until it is killed: `python store_speaker.py FILE`.

Each line on stdout is a final that was recorded: its room, its seq, and the monotonic time after.
"""

import asyncio
import itertools
import sys
import time
import uuid
from pathlib import Path

from server.store import RoomRecord, Store
from transcriber.transcript import TranscriptSegment, TranscriptWord

PACE_S = 0.002


async def speak(path: Path) -> None:
    room_id = uuid.uuid4().hex
    async with Store.open(path) as store, asyncio.TaskGroup() as tasks:
        tasks.create_task(store.run())
        store.room_started(RoomRecord(room_id, room_id, time.time(), "en"))
        store.participant_joined(room_id, "p1", "Ada", time.time())
        for seq in itertools.count():
            store.segment(room_id, seq, sentence(seq))
            print(room_id, seq, time.monotonic(), flush=True)  # noqa: T201
            await asyncio.sleep(PACE_S)


def sentence(seq: int) -> TranscriptSegment:
    words = tuple(TranscriptWord(f"word{n}", seq, seq + 0.5, 0.9) for n in range(12))
    text = " ".join(word.word for word in words)
    return TranscriptSegment(f"p1-{seq}", "p1", "Ada", seq, seq + 1.0, text, "en", words, seq)


if __name__ == "__main__":
    asyncio.run(speak(Path(sys.argv[1])))
