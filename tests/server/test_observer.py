"""What is measured each second, and what where nothing can be."""

import asyncio
import errno
import logging

import pytest

from server import machine, observer
from server.lobby import Lobby
from server.observer import Observer
from tests.clients import until
from tests.logs import logged


async def test_a_server_without_a_file_left_goes_on_and_takes_no_speaker_in(
    lobby: Lobby, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    looks = 0
    memory, open_files = machine.memory, machine.open_files

    def none_left() -> tuple[int, int]:
        nonlocal looks
        looks += 1
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(observer, "_MEASURE_EVERY_S", 0.0)
    measuring = asyncio.create_task(Observer(lobby).run())
    admission = lobby.house.admission
    await until(lambda: admission.admissible > 0)

    # they become few before none is left
    monkeypatch.setattr(machine, "open_files", lambda: (950, 1_000))
    await until(lambda: admission.reason == "files")
    monkeypatch.setattr(machine, "memory", none_left)
    await until(lambda: looks > 3)
    assert not measuring.done()
    assert admission.reason == "files"
    assert not admission.admit()
    told = [record for record in logged(caplog) if record.levelno == logging.WARNING]
    assert [record.getMessage() for record in told] == ["the machine cannot be measured"]

    monkeypatch.setattr(machine, "memory", memory)
    monkeypatch.setattr(machine, "open_files", open_files)
    await until(lambda: admission.reason is None)
    measuring.cancel()
