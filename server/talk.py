"""`Talk`: the calls that the bot is in, and what Nextcloud asks over HTTP.

The contract is that of Nextcloud's own `live_transcription` app, so that Talk needs no other
setting. A call's room is an ordinary one, named `talk-` and the call's token.
"""

import asyncio
import base64
import hmac
import logging
import re
from typing import Any

import aiohttp
from aiohttp import web

from server.lobby import Lobby
from server.requests import json_body
from server.settings import TalkSettings
from server.talk_bot import Backend, TalkBot
from server.talk_languages import supported
from signaling.errors import Refused
from signaling.messages import check_language

STARTED_WITHIN_S = 15.0
LEFT_WITHIN_S = 5.0
_REPORTED_WITHIN_S = 10.0
_TOKEN = re.compile(r"[A-Za-z0-9]{1,58}")
_SESSION = re.compile(r"[\x21-\x7e]{1,512}")

log = logging.getLogger("roomscribe.talk")


class Talk:
    """`run` it in a task; it ends after `close`."""

    def __init__(self, settings: TalkSettings, lobby: Lobby) -> None:
        self.bots: dict[str, TalkBot] = {}
        self.is_enabled = True
        self._settings = settings
        self._lobby = lobby
        self._tasks: asyncio.TaskGroup | None = None
        self._http: aiohttp.ClientSession | None = None
        self._reports: set[asyncio.Task[None]] = set()
        self._closed = asyncio.Event()

    async def run(self) -> None:
        """Own the calls until `close`."""
        async with aiohttp.ClientSession() as self._http, asyncio.TaskGroup() as self._tasks:
            await self._closed.wait()
            for report in self._reports:
                report.cancel()

    async def close(self) -> None:
        """Leave every call."""
        for bot in list(self.bots.values()):
            bot.leave()
        self._closed.set()

    # Routes

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/heartbeat", self.heartbeat),
            web.get("/enabled", self.enabled),
            web.put("/enabled", self.set_enabled),
            web.post("/init", self.init),
            web.get("/capabilities", self.capabilities),
            web.get("/api/v1/languages", self.languages),
            web.post("/api/v1/call/transcribe", self.transcribe),
            web.post("/api/v1/call/set-language", self.set_language),
            web.post("/api/v1/call/leave", self.leave),
            web.delete("/api/v1/call/transcribe/{token}", self.stop),
        ]

    async def heartbeat(self, _request: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})

    async def enabled(self, request: web.Request) -> web.Response:
        self._check(request)
        return web.json_response({"enabled": self.is_enabled})

    async def set_enabled(self, request: web.Request) -> web.Response:
        """Switched off, the bot leaves every call."""
        self._check(request)
        self.is_enabled = request.query.get("enabled", "1") not in ("0", "false")
        if not self.is_enabled:
            for bot in list(self.bots.values()):
                bot.leave()
        return web.json_response({"error": ""})

    async def init(self, request: web.Request) -> web.Response:
        """AppAPI waits to be told that there is nothing more to prepare."""
        self._check(request)
        if self._tasks is not None and self._settings.nextcloud_url:
            report = self._tasks.create_task(self._report_ready(), name="talk-init")
            self._reports.add(report)
            report.add_done_callback(self._reports.discard)
        return web.json_response({})

    async def capabilities(self, request: web.Request) -> web.Response:
        self._check(request)
        return web.json_response(
            {
                "live_transcription": {
                    "version": self._settings.app_version,
                    "features": ["live_transcription"],
                    "live_transcription": {"supported_languages": self._supported()},
                }
            }
        )

    async def languages(self, request: web.Request) -> web.Response:
        self._check(request)
        return web.json_response(self._supported())

    async def transcribe(self, request: web.Request) -> web.Response:
        """Someone in a call wants captions, or no more."""
        self._check(request)
        asked = await json_body(request)
        token, session = _token(asked), _session(asked)
        language = self._language(asked)
        if asked.get("enable", True) is False:
            if (known := self.bots.get(token)) is not None:
                known.remove_target(session)
            return web.json_response({"message": "captions are switched off"})
        bot = self._bot(token, language)
        bot.add_target(session)
        if not await bot.started(STARTED_WITHIN_S):
            reason = bot.reason
            bot.leave()
            raise Refused(
                reason.code if reason is not None else "no_signaling_server",
                reason.message if reason is not None else "the signaling server does not answer",
                retryable=True,
                status=503,
            )
        return web.json_response({"message": "captions follow"})

    async def set_language(self, request: web.Request) -> web.Response:
        self._check(request)
        asked = await json_body(request)
        bot = self.bots.get(_token(asked))
        language = self._language(asked)
        if bot is None or bot.is_over:
            raise _no_call()
        bot.set_language(language)
        return web.json_response({"message": "the language is set"})

    async def leave(self, request: web.Request) -> web.Response:
        self._check(request)
        await self._leave(_token(await json_body(request)))
        return web.json_response({"message": "the bot has left"})

    async def stop(self, request: web.Request) -> web.Response:
        self._check(request)
        token = request.match_info["token"]
        if not await self._leave(token):
            raise _no_call()
        return web.json_response({"status": "stopped", "roomToken": token})

    # Calls

    def _bot(self, token: str, language: str) -> TalkBot:
        """The bot of a call, or a new one. Raises `Refused`."""
        if self._closed.is_set():
            raise Refused(
                "shutting_down", "the server is shutting down", retryable=True, status=503
            )
        if not self.is_enabled:
            raise Refused("disabled", "the app is switched off in Nextcloud", status=503)
        known = self.bots.get(token)
        if known is not None and not known.is_over:
            return known
        settings = self._settings
        if not settings.lt_hpb_url or self._http is None or self._tasks is None:
            raise Refused(
                "not_configured", "LT_HPB_URL is not set: there is no signaling server", status=503
            )
        backend = Backend(
            socket_of(settings.lt_hpb_url),
            settings.lt_internal_secret,
            settings.nextcloud_url.rstrip("/"),
            verify=not settings.skip_cert_verify,
            headers=self._app_headers(),
        )
        bot = TalkBot(token, backend, self._lobby, self._http, language)
        self.bots[token] = bot
        self._count()
        self._tasks.create_task(self._run(token, bot), name=f"talk-call-{token}")
        return bot

    async def _run(self, token: str, bot: TalkBot) -> None:
        try:
            await bot.run()
        except Exception:
            # The containment of one call: the others and the rooms go on.
            log.exception("a call failed", extra={"call": token})
        finally:
            if self.bots.get(token) is bot:
                del self.bots[token]
                self._count()

    def _count(self) -> None:
        self._lobby.house.metrics.calls.set(len(self.bots))

    async def _leave(self, token: str) -> bool:
        bot = self.bots.get(token)
        if bot is None:
            return False
        bot.leave()
        try:
            async with asyncio.timeout(LEFT_WITHIN_S):
                while self.bots.get(token) is bot:  # noqa: ASYNC110 - its end is its task's alone
                    await asyncio.sleep(0.01)
        except TimeoutError:
            log.warning("a bot takes long to leave", extra={"call": token})
        return True

    async def _report_ready(self) -> None:
        assert self._http is not None
        settings = self._settings
        try:
            async with self._http.put(
                f"{settings.nextcloud_url.rstrip('/')}/ocs/v1.php/apps/app_api/ex-app/status",
                json={"progress": 100, "error": ""},
                headers={"OCS-APIRequest": "true", **self._app_headers()},
                ssl=not settings.skip_cert_verify,
                timeout=aiohttp.ClientTimeout(total=_REPORTED_WITHIN_S),
            ) as answer:
                log.info("told Nextcloud that the app is ready", extra={"status": answer.status})
        except Exception as error:
            # The containment of a report: an address that is none raises whatever the library
            # runs into, and nothing else is to end by it.
            log.warning(
                "Nextcloud could not be told that the app is ready",
                extra={"error": type(error).__name__},
            )

    def _app_headers(self) -> dict[str, str]:
        """How Nextcloud knows this app; nothing without a secret."""
        settings = self._settings
        if not settings.app_secret:
            return {}
        return {
            "AUTHORIZATION-APP-API": base64.b64encode(f":{settings.app_secret}".encode()).decode(),
            "EX-APP-ID": settings.app_id,
            "EX-APP-VERSION": settings.app_version,
        }

    def _supported(self) -> dict[str, object]:
        return supported(self._lobby.house.engine.status.info.languages)

    def _language(self, asked: dict[str, Any]) -> str:
        """Raises `Refused`."""
        language = asked.get("langId") or asked.get("languageId") or "en"
        if not isinstance(language, str):
            raise Refused("bad_language", "langId is a text")
        info = self._lobby.house.engine.status.info
        return check_language(language, info.languages, detects=info.detects)

    def _check(self, request: web.Request) -> None:
        """Whether Nextcloud asks. Raises `Refused`."""
        secret = self._settings.app_secret
        if not secret:
            if not self._lobby.house.doors.is_open:
                raise Refused("unauthorized", "APP_SECRET is not set", status=401)
            return
        try:
            told = base64.b64decode(request.headers.get("AUTHORIZATION-APP-API", ""), validate=True)
            given = told.decode().partition(":")[2]
        except ValueError:  # no base64, no UTF-8, no ASCII
            given = ""
        of_app = request.headers.get("EX-APP-ID", self._settings.app_id)
        if not hmac.compare_digest(given.encode(), secret.encode()):
            raise Refused("unauthorized", "only Nextcloud may ask this", status=401)
        if of_app != self._settings.app_id:
            raise Refused("unauthorized", "this is another app", status=401)


def socket_of(url: str) -> str:
    """Where the signaling server's socket is, of the address that Nextcloud shows."""
    url = url.rstrip("/").removesuffix("/spreed")
    for plain, socket in (("https://", "wss://"), ("http://", "ws://")):
        if url.startswith(plain):
            url = socket + url.removeprefix(plain)
    return f"{url}/spreed"


def _token(asked: dict[str, Any]) -> str:
    token = asked.get("roomToken")
    if not isinstance(token, str) or not _TOKEN.fullmatch(token):
        raise Refused("bad_request", "roomToken is the token of a conversation")
    return token


def _session(asked: dict[str, Any]) -> str:
    session = asked.get("ncSessionId")
    if not isinstance(session, str) or not _SESSION.fullmatch(session):
        raise Refused("bad_request", "ncSessionId is a session of Nextcloud's")
    return session


def _no_call() -> Refused:
    return Refused("no_such_call", "the bot is in no such call", status=404)
