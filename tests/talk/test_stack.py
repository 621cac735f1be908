"""The real servers behind Talk do what a bot relies on, and what it has to live with."""

import asyncio
import contextlib
import hashlib
import hmac
import os
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import numpy as np
import pytest

from soak.talk.conversation import Conversation, Refused, conversation, is_from
from soak.talk.heard import Message
from soak.talk.nextcloud import OUT_OF_CALL, TalkSession
from soak.talk.participant import Participant, participant
from soak.talk.stack import CannotStart, Daemon, TalkStack
from tests.speech import Samples, chirp, level, tone
from tests.talk.line import line_to
from tests.talk.listening import Listening, subscribe
from tests.talk.stack import talk_stack

RATE = 48_000
ROOM = "meeting"
SAID = chirp(8, RATE)
_TRIES = 3
_HEARD_S = 5.0
_AGAIN_S = 1.0


class Bot:
    """An internal client, as short as one can be."""

    def __init__(self, stack: TalkStack, talking: Conversation) -> None:
        self.talking = talking
        self.session = ""
        self.resume_id = ""
        self._stack = stack

    async def hello(self) -> None:
        nonce = secrets.token_hex(32)
        secret = self._stack.internal_secret.encode()
        token = hmac.new(secret, nonce.encode(), hashlib.sha256).hexdigest()
        params = {"random": nonce, "token": token, "backend": self._stack.backend_url}
        await self._hello({"version": "2.0", "auth": {"type": "internal", "params": params}})

    async def resume(self) -> None:
        await self._hello({"version": "2.0", "resumeid": self.resume_id})

    async def join(self, room: str) -> None:
        await self.talking.tell("internal", {"type": "incall", "incall": {"incall": 1}})
        await self.talking.ask("room", {"roomid": room, "sessionid": self.session})

    async def in_call(self, since: int = 0) -> dict[str, int]:
        """Sessions and their flags, as the next update tells."""
        event = await self.talking.wait_for_event("participants", "update", since=since)
        users = [user for user in event["update"]["users"] if not user.get("internal")]
        return {user["sessionId"]: user["inCall"] for user in users}

    async def write(self, listener: str, speaker: str, text: str) -> None:
        transcript = {"type": "transcript", "roomType": "video", "message": text}
        about = {"langId": "en", "speakerSessionId": speaker, "final": True}
        await self.talking.tell_session(listener, transcript | about)

    async def _hello(self, content: Message) -> None:
        hello = (await self.talking.ask("hello", content))["hello"]
        self.session, self.resume_id = hello["sessionid"], hello["resumeid"]


@asynccontextmanager
async def bot_in_room(stack: TalkStack) -> AsyncIterator[Bot]:
    async with conversation(stack.signaling_url) as talking:
        bot = Bot(stack, talking)
        await bot.hello()
        await bot.join(ROOM)
        yield bot


def likeness(heard: Samples, said: Samples) -> float:
    """1 if what was heard stands somewhere in what was said, 0 if nothing like it does."""
    size = len(heard) + len(said)
    spectrum = np.fft.rfft(said, size) * np.conj(np.fft.rfft(heard, size))
    best = np.abs(np.fft.irfft(spectrum, size)).max()
    loud = np.sqrt(np.mean(np.square(said, dtype=np.float64)) * len(heard))
    return float(best / (loud * np.linalg.norm(heard.astype(np.float64))))


async def heard_anew(talking: Conversation, session: str) -> Listening:
    """Hear someone who publishes anew. The server may refuse, or hand out a connection that it is
    about to close with the old one; a bot asks again then."""
    for _ in range(_TRIES):
        try:
            listening = await subscribe(talking, session)
        except Refused:
            await asyncio.sleep(_AGAIN_S)
            continue
        with contextlib.suppress(TimeoutError):
            await listening.wait_until_heard(0.5, within_s=_HEARD_S)
            return listening
        await listening.close()
    raise AssertionError("nothing was heard")


def is_running(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def interfaces() -> list[Path]:
    return list(Path("/sys/class/net").glob(f"rstalk{os.getpid()}*"))


async def test_one_hears_what_the_other_says(talk: TalkStack) -> None:
    async with participant(talk, ROOM, "Ann") as ann, participant(talk, ROOM, "Bob") as bob:
        await ann.speak(SAID)
        await bob.enter_call()
        listening = await subscribe(bob.talking, ann.session)
        heard = await listening.wait_until_heard(1.5)
        await listening.close()
        assert likeness(heard[-RATE:], SAID) > 0.8
        assert likeness(heard[-RATE:], tone(8, RATE)) < 0.3
        assert talk.nextcloud.unauthenticated == 0


async def test_a_bot_hears_and_its_caption_is_read(talk: TalkStack) -> None:
    async with participant(talk, ROOM, "Ann") as ann, participant(talk, ROOM, "Bob") as bob:
        await ann.speak(SAID)
        await bob.enter_call()
        async with bot_in_room(talk) as bot:
            assert await bot.in_call() == {ann.session: 3, bob.session: 3}
            listening = await subscribe(bot.talking, ann.session)
            heard = await listening.wait_until_heard(1.5)
            assert likeness(heard[-RATE:], SAID) > 0.8
            await bot.write(bob.session, ann.session, "good morning")
            caption = await bob.wait_for_transcript(lambda t: t.is_final)
            assert (caption.text, caption.speaker_session) == ("good morning", ann.session)
            assert caption.sender_session == bot.session
            assert not ann.transcripts
            await listening.close()


async def test_a_caption_without_a_room_type_is_refused(talk: TalkStack) -> None:
    async with participant(talk, ROOM, "Ann") as ann, bot_in_room(talk) as bot:
        number = await bot.talking.tell_session(ann.session, {"type": "transcript"})
        error = await bot.talking.wait_for(lambda m: m.get("id") == number)
        assert error["error"]["code"] == "invalid_format"


async def test_an_offer_is_given_once_the_speaker_publishes(talk: TalkStack) -> None:
    async with participant(talk, ROOM, "Ann") as ann, bot_in_room(talk) as bot:
        asked = asyncio.create_task(subscribe(bot.talking, ann.session))
        await ann.speak(SAID)
        listening = await asked
        await listening.wait_until_heard(0.5)
        await listening.close()


async def test_a_speaker_who_does_not_publish_is_not_found(talk: TalkStack) -> None:
    async with participant(talk, ROOM, "Ann") as ann, bot_in_room(talk) as bot:
        with pytest.raises(Refused, match="client_not_found"):
            await subscribe(bot.talking, ann.session)


async def test_who_is_not_in_the_call_hears_nobody(talk: TalkStack) -> None:
    async with participant(talk, ROOM, "Ann") as ann, participant(talk, ROOM, "Bob") as bob:
        await ann.speak(SAID)
        with pytest.raises(Refused, match="not_allowed"):
            await subscribe(bob.talking, ann.session)


async def test_a_ticket_says_hello_too(talk: TalkStack) -> None:
    async with participant(talk, ROOM, "Ann", version="1.0") as ann:
        assert ann.session
        kinds = [r.body.get("type") for r in talk.nextcloud.requests if r.method == "POST"]
        assert kinds == ["auth", "room"]


async def test_a_wrong_ticket_is_refused(talk: TalkStack) -> None:
    unknown = TalkSession(ROOM, "ann", "Ann")
    async with conversation(talk.signaling_url) as talking:
        with pytest.raises(Refused, match="invalid_ticket"):
            await Participant(talk.nextcloud, unknown, talking).hello("1.0")


async def test_a_wrong_internal_secret_is_refused(talk: TalkStack) -> None:
    async with conversation(talk.signaling_url) as talking:
        talk.internal_secret = "another"
        with pytest.raises(Refused, match="invalid_token"):
            await Bot(talk, talking).hello()


async def test_a_muted_speaker_is_heard_as_silence(talk: TalkStack) -> None:
    async with participant(talk, ROOM, "Ann") as ann, bot_in_room(talk) as bot:
        await ann.speak(SAID)
        listening = await subscribe(bot.talking, ann.session)
        await listening.wait_until_heard(0.5)
        assert ann.voice is not None
        ann.voice.is_muted = True
        await listening.wait_until_heard(0.5)
        muted = await listening.wait_until_heard(0.3)
        assert level(muted[-RATE // 5 :]) < 0.001
        ann.voice.is_muted = False
        await listening.wait_until_heard(0.5)
        spoken = await listening.wait_until_heard(0.3)
        assert level(spoken[-RATE // 5 :]) > 0.1
        await listening.close()


async def test_a_republished_voice_has_to_be_asked_for(talk: TalkStack) -> None:
    async with participant(talk, ROOM, "Ann") as ann, bot_in_room(talk) as bot:
        await ann.speak(SAID)
        first = await subscribe(bot.talking, ann.session)
        await first.wait_until_heard(0.5)
        before = len(bot.talking.seen)
        await ann.stop_publishing()
        await ann.publish(SAID)
        await first.wait_until_silent()
        assert first.connection.connectionState == "connected"
        assert not any(is_from(m, ann.session, "offer") for m in bot.talking.seen[before:])
        second = await heard_anew(bot.talking, ann.session)
        await first.close()
        await second.close()


async def test_a_connection_outlives_the_call_of_its_speaker(talk: TalkStack) -> None:
    async with participant(talk, ROOM, "Ann") as ann, bot_in_room(talk) as bot:
        await ann.speak(SAID)
        listening = await subscribe(bot.talking, ann.session)
        await listening.wait_until_heard(0.5)
        before = len(bot.talking.seen)
        await ann.leave_call()
        assert await bot.in_call(before) == {ann.session: OUT_OF_CALL}
        await listening.wait_until_silent()
        assert listening.connection.connectionState == "connected"
        await listening.close()


async def test_a_lost_socket_is_resumed_and_media_goes_on(talk: TalkStack) -> None:
    async with participant(talk, ROOM, "Ann") as ann, participant(talk, ROOM, "Bob") as bob:
        await ann.speak(SAID)
        async with bot_in_room(talk) as bot:
            session = bot.session
            listening = await subscribe(bot.talking, ann.session)
            await listening.wait_until_heard(0.5)
            bot.talking.lose()
            await bot.talking.is_closed.wait()
            missed = len(bot.talking.seen)
            await bob.enter_call()
            await listening.wait_until_heard(0.5)
            await bot.talking.connect()
            await bot.resume()
            assert bot.session == session
            assert bob.session in await bot.in_call(missed)
            with pytest.raises(Refused, match="already_joined"):
                await bot.join(ROOM)
            await listening.wait_until_heard(0.5)
            await listening.close()


async def test_a_participant_who_lost_the_socket_comes_back(talk: TalkStack) -> None:
    async with participant(talk, ROOM, "Ann") as ann, bot_in_room(talk) as bot:
        await ann.speak(SAID)
        listening = await subscribe(bot.talking, ann.session)
        ann.lose_socket()
        await ann.talking.is_closed.wait()
        await bot.write(ann.session, ann.session, "while away")
        assert await ann.come_back()
        caption = await ann.wait_for_transcript(lambda t: t.text == "while away")
        assert caption.sender_session == bot.session
        await listening.wait_until_heard(0.5)
        await listening.close()


async def test_a_line_can_be_cut_and_be_down(talk: TalkStack) -> None:
    async with line_to(talk) as line, conversation(line.url) as talking:
        bot = Bot(talk, talking)
        await bot.hello()
        session = bot.session
        line.cut()
        await talking.is_closed.wait()
        line.is_down = True
        with pytest.raises(aiohttp.ClientError):
            await talking.connect()
        line.is_down = False
        await talking.connect()
        await bot.resume()
        assert (bot.session, line.connections) == (session, 3)


async def test_a_restarted_signaling_server_knows_nobody(talk: TalkStack) -> None:
    async with participant(talk, ROOM, "Ann") as ann, bot_in_room(talk) as bot:
        await ann.speak(SAID)
        first = await subscribe(bot.talking, ann.session)
        await first.wait_until_heard(0.5)
        await talk.signaling.stop()
        await bot.talking.is_closed.wait()
        await first.wait_until_silent()
        await talk.signaling.start()
        await bot.talking.connect()
        with pytest.raises(Refused, match="no_such_session"):
            await bot.resume()
        await bot.hello()
        await bot.join(ROOM)
        assert not await ann.come_back()
        await ann.stop_publishing()
        await ann.speak(SAID)
        second = await heard_anew(bot.talking, ann.session)
        await first.close()
        await second.close()


async def test_a_frozen_signaling_server_does_not_stop_media(talk: TalkStack) -> None:
    async with participant(talk, ROOM, "Ann") as ann, bot_in_room(talk) as bot:
        await ann.speak(SAID)
        listening = await subscribe(bot.talking, ann.session)
        await listening.wait_until_heard(0.2)  # its candidates have come
        talk.signaling.freeze()
        await listening.wait_until_heard(0.5)
        await bot.write(ann.session, ann.session, "late")
        await listening.wait_until_heard(0.5)
        assert not ann.transcripts
        talk.signaling.thaw()
        await ann.wait_for_transcript(lambda t: t.text == "late")
        await listening.close()


async def test_a_killed_janus_is_told_to_nobody(talk: TalkStack) -> None:
    async with participant(talk, ROOM, "Ann") as ann, bot_in_room(talk) as bot:
        await ann.speak(SAID)
        first = await subscribe(bot.talking, ann.session)
        await first.wait_until_heard(0.5)
        before = len(bot.talking.seen)
        await talk.restart_janus()
        await first.wait_until_silent()
        assert first.connection.connectionState == "connected"
        assert bot.talking.seen[before:] == []
        with pytest.raises(Refused, match="processing_failed"):
            await subscribe(bot.talking, ann.session)
        # as a browser does when its connection has failed
        await ann.leave_call()
        await ann.speak(SAID)
        second = await heard_anew(bot.talking, ann.session)
        await first.close()
        await second.close()


async def test_who_is_kicked_is_told_and_cut_off(talk: TalkStack) -> None:
    async with participant(talk, ROOM, "Ann") as ann, bot_in_room(talk) as bot:
        await talk.nextcloud.kick(ann.talk)
        told = await ann.talking.wait_for_event("roomlist", "disinvite")
        assert told["disinvite"] == {"roomid": ROOM, "reason": "disinvited"}
        left = await bot.talking.wait_for_event("room", "leave")
        assert left["leave"] == [ann.session]
        await talk.nextcloud.disinvite(ROOM, bot.session)
        told = await bot.talking.wait_for_event("roomlist", "disinvite")
        assert told["disinvite"]["reason"] == "disinvited"
        await bot.talking.is_closed.wait()
        await bot.talking.connect()
        with pytest.raises(Refused, match="no_such_session"):
            await bot.resume()


async def test_the_end_for_all_is_told_in_one_update(talk: TalkStack) -> None:
    async with participant(talk, ROOM, "Ann") as ann, bot_in_room(talk) as bot:
        await ann.speak(SAID)
        listening = await subscribe(bot.talking, ann.session)
        await listening.wait_until_heard(0.5)
        before = len(bot.talking.seen)
        await talk.nextcloud.end_call_for_all(ROOM)
        event = await bot.talking.wait_for_event("participants", "update", since=before)
        assert event["update"] == {"roomid": ROOM, "incall": 0, "all": True}
        await listening.wait_until_silent()
        await listening.close()


async def test_a_deleted_room_is_told_to_who_is_in_it(talk: TalkStack) -> None:
    async with participant(talk, ROOM, "Ann") as ann, bot_in_room(talk) as bot:
        await talk.nextcloud.delete_room(ROOM)
        told = await ann.talking.wait_for_event("roomlist", "disinvite")
        assert told["disinvite"] == {"roomid": ROOM, "reason": "deleted"}
        await bot.talking.wait_for_event("room", "delete")


async def test_a_stack_leaves_nothing_behind(tmp_path: Path) -> None:
    async with talk_stack(tmp_path) as stack:
        pids = [stack.janus.pid, stack.signaling.pid]
        assert [is_running(pid) for pid in pids] == [True, True]
        assert len(interfaces()) == 2
    assert [is_running(pid) for pid in pids] == [False, False]
    assert interfaces() == []


async def test_a_server_that_does_not_start_shows_its_log(tmp_path: Path) -> None:
    command = ["sh", "-c", "echo no such thing; exit 1"]
    daemon = Daemon("the server", command, 1, tmp_path / "server.log")
    with pytest.raises(CannotStart, match="no such thing"):
        await daemon.start()
    await daemon.close()
