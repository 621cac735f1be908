import asyncio
import re
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import ClientResponse, web
from aiohttp.test_utils import TestClient
from yarl import URL

from server.lobby import Lobby
from server.observer import Observer
from server.store import RoomRecord
from tests.clients import until
from tests.logs import logged
from tests.server.rooms import caption, end_room, gap, join, room_of
from transcriber.types import EngineState, EngineStatus

Http = TestClient[web.Request, web.Application]

ROOT = Path(__file__).parents[2]
# as much of one as is looked at before someone is let in
OFFER = b"v=0\r\nm=audio 9\r\n"
ISO = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")


def set_engine(lobby: Lobby, state: EngineState) -> None:
    engine = lobby.house.engine
    engine.status = EngineStatus(state, engine.status.info)


async def assert_error(
    answer: ClientResponse, status: int, code: str, *, retryable: bool = False
) -> None:
    """The one shape of an error, and nothing of the host in it."""
    body = await answer.json()
    assert (answer.status, list(body)) == (status, ["error"]), body
    error = body["error"]
    assert error.keys() == {"code", "message", "retryable"}
    assert (error["code"], error["retryable"]) == (code, retryable)
    assert error["message"]
    assert answer.content_type == "application/json"
    text = await answer.text()
    for secret in (str(ROOT), "Traceback", ".py", "site-packages", sys.prefix):
        assert secret not in text


# Pages


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/", "html"),
        ("/r/standup", "html"),
        ("/static/base.css", "css"),
        ("/static/room.js", "javascript"),
        ("/favicon.ico", "svg+xml"),
    ],
)
async def test_pages_and_what_they_need_are_served(http: Http, path: str, kind: str) -> None:
    answer = await http.get(path)
    assert answer.status == 200
    assert answer.content_type.endswith(kind)
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Cache-Control"] == "no-cache"
    assert await answer.text()


@pytest.mark.parametrize(
    "path",
    [
        "/nothing",
        "/static/",
        "/static/nothing.js",
        "/static/../server/app.py",
        "/static/%2e%2e/pyproject.toml",
        "/static/%2e%2e/docs/page.png",
        "/static/..%2f..%2f..%2fetc%2fpasswd",
        "/static//etc/passwd",
        "/static/a%00.html",
        f"/static/{'x' * 300}.css",
        "/api/v1/rooms/standup/transcript.pdf",
        "/api/v2/rooms",
    ],
)
async def test_what_is_not_there_is_a_404(http: Http, path: str) -> None:
    await assert_error(await http.get(URL(path, encoded=True)), 404, "not_found")


async def test_only_what_a_page_is_made_of_is_served(
    http: Http, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.routes.STATIC", tmp_path)
    for name in ("page.js", "module.py", "notes.txt", ".env"):
        (tmp_path / name).write_text("secret")
    assert (await http.get("/static/page.js")).status == 200
    for name in ("module.py", "notes.txt", ".env"):
        await assert_error(await http.get(f"/static/{name}"), 404, "not_found")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/"),
        ("DELETE", "/healthz"),
        ("PUT", "/api/v1/rooms"),
        ("POST", "/api/v1/rooms/standup/captions"),
        ("GET", "/whip/standup"),
    ],
)
async def test_what_is_not_done_there_is_a_405(http: Http, method: str, path: str) -> None:
    answer = await http.request(method, path)
    await assert_error(answer, 405, "method_not_allowed")
    assert answer.headers["Allow"]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/api/v1/rooms/{}"),
        ("GET", "/api/v1/rooms/{}/ws"),
        ("GET", "/api/v1/rooms/{}/captions"),
        ("GET", "/api/v1/rooms/{}/transcript.json"),
        ("POST", "/whip/{}?name=OBS"),
    ],
)
async def test_a_room_that_is_not_allowed_is_bad_everywhere(
    http: Http, method: str, path: str
) -> None:
    for room in ("a%20b", "%C3%A9", "x" * 65, "a.b", "%00"):
        answer = await http.request(method, URL(path.format(room), encoded=True))
        await assert_error(answer, 400, "bad_room")


async def test_a_link_to_a_room_that_is_not_allowed_is_a_page_that_says_so(http: Http) -> None:
    page = await (await http.get("/r/standup")).text()
    for room in ("a%20b", "%C3%A9", "x" * 65, "a.b", "%00"):
        answer = await http.get(URL(f"/r/{room}", encoded=True))
        assert (answer.status, answer.content_type) == (400, "text/html")
        assert await answer.text() == page


@pytest.mark.parametrize("name", ["%20", "x" * 65, "a%0Ab"])
async def test_a_name_that_is_not_allowed_is_bad(http: Http, name: str) -> None:
    answer = await http.post(URL(f"/whip/standup?name={name}", encoded=True))
    await assert_error(answer, 400, "bad_name")


async def test_the_socket_wants_an_upgrade(http: Http) -> None:
    await assert_error(await http.get("/api/v1/rooms/standup/ws"), 400, "bad_request")


async def test_what_goes_wrong_in_here_stays_in_here(
    http: Http, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> int:
        raise RuntimeError(f"{ROOT} is on fire")

    monkeypatch.setattr("server.machine.resident_bytes", fail)
    await assert_error(await http.get("/healthz"), 500, "internal", retryable=True)
    assert [record.message for record in logged(caplog)] == ["a request failed"]


# Health


async def test_health_is_told_within_100_ms(http: Http) -> None:
    await http.get("/healthz")
    took = []
    for _ in range(10):
        asked = time.monotonic()
        assert (await http.get("/healthz")).status == 200
        took.append(time.monotonic() - asked)
    assert min(took) < 0.1


async def test_health_has_its_shape(http: Http, lobby: Lobby) -> None:
    await join(lobby)
    body = await (await http.get("/healthz")).json()
    assert ISO.fullmatch(body.pop("timestamp"))
    assert 10 < body.pop("memory_mb") < 4000
    assert body == {
        "status": "degraded",
        "rooms": 1,
        "speakers": 0,
        "engine": {"name": "scripted", "state": "starting", "model": "positions"},
    }
    set_engine(lobby, EngineState.READY)
    assert (await (await http.get("/healthz")).json())["status"] == "healthy"


async def test_a_server_whose_engine_is_ready_is_ready(http: Http, lobby: Lobby) -> None:
    set_engine(lobby, EngineState.READY)
    answer = await http.get("/readyz")
    assert answer.status == 200
    assert await answer.json() == {"ready": True, "store": "ok"}


@pytest.mark.parametrize(
    "state",
    [EngineState.STARTING, EngineState.LOADING, EngineState.RESTARTING, EngineState.FAILED],
)
async def test_a_server_whose_engine_is_not_ready_says_why(
    http: Http, lobby: Lobby, state: EngineState
) -> None:
    set_engine(lobby, state)
    answer = await http.get("/readyz")
    await assert_error(answer, 503, "engine_not_ready", retryable=True)
    assert state.value in (await answer.json())["error"]["message"]
    assert int(answer.headers["Retry-After"]) > 0


async def test_a_server_that_shuts_down_is_not_ready(http: Http, lobby: Lobby) -> None:
    set_engine(lobby, EngineState.READY)
    await lobby.close()
    await assert_error(await http.get("/readyz"), 503, "shutting_down", retryable=True)
    assert (await http.get("/healthz")).status == 200


# Metrics


async def test_every_metric_bears_our_name_and_none_a_room_or_a_person(
    http: Http, lobby: Lobby
) -> None:
    ada = await join(lobby, "Ada-Secret", room="secret-room")
    room = room_of(lobby, "secret-room")
    room.publish(ada, caption(ada, "secret words"))
    room.publish(ada, gap(ada))
    answer = await http.get("/metrics")
    assert answer.content_type == "text/plain"
    text = await answer.text()
    names = set(re.findall(r"^([a-zA-Z_:]+)[ {]", text, re.MULTILINE))
    assert len(names) > 40
    assert all(name.startswith("roomscribe_") for name in names)
    assert set(re.findall(r'[{,](\w+)="', text)) <= {
        "fate", "kind", "le", "outcome", "reason", "state", "way", "what",
    }  # fmt: skip
    assert "secret" not in text.lower()
    assert "roomscribe_rooms 1.0" in text
    assert "roomscribe_participants 1.0" in text
    assert 'roomscribe_listeners{way="websocket"} 1.0' in text
    assert "roomscribe_store_ok 1.0" in text


async def test_the_event_loops_lag_is_measured(lobby: Lobby) -> None:
    measuring = asyncio.create_task(Observer(lobby).run())
    value = lobby.house.metrics.registry.get_sample_value
    await until(lambda: bool(value("roomscribe_event_loop_lag_seconds_count")))
    measuring.cancel()
    await asyncio.wait({measuring})


# Rooms and transcripts


async def test_rooms_are_listed_with_who_is_there(http: Http, lobby: Lobby) -> None:
    assert await (await http.get("/api/v1/rooms")).json() == {"rooms": []}
    await join(lobby)
    (room,) = (await (await http.get("/api/v1/rooms")).json())["rooms"]
    assert (room["room"], room["ended_at"]) == ("standup", None)
    assert [person["name"] for person in room["participants"]] == ["Ada"]
    assert await (await http.get("/api/v1/rooms/standup")).json() == room


async def test_rooms_that_ended_are_listed_too(http: Http, lobby: Lobby) -> None:
    ada = await join(lobby)
    room_of(lobby).publish(ada, caption(ada))
    room_of(lobby).publish(ada, gap(ada))
    await end_room(lobby)
    (room,) = (await (await http.get("/api/v1/rooms")).json())["rooms"]
    assert await (await http.get("/api/v1/rooms/standup")).json() == room
    assert ISO.fullmatch(room.pop("started_at"))
    assert ISO.fullmatch(room.pop("ended_at"))
    assert room == {
        "room": "standup",
        "participants": [{"name": "Ada"}],
        "segments": 1,
        "lost_s": 1.5,
    }


async def test_a_room_that_ended_is_found_behind_any_number_of_later_ones(
    http: Http, lobby: Lobby
) -> None:
    await join(lobby)
    await end_room(lobby)
    store = lobby.house.store
    for number in range(1001):
        store.room_started(RoomRecord(f"later-{number}", f"later-{number}", 4e9, "en"))
        store.room_ended(f"later-{number}", 4e9 + number)
    await until(lambda: store.health.pending == 0, within_s=60.0)
    body = await (await http.get("/api/v1/rooms/standup")).json()
    assert body["room"] == "standup"


@pytest.mark.parametrize("path", ["", "/captions", "/transcript.json", "/transcript.srt"])
async def test_a_room_that_never_was_is_a_404(http: Http, path: str) -> None:
    answer = await http.get(f"/api/v1/rooms/nowhere{path}")
    await assert_error(answer, 404, "no_such_room")


@pytest.mark.parametrize("has_ended", [False, True], ids=["live", "ended"])
@pytest.mark.parametrize(
    ("kind", "content_type", "part"),
    [
        ("json", "application/json", '"text"'),
        ("srt", "application/x-subrip", "00:00:"),
        ("vtt", "text/vtt", "WEBVTT"),
        ("txt", "text/plain", "Ada"),
    ],
)
async def test_a_transcript_can_be_taken_along(
    http: Http, lobby: Lobby, kind: str, content_type: str, part: str, has_ended: bool
) -> None:
    ada = await join(lobby)
    room_of(lobby).publish(ada, caption(ada, "we meet in Paris"))
    if has_ended:
        await end_room(lobby)
    answer = await http.get(f"/api/v1/rooms/standup/transcript.{kind}")
    text = await answer.text()
    assert (answer.status, answer.content_type) == (200, content_type)
    disposition = f'attachment; filename="standup.{kind}"'
    assert answer.headers["Content-Disposition"] == disposition
    assert "we meet in Paris" in text
    assert part in text


async def test_the_canonical_transcript_has_its_shape(http: Http, lobby: Lobby) -> None:
    ada = await join(lobby)
    room_of(lobby).publish(ada, caption(ada, "we meet"))
    room_of(lobby).publish(ada, gap(ada))
    said = await (await http.get("/api/v1/rooms/standup/transcript.json")).json()
    assert said["version"] == 1
    assert (said["room"], said["ended_at"], said["language"]) == ("standup", None, "en")
    assert said["participants"] == [{"participant": "p1", "name": "Ada"}]
    (segment,) = said["segments"]
    assert (
        segment.items()
        >= {
            "segment": "p1-1",
            "participant": "p1",
            "name": "Ada",
            "start": 1.0,
            "end": 3.0,
            "text": "we meet",
            "language": "en",
            "words": [{"word": "we", "start": 1.0, "end": 1.2, "confidence": 0.93}],
        }.items()
    )
    (lost,) = said["gaps"]
    assert (lost["participant"], lost["reason"]) == ("p1", "network")
    assert "we meet" in said["text"]


async def test_without_the_store_those_who_are_here_are_still_listed(
    http: Http, lobby: Lobby
) -> None:
    await join(lobby)
    await lobby.house.store.close()
    (room,) = (await (await http.get("/api/v1/rooms")).json())["rooms"]
    assert room["room"] == "standup"
    for path in ("/api/v1/rooms/another", "/api/v1/rooms/standup/transcript.json"):
        await assert_error(await http.get(path), 503, "store_unavailable", retryable=True)


# WHIP, as far as no peer is needed


async def test_whip_says_what_it_takes(http: Http) -> None:
    answer = await http.options("/whip/standup")
    assert answer.status == 204
    assert answer.headers["Accept-Post"] == "application/sdp"


@pytest.mark.parametrize("content_type", ["text/plain", "application/json", ""])
async def test_whip_takes_nothing_but_sdp(http: Http, lobby: Lobby, content_type: str) -> None:
    answer = await http.post(
        "/whip/standup", data=b"v=0\r\n", headers={"Content-Type": content_type}
    )
    await assert_error(answer, 415, "bad_content_type")
    assert lobby.rooms == {}


@pytest.mark.parametrize("size", [64 * 1024 + 1, 1024 * 1024])
async def test_an_offer_that_is_too_large_is_refused(http: Http, lobby: Lobby, size: int) -> None:
    answer = await http.post(
        "/whip/standup", data=b"v" * size, headers={"Content-Type": "application/sdp"}
    )
    await assert_error(answer, 413, "too_large")
    assert lobby.rooms == {}


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "bad_sdp"),
        (b"hello", "bad_sdp"),
        (b"\xff\xfe", "bad_sdp"),
        (b"hello\r\nv=0\r\nm=audio 9\r\n", "bad_sdp"),
        (b"v=0\r\n", "no_audio"),
        (b"v=0\r\nm=video 9\r\na=m=audio 9\r\n", "no_audio"),
    ],
)
async def test_what_is_no_offer_of_audio_is_refused_and_opens_no_room(
    http: Http, lobby: Lobby, body: bytes, code: str
) -> None:
    answer = await http.post(
        "/whip/standup", data=body, headers={"Content-Type": "application/sdp"}
    )
    await assert_error(answer, 400, code)
    assert lobby.rooms == {}


async def test_an_offer_that_cannot_be_parsed_is_refused_and_nobody_stays(
    http: Http, lobby: Lobby
) -> None:
    answer = await http.post(
        "/whip/standup", data=OFFER, headers={"Content-Type": "application/sdp"}
    )
    await assert_error(answer, 400, "bad_sdp")
    assert all(not room.participants for room in lobby.rooms.values())


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
async def test_an_offer_that_is_not_encoded_as_it_says_is_refused(
    http: Http, lobby: Lobby, encoding: str
) -> None:
    answer = await http.post(
        "/whip/standup",
        data=OFFER,
        headers={"Content-Type": "application/sdp", "Content-Encoding": encoding},
    )
    await assert_error(answer, 400, "bad_sdp")
    assert lobby.rooms == {}


async def test_what_a_client_sends_that_is_no_request_is_nothing_to_log(
    http: Http, caplog: pytest.LogCaptureFixture
) -> None:
    gzip = {"Content-Type": "application/sdp", "Content-Encoding": "gzip"}
    assert (await http.post("/whip/standup", data=OFFER, headers=gzip)).status == 400
    reader, writer = await asyncio.open_connection(http.host, http.port)
    writer.write(b"GET / HTTP/1.1\r\nHost: \0\r\n\r\n")
    assert (await reader.read()).startswith(b"HTTP/1.0 400 ")
    writer.close()
    await writer.wait_closed()

    assert [record.getMessage() for record in caplog.records if record.exc_info] == []


async def test_an_offer_is_read_to_its_end_and_no_further_than_is_allowed(
    http: Http, lobby: Lobby
) -> None:
    async def pieces(count: int) -> AsyncIterator[bytes]:
        yield b"v=0\r\n"
        for _ in range(count):
            yield b"a=" + b"x" * 998
            await asyncio.sleep(0)

    for count, status, code in ((60, 400, "no_audio"), (80, 413, "too_large")):
        answer = await http.post(
            "/whip/standup", data=pieces(count), headers={"Content-Type": "application/sdp"}
        )
        await assert_error(answer, status, code)


async def test_whip_in_an_unknown_language_is_refused(http: Http, lobby: Lobby) -> None:
    answer = await http.post(
        "/whip/standup?language=tlh",
        data=OFFER,
        headers={"Content-Type": "application/sdp"},
    )
    await assert_error(answer, 400, "bad_language")
    assert lobby.rooms == {}


@pytest.mark.parametrize("method", ["PATCH", "DELETE"])
async def test_a_whip_session_that_is_not_there_is_a_404(http: Http, method: str) -> None:
    answer = await http.request(method, "/whip/standup/nobody")
    await assert_error(answer, 404, "no_such_session")


async def test_whip_is_told_to_come_back_when_the_server_shuts_down(
    http: Http, lobby: Lobby
) -> None:
    await lobby.close()
    answer = await http.post(
        "/whip/standup", data=OFFER, headers={"Content-Type": "application/sdp"}
    )
    await assert_error(answer, 503, "shutting_down", retryable=True)
    assert answer.headers["Retry-After"] == "5"
