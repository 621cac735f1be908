"""The protocol of Nextcloud Talk's signaling server as a state machine. Pure.

One `HpbCall` is a bot's place in one call. In: what the socket said, what became of the peers,
the time. Out: decisions, which the shell carries out in their order.

    CONNECTING ── hello ──▶ HELLO ── room ──▶ JOINING ──▶ IN_CALL ──▶ ENDED
        ▲                                                   │
        └─────────── the socket is lost: resume, or anew ───┘

Those who speak in the call are asked for an offer each, one at a time for each of them; an answer
goes back with the `sid` of its offer. A candidate may come before its offer. A connection of a
speaker that falls silent is not told of by the server: the shell says `lost`, and the speaker is
asked for again.
"""

import hashlib
import hmac
import json
import random
import secrets
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

HELLO_WITHIN_S = 5.0
RESUME_WITHIN_S = 30.0
ALONE_FOR_S = 60.0
_TRIES = 5
_BASE_S = 2.0
# Once in a call: often enough to be back within the time to resume, until it is not worth it.
_AT_MOST_S = 4.0
GIVE_UP_AFTER_S = 120.0
_ASK_AGAIN_S = (0.5, 1.0, 2.0, 4.0, 8.0)  # the last one from then on
_OFFER_WITHIN_S = 12.0  # the server waits 10 s for who publishes
_EARLY_CANDIDATES = 50
_RANDOM_BYTES = 32
_LEFT_KNOWN = 1_000
_IN_CALL, _WITH_AUDIO = 1, 2
_VERSIONS = ("2.0", "1.0")
# What the server's text may run into; a number may be infinite.
_MALFORMED = (
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
    ArithmeticError,
    RecursionError,
)
# A secret or a room that is refused is so again; what else goes wrong may pass.
_HOPELESS = frozenset(
    {"invalid_client_type", "invalid_token", "auth_failed", "invalid_backend", "no_such_room"}
)


@dataclass(frozen=True, slots=True)
class Send:
    text: str


@dataclass(frozen=True, slots=True)
class Connect:
    """Open a socket anew."""

    after_s: float


@dataclass(frozen=True, slots=True)
class CloseSocket:
    """What is left of it is not worth having."""


@dataclass(frozen=True, slots=True)
class InCall:
    """The bot is in the call; again after each hello that was no resume."""


@dataclass(frozen=True, slots=True)
class Resumed:
    """On a new socket, in the call as before."""


@dataclass(frozen=True, slots=True)
class Forgotten:
    """The session is no more: who is in the room is yet to be seen."""


@dataclass(frozen=True, slots=True)
class Answer:
    """Answer this offer with a new peer in place of the speaker's last one, then say `answered`."""

    speaker: str
    sid: str
    sdp: str


@dataclass(frozen=True, slots=True)
class AddCandidate:
    speaker: str
    sid: str
    candidate: str
    sdp_mid: str | None


@dataclass(frozen=True, slots=True)
class Drop:
    """The speaker is gone, or speaks no more: close the peer."""

    speaker: str
    has_left: bool


@dataclass(frozen=True, slots=True)
class Seen:
    """A listener of Nextcloud's is in the room under this session."""

    nextcloud_session: str
    session: str


@dataclass(frozen=True, slots=True)
class Gone:
    """A session has left the room."""

    session: str


@dataclass(frozen=True, slots=True)
class Ended:
    """The call is over for the bot; `code` is for machines. Nothing follows."""

    code: str
    message: str


Decision = (
    Send
    | Connect
    | CloseSocket
    | InCall
    | Resumed
    | Forgotten
    | Answer
    | AddCandidate
    | Drop
    | Seen
    | Gone
    | Ended
)


class State(Enum):
    CONNECTING = "connecting"
    HELLO = "hello"
    JOINING = "joining"
    IN_CALL = "in_call"
    ENDED = "ended"


@dataclass(slots=True)
class _Speaker:
    """Someone in the call with audio."""

    sid: str | None = None  # of the offer that was answered or is being
    asked_id: str | None = None
    ask_at: float | None = None  # when to ask for an offer, again
    tries: int = 0
    early: deque[tuple[str, str, str | None]] = field(
        default_factory=lambda: deque(maxlen=_EARLY_CANDIDATES)
    )


class HpbCall:
    def __init__(self, room: str, secret: str, backend: str, chance: random.Random) -> None:
        self.room = room
        self.state = State.CONNECTING
        self.session = ""
        self.ignored: Counter[str] = Counter()  # messages that mean nothing to us, by kind
        self.names: dict[str, str] = {}
        self.speakers: dict[str, _Speaker] = {}
        self._secret = secret
        self._backend = backend
        self._chance = chance
        self._resume = ""
        self._lost_at: float | None = None
        self._out_since: float | None = None  # of the call that the bot was in
        self._version = 0
        self._ids = 0
        self._due: float | None = None  # an answer to hello or room
        self._tries = 0
        self._others: set[str] = set()  # people in the call
        # The server goes on to list those who left the room while they were in the call.
        self._left: deque[str] = deque(maxlen=_LEFT_KNOWN)
        self._alone_since: float | None = None
        self._has_joined = False  # the room, with this session

    # The socket

    def connected(self, now: float) -> list[Decision]:
        """The socket is open."""
        self.state, self._due = State.HELLO, now + HELLO_WITHIN_S
        if self._resume and self._lost_at is not None and now - self._lost_at < RESUME_WITHIN_S:
            version = _VERSIONS[self._version]
            hello: dict[str, object] = {"version": version, "resumeid": self._resume}
            return [self._send("hello", hello)]
        return [*self._forget_session(), self._hello()]

    def disconnected(self, now: float) -> list[Decision]:
        """The socket is gone, or could not be opened."""
        if self.state is State.ENDED:
            return []
        if self.state is State.IN_CALL or self._lost_at is None:
            self._lost_at = now
        if self.state is State.IN_CALL:
            self._out_since = now
        self.state, self._due = State.CONNECTING, None
        self._tries += 1
        if self._tries > _TRIES and (
            self._out_since is None or now - self._out_since >= GIVE_UP_AFTER_S
        ):
            return self._end("unreachable", "the signaling server cannot be reached")
        return [Connect(self._wait_s())]

    def received(self, text: str, now: float) -> list[Decision]:
        """A message came. One that means nothing is counted and passed over."""
        if self.state is State.ENDED:
            return []
        try:
            message = json.loads(text)
            kind = message["type"]
            return self._receive(kind, message, now)
        except _MALFORMED:
            self.ignored["malformed"] += 1
            return []

    def tick(self, now: float) -> list[Decision]:
        """Time passed: what is due, is done. Call a few times a second."""
        if self._due is not None and now >= self._due:
            self._due = None
            return [CloseSocket()]
        if self.state is not State.IN_CALL:
            return []
        decisions: list[Decision] = []
        for name, speaker in self.speakers.items():
            if speaker.ask_at is not None and now >= speaker.ask_at:
                decisions.append(self._ask(name, speaker, now))
        alone = self._alone_since
        if alone is not None and now - alone >= ALONE_FOR_S:
            decisions += self._end("alone", "nobody is in the call any more")
        return decisions

    def leave(self) -> list[Decision]:
        """The bot is wanted no more."""
        return self._end("left", "the bot was asked to leave")

    # The peers

    def answered(self, speaker: str, sid: str, sdp: str) -> list[Decision]:
        """An offer was answered."""
        known = self.speakers.get(speaker)
        if known is None or known.sid != sid:
            return []
        known.tries = 0
        data = {
            "to": speaker,
            "type": "answer",
            "sid": sid,
            "roomType": "video",
            "payload": {"type": "answer", "sdp": sdp, "nick": ""},
        }
        return [self._send_to(speaker, data)]

    def lost(self, speaker: str, sid: str, now: float) -> list[Decision]:
        """The peer of this offer failed, or is silent although its speaker is in the call."""
        known = self.speakers.get(speaker)
        if known is not None and known.sid == sid:
            self._ask_later(known, now)
        return []

    def transcript(self, to: str, message: dict[str, object]) -> Decision:
        """A caption for one session."""
        return self._send_to(to, {"type": "transcript", "roomType": "video", **message})

    # Messages

    def _receive(self, kind: str, message: dict[str, Any], now: float) -> list[Decision]:
        match kind:
            case "welcome":
                return []
            case "hello":
                return self._on_hello(message["hello"], now)
            case "room":
                return self._on_room(message["room"], now)
            case "error":
                return self._on_error(message.get("id"), message["error"], now)
            case "event":
                return self._on_event(message["event"], now)
            case "message":
                return self._on_message(message["message"])
            case "bye":
                return [CloseSocket()]
        self.ignored[_short(kind)] += 1
        return []

    def _on_hello(self, hello: dict[str, Any], now: float) -> list[Decision]:
        session, resume = _text(hello["sessionid"]), hello.get("resumeid")
        resumed = session == self.session and self._lost_at is not None
        self.session, self._lost_at, self._due = session, None, None
        self._resume = _text(resume) if resume else self._resume
        if resumed and self._has_joined:
            # in the room still: to join again is an error
            self.state, self._tries = State.IN_CALL, 0
            if self._alone_since is not None:
                self._alone_since = now  # who is there comes with the next update
            return [Resumed()]
        self.state, self._due = State.JOINING, now + HELLO_WITHIN_S
        return [
            self._send("internal", {"type": "incall", "incall": {"incall": _IN_CALL}}),
            self._send("room", {"roomid": self.room, "sessionid": session}),
        ]

    def _on_room(self, room: dict[str, Any], now: float) -> list[Decision]:
        if self.state is not State.JOINING or _text(room["roomid"]) != self.room:
            return []
        self.state, self._due, self._tries = State.IN_CALL, None, 0
        self._has_joined = True
        self._note_company(now)
        return [InCall()]

    def _on_error(self, answers: object, error: dict[str, Any], now: float) -> list[Decision]:
        code = _text(error["code"])
        for speaker in self.speakers.values():
            if answers is not None and speaker.asked_id == answers:
                # not publishing yet, or not any more; or the server has no media server
                self._ask_later(speaker, now)
                return []
        if code == "already_joined" and self.state is State.JOINING:
            return self._on_room({"roomid": self.room}, now)
        if code == "no_such_session" and self.state is State.HELLO:
            self._due = now + HELLO_WITHIN_S
            return [*self._forget_session(), self._hello()]
        if code == "invalid_hello_version" and self._version + 1 < len(_VERSIONS):
            self._version += 1
            return [self._hello()]
        if self.state in (State.HELLO, State.JOINING):
            told = "the signaling server refuses the bot"
            if code in _HOPELESS:
                return self._end(code, f"{told}: {code}")
            return [CloseSocket()]
        self.ignored[f"error {_short(code)}"] += 1
        return []

    def _on_event(self, event: dict[str, Any], now: float) -> list[Decision]:
        match event["target"], event["type"]:
            case "room", "join":
                return self._each(event["join"], self._on_join)
            case "room", "leave":
                return self._each(event["leave"], lambda gone: self._on_leave(gone, now))
            case "participants", "update":
                return self._on_update(event["update"], now)
            case "roomlist", "disinvite":
                if _text(event["disinvite"]["roomid"]) == self.room:
                    return self._end("kicked", "the bot was sent away")
                return []
            case ("room", "delete") | ("roomlist", "delete"):
                return self._end("deleted", "the room was deleted")
        self.ignored[f"event {_short(event['target'])}/{_short(event['type'])}"] += 1
        return []

    def _each(self, entries: list[Any], take: Callable[[Any], list[Decision]]) -> list[Decision]:
        """What follows from each; one that is malformed takes nothing from the others."""
        decisions: list[Decision] = []
        for entry in entries:
            try:
                decisions += take(entry)
            except _MALFORMED:
                self.ignored["malformed entry"] += 1
        return decisions

    def _on_join(self, entry: dict[str, Any]) -> list[Decision]:
        session = _text(entry["sessionid"])
        user = entry.get("user") or {}
        name = user.get("displayname") or entry.get("displayname") or ""
        if session == self.session:
            return []
        if session in self._left:
            self._left.remove(session)
        if name:
            self.names[session] = _text(name)
        nextcloud = entry.get("roomsessionid")
        return [Seen(_text(nextcloud), session)] if nextcloud else []

    def _on_leave(self, session: object, now: float) -> list[Decision]:
        gone = _text(session)
        self.names.pop(gone, None)
        self._others.discard(gone)
        self._left.append(gone)
        self._note_company(now)
        dropped = self._drop(gone, has_left=True)
        return [*dropped, Gone(gone)]

    def _on_update(self, update: dict[str, Any], now: float) -> list[Decision]:
        if update.get("all") and not update.get("incall", 0):
            return self._end("call_ended", "the call was ended for all")
        users = update.get("users") or []
        decisions = self._each(users, lambda user: self._on_user(user, now))
        self._note_company(now)
        return decisions

    def _on_user(self, user: dict[str, Any], now: float) -> list[Decision]:
        """How someone is in the call now."""
        if user.get("internal"):
            return []
        session, flags = _text(user["sessionId"]), int(user.get("inCall") or 0)
        if session == self.session or session in self._left:
            return []
        decisions: list[Decision] = []
        if nextcloud := user.get("nextcloudSessionId"):
            decisions.append(Seen(_text(nextcloud), session))
        if name := user.get("displayName"):
            self.names.setdefault(session, _text(name))
        (self._others.add if flags & _IN_CALL else self._others.discard)(session)
        if flags & _IN_CALL and flags & _WITH_AUDIO:
            if session not in self.speakers:
                self.speakers[session] = _Speaker(ask_at=now)
        else:
            decisions += self._drop(session, has_left=not flags)
        return decisions

    def _on_message(self, message: dict[str, Any]) -> list[Decision]:
        sender, data = _text(message["sender"]["sessionid"]), message["data"]
        speaker = self.speakers.get(sender)
        match data["type"]:
            case "offer":
                sid, sdp = _text(data["sid"]), _text(data["payload"]["sdp"])
                if speaker is None:
                    self.ignored["offer of a stranger"] += 1
                    return []
                speaker.sid, speaker.asked_id, speaker.ask_at = sid, None, None
                early = [c for c in speaker.early if c[0] == sid]
                speaker.early.clear()
                return [
                    Answer(sender, sid, sdp),
                    *(AddCandidate(sender, sid, text, mid) for _, text, mid in early),
                ]
            case "candidate":
                if speaker is None:
                    self.ignored["candidate of a stranger"] += 1
                    return []
                sid, told = _text(data["sid"]), data["payload"]["candidate"]
                mid = told.get("sdpMid")
                candidate = _text(told["candidate"]), None if mid is None else _text(mid)
                if sid != speaker.sid:
                    speaker.early.append((sid, *candidate))
                    return []
                return [AddCandidate(sender, sid, *candidate)]
        self.ignored[f"message {_short(data['type'])}"] += 1
        return []

    # What follows

    def _wait_s(self) -> float:
        """Before the next try: the first is at once."""
        if self._tries == 1:
            return 0.0
        wait_s = _BASE_S ** min(self._tries - 1, _TRIES)
        if self._out_since is not None:
            wait_s = min(wait_s, _AT_MOST_S)
        return self._chance.uniform(0.5, 1.0) * wait_s

    def _drop(self, session: str, *, has_left: bool) -> list[Decision]:
        if self.speakers.pop(session, None) is None:
            return []
        return [Drop(session, has_left)]

    def _ask(self, name: str, speaker: _Speaker, now: float) -> Decision:
        """Ask for an offer: one question to a speaker at a time, a second destroys the first."""
        speaker.ask_at = now + _OFFER_WITHIN_S
        speaker.tries += 1
        speaker.sid = None
        data = {"type": "requestoffer", "roomType": "video"}
        decision = self._send_to(name, data)
        speaker.asked_id = str(self._ids)
        return decision

    def _ask_later(self, speaker: _Speaker, now: float) -> None:
        wait_s = _ASK_AGAIN_S[min(speaker.tries, len(_ASK_AGAIN_S) - 1)]
        speaker.asked_id, speaker.ask_at = None, now + wait_s

    def _note_company(self, now: float) -> None:
        if self._others:
            self._alone_since = None
        elif self._alone_since is None:
            self._alone_since = now

    def _forget_session(self) -> Iterator[Decision]:
        """Nothing of the session before is left."""
        self._resume, self._lost_at, self.session = "", None, ""
        yield Forgotten()
        for name in list(self.speakers):
            yield from self._drop(name, has_left=False)
        self._others.clear()
        self._alone_since, self._has_joined = None, False
        self._left.clear()

    def _hello(self) -> Decision:
        told = secrets.token_hex(_RANDOM_BYTES)
        token = hmac.new(self._secret.encode(), told.encode(), hashlib.sha256).hexdigest()
        return self._send(
            "hello",
            {
                "version": _VERSIONS[self._version],
                "auth": {
                    "type": "internal",
                    "params": {"random": told, "token": token, "backend": self._backend},
                },
            },
        )

    def _send(self, kind: str, content: Mapping[str, object]) -> Send:
        self._ids += 1
        return Send(json.dumps({"id": str(self._ids), "type": kind, kind: content}))

    def _send_to(self, session: str, data: Mapping[str, object]) -> Send:
        to = {"type": "session", "sessionid": session}
        return self._send("message", {"recipient": to, "data": data})

    def _end(self, code: str, message: str) -> list[Decision]:
        if self.state is State.ENDED:
            return []
        was_connected = self.state is not State.CONNECTING
        self.state, self._due = State.ENDED, None
        dropped = [d for name in list(self.speakers) for d in self._drop(name, has_left=True)]
        bye: list[Decision] = [self._send("bye", {})] if was_connected else []
        return [*dropped, *bye, Ended(code, message)]


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("a text is expected")
    return value


def _short(kind: object) -> str:
    """For a counter: no one's words at length."""
    return str(kind)[:40]
