"""To hear a speaker of a call, as a bot or another participant does."""

import asyncio
import contextlib

import av
import numpy as np
from aiortc import MediaStreamTrack
from aiortc.mediastreams import MediaStreamError

from soak.talk.conversation import Conversation, Refused, is_from
from soak.talk.participant import Peer
from soak.talk.voice import FRAME, RATE, Samples
from tests.clients import until

_SILENCE_S = 0.3
_ANSWER_S = 15.0  # the signaling server itself waits up to 10 s for a publisher


class Listening(Peer):
    """A subscription: what is heard of one speaker, mono at 48 kHz."""

    def __init__(self, talking: Conversation, session: str, sid: str) -> None:
        super().__init__(talking, session, sid)
        self.frames: list[Samples] = []
        self.connection.on("track", self._listen)
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def heard(self) -> Samples:
        return np.concatenate(self.frames) if self.frames else np.zeros(0, np.int16)

    async def wait_until_heard(self, seconds: float, within_s: float = 20.0) -> Samples:
        """That much more than was there."""
        wanted = len(self.frames) + seconds * RATE / FRAME
        await until(lambda: len(self.frames) >= wanted, within_s)
        return self.heard

    async def wait_until_silent(self, within_s: float = 10.0) -> None:
        """Until nothing has come for a while; the connection may well look alive."""
        async with asyncio.timeout(within_s):
            before = -1
            while len(self.frames) != before:
                before = len(self.frames)
                await asyncio.sleep(_SILENCE_S)

    async def close(self) -> None:
        await super().close()
        # a track of a connection that never came about does not end
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def _listen(self, track: MediaStreamTrack) -> None:
        if track.kind == "audio":
            self._tasks.append(asyncio.create_task(self._hear(track), name="talk-hear"))

    async def _hear(self, track: MediaStreamTrack) -> None:
        with contextlib.suppress(MediaStreamError):
            while True:
                frame = await track.recv()
                assert isinstance(frame, av.AudioFrame)
                both = frame.to_ndarray().reshape(-1, len(frame.layout.channels))
                self.frames.append(both[:, 0].astype(np.int16))


async def subscribe(talking: Conversation, session: str, within_s: float = _ANSWER_S) -> Listening:
    """Hear a session of the room. Raises `Refused`."""
    before = len(talking.seen)
    number = await talking.tell_session(session, {"type": "requestoffer", "roomType": "video"})
    message = await talking.wait_for(
        lambda m: m.get("id") == number or is_from(m, session, "offer"),
        since=before,
        within_s=within_s,
    )
    if message["type"] == "error":
        raise Refused(message["error"]["code"])
    offer = message["message"]["data"]
    listening = Listening(talking, session, offer["sid"])
    await listening.describe("offer", offer["payload"]["sdp"])
    connection = listening.connection
    await connection.setLocalDescription(await connection.createAnswer())
    payload = {"type": "answer", "sdp": connection.localDescription.sdp, "nick": ""}
    answer = {"to": session, "sid": offer["sid"], "roomType": "video", "type": "answer"}
    await talking.tell_session(session, answer | {"payload": payload})
    return listening
