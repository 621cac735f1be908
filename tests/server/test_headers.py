"""What every answer carries, whatever it answers."""

import re

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient

from server.config import Settings
from server.lobby import Lobby
from server.routes import STATIC
from server.settings import AuthSettings, ServerSettings
from tests.server.rooms import join

Http = TestClient[web.Request, web.Application]

PATHS = [
    ("GET", "/"),
    ("GET", "/r/standup"),
    ("GET", "/static/room.js"),
    ("GET", "/none"),
    ("GET", "/healthz"),
    ("GET", "/metrics"),
    ("GET", "/api/v1/rooms"),
    ("GET", "/api/v1/rooms/standup/captions"),
    ("GET", "/api/v1/rooms/standup/transcript.txt"),
    ("POST", "/whip/standup"),
    ("OPTIONS", "/whip/standup"),
    ("GET", "/capabilities"),
]


def policy(answer_headers: object) -> dict[str, str]:
    text = answer_headers["Content-Security-Policy"]  # type: ignore[index]
    rules = [rule.strip().partition(" ") for rule in text.split(";")]
    return {name: value for name, _, value in rules}


@pytest.mark.parametrize(("method", "path"), PATHS)
async def test_every_answer_tells_what_to_refuse(
    http: Http, lobby: Lobby, method: str, path: str
) -> None:
    await join(lobby)
    async with http.request(method, path) as answer:
        rules = policy(answer.headers)
        assert rules["default-src"] == "'none'"
        assert rules["script-src"] == rules["style-src"] == rules["connect-src"] == "'self'"
        assert rules["frame-ancestors"] == rules["base-uri"] == rules["form-action"] == "'none'"
        assert "unsafe" not in answer.headers["Content-Security-Policy"]
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Referrer-Policy"] == "no-referrer"
        assert answer.headers["Server"] == "roomscribe"
        assert answer.headers["X-Frame-Options"] == "DENY"
        assert "Set-Cookie" not in answer.headers
        assert "Strict-Transport-Security" not in answer.headers


class TestEmbedded:
    @pytest.fixture
    def settings(self, settings: Settings) -> Settings:
        server = ServerSettings(embedded_by=("https://a.example.org", "https://b.example.org"))
        return settings.model_copy(update={"server": server})

    async def test_those_on_the_list_may_show_the_page(self, http: Http) -> None:
        async with http.get("/r/standup") as answer:
            ancestors = policy(answer.headers)["frame-ancestors"]
            assert ancestors == "https://a.example.org https://b.example.org"
            assert "X-Frame-Options" not in answer.headers


def test_no_page_has_code_or_style_of_its_own() -> None:
    for page in STATIC.glob("*.html"):
        text = page.read_text(encoding="utf-8")
        assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\sstyle=|\son[a-z]+=", text), page.name
    for script in STATIC.glob("*.js"):
        text = script.read_text(encoding="utf-8")
        assert not re.search(r"\beval\(|new Function|setAttribute\(\"style|style=\"", text)


@pytest.mark.parametrize(
    "host", ["localhost", "localhost:8080", "127.0.0.2:8080", "[::1]", "[::1]:8080", "LOCALHOST"]
)
async def test_a_server_for_this_machine_answers_this_machine(http: Http, host: str) -> None:
    async with http.get("/api/v1/rooms", headers={"Host": host}) as answer:
        assert answer.status == 200


@pytest.mark.parametrize(
    "header", ["X-Forwarded-For", "X-Forwarded-Host", "X-Real-IP", "Forwarded", "Via"]
)
async def test_a_proxy_that_says_what_it_is_is_told_to_ask_for_doors(
    http: Http, header: str
) -> None:
    async with http.get("/", headers={header: "192.0.2.1"}) as answer:
        assert (await answer.json())["error"]["code"] == "open_here_only"


async def test_another_sites_page_changes_nothing(http: Http) -> None:
    for method, path in (
        ("POST", "/api/v1/call/leave"),
        ("POST", "/whip/standup"),
        ("PUT", "/enabled"),
        ("DELETE", "/api/v1/rooms/standup"),
    ):
        headers = {"Origin": "https://evil.example.org", "Content-Type": "text/plain"}
        async with http.request(method, path, data=b"{}", headers=headers) as answer:
            assert (await answer.json())["error"]["code"] == "bad_origin"
        headers["Origin"] = f"http://{http.host}:{http.port}"
        async with http.request(method, path, data=b"{}", headers=headers) as answer:
            assert "bad_origin" not in await answer.text()


@pytest.mark.parametrize("host", ["captions.example.org", "127.0.0.1.example.org:8080", "", "a]"])
async def test_and_nobody_whom_a_proxy_or_a_name_brings(http: Http, host: str) -> None:
    for path in ("/", "/api/v1/rooms", "/api/v1/rooms/standup/ws"):
        async with http.get(path, headers={"Host": host}) as answer:
            assert answer.status == 403
            assert (await answer.json())["error"]["code"] == "open_here_only"


class TestWithADoor:
    @pytest.fixture
    def settings(self, settings: Settings) -> Settings:
        auth = AuthSettings(open_to_everyone=True)
        return settings.model_copy(update={"auth": auth})

    async def test_any_name_will_do(self, http: Http) -> None:
        async with http.get("/api/v1/rooms", headers={"Host": "captions.example.org"}) as answer:
            assert answer.status == 200
