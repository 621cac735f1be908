"""What leaves the process: every route, event and error, also while things break, and nothing of
the host in it."""

import itertools
import json
import os
import sqlite3
import sys
import time
from pathlib import Path

import aiohttp
import pytest

from server import routes
from server.app import Running, running
from server.config import Settings
from server.observer import Observer
from server.routes import Routes
from server.settings import AuthSettings, IceServerSetting, TranscriberSettings
from server.tokens import issue
from signaling.grant import Grant, Right
from tests.clients import Client, Voice, connected, until
from tests.speech import tone
from transcriber.stream import SpeakerStream
from transcriber.types import EngineState

RATE = 48_000
ROOT = Path(__file__).parents[2]
SECRETS = {
    "auth": "the secret of the tokens, 32 characters",
    "turn": "the secret of the relay",
    "talk": "the secret of the signaling server",
    "app": "the secret of the app",
    "environment": "a value of the environment",
}
RAW = "CUDA error at /usr/lib/engine.cc:117: raw words of an engine"


@pytest.fixture
def settings(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("SOME_SECRET", SECRETS["environment"])
    relay = IceServerSetting(urls=("turn:127.0.0.1:9",))
    return settings.model_copy(
        update={
            "auth": AuthSettings(secret=SECRETS["auth"]),
            "media": settings.media.model_copy(
                update={"turn_secret": SECRETS["turn"], "ice_servers": (relay,)}
            ),
            "lt_internal_secret": SECRETS["talk"],
            "app_secret": SECRETS["app"],
        }
    )


def token(*may: Right) -> str:
    return issue(SECRETS["auth"], Grant("*", frozenset(may)), time.time() + 3600)


class Ear:
    """Hears all that leaves, and knows what must not."""

    def __init__(self, *more: str) -> None:
        self.heard: list[str] = []
        self.forbidden = [
            *SECRETS.values(),
            *more,
            RAW,
            str(ROOT),
            sys.prefix,
            os.getcwd(),
            "site-packages",
            "Traceback",
            'File "',
            ".py",
            "sqlite",
            "OperationalError",
        ]

    async def ask(
        self, http: aiohttp.ClientSession, method: str, url: str, **options: object
    ) -> aiohttp.ClientResponse:
        async with http.request(method, url, **options) as answer:  # type: ignore[arg-type]
            lines = [f"{name}: {value}" for name, value in answer.headers.items()]
            text = f"{method} {url} {answer.status}\n" + "\n".join(lines)
            if answer.content_type == "text/event-stream":
                self.heard.append(text)
                return answer
            self.heard.append(f"{text}\n{await answer.text()}")
            return answer

    def listen(self, client: Client) -> None:
        self.heard += [json.dumps(message, ensure_ascii=False) for message in client.seen]

    def assert_nothing_told(self) -> None:
        assert len(self.heard) > 4
        for text in self.heard:
            # files of ours are served as they are
            if "/static/" in text.partition("\n")[0]:
                continue
            told = [secret for secret in self.forbidden if secret in text]
            assert not told, (told, text[:400])


def paths(server: Running) -> list[tuple[str, str]]:
    """Every route, with names that are there, that are not, and that cannot be."""
    app = Routes(server.lobby, Observer(server.lobby), server.talk).application()
    found = []
    for route in app.router.routes():
        shape = route.resource.canonical if route.resource is not None else ""
        for room, other in itertools.product(
            ("standup", "nowhere", "a%20b", "%00", "..%2f..%2fetc%2fpasswd"), ("p1", "%ff")
        ):
            path = shape.replace("{room}", room).replace("{kind}", "txt")
            for name in ("{participant}", "{session}", "{token}", "{path}"):
                path = path.replace(name, other)
            found.append((route.method, path))
    return sorted(set(found))


BODIES = [
    None,
    b"",
    b"{",
    b"a=ssrc:" + b"9" * 5000 + b" x",
    b'{"roomToken":7}',
    b"\xff\xfe",
    b"v=0\r\nm=audio 9 x\r\n",
    b"[" * 5000,
]


async def test_no_route_tells_of_the_host(server: Running, tmp_path: Path) -> None:
    ear = Ear(str(tmp_path), *(given := [token(Right.ADMIN), token(Right.LISTEN)]))
    async with connected(server.url, "standup") as ada, aiohttp.ClientSession() as http:
        await ada.hello("Ada", token=given[1])
        for method, path in paths(server):
            if (method, path) == ("DELETE", "/api/v1/rooms/standup"):
                continue  # it ends the room that the others ask for
            for body, bearer in zip(
                BODIES, itertools.cycle([None, *given, "x.y.z", "\xff.e30.AA"]), strict=False
            ):
                headers = {} if bearer is None else {"Authorization": f"Bearer {bearer}"}
                if body is not None:
                    headers["Content-Type"] = "application/sdp"
                if body == b"{":
                    headers["Content-Encoding"] = "gzip"
                await ear.ask(
                    http, "GET" if method == "*" else method, server.url + path,
                    data=body, headers=headers,
                )  # fmt: skip
        ear.listen(ada)
    ear.assert_nothing_told()
    # nothing that is sent is a fault of ours
    assert not [text for text in ear.heard if text.partition("\n")[0].endswith(" 500")]


async def test_no_error_tells_what_broke(
    server: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A handler, the store, and a speaker fail in words that are not for others."""
    given = token(Right.PUBLISH, Right.LISTEN)
    ear = Ear(str(tmp_path), given)
    bad = f"{RAW}: unable to open database file {tmp_path}/data"

    def fail(*_: object, **__: object) -> None:
        raise sqlite3.OperationalError(bad)

    async with (
        connected(server.url, "standup") as ada,
        aiohttp.ClientSession(headers={"Authorization": f"Bearer {given}"}) as http,
    ):
        await ada.hello("Ada", token=given)
        with monkeypatch.context() as broken:
            broken.setattr(routes, "summary", fail)
            answer = await ear.ask(http, "GET", f"{server.url}/api/v1/rooms")
            assert answer.status == 500
        with monkeypatch.context() as broken:
            broken.setattr("server.store.Store.transcript", fail)
            answer = await ear.ask(http, "GET", f"{server.url}/api/v1/rooms/standup/transcript.txt")
            assert answer.status == 500
        with monkeypatch.context() as broken:
            broken.setattr(SpeakerStream, "push", fail)
            await ada.speak(Voice(tone(1.0, RATE)))
            told = await ada.wait_for(lambda m: bool(m["type"] == "error"))
            assert told["code"] == "speaker_failed"
        for path in ("/healthz", "/readyz", "/metrics"):
            await ear.ask(http, "GET", server.url + path)
        ear.listen(ada)
    ear.assert_nothing_told()


class TestAnEngineThatCannotStart:
    @pytest.fixture
    def settings(self, settings: Settings, tmp_path: Path) -> Settings:
        model = tmp_path / "models" / "no-such-model"
        transcriber = TranscriberSettings(engine="whisper", model=str(model), vad="energy")
        return settings.model_copy(update={"transcriber": transcriber})

    @pytest.fixture
    def broken(self, tmp_path: Path) -> Path:
        """A model that is there and is none: the library has its own words for that."""
        model = tmp_path / "models" / "broken-model"
        model.mkdir(parents=True)
        for name in ("model.bin", "config.json", "tokenizer.json", "vocabulary.json"):
            (model / name).write_bytes(b"{}")
        return model

    async def test_what_the_library_says_stays_in_the_log(
        self, settings: Settings, broken: Path, tmp_path: Path
    ) -> None:
        transcriber = settings.transcriber.model_copy(update={"model": str(broken)})
        given = token(Right.LISTEN)
        ear = Ear(str(tmp_path), given, "ctranslate2", "model.bin", "RuntimeError")
        async with (
            running(settings.model_copy(update={"transcriber": transcriber})) as server,
            connected(server.url, "standup") as ada,
            aiohttp.ClientSession() as http,
        ):
            await ada.hello("Ada", token=given)
            told = await ada.wait_for(lambda m: m["type"] == "engine" and m["state"] == "failed")
            assert told["message"]
            for path in ("/healthz", "/readyz", "/metrics"):
                await ear.ask(http, "GET", server.url + path)
            ear.listen(ada)
        ear.assert_nothing_told()

    async def test_it_says_why_and_not_where(self, settings: Settings, tmp_path: Path) -> None:
        given = token(Right.LISTEN)
        ear = Ear(str(tmp_path), given)
        async with (
            running(settings) as server,
            connected(server.url, "standup") as ada,
            aiohttp.ClientSession() as http,
        ):
            welcome = await ada.hello("Ada", token=given)
            assert welcome["engine"]["model"] == "no-such-model"
            await until(lambda: server.lobby.house.engine.status.state is EngineState.FAILED)
            told = await ada.wait_for(lambda m: m["type"] == "engine" and m["state"] == "failed")
            assert "does not exist" in told["message"]
            for path in ("/healthz", "/readyz", "/metrics", "/"):
                await ear.ask(http, "GET", server.url + path)
            ear.listen(ada)
        ear.assert_nothing_told()
