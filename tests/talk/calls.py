"""Words of a call: what is said in it, and what those who asked have read."""

import asyncio
import contextlib
import difflib
from collections.abc import Sequence

import numpy as np

from server.participant import Participant as InRoom
from server.talk_bot import TalkBot
from soak.talk.participant import Participant, Transcript
from tests.clients import until
from tests.speech import Samples, resampled, silence, tone
from tests.talk.conftest import Bot
from tests.tiny import say
from transcriber.recordings import word_errors
from transcriber.types import Caption, Gap

ROOM = "abc123xy"
RATE = 48_000
# The bot sends again what it has no news of: a few at a time.
_RESENT = 4


def speech(text: str, voice: str = "slt", *, times: int = 1, pause_s: float = 1.2) -> Samples:
    """A sentence that the small Whisper knows the words of, after a little silence."""
    said = resampled(say(text, voice).samples, 16_000, RATE)
    return np.concatenate([silence(0.6, RATE), *[said, silence(pause_s, RATE)] * times])


def sounds(times: int, *, sound_s: float = 0.8, pause_s: float = 1.0) -> Samples:
    """Utterances for the scripted engine, which makes words of when they came."""
    one = np.concatenate([tone(sound_s, RATE), silence(pause_s, RATE)])
    return np.concatenate([silence(0.6, RATE), *[one] * times])


def finals_of(reader: Participant, speaker: str | None = None) -> list[Transcript]:
    return [
        t
        for t in reader.transcripts
        if t.is_final and (speaker is None or t.speaker_session == speaker)
    ]


def right(said: str, heard: Sequence[Transcript]) -> float:
    """The share of the words that came."""
    errors, words = word_errors(said, " ".join(t.text for t in heard))
    return 1 - errors / words


async def final_from(
    reader: Participant, speaker: str, within_s: float = 30.0, *, after: int = 0
) -> Transcript:
    """The next final after so many."""
    await until(lambda: len(finals_of(reader, speaker)) > after, within_s)
    return finals_of(reader, speaker)[after]


def the_call(bot: Bot) -> TalkBot:
    return bot.server.talk.bots[ROOM]


class Said:
    """The finals of a call's room, as they were made."""

    def __init__(self, bot: Bot) -> None:
        self.texts: list[str] = []
        bot.server.lobby.rooms[f"talk-{ROOM}"].watch(self._note)

    def _note(self, _participant: InRoom, said: Caption | Gap) -> None:
        if isinstance(said, Caption) and said.is_final and said.stable:
            self.texts.append(said.stable)


async def assert_read(
    reader: Participant, said: Said, within_s: float = 10.0, *, may_repeat: int = 0
) -> None:
    """Every final of the room came to the reader: in order, once.

    Where the line was cut a final may repeat: it was read, and the news of that was cut off.
    """

    def read() -> list[str]:
        told = [t.text for t in finals_of(reader) if t.text]
        return _without_repeats(told, said.texts, may_repeat)[: len(said.texts)]

    with contextlib.suppress(TimeoutError):
        await until(lambda: read() == said.texts, within_s)
    differing = [d for d in difflib.ndiff(said.texts, read()) if not d.startswith("  ")]
    assert read() == said.texts, f"- was said, + was read: {differing}"


def _without_repeats(told: list[str], said: list[str], most: int) -> list[str]:
    """What was told, but for so many that are not next and were among the last few told."""
    kept: list[str] = []
    for text in told:
        is_next = said[len(kept) : len(kept) + 1] == [text]
        if not is_next and most > 0 and text in kept[-_RESENT:]:
            most -= 1
        else:
            kept.append(text)
    return kept


async def over(bot: Bot, call: TalkBot, within_s: float = 5.0) -> str:
    """Wait until the bot has left and nothing of it is there; the reason."""
    await until(lambda: call.is_over, within_s)
    await until(lambda: ROOM not in bot.server.talk.bots, within_s)
    assert call.reason is not None
    return call.reason.code


async def all_closed(bot: Bot, within_s: float = 5.0) -> None:
    """No participant, peer or task of a call is left."""

    def tasks() -> list[str]:
        names = [t.get_name() for t in asyncio.all_tasks()]
        return [n for n in names if n.startswith(("talk-call", "talk-tick", "talk-writer"))]

    def rooms() -> list[object]:
        lobby = bot.server.lobby
        return [p for r in lobby.rooms.values() for p in [*r.participants.values(), *r.peers]]

    await until(lambda: not bot.server.talk.bots and not tasks() and not rooms(), within_s)
