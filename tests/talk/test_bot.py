"""The bot in real calls: Janus and the signaling server are Debian's own."""

import itertools

from soak.talk.participant import participant
from soak.talk.stack import TalkStack
from tests.talk.calls import ROOM, final_from, finals_of, right, speech
from tests.talk.conftest import Bot

SENTENCES = (
    ("robert will open the window on friday", "rms"),
    ("please send the quick report", "slt"),
    ("we meet in tokyo on monday at seven", "awb"),
)


OFFER = "v=0\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111\r\n"


async def test_three_speakers_are_each_heard_as_themselves(stack: TalkStack, bot: Bot) -> None:
    async with (
        participant(stack, ROOM, "Ada") as ada,
        participant(stack, ROOM, "Ben") as ben,
        participant(stack, ROOM, "Eve") as eve,
    ):
        for someone in (ada, ben, eve):
            await someone.enter_call()
        assert await bot.transcribe(ROOM, ada.talk.nc_session) == 200
        assert await bot.transcribe(ROOM, eve.talk.nc_session) == 200
        for someone, (text, voice) in zip((ada, ben, eve), SENTENCES, strict=True):
            await someone.publish(speech(text, voice))
        for someone, (text, _) in zip((ada, ben, eve), SENTENCES, strict=True):
            await final_from(ada, someone.session)
            assert right(text, finals_of(ada, someone.session)) >= 0.8
            told = [t for t in ada.transcripts if t.speaker_session == someone.session]
            # in order, nothing twice, interims not too often
            assert len({(t.text, t.is_final) for t in told}) == len(told)
            interims = [t.at for t in told if not t.is_final]
            assert all(b - a >= 0.25 for a, b in itertools.pairwise(interims))
            assert {t.language for t in told} == {"en"}
        # Eve asked, too; Ben did not
        await final_from(eve, ada.session)
        assert ben.transcripts == []
        # the call's room is an ordinary one
        _, room = await bot.ask("GET", f"/api/v1/rooms/talk-{ROOM}")
        assert {p["name"] for p in room["participants"]} == {"Ada", "Ben", "Eve"}
        # where others read only
        async with bot.http.post(
            f"{bot.server.url}/whip/talk-{ROOM}?name=Mallory",
            data=OFFER,
            headers={"Content-Type": "application/sdp"},
        ) as answer:
            assert (await answer.json())["error"]["code"] == "read_only"
        assert await bot.leave(ROOM) == 200
        assert bot.server.talk.bots == {}
