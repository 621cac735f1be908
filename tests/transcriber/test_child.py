import asyncio
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
import uvloop

from tests.clients import until
from transcriber.child import WorkerChild
from transcriber.engines import EngineOptions
from transcriber.worker import EXIT_DEADLINE, EXIT_ENGINE, EXIT_OUT_OF_MEMORY

# Says how large its batches are, 16 unless it was told otherwise, and that this was too much.
OUT_OF_MEMORY = f"""
for option in "$@"; do
  case $option in --first-batch=*) size=${{option#*=}};; esac
done
[ $size = 0 ] && size=16
echo alive $size
exit {EXIT_OUT_OF_MEMORY}"""


class Played:
    """Workers that are scripts, one after another; what each was told."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._folder = folder
        self._script = folder / "worker"
        monkeypatch.setattr(sys, "executable", str(self._script))
        self.child = WorkerChild(EngineOptions("scripted"), hung_after_s=10.0)

    async def run(self, does: str) -> int:
        told = self._folder / "told"
        self._script.write_text(f'#!/bin/sh\necho "$@" > {told}\necho listening\n{does}\n')
        self._script.chmod(0o755)
        async with asyncio.timeout(60):
            return await self.child.run(self._folder / "s", b"key")

    @property
    def first_batch(self) -> int:
        """How large the last one's batches were to be at first."""
        options = (self._folder / "told").read_text().split()
        (of_batch,) = [option for option in options if option.startswith("--first-batch=")]
        return int(of_batch.partition("=")[2])


@pytest.fixture
def played(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Played:
    return Played(tmp_path, monkeypatch)


async def test_the_first_worker_has_batches_as_the_engine_sees_fit(played: Played) -> None:
    assert await played.run("exit 0") == 0
    assert played.first_batch == 0


def test_one_that_is_gone_before_it_has_its_key_has_ended(
    played: Played, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On uvloop, as in the product: it raises where a lost pipe is written to."""
    start = asyncio.create_subprocess_exec

    async def start_late(*command: Any, **options: Any) -> asyncio.subprocess.Process:
        process = await start(*command, **options)
        assert process.stdin is not None
        await process.wait()
        await until(process.stdin.is_closing)
        await asyncio.sleep(0)
        return process

    monkeypatch.setattr(asyncio, "create_subprocess_exec", start_late)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(played.run("exit 3")) == 3


async def test_after_one_that_ran_out_of_memory_batches_are_half_as_large(played: Played) -> None:
    sizes = []
    for _ in range(7):
        assert await played.run(OUT_OF_MEMORY) == EXIT_OUT_OF_MEMORY
        sizes.append(played.first_batch)
    # and never as the engine sees fit again: that was too much
    assert sizes == [0, 8, 4, 2, 1, 1, 1]


async def test_one_that_the_system_killed_took_too_much(played: Played) -> None:
    assert await played.run("echo alive 32; kill -9 $$") == -signal.SIGKILL
    await played.run("exit 0")
    assert played.first_batch == 16


async def test_after_one_that_was_too_slow_batches_are_half_as_large(played: Played) -> None:
    assert await played.run(f"echo alive 8; exit {EXIT_DEADLINE}") == EXIT_DEADLINE
    await played.run("exit 0")
    assert played.first_batch == 4


@pytest.mark.parametrize("code", [0, 1, EXIT_ENGINE])
async def test_any_other_end_leaves_batches_as_they_were(played: Played, code: int) -> None:
    assert await played.run(f"echo alive 16; exit {code}") == code
    await played.run("exit 0")
    assert played.first_batch == 16


async def test_batches_that_grew_again_are_halved_from_there(played: Played) -> None:
    await played.run("echo alive 16; exit 4")
    await played.run("echo alive 8; echo alive 16; echo alive 32; exit 4")
    await played.run("exit 0")
    assert played.first_batch == 16


async def test_one_that_ends_before_it_says_how_large_its_batches_are_changes_nothing(
    played: Played,
) -> None:
    await played.run("echo alive; exit 4")
    await played.run("echo alive many; exit 4")
    await played.run("exit 0")
    assert played.first_batch == 0


async def test_one_that_says_nothing_any_more_is_killed(tmp_path: Path, played: Played) -> None:
    played.child = WorkerChild(EngineOptions("scripted"), hung_after_s=0.1)
    assert await played.run("exec sleep 60") == -signal.SIGKILL
    assert played.child.pid is None


async def test_a_worker_is_told_the_deadline_and_every_option(
    tmp_path: Path, played: Played
) -> None:
    await played.run("exit 0")
    told = (tmp_path / "told").read_text()
    assert told.startswith(f"-P -m transcriber work --socket={tmp_path / 's'} --deadline-s=10.0")
    for option in ("--engine=scripted", "--auto-download=True", "--short-context-min-s=8.0"):
        assert option in told.split()


async def test_a_worker_does_not_know_the_secrets_of_its_server(
    tmp_path: Path, played: Played, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEDIA__TURN_SECRET", "hunter2")
    monkeypatch.setenv("OTHER", "told")
    await played.run(f"env > {tmp_path / 'env'}")
    known = (tmp_path / "env").read_text()
    assert "OTHER=told" in known
    assert "hunter2" not in known
