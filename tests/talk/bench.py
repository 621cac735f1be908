"""`python -m tests.talk.bench`: how soon a call's participant reads, and what a speaker costs.

Real Janus and signaling server, the server as a process of its own, speakers who say sentences of
the small Whisper's words. Prints from a speaker's first word to the first caption at the listener,
and the server's private memory for each speaker in the call.
"""

import argparse
import asyncio
import os
import sys
import tempfile
from contextlib import AsyncExitStack
from pathlib import Path

import aiohttp
import numpy as np

from media.sockets import MediaLoop
from soak.talk.participant import Participant, participant
from soak.talk.stack import TalkStack, talk_stack
from tests.speech import Samples, resampled, silence
from tests.tiny import MODEL, say
from tools.tiny_whisper.words import distinct_sentences

_ROOM, _RATE = "bench", 48_000
_VOICES = ("slt", "rms", "awb", "kal16", "en-us")
_PAUSE_S, _LEAD_S = 1.5, 1.0
_SETTLE_S = 3.0


class Script:
    """What one speaker says, and when each sentence's first word begins, in seconds."""

    def __init__(self, number: int, sentences: int) -> None:
        self.begins_s: list[float] = []
        pieces: list[Samples] = [silence(_LEAD_S + 0.3 * number, _RATE)]
        at_s = len(pieces[0]) / _RATE
        texts = distinct_sentences((number + 1) * sentences, 2, "en")[-sentences:]
        for text in texts:
            said = say(text, _VOICES[number % len(_VOICES)])
            self.begins_s.append(at_s + said.spans[0][0] / 16_000)
            pieces += [resampled(said.samples, 16_000, _RATE), silence(_PAUSE_S, _RATE)]
            at_s += (len(pieces[-2]) + len(pieces[-1])) / _RATE
        self.samples = np.concatenate(pieces)
        self.ends_s = at_s


def _private_mb(pid: int) -> float:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines()
    private = [int(line.split()[1]) for line in lines if line.startswith("Private_")]
    return sum(private) / 1024


async def _server(stack: TalkStack, folder: Path) -> tuple[asyncio.subprocess.Process, str]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "server"),
        stdout=asyncio.subprocess.PIPE,
        env={
            **os.environ,
            "SERVER__PORT": "0",
            "SERVER__LOG_LEVEL": "warning",
            "DATA_DIR": str(folder / "data"),
            "TRANSCRIBER__ENGINE": "whisper",
            "TRANSCRIBER__MODEL": str(MODEL),
            "TRANSCRIBER__AUTO_DOWNLOAD": "false",
            "ADMISSION__MAX_CPU": "0",
            "ADMISSION__MAX_LOOP_LAG_MS": "10000",
            **stack.environment,
        },
    )
    assert process.stdout is not None
    url = (await process.stdout.readline()).decode().split()[-1]
    async with aiohttp.ClientSession() as http, asyncio.timeout(60):
        while (await http.get(f"{url}/readyz")).status != 200:  # noqa: ASYNC110
            await asyncio.sleep(0.2)
    return process, url


async def _measure(speakers: int, sentences: int, folder: Path) -> None:
    scripts = [Script(n, sentences) for n in range(speakers)]
    async with talk_stack(folder) as stack, AsyncExitStack() as people:
        process, url = await _server(stack, folder)
        try:
            reader = await people.enter_async_context(participant(stack, _ROOM, "Reader"))
            await reader.enter_call(1)
            async with aiohttp.ClientSession() as http:
                asked = {"roomToken": _ROOM, "ncSessionId": reader.talk.nc_session}
                answer = await http.post(f"{url}/api/v1/call/transcribe", json=asked)
                assert answer.status == 200, await answer.text()
            before = 0.0
            talking: list[Participant] = []
            for n, script in enumerate(scripts):
                someone = await people.enter_async_context(participant(stack, _ROOM, f"P{n}"))
                await someone.speak(script.samples)
                talking.append(someone)
                if len(talking) == speakers // 2:
                    # with the first of them comes what every later one shares
                    await asyncio.sleep(_SETTLE_S)
                    before = _private_mb(process.pid)
            await asyncio.sleep(max(s.ends_s for s in scripts) + _SETTLE_S)
            late = [d for p, s in zip(talking, scripts, strict=True) for d in _late(reader, p, s)]
            each = (_private_mb(process.pid) - before) / (speakers - speakers // 2)
        finally:
            process.terminate()
            await process.wait()
    median, most = np.quantile(late, [0.5, 0.95])
    print(  # noqa: T201
        f"{speakers} speakers, {len(late)} of {speakers * sentences} sentences: first word to "
        f"first caption {median:.2f} s, 95th percentile {most:.2f} s; {each:.2f} MB each"
    )


def _late(reader: Participant, speaker: Participant, script: Script) -> list[float]:
    """For each sentence, from its first word to its first caption."""
    assert speaker.voice is not None
    assert speaker.voice.began_at is not None
    began = speaker.voice.began_at
    told = [t.at for t in reader.transcripts if t.speaker_session == speaker.session]
    late = []
    for begin_s, next_s in zip(script.begins_s, [*script.begins_s[1:], 1e9], strict=True):
        of_it = [at for at in told if began + begin_s <= at < began + next_s]
        if of_it:
            late.append(of_it[0] - began - begin_s)
    return late


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.talk.bench", description=__doc__)
    parser.add_argument("--speakers", type=int, default=8)
    parser.add_argument("--sentences", type=int, default=6)
    given = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as folder,
        asyncio.Runner(loop_factory=MediaLoop) as runner,
    ):
        runner.run(_measure(given.speakers, given.sentences, Path(folder)))


if __name__ == "__main__":
    main()
