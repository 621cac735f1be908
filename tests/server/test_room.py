import asyncio

import pytest

from media.peer import Peer
from server.lobby import Lobby
from server.outbox import FINALS_AT_MOST, Outbox
from server.replay import MOST, TOGETHER
from signaling.errors import Refused
from tests.server.rooms import caption, end_room, gap, join, received, room_of, types
from transcriber.types import GapReason, Timing


def value(lobby: Lobby, name: str, **labels: str) -> float | None:
    return lobby.house.metrics.registry.get_sample_value(name, labels)


async def kept(lobby: Lobby, room: str = "standup") -> tuple[list[str], list[str]]:
    """The texts of the segments and the reasons of the gaps in the store."""
    said = await lobby.house.store.transcript(room)
    assert said is not None
    return [segment.text for segment in said.segments], [lost.reason for lost in said.gaps]


# Who is here


async def test_the_welcome_names_everyone_who_is_here(lobby: Lobby) -> None:
    await join(lobby, "Ada")
    ben = await join(lobby, "Ben")
    (welcome,) = await received(ben)
    assert (welcome["participant"], welcome["room"]) == ("p2", "standup")
    assert welcome["participants"] == [
        {"participant": "p1", "name": "Ada", "muted": False, "speaking": False},
        {"participant": "p2", "name": "Ben", "muted": False, "speaking": False},
    ]
    engine = welcome["engine"]
    assert isinstance(engine, dict)
    assert (engine["name"], engine["state"]) == ("scripted", "starting")
    assert welcome["ice_servers"] == []
    assert welcome["resumed"] is False


async def test_the_others_are_told_who_came_and_who_left(lobby: Lobby) -> None:
    ada = await join(lobby, "Ada")
    await received(ada)
    ben = await join(lobby, "Ben")
    ben.leave("left")
    assert await received(ada) == [
        {
            "type": "joined",
            "participant": "p2",
            "name": "Ben",
            "muted": False,
            "speaking": False,
        },
        {"type": "left", "participant": "p2", "reason": "left"},
    ]


async def test_resume_tokens_are_secrets_of_their_own(lobby: Lobby) -> None:
    ada, ben = await join(lobby), await join(lobby)
    assert ada.resume != ben.resume
    assert len(ada.resume) >= 32


async def test_who_leaves_is_told_so_and_gets_nothing_more(lobby: Lobby) -> None:
    ada, ben = await join(lobby, "Ada"), await join(lobby, "Ben")
    outgoing = ada.outgoing()
    await received(ada)
    ada.leave("left")
    room_of(lobby).publish(ben, caption(ben))
    assert [text async for text in outgoing] == ['{"type":"bye","reason":"left"}']


async def test_leaving_twice_is_leaving_once(lobby: Lobby) -> None:
    ada, ben = await join(lobby, "Ada"), await join(lobby, "Ben")
    ada.leave("left")
    await received(ben)
    ada.leave("left")
    assert await received(ben) == []


async def test_muting_is_told_to_everyone_once(lobby: Lobby) -> None:
    ada, ben = await join(lobby, "Ada"), await join(lobby, "Ben")
    await received(ada), await received(ben)
    ada.set_muted(True)
    ada.set_muted(True)
    muted = {"type": "updated", "participant": "p1", "name": "Ada", "muted": True}
    assert await received(ben) == [{**muted, "speaking": False}]
    assert types(await received(ada)) == ["updated"]


async def test_who_comes_back_under_another_name_is_shown_under_it(lobby: Lobby) -> None:
    ada, ben = await join(lobby, "Ada"), await join(lobby, "Ben")
    await received(ben)
    await join(lobby, "Ada L.", resume=ada.resume)
    (updated,) = await received(ben)
    assert (updated["type"], updated["name"]) == ("updated", "Ada L.")


async def test_nobody_new_is_heard_in_a_room_that_ended(lobby: Lobby) -> None:
    ada = await join(lobby)
    room = room_of(lobby)
    room.end()
    peer = Peer()
    with pytest.raises(Refused) as refusal:
        room.attend(ada, peer)
    await peer.close()
    assert (refusal.value.code, refusal.value.status) == ("left", 409)


async def test_a_room_that_ends_sends_everyone_away(lobby: Lobby) -> None:
    ada = await join(lobby)
    outgoing, reader = ada.outgoing(), Outbox()
    await received(ada)
    room_of(lobby).subscribe(reader)
    room_of(lobby).end()
    async with asyncio.timeout(20):
        assert [text async for text in outgoing] == ['{"type":"bye","reason":"ended"}']
        assert [text async for text in reader] == []
    assert reader.reason == "ended"
    assert ada.has_left


# Captions


async def test_everyone_reads_the_same_words_in_the_same_order(lobby: Lobby) -> None:
    ada, ben = await join(lobby, "Ada"), await join(lobby, "Ben")
    await received(ada), await received(ben)
    room = room_of(lobby)
    room.publish(ada, caption(ada, "we", tentative=" meet", is_final=False))
    first = [await received(person) for person in (ada, ben)]
    room.publish(ada, caption(ada, "We meet.", revision=2))
    room.publish(ben, gap(ben))
    second = [await received(person) for person in (ada, ben)]
    assert first[0] == first[1]
    assert second[0] == second[1]
    events = first[0] + second[0]
    assert [(event["type"], event["seq"]) for event in events] == [
        ("caption", 1),
        ("caption", 2),
        ("gap", 3),
    ]


async def test_a_caption_has_the_shape_of_the_wire(lobby: Lobby) -> None:
    ada = await join(lobby, "Ada")
    ada.began_at = 1_760_000_000.0
    await received(ada)
    room_of(lobby).publish(ada, caption(ada, "we meet", utterance=17, revision=4, start_s=12.48))
    assert await received(ada) == [
        {
            "type": "caption",
            "seq": 1,
            "room": "standup",
            "participant": "p1",
            "name": "Ada",
            "segment": "p1-17",
            "revision": 4,
            "stable": "we meet",
            "tentative": "",
            "final": True,
            "start": 12.48,
            "end": 14.48,
            "language": "en",
            "words": [{"word": "we", "start": 12.48, "end": 12.68, "confidence": 0.93}],
            "latency_ms": 640,
            "spoken_at": "2025-10-09T08:53:32.480Z",
        }
    ]


async def test_a_gap_says_what_was_lost_and_why(lobby: Lobby) -> None:
    ada = await join(lobby, "Ada")
    await received(ada)
    for reason in GapReason:
        room_of(lobby).publish(ada, gap(ada, reason))
    gaps = await received(ada)
    assert [event.pop("reason") for event in gaps] == ["overload", "network", "engine"]
    assert gaps[0] == {
        "type": "gap",
        "seq": 1,
        "room": "standup",
        "participant": "p1",
        "name": "Ada",
        "start": 1.0,
        "end": 2.5,
    }
    assert value(lobby, "roomscribe_gap_seconds_total", reason="engine") == 1.5


async def test_finals_and_gaps_are_kept_and_interims_are_not(lobby: Lobby) -> None:
    ada = await join(lobby)
    room = room_of(lobby)
    room.publish(ada, caption(ada, "we", is_final=False))
    room.publish(ada, caption(ada, "We meet.", revision=2))
    room.publish(ada, caption(ada, "", utterance=2))
    room.publish(ada, gap(ada))
    assert await kept(lobby) == (["We meet."], ["network"])


async def test_the_transcript_is_in_the_order_of_speaking(lobby: Lobby) -> None:
    ada, ben = await join(lobby, "Ada"), await join(lobby, "Ben")
    ada.began_at, ben.began_at = 1000.0, 1010.0
    room = room_of(lobby)
    room.publish(ben, caption(ben, "third", start_s=2.0))
    room.publish(ada, caption(ada, "second", utterance=2, start_s=11.0))
    room.publish(ada, caption(ada, "first", start_s=10.5))
    assert await kept(lobby) == (["first", "second", "third"], [])


async def test_a_room_that_ended_is_kept_with_its_participants(lobby: Lobby) -> None:
    ada = await join(lobby)
    room_of(lobby).publish(ada, caption(ada))
    await end_room(lobby)
    (room,) = await lobby.house.store.ended_rooms()
    assert (room.name, room.participants, room.segments) == ("standup", ("Ada",), 1)


async def test_captions_are_measured(lobby: Lobby) -> None:
    ada = await join(lobby)
    room = room_of(lobby)
    first, last = Timing(0.5, 1.25, None, 2, 0), Timing(0.5, None, 0.75, 3, 1)
    room.publish(ada, caption(ada, "we", is_final=False, timing=first))
    room.publish(ada, caption(ada, "We meet.", revision=2, timing=last))
    assert value(lobby, "roomscribe_captions_total", kind="interim") == 1
    assert value(lobby, "roomscribe_captions_total", kind="final") == 1
    assert value(lobby, "roomscribe_words_total", what="shown") == 5
    assert value(lobby, "roomscribe_words_total", what="taken_back") == 1
    assert value(lobby, "roomscribe_first_text_seconds_sum") == 1.25
    assert value(lobby, "roomscribe_final_seconds_sum") == 0.75
    assert value(lobby, "roomscribe_final_seconds_count") == 1


# Readers


async def test_a_listener_who_never_reads_is_closed_as_a_slow_reader(
    lobby: Lobby, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.outbox.SLOW_AFTER_S", 0.0)
    ada, ben = await join(lobby, "Ada"), await join(lobby, "Ben")
    outgoing = ben.outgoing()
    room = room_of(lobby)
    await received(ada)
    for number in range(FINALS_AT_MOST + 1):
        room.publish(ada, caption(ada, utterance=number))
        await received(ada) if number < FINALS_AT_MOST - 1 else None
    assert ben.has_left
    assert {"type": "left", "participant": "p2", "reason": "slow_reader"} in await received(ada)
    # it can be shown why once they read again
    assert [text async for text in outgoing] == ['{"type":"bye","reason":"slow_reader"}']
    assert value(lobby, "roomscribe_listeners_dropped_total") == 1
    room.publish(ada, caption(ada, utterance=99))
    assert types(await received(ada)) == ["caption"]


async def test_a_listener_who_never_reads_interims_is_left_in_peace(lobby: Lobby) -> None:
    ada, ben = await join(lobby, "Ada"), await join(lobby, "Ben")
    for revision in range(500):
        room_of(lobby).publish(ada, caption(ada, revision=revision, is_final=False))
    assert not ben.has_left
    (newest,) = [m for m in await received(ben) if m["type"] == "caption"]
    assert newest["revision"] == 499


async def test_a_resumed_client_gets_what_came_after_the_last_it_has_seen(lobby: Lobby) -> None:
    ada, ben = await join(lobby, "Ada"), await join(lobby, "Ben")
    room = room_of(lobby)
    for number in range(1, 81):
        room.publish(ada, caption(ada, utterance=number))
        await received(ada)
        if number == 20:
            ben.socket_lost(ben.outgoing(), 0.0)
    await join(lobby, "Ben", resume=ben.resume, last_seq=18)
    welcome, *missed = await received(ben)
    assert welcome["resumed"] is True
    assert [event["seq"] for event in missed] == list(range(19, 81))


async def test_a_resumed_client_that_knows_no_number_gets_some_more_than_it_missed(
    lobby: Lobby,
) -> None:
    ada, ben = await join(lobby, "Ada"), await join(lobby, "Ben")
    room = room_of(lobby)
    room.publish(ada, caption(ada, utterance=1))
    ben.socket_lost(ben.outgoing(), 0.0)
    room.publish(ada, caption(ada, utterance=2))
    assert ben.lost_at is not None
    ben.lost_at += 9.0
    await join(lobby, "Ben", resume=ben.resume)
    assert [event["seq"] for event in (await received(ben))[1:]] == [1, 2]
    ben.socket_lost(ben.outgoing(), 0.0)
    ben.lost_at += 11.0
    await join(lobby, "Ben", resume=ben.resume)
    assert types(await received(ben)) == ["welcome"]


async def test_what_was_missed_and_what_comes_do_not_overlap(lobby: Lobby) -> None:
    ada, ben = await join(lobby, "Ada"), await join(lobby, "Ben")
    room = room_of(lobby)
    room.publish(ada, caption(ada, utterance=1))
    await join(lobby, "Ben", resume=ben.resume, last_seq=0)
    room.publish(ada, caption(ada, utterance=2))
    assert [event["seq"] for event in (await received(ben))[1:]] == [1, 2]


async def test_who_is_away_does_not_hold_up_the_others(lobby: Lobby) -> None:
    ada, ben = await join(lobby, "Ada"), await join(lobby, "Ben")
    await received(ada)
    ben.socket_lost(ben.outgoing(), 0.0)
    for number in range(3 * FINALS_AT_MOST):
        room_of(lobby).publish(ada, caption(ada, utterance=number))
        assert types(await received(ada)) == ["caption"]
    assert not ben.has_left


async def test_the_newest_five_hundred_events_stay_in_memory(lobby: Lobby) -> None:
    ada = await join(lobby)
    room = room_of(lobby)
    assert room.history.oldest_seq == 1
    for number in range(MOST + TOGETHER):
        room.publish(ada, caption(ada, utterance=number))
        await received(ada)
    assert room.history.oldest_seq == TOGETHER + 1
    assert [event.seq for event in room.history.after(517)] == [518, 519, 520]


async def test_a_whip_speaker_reads_nothing(lobby: Lobby) -> None:
    speaker = await join(lobby, "OBS", has_socket=False)
    room_of(lobby).publish(speaker, caption(speaker))
    assert speaker.outbox is None
    assert not speaker.has_left


async def test_a_candidate_without_an_offer_is_refused(lobby: Lobby) -> None:
    ada = await join(lobby)
    with pytest.raises(Refused) as refusal:
        await ada.add_candidate("candidate:1", "0")
    assert (refusal.value.code, refusal.value.status) == ("no_offer", 409)


# What happens to many at once


async def test_many_who_leave_at_once_take_no_reader_along(lobby: Lobby) -> None:
    ada = await join(lobby, "Ada")
    others = [await join(lobby, f"Other {number}") for number in range(120)]
    await received(ada)
    for other in others:
        other.leave("left")
    assert not ada.has_left
    assert types(await received(ada)) == ["left"] * 120


async def test_someone_who_mutes_again_and_again_fills_nobodys_line(lobby: Lobby) -> None:
    ada, ben = await join(lobby, "Ada"), await join(lobby, "Ben")
    await received(ada)
    for number in range(1000):
        ben.set_muted(number % 2 == 0)
    (update,) = await received(ada)
    assert (update["participant"], update["muted"]) == ("p2", False)


async def test_who_resumes_comes_with_the_name_and_language_they_say_now(lobby: Lobby) -> None:
    ada = await join(lobby, "Ada", language="de")
    back = await join(lobby, "Ada L.", resume=ada.resume, language="fr")
    assert back is ada
    welcome = (await received(ada))[0]
    assert welcome["engine"]["language"] == "fr"  # type: ignore[index]
    assert [p["name"] for p in welcome["participants"]] == ["Ada L."]  # type: ignore[attr-defined]
    said = await lobby.house.store.transcript("standup")
    assert said is not None
    assert said.participants == (("p1", "Ada L."),)


async def test_who_resumes_after_very_long_gets_older_finals_from_the_store(lobby: Lobby) -> None:
    ada, ben = await join(lobby, "Ada"), await join(lobby, "Ben")
    room = room_of(lobby)
    for number in range(700):
        room.publish(ada, caption(ada, utterance=number))
        await received(ada)
        await received(ben)
    await join(lobby, "Ben", resume=ben.resume, last_seq=0)
    missed = [m["seq"] for m in await received(ben) if m["type"] == "caption"]
    assert missed == list(range(1, 701))
