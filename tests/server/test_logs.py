import io
import json
import logging
import re
import sys
from collections.abc import Iterator

import pytest

from server import logs


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> Iterator[io.StringIO]:
    """What is logged while logging is configured as in the server."""
    root = logging.getLogger()
    named = [logging.getLogger(n) for n in ("roomscribe", "aiortc", "aioice", "asyncio")]
    handlers, levels = root.handlers[:], [(log, log.level) for log in [root, *named]]
    written = io.StringIO()
    monkeypatch.setattr(sys, "stderr", written)
    logs.configure("info")
    yield written
    root.handlers[:] = handlers
    for log, level in levels:
        log.setLevel(level)


def lines(said: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in said.getvalue().splitlines()]


def test_a_line_is_json_with_its_fields(said: io.StringIO) -> None:
    logging.getLogger("roomscribe.room").info(
        "participant joined", extra={"room": "standup", "participant": "p1"}
    )
    (line,) = lines(said)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", str(line.pop("time")))
    assert line == {
        "level": "info",
        "component": "room",
        "message": "participant joined",
        "room": "standup",
        "participant": "p1",
    }


def test_what_is_below_the_level_is_not_said(
    said: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    logging.getLogger("roomscribe.room").debug("a detail")
    monkeypatch.setattr(sys, "stderr", said)
    logs.configure("debug")
    logging.getLogger("roomscribe.room").debug("a detail")
    assert len(lines(said)) == 1


@pytest.mark.parametrize("noisy", ["aiortc.rtcpeerconnection", "aioice.ice", "asyncio", "other"])
def test_addresses_of_peers_are_not_logged(said: io.StringIO, noisy: str) -> None:
    logging.getLogger(noisy).info("Check 192.0.2.1:4711 -> succeeded")
    assert lines(said) == []


def test_an_exception_is_its_name_and_places_without_paths_or_values(said: io.StringIO) -> None:
    def fail(secret: str) -> None:
        raise ValueError(f"cannot read {secret}")

    try:
        fail("/home/ada/s3cret")
    except ValueError:
        logging.getLogger("roomscribe.http").exception("a request failed")
    (line,) = lines(said)
    assert line["error"] == "ValueError"
    places = line["at"]
    assert isinstance(places, list)
    assert [re.fullmatch(rf"{__name__}:\d+", place) is not None for place in places] == [True, True]
    assert "s3cret" not in said.getvalue()
    assert "/" not in said.getvalue().replace("tests/", "")


def test_a_field_that_json_does_not_know_is_still_a_line(said: io.StringIO) -> None:
    logging.getLogger("roomscribe.room").info("odd", extra={"what": {1, 2}, "two\nlines": "a\nb"})
    assert len(lines(said)) == 1
