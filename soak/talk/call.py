"""One call of Talk, from the first who enters to the last who leaves.

Everyone asks the server for captions and reads them; some talk, the others send silence. What they
are told is held against what a reader of the call's room is told.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import aiohttp
import numpy as np

from soak.delivery import SETTLE_S, CallDelivery
from soak.sse import SseReader, again_and_again, captions_of
from soak.talk.nextcloud import IN_CALL, WITH_AUDIO
from soak.talk.participant import Participant, participant
from soak.talk.stack import TalkStack
from soak.talk.voice import RATE, Samples

# An engine that hangs is given up after 20 s, and the next has to load its model.
_HEARD_S = 60.0
_LAST_WORDS_S = 3.0
_SILENCE = np.zeros(RATE, np.int16)


class NotTaken(Exception):
    """The server was asked for captions and did not say that they follow."""


class Call:
    """Made by `call`."""

    def __init__(self, http: aiohttp.ClientSession, url: str, stack: TalkStack, token: str) -> None:
        self.delivery = CallDelivery()
        self._http = http
        self._url = url
        self._stack = stack
        self._token = token
        self._people: list[Participant] = []
        self._heard: dict[str, asyncio.Event] = {}  # by session

    async def gather(
        self, names: list[str], talkers: int, speech: Samples, until_left: AsyncExitStack
    ) -> None:
        for name in names:
            someone = await until_left.enter_async_context(
                participant(self._stack, self._token, name)
            )
            until_left.callback(self._stack.nextcloud.end_session, someone.talk)
            self._people.append(someone)
            self._heard[someone.session] = asyncio.Event()
            await someone.enter_call(IN_CALL | WITH_AUDIO)
        for number, someone in enumerate(self._people):
            begins = len(speech) * number // len(names)
            said = np.roll(speech, -begins) if number < talkers else _SILENCE
            await someone.publish(said, repeats=True)

    async def read(self) -> None:
        """Until cancelled: what the room is told, and what those in the call are."""
        room = captions_of(self._url, f"talk-{self._token}")
        reader = SseReader(self._http, room, self._reader_came, self._said)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(again_and_again(reader.once), name="soak-call-sse")
            for someone in self._people:
                tasks.create_task(self._listen(someone), name="soak-call-read")

    async def ask(self, talkers: int) -> None:
        """For captions, and wait until all who talk are heard. Raises `NotTaken`,
        `TimeoutError`."""
        for someone in self._people:
            self.delivery.came(someone.talk.name, time.monotonic())
            asked = {"roomToken": self._token, "ncSessionId": someone.talk.nc_session}
            await self._post("transcribe", {**asked, "enable": True, "langId": "en"})
        async with asyncio.timeout(_HEARD_S):
            for someone in self._people[:talkers]:
                await self._heard[someone.session].wait()

    async def end(self, *, for_all: bool) -> None:
        """Let the last words come, and be judged; then all go, one by one or at once."""
        for someone in self._people:
            if someone.voice is not None:
                someone.voice.is_muted = True
        await asyncio.sleep(_LAST_WORDS_S)
        give_up = time.monotonic() + SETTLE_S
        # no event tells of it
        while not self.delivery.is_settled and time.monotonic() < give_up:  # noqa: ASYNC110
            await asyncio.sleep(0.1)
        self.delivery.end()
        if for_all:
            await self._stack.nextcloud.end_call_for_all(self._token)
            return
        for someone in self._people:
            await someone.leave_call()
        await self._post("leave", {"roomToken": self._token})

    async def _post(self, what: str, content: dict[str, Any]) -> None:
        url = f"{self._url}/api/v1/call/{what}"
        async with self._http.post(url, json=content) as answer:
            if answer.status != 200:
                raise NotTaken(f"{what}: the server answered {answer.status}")

    async def _listen(self, someone: Participant) -> None:
        names = {each.session: each.talk.name for each in self._people}
        async for told in someone.captions():
            speaker = names.get(told.speaker_session)
            if speaker is None:
                continue
            if told.text:
                self._heard[told.speaker_session].set()
            if told.is_final and told.text:
                self.delivery.told(someone.talk.name, (speaker, told.text), time.monotonic())

    def _reader_came(self) -> None:
        self.delivery.reader_came(time.monotonic())

    def _said(self, told: dict[str, Any]) -> None:
        names = {someone.talk.name for someone in self._people}
        text = told.get("stable", "") + told.get("tentative", "")
        # of those who were here before there may be last words
        if text and told["name"] in names:
            self.delivery.said(told["seq"], (told["name"], text), time.monotonic())


@asynccontextmanager
async def call(
    http: aiohttp.ClientSession,
    url: str,
    stack: TalkStack,
    token: str,
    names: list[str],
    talkers: int,
    speech: Samples,
) -> AsyncIterator[Call]:
    """A call in which all who talk are heard. Raises what an `ExceptionGroup` holds: `NotTaken`,
    `Refused`, `TimeoutError`, `aiohttp.ClientError`."""
    async with AsyncExitStack() as until_left, asyncio.TaskGroup() as tasks:
        it = Call(http, url, stack, token)
        await it.gather(names, talkers, speech, until_left)
        reading = tasks.create_task(it.read(), name="soak-call")
        try:
            await it.ask(talkers)
            yield it
        finally:
            reading.cancel()
