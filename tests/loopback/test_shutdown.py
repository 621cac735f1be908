"""The server as a process: started, told to stop, and started again on what it kept."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import numpy as np
import pytest

from tests.clients import Voice, joined, until, whip_speaker
from tests.speech import silence, tone

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Served:
    """`python -m server`, serving."""

    process: asyncio.subprocess.Process
    url: str

    def children(self) -> list[int]:
        pid = self.process.pid
        return [int(c) for c in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

    async def stop(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        async with asyncio.timeout(30):
            return await self.process.wait()

    async def log(self) -> list[dict[str, object]]:
        """The lines of the log, once the process has ended."""
        assert self.process.stderr is not None
        text = (await self.process.stderr.read()).decode()
        return [json.loads(line) for line in text.splitlines()]


@asynccontextmanager
async def served(folder: Path) -> AsyncIterator[Served]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "server",
        cwd=folder,
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "SERVER__PORT": "0",
            "MEDIA__HOST_ADDRESSES": "127.0.0.1",
            "TRANSCRIBER__ENGINE": "scripted",
            "TRANSCRIBER__VAD": "energy",
            "DATA_DIR": "said",
            # a machine that is busy elsewhere keeps nobody out
            "ADMISSION__MAX_CPU": "0",
            "ADMISSION__MAX_LOOP_LAG_MS": "10000",
        },
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        async with asyncio.timeout(20):
            line = (await process.stdout.readline()).decode()
        assert line.startswith("roomscribe serves at http://"), line
        server = Served(process, line.split()[-1])
        await until_ready(server)
        yield server
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def until_ready(server: Served) -> None:
    async with asyncio.timeout(20), aiohttp.ClientSession() as watcher:
        while (await watcher.get(f"{server.url}/readyz")).status != 200:  # noqa: ASYNC110
            await asyncio.sleep(0.05)


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def voice(seconds: float = 60.0) -> Voice:
    return Voice(np.concatenate([silence(0.3, 48_000), tone(seconds, 48_000)]))


async def test_told_to_stop_in_the_middle_of_a_sentence_it_still_sends_its_final(
    tmp_path: Path,
) -> None:
    async with served(tmp_path) as server:
        (worker,) = server.children()
        async with (
            joined(server.url, "standup", "Ada") as ada,
            joined(server.url, "standup", "Ben") as ben,
        ):
            await ada.speak(voice())
            said = await ben.wait_for(lambda m: bool(m["type"] == "caption" and m["stable"]))
            stopping = asyncio.create_task(server.stop())
            for reader in (ada, ben):
                final = await reader.wait_for_final("p1")
                assert final["stable"].startswith(said["stable"])
                assert len(final["stable"].split()) >= 2
            for reader in (ada, ben):
                await reader.wait_for(lambda m: m == {"type": "bye", "reason": "shutdown"})
                async with asyncio.timeout(30):
                    await reader.is_closed.wait()
            assert await stopping == 0
        assert not is_alive(worker)
        said_in_log = await server.log()
        assert "shutting down" in [line["message"] for line in said_in_log]
        assert not any("error" in line for line in said_in_log), said_in_log
        # never a transcript or a name
        assert "Ada" not in json.dumps(said_in_log)
        assert final["stable"] not in json.dumps(said_in_log)

    # what was said is there when it serves again
    async with served(tmp_path) as server, aiohttp.ClientSession() as browser:
        answer = await browser.get(f"{server.url}/api/v1/rooms/standup/transcript.json")
        transcript = await answer.json()
        assert [segment["text"] for segment in transcript["segments"]] == [final["stable"]]
        assert transcript["ended_at"] is not None
        assert [p["name"] for p in transcript["participants"]] == ["Ada", "Ben"]
        rooms = await (await browser.get(f"{server.url}/api/v1/rooms")).json()
        (room,) = rooms["rooms"]
        assert (room["room"], room["segments"]) == ("standup", 1)
        answer = await browser.get(f"{server.url}/api/v1/rooms/standup/transcript.txt")
        assert final["stable"] in await answer.text()
        assert await server.stop() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
async def test_with_nobody_there_it_stops_at_once_and_cleanly(tmp_path: Path, number: int) -> None:
    async with served(tmp_path) as server:
        (worker,) = server.children()
        began = asyncio.get_running_loop().time()
        assert await server.stop(number) == 0
        assert asyncio.get_running_loop().time() - began < 5
        assert not is_alive(worker)


async def test_those_who_only_read_or_only_send_do_not_hold_it_up(tmp_path: Path) -> None:
    async with served(tmp_path) as server:
        (worker,) = server.children()
        async with (
            whip_speaker(server.url, voice()) as speaker,
            aiohttp.ClientSession() as browser,
        ):
            response = await speaker.post("standup", await speaker.make_offer())
            assert response.status == 201
            path = f"{server.url}/api/v1/rooms/standup/captions"
            async with browser.get(path, headers={"Last-Event-ID": "0"}) as stream:
                async with asyncio.timeout(30):
                    await stream.content.readuntil(b'"final":false')
                stopping = asyncio.create_task(server.stop())
                async with asyncio.timeout(30):
                    rest = await stream.content.read()
                assert b'"final":true' in rest
                assert rest.endswith(b'event: bye\ndata: {"reason":"shutdown"}\n\n')
            assert await stopping == 0
        assert not is_alive(worker)


@pytest.mark.slow
async def test_a_server_whose_worker_is_hung_stops_all_the_same(tmp_path: Path) -> None:
    async with served(tmp_path) as server:
        (worker,) = server.children()
        async with joined(server.url, "standup", "Ada") as ada:
            await ada.speak(voice())
            await ada.wait_for(lambda m: bool(m["type"] == "caption"))
            os.kill(worker, signal.SIGSTOP)
            assert await server.stop() == 0
        assert not is_alive(worker)


@pytest.mark.slow
async def test_after_a_kill_the_room_is_ended_and_its_finals_are_there(tmp_path: Path) -> None:
    async with served(tmp_path) as server:
        workers = server.children()
        async with joined(server.url, "standup", "Ada") as ada:
            await ada.speak(Voice(np.concatenate([tone(1.2, 48_000), silence(5, 48_000)])))
            final = await ada.wait_for_final()
            await asyncio.sleep(2.0)  # at most 2 s may be lost
            assert await server.stop(signal.SIGKILL) == -signal.SIGKILL
        await until(lambda: not any(is_alive(worker) for worker in workers))
    async with served(tmp_path) as server, aiohttp.ClientSession() as browser:
        answer = await browser.get(f"{server.url}/api/v1/rooms/standup/transcript.json")
        transcript = await answer.json()
        assert [segment["text"] for segment in transcript["segments"]] == [final["stable"]]
        assert transcript["ended_at"] is not None
        assert await server.stop() == 0
