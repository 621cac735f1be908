"""Captions of a call for those who asked: in order, nothing twice, interims not too often.

A final waits while nobody is there to take it: the socket is lost, or its reader was not seen
yet. One that was sent counts as read once the server said so, by `read`; until then it is sent
again on the next socket. Time is the loop's.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from server.participant import Participant
from transcriber.types import Caption, Gap

# What Nextcloud's own app keeps to.
INTERIM_EVERY_S = 0.3
_HELD = 50  # finals for one listener: half a minute of a lively call has fewer

Message = dict[str, object]
# To a session of the signaling server; a final has a number, to be given to `read`.
Send = Callable[[str, Message, int | None], None]


@dataclass(slots=True)
class _Listener:
    """One who asked."""

    held: deque[Message] = field(default_factory=lambda: deque(maxlen=_HELD))


class Captioner:
    """It holds what is final until `go_on`."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._is_holding = True
        self._listeners: dict[str, _Listener] = {}  # by Nextcloud's session
        self._sessions: dict[str, str] = {}  # Nextcloud's to the signaling server's
        self._speakers: dict[str, str] = {}  # participant to the speaker's session
        self._sent_at: dict[str, float] = {}  # by speaker, the last interim
        self._waiting: dict[str, tuple[Message, asyncio.TimerHandle]] = {}
        self._last: dict[str, str] = {}  # by speaker, the text of the last interim
        self._numbers = 0
        self._unread: deque[tuple[int, str, Message]] = deque()

    @property
    def has_targets(self) -> bool:
        """Whether anyone who asked is in the room."""
        return any(nextcloud in self._sessions for nextcloud in self._listeners)

    def add(self, nextcloud_session: str) -> None:
        self._listeners.setdefault(nextcloud_session, _Listener())

    def remove(self, nextcloud_session: str) -> None:
        self._listeners.pop(nextcloud_session, None)

    def seen(self, nextcloud_session: str, session: str) -> None:
        """This is the listener's session now."""
        self._sessions[nextcloud_session] = session
        self._send_held(nextcloud_session)

    def gone(self, session: str) -> None:
        """Whoever this was reads no more."""
        for nextcloud, known in list(self._sessions.items()):
            if known == session:
                del self._sessions[nextcloud]
                self.remove(nextcloud)

    def forget_sessions(self) -> None:
        """The room is joined anew: who is there, and as whom, will be seen."""
        self._sessions.clear()

    def speaker(self, participant: str, session: str) -> None:
        """Whose captions those of a participant are."""
        self._speakers[participant] = session

    # The socket

    def hold(self) -> None:
        """There is no socket: keep what is final, what may not have arrived too."""
        self._is_holding = True
        unread, self._unread = self._unread, deque()
        for _, nextcloud, message in unread:
            if (listener := self._listeners.get(nextcloud)) is not None:
                listener.held.append(message)

    def go_on(self) -> None:
        """There is one, and the bot is in the room."""
        self._is_holding = False
        for nextcloud in self._listeners:
            self._send_held(nextcloud)

    def read(self, number: int) -> None:
        """What was sent up to this number has arrived."""
        while self._unread and self._unread[0][0] <= number:
            self._unread.popleft()

    # Captions

    def take(self, participant: Participant, said: Caption | Gap) -> None:
        """Send a caption on, now or a little later."""
        speaker = self._speakers.get(participant.participant)
        if speaker is None or isinstance(said, Gap):
            return
        text = said.stable + said.tentative
        message: Message = {
            "message": text,
            "final": said.is_final,
            "langId": said.language,
            "speakerSessionId": speaker,
        }
        self._forget_waiting(speaker)
        if said.is_final:
            had_text = self._last.pop(speaker, "")
            if text or had_text:
                self._send_final(message)
            return
        if text == self._last.get(speaker, ""):
            return
        loop = asyncio.get_running_loop()
        since = self._sent_at.get(speaker)
        wait_s = 0.0 if since is None else since + INTERIM_EVERY_S - loop.time()
        if wait_s <= 0:
            self._send_interim(speaker, message)
        else:
            timer = loop.call_later(wait_s, self._send_waiting, speaker)
            self._waiting[speaker] = message, timer

    def close(self) -> None:
        for speaker in list(self._waiting):
            self._forget_waiting(speaker)

    def _send_waiting(self, speaker: str) -> None:
        message, _ = self._waiting.pop(speaker)
        self._send_interim(speaker, message)

    def _send_interim(self, speaker: str, message: Message) -> None:
        self._sent_at[speaker] = asyncio.get_running_loop().time()
        self._last[speaker] = str(message["message"])
        if self._is_holding:
            return  # its final will say it better
        for nextcloud in self._listeners:
            if (session := self._sessions.get(nextcloud)) is not None:
                self._send(session, message, None)

    def _send_final(self, message: Message) -> None:
        for nextcloud, listener in self._listeners.items():
            listener.held.append(message)
            self._send_held(nextcloud)

    def _send_held(self, nextcloud: str) -> None:
        listener, session = self._listeners.get(nextcloud), self._sessions.get(nextcloud)
        if self._is_holding or listener is None or session is None:
            return
        while listener.held:
            message = listener.held.popleft()
            self._numbers += 1
            # before it is sent: sending may find that the socket is of no use
            self._unread.append((self._numbers, nextcloud, message))
            self._send(session, message, self._numbers)

    def _forget_waiting(self, speaker: str) -> None:
        waiting = self._waiting.pop(speaker, None)
        if waiting is not None:
            waiting[1].cancel()
