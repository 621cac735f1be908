"""A browser's session as a state machine. Pure: text and time in, decisions out.

    WAITING ── hello ──▶ JOINING ── joined ──▶ JOINED ──▶ CLOSED
       └─ 5 s without hello, or refused ─────────────────▶ CLOSED

The shell carries out decisions in their order and reports back what a person must know of.
"""

from dataclasses import dataclass
from enum import Enum

from signaling import messages
from signaling.errors import BadMessage
from signaling.messages import (
    Candidate,
    ClientBye,
    Error,
    Hello,
    Language,
    Mute,
    Offer,
    Ping,
    ServerMessage,
)

HELLO_WITHIN_S = 5.0
PING_EVERY_S = 5.0
BAD_MESSAGES_AT_MOST = 10
_EARLY_CANDIDATES = 20

CLOSE_NORMAL = 1000
CLOSE_POLICY = 1008


@dataclass(frozen=True, slots=True)
class Join:
    hello: Hello


@dataclass(frozen=True, slots=True)
class AnswerOffer:
    sdp: str


@dataclass(frozen=True, slots=True)
class AddCandidate:
    candidate: str
    sdp_mid: str | None


@dataclass(frozen=True, slots=True)
class SetLanguage:
    language: str


@dataclass(frozen=True, slots=True)
class SetMuted:
    muted: bool


@dataclass(frozen=True, slots=True)
class Leave:
    reason: str


@dataclass(frozen=True, slots=True)
class Send:
    message: ServerMessage


@dataclass(frozen=True, slots=True)
class Close:
    code: int
    reason: str


Decision = Join | AnswerOffer | AddCandidate | SetLanguage | SetMuted | Leave | Send | Close


class State(Enum):
    WAITING = "waiting"
    JOINING = "joining"
    JOINED = "joined"
    CLOSED = "closed"


class Session:
    """In: `receive`, `joined`, `refused`, `expire`. Out: lists of decisions."""

    def __init__(self, now: float) -> None:
        self.state = State.WAITING
        self._hello_by = now + HELLO_WITHIN_S
        self._ping_at = now + PING_EVERY_S
        self._bad = 0
        self._has_offered = False
        self._early: list[AddCandidate] = []

    def receive(self, text: str) -> list[Decision]:
        """Take a text message."""
        if self.state is State.CLOSED:
            return []
        try:
            message = messages.parse(text)
            return self._decide(message)
        except BadMessage as error:
            return self._count_bad(error)

    def receive_binary(self) -> list[Decision]:
        """Take a binary message: there are none in this protocol."""
        if self.state is State.CLOSED:
            return []
        return self._count_bad(BadMessage("messages are text"))

    def joined(self) -> list[Decision]:
        """The join was carried out."""
        self.state = State.JOINED
        return []

    def refused(self, error: Error) -> list[Decision]:
        """The join was refused: nothing more can come of this socket."""
        return [Send(error), *self._close(CLOSE_POLICY, error.code)]

    def expire(self, now: float) -> list[Decision]:
        """Do what is due by now; `next_deadline` says when to call again."""
        if self.state is State.WAITING and now >= self._hello_by:
            error = Error(code="no_hello", message="hello did not come within 5 s", retryable=True)
            return [Send(error), *self._close(CLOSE_POLICY, "no_hello")]
        if now >= self._ping_at:
            self._ping_at = now + PING_EVERY_S
            return [] if self.state is State.CLOSED else [Send(Ping())]
        return []

    def next_deadline(self) -> float:
        if self.state is State.WAITING:
            return min(self._hello_by, self._ping_at)
        return self._ping_at

    def _decide(self, message: messages.ClientMessage) -> list[Decision]:
        if self.state is State.WAITING:
            if not isinstance(message, Hello):
                raise BadMessage("the first message must be hello")
            self.state = State.JOINING
            return [Join(message)]
        match message:
            case Hello():
                raise BadMessage("hello comes only once")
            case Offer():
                early, self._early, self._has_offered = self._early, [], True
                return [AnswerOffer(message.sdp), *early]
            case Candidate():
                return self._candidate(AddCandidate(message.candidate, message.sdpMid))
            case Language():
                return [SetLanguage(message.language)]
            case Mute():
                return [SetMuted(message.muted)]
            case ClientBye():
                return [Leave("left"), *self._close(CLOSE_NORMAL, "bye")]

    def _candidate(self, candidate: AddCandidate) -> list[Decision]:
        if self._has_offered:
            return [candidate]
        # Browsers may find candidates before their offer is on its way.
        if len(self._early) >= _EARLY_CANDIDATES:
            raise BadMessage("too many candidates before an offer")
        self._early.append(candidate)
        return []

    def _count_bad(self, error: BadMessage) -> list[Decision]:
        self._bad += 1
        decisions: list[Decision] = [Send(messages.error_of(error))]
        if self._bad >= BAD_MESSAGES_AT_MOST:
            leave: list[Decision] = [Leave("bad_messages")] if self.state is State.JOINED else []
            return decisions + leave + self._close(CLOSE_POLICY, "bad_message")
        return decisions

    def _close(self, code: int, reason: str) -> list[Decision]:
        self.state = State.CLOSED
        return [Close(code, reason)]
