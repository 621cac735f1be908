"""What Nextcloud asks of the app, and what it is told."""

import asyncio
import base64
from pathlib import Path
from typing import Any

import pytest

import server.talk
from server.talk import socket_of
from soak.talk.nextcloud import STATUS_PATH
from soak.talk.participant import participant
from soak.talk.stack import TalkStack
from tests.clients import until
from tests.talk.calls import ROOM, all_closed
from tests.talk.conftest import SCRIPTED, Bot, bot_of, settings_for
from tests.talk.doors import DOORS

SESSION = "a-session-of-nextcloud"
TRANSCRIBE = {"roomToken": ROOM, "ncSessionId": SESSION, "enable": True, "langId": "en"}


def as_app(
    secret: str = "s3cret", app: str = "live_transcription", user: str = ""
) -> dict[str, str]:
    """What AppAPI sends along."""
    told = base64.b64encode(f"{user}:{secret}".encode()).decode()
    return {"AUTHORIZATION-APP-API": told, "EX-APP-ID": app, "EX-APP-VERSION": "1.0.0"}


async def transcribe(bot: Bot, **more: Any) -> tuple[int, dict[str, Any]]:
    asked = {k: v for k, v in {**TRANSCRIBE, **more}.items() if v is not None}
    return await bot.ask("POST", "/api/v1/call/transcribe", json=asked)


async def test_nextcloud_learns_what_the_app_is_and_can(scripted_bot: Bot) -> None:
    bot = scripted_bot
    assert await bot.ask("GET", "/heartbeat") == (200, {"status": "ok"})
    assert await bot.ask("GET", "/enabled") == (200, {"enabled": True})
    english = {"name": "English", "metadata": {"separator": " ", "rtl": False}}
    status, languages = await bot.ask("GET", "/api/v1/languages")
    assert (status, languages["en"]) == (200, english)
    assert set(languages) == {"en", "de", "fr", "es"}
    status, told = await bot.ask("GET", "/capabilities")
    app = told["live_transcription"]
    assert status == 200
    assert app["features"] == ["live_transcription"]
    assert isinstance(app["version"], str)
    assert app["live_transcription"] == {"supported_languages": languages}


async def test_asked_to_prepare_it_reports_that_it_is_ready(
    stack: TalkStack, tmp_path: Path
) -> None:
    settings = settings_for(stack, tmp_path, SCRIPTED, app_secret="s3cret", app_version="1.2.3")
    async with bot_of(settings) as bot:
        assert await bot.ask("POST", "/init", headers=as_app()) == (200, {})
        requests = stack.nextcloud.requests
        await until(lambda: any(r.path == STATUS_PATH for r in requests))
        (report,) = [r for r in requests if r.path == STATUS_PATH]
        assert report.body["progress"] == 100
        assert report.body["error"] == ""
        told = base64.b64decode(report.headers["AUTHORIZATION-APP-API"]).decode()
        assert told.partition(":")[2] == "s3cret"
        assert report.headers["EX-APP-ID"] == settings.app_id
        assert report.headers["EX-APP-VERSION"] == "1.2.3"


async def test_a_nextcloud_that_does_not_answer_keeps_nobody_from_going(
    stack: TalkStack, tmp_path: Path
) -> None:
    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    deaf = await asyncio.start_server(say_nothing, "127.0.0.1", 0)
    host, port = deaf.sockets[0].getsockname()
    settings = settings_for(stack, tmp_path, SCRIPTED).model_copy(
        update={"nextcloud_url": f"http://{host}:{port}"}
    )
    loop = asyncio.get_running_loop()
    async with deaf:
        async with bot_of(settings) as bot:
            assert await bot.ask("POST", "/init") == (200, {})
            await asyncio.sleep(0.1)
            began = loop.time()
        assert loop.time() - began < 5.0


@pytest.mark.parametrize(("method", "path"), DOORS)
async def test_with_a_secret_only_nextcloud_may_ask(any_bot: Bot, method: str, path: str) -> None:
    refused: list[dict[str, str]] = [
        {},
        as_app("wrong"),
        as_app(""),
        as_app(app="another"),
        {"AUTHORIZATION-APP-API": "no base64!"},
        {"AUTHORIZATION-APP-API": base64.b64encode(b"\xff\xfe:s3cret").decode()},
        {"AUTHORIZATION-APP-API": base64.b64encode(b"s3cret").decode()},
    ]
    for headers in refused:
        status, told = await any_bot.ask(method, path, headers=headers)
        assert (status, told["error"]["code"]) == (401, "unauthorized")
    status, _ = await any_bot.ask(method, path, headers=as_app(user="ada"), json={})
    assert status != 401


async def test_a_heartbeat_needs_no_secret(any_bot: Bot) -> None:
    assert (await any_bot.ask("GET", "/heartbeat"))[0] == 200


async def test_a_wrong_secret_of_the_signaling_server_is_said(
    stack: TalkStack, tmp_path: Path
) -> None:
    async with bot_of(settings_for(stack, tmp_path, SCRIPTED, secret="wrong")) as bot:
        status, told = await transcribe(bot)
        assert status == 503
        assert told["error"]["code"] in ("invalid_token", "auth_failed")
        assert "refuses the bot" in told["error"]["message"]
        await all_closed(bot)


async def test_a_signaling_server_that_is_not_there_is_said(
    stack: TalkStack, scripted_bot: Bot, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server.talk, "STARTED_WITHIN_S", 2.0)
    await stack.signaling.stop()
    status, told = await transcribe(scripted_bot)
    assert (status, told["error"]["code"]) == (503, "no_signaling_server")
    await all_closed(scripted_bot)
    # and once it is there, the next request is served
    await stack.signaling.start()
    async with participant(stack, ROOM, "Ada") as ada:
        await ada.enter_call()
        assert (await transcribe(scripted_bot, ncSessionId=ada.talk.nc_session))[0] == 200


async def test_without_settings_there_is_no_signaling_server(
    stack: TalkStack, tmp_path: Path
) -> None:
    async with bot_of(settings_for(stack, tmp_path, SCRIPTED, hpb_url="")) as bot:
        status, told = await transcribe(bot)
        assert (status, told["error"]["code"]) == (503, "not_configured")
        assert "LT_HPB_URL" in told["error"]["message"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"langId": "xx"},
        {"langId": None, "languageId": "xx"},
        {"langId": 7},
        {"roomToken": None},
        {"roomToken": "../etc"},
        {"ncSessionId": None},
        {"ncSessionId": ""},
        {"ncSessionId": "x" * 600},
    ],
)
async def test_what_is_not_a_request_is_refused_and_nothing_opened(
    any_bot: Bot, wrong: dict[str, Any]
) -> None:
    asked = {k: v for k, v in {**TRANSCRIBE, **wrong}.items() if v is not None}
    path = "/api/v1/call/transcribe"
    status, told = await any_bot.ask("POST", path, json=asked, headers=as_app())
    assert status == 400
    assert told["error"]["code"]
    assert any_bot.server.talk.bots == {}


async def test_a_body_that_is_no_json_object_is_refused(any_bot: Bot) -> None:
    for path in ("transcribe", "set-language", "leave"):
        for body in (b"", b"{", b"[]", b"\xff", b"7"):
            url = f"/api/v1/call/{path}"
            assert (await any_bot.ask("POST", url, data=body, headers=as_app()))[0] == 400


async def test_the_language_of_a_call_can_be_set(stack: TalkStack, scripted_bot: Bot) -> None:
    bot = scripted_bot
    path = "/api/v1/call/set-language"
    assert (await bot.ask("POST", path, json={"roomToken": ROOM, "langId": "de"}))[0] == 404
    async with participant(stack, ROOM, "Ada") as ada:
        await ada.enter_call()
        asked = {"ncSessionId": ada.talk.nc_session, "langId": None, "languageId": "fr"}
        assert (await transcribe(bot, **asked))[0] == 200
        assert bot.server.talk.bots[ROOM].language == "fr"
        assert (await bot.ask("POST", path, json={"roomToken": ROOM, "langId": "de"}))[0] == 200
        assert bot.server.talk.bots[ROOM].language == "de"
        assert (await bot.ask("POST", path, json={"roomToken": ROOM, "langId": "xx"}))[0] == 400
        assert bot.server.talk.bots[ROOM].language == "de"


async def test_leaving_is_always_right_and_stopping_only_where_it_is(
    stack: TalkStack, scripted_bot: Bot
) -> None:
    bot = scripted_bot
    stop = f"/api/v1/call/transcribe/{ROOM}"
    assert await bot.leave("unknown") == 200
    assert (await bot.ask("DELETE", stop))[0] == 404
    async with participant(stack, ROOM, "Ada") as ada:
        await ada.enter_call()
        for ask in ("stop", "leave"):
            assert (await transcribe(bot, ncSessionId=ada.talk.nc_session))[0] == 200
            if ask == "stop":
                stopped = {"status": "stopped", "roomToken": ROOM}
                assert await bot.ask("DELETE", stop) == (200, stopped)
            else:
                assert await bot.leave(ROOM) == 200
            assert bot.server.talk.bots == {}
            await all_closed(bot)
        assert (await bot.ask("DELETE", stop))[0] == 404


async def test_asked_by_many_at_once_one_bot_comes(stack: TalkStack, scripted_bot: Bot) -> None:
    async with participant(stack, ROOM, "Ada") as ada, participant(stack, ROOM, "Ben") as ben:
        for someone in (ada, ben):
            await someone.enter_call()
        sessions = [ada.talk.nc_session, ben.talk.nc_session] * 3
        asked = [transcribe(scripted_bot, ncSessionId=s) for s in sessions]
        assert {status for status, _ in await asyncio.gather(*asked)} == {200}
        await asyncio.sleep(0.5)
        joined = [m["event"]["join"] for m in ada.talking.seen if _is_join(m)]
        names = [e for join in joined for e in join if e["sessionid"] not in _known(ada, ben)]
        assert len(names) == 1


async def test_switched_off_it_leaves_every_call_and_joins_none(
    stack: TalkStack, scripted_bot: Bot
) -> None:
    bot = scripted_bot
    async with participant(stack, ROOM, "Ada") as ada:
        await ada.enter_call()
        asked = {"ncSessionId": ada.talk.nc_session}
        assert (await transcribe(bot, **asked))[0] == 200
        assert await bot.ask("PUT", "/enabled?enabled=0") == (200, {"error": ""})
        assert await bot.ask("GET", "/enabled") == (200, {"enabled": False})
        await all_closed(bot)
        status, told = await transcribe(bot, **asked)
        assert (status, told["error"]["code"]) == (503, "disabled")
        assert await bot.ask("PUT", "/enabled?enabled=1") == (200, {"error": ""})
        assert (await transcribe(bot, **asked))[0] == 200


@pytest.mark.parametrize(
    ("shown", "socket"),
    [
        ("https://talk.example.org", "wss://talk.example.org/spreed"),
        (
            "https://talk.example.org/standalone-signaling/",
            "wss://talk.example.org/standalone-signaling/spreed",
        ),
        ("http://hpb:8080/spreed", "ws://hpb:8080/spreed"),
        ("wss://talk.example.org/spreed/", "wss://talk.example.org/spreed"),
    ],
)
def test_the_socket_is_found_from_the_address_that_nextcloud_shows(shown: str, socket: str) -> None:
    assert socket_of(shown) == socket


def _is_join(message: dict[str, Any]) -> bool:
    event = message.get("event", {})
    return (event.get("target"), event.get("type")) == ("room", "join")


def _known(*people: Any) -> set[str]:
    return {p.session for p in people}
