import asyncio
import time

import pytest

from server.lobby import Lobby, summary
from server.room import RESUME_WITHIN_S
from signaling.errors import Refused
from tests.server.rooms import Message, join, received, room_of, types
from transcriber.types import BatchReport, EngineInfo, EngineState, EngineStatus

LINGER_S = 60.0


def joins(lobby: Lobby, outcome: str) -> float | None:
    return lobby.house.metrics.registry.get_sample_value(
        "roomscribe_joins_total", {"outcome": outcome}
    )


def batch(lag_s: float) -> BatchReport:
    return BatchReport(windows=2, audio_s=4.0, engine_s=lag_s / 2, queue_age_s=lag_s / 2, waiting=3)


async def test_a_room_exists_from_its_first_participant_on(lobby: Lobby) -> None:
    assert lobby.rooms == {}
    ada = await join(lobby)
    assert list(lobby.rooms) == ["standup"]
    assert room_of(lobby).participants == {"p1": ada}


async def test_rooms_are_told_apart_by_name(lobby: Lobby) -> None:
    ada, ben = await join(lobby, room="a"), await join(lobby, "Ben", room="b")
    assert (ada.participant, ben.participant) == ("p1", "p1")
    assert ada.stream_id != ben.stream_id
    assert types(await received(ada)) == ["welcome"]


async def test_a_room_lingers_after_its_last_participant_left(lobby: Lobby) -> None:
    ada = await join(lobby)
    lobby.sweep(time.monotonic() + 10 * LINGER_S)
    assert "standup" in lobby.rooms
    ada.leave("left")
    left_at = time.monotonic()
    lobby.sweep(left_at + LINGER_S - 1)
    assert "standup" in lobby.rooms
    lobby.sweep(left_at + LINGER_S)
    assert lobby.rooms == {}


async def test_who_comes_while_a_room_lingers_finds_the_same_room(lobby: Lobby) -> None:
    ada = await join(lobby)
    room = room_of(lobby)
    ada.leave("left")
    ben = await join(lobby, "Ben")
    assert room_of(lobby) is room
    assert ben.participant == "p2"
    lobby.sweep(time.monotonic() + 10 * LINGER_S)
    assert room_of(lobby) is room


async def test_a_room_of_the_same_name_is_another_room_later(lobby: Lobby) -> None:
    (await join(lobby)).leave("left")
    before = room_of(lobby)
    lobby.sweep(time.monotonic() + LINGER_S + 1)
    ben = await join(lobby, "Ben")
    assert room_of(lobby).id != before.id
    assert ben.participant == "p1"


async def test_a_room_does_not_end_under_the_one_who_opens_it(lobby: Lobby) -> None:
    entering = asyncio.create_task(join(lobby))
    await asyncio.sleep(0)
    lobby.sweep(time.monotonic() + LINGER_S)
    ada = await entering
    assert room_of(lobby).participants == {"p1": ada}


async def test_a_room_that_ends_is_not_entered(lobby: Lobby) -> None:
    await join(lobby)
    ending = room_of(lobby)
    ending.end()
    ben = await join(lobby, "Ben")
    assert room_of(lobby) is not ending
    assert room_of(lobby).participants == {"p1": ben}


async def test_the_sweep_runs_by_itself(lobby: Lobby, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server.room.RESUME_WITHIN_S", 0.0)
    ada, ben = await join(lobby), await join(lobby, "Ben")
    ada.socket_lost(ada.outgoing(), 0.0)
    async with asyncio.timeout(20):
        assert ben.outbox is not None
        while '"left"' not in await anext(ben.outbox):
            pass
    assert list(room_of(lobby).participants) == ["p2"]


async def test_who_lost_their_socket_keeps_their_seat_for_30_s(lobby: Lobby) -> None:
    ada, ben = await join(lobby), await join(lobby, "Ben")
    await received(ben)
    ada.socket_lost(ada.outgoing(), 0.0)
    lost_at = time.monotonic()
    lobby.sweep(lost_at + RESUME_WITHIN_S - 1)
    assert room_of(lobby).participants.keys() == {"p1", "p2"}
    assert await received(ben) == []
    lobby.sweep(lost_at + RESUME_WITHIN_S)
    assert room_of(lobby).participants.keys() == {"p2"}
    assert await received(ben) == [{"type": "left", "participant": "p1", "reason": "lost"}]
    assert RESUME_WITHIN_S == 30.0


async def test_silence_before_the_loss_counts_towards_the_30_s(lobby: Lobby) -> None:
    ada = await join(lobby)
    ada.socket_lost(ada.outgoing(), 2.3)
    lost_at = time.monotonic()
    lobby.sweep(lost_at + 27.0)
    assert "p1" in room_of(lobby).participants
    lobby.sweep(lost_at + 27.8)
    assert "p1" not in room_of(lobby).participants


async def test_who_comes_back_in_time_is_the_same_participant(lobby: Lobby) -> None:
    ada, ben = await join(lobby), await join(lobby, "Ben")
    await received(ben)
    ada.socket_lost(ada.outgoing(), 0.0)
    lobby.sweep(time.monotonic() + 29)
    back = await join(lobby, resume=ada.resume)
    assert back is ada
    (welcome,) = await received(back)
    assert (welcome["participant"], welcome["resumed"]) == ("p1", True)
    assert welcome["resume"] == ada.resume
    assert await received(ben) == []
    lobby.sweep(time.monotonic() + 100)
    assert room_of(lobby).participants.keys() == {"p1", "p2"}
    assert joins(lobby, "resumed") == 1


async def test_who_comes_back_too_late_is_someone_new(lobby: Lobby) -> None:
    ada = await join(lobby)
    ada.socket_lost(ada.outgoing(), 0.0)
    lobby.sweep(time.monotonic() + 31)
    back = await join(lobby, resume=ada.resume)
    assert back.participant == "p2"
    (welcome,) = await received(back)
    assert welcome["resumed"] is False


async def test_a_second_socket_takes_the_place_of_the_first(lobby: Lobby) -> None:
    ada = await join(lobby)
    first = ada.outgoing()
    await received(ada)
    await join(lobby, resume=ada.resume)
    assert [text async for text in first] == ['{"type":"bye","reason":"resumed"}']
    # what the first socket's shell says at its end is of no matter
    ada.socket_lost(first, 0.0)
    lobby.sweep(time.monotonic() + 100)
    assert "p1" in room_of(lobby).participants


@pytest.mark.parametrize("resume", ["", "nobody's"])
async def test_a_resume_token_that_is_not_known_is_a_new_seat(lobby: Lobby, resume: str) -> None:
    await join(lobby)
    assert (await join(lobby, resume=resume)).participant == "p2"


async def test_a_resume_token_is_of_one_room(lobby: Lobby) -> None:
    ada = await join(lobby, room="a")
    back = await join(lobby, room="b", resume=ada.resume)
    assert back is not ada
    assert lobby.rooms.keys() == {"a", "b"}


async def test_the_seat_of_a_whip_speaker_is_not_taken_by_a_socket(lobby: Lobby) -> None:
    speaker = await join(lobby, "OBS", has_socket=False)
    assert (await join(lobby, resume=speaker.resume)) is not speaker


async def test_a_seat_is_found_by_its_token(lobby: Lobby) -> None:
    ada = await join(lobby)
    assert lobby.find_seat("standup", ada.resume) is ada
    assert lobby.find_seat("standup", "nobody's") is None
    assert lobby.find_seat("elsewhere", ada.resume) is None


async def test_a_language_that_the_engine_does_not_know_opens_no_room(lobby: Lobby) -> None:
    with pytest.raises(Refused) as refusal:
        await join(lobby, language="tlh")
    assert refusal.value.code == "bad_language"
    assert lobby.rooms == {}


async def test_who_names_no_language_speaks_that_of_the_settings(lobby: Lobby) -> None:
    assert (await join(lobby)).language == "en"
    assert (await join(lobby, language="de-AT")).language == "de"


async def test_a_language_of_the_settings_that_the_engine_lacks_falls_back_to_its_first(
    lobby: Lobby,
) -> None:
    info = EngineInfo("other", "m", ("fr", "de"), "")
    lobby.house.engine.status = EngineStatus(EngineState.READY, info)
    assert (await join(lobby)).language == "fr"


async def test_every_page_is_told_how_the_engine_is(lobby: Lobby) -> None:
    ada, ben = await join(lobby, room="a"), await join(lobby, "Ben", room="b")
    await received(ada), await received(ben)
    info = lobby.house.engine.status.info
    for state, progress in ((EngineState.RESTARTING, None), (EngineState.LOADING, 0.42)):
        lobby.engine_changed(EngineStatus(state, info, progress))
    engine: Message = {
        "name": info.name,
        "model": info.model,
        "languages": [*info.languages],
        "note": info.note,
        "detects": False,
    }
    told: list[Message] = [
        {"type": "engine", "state": "restarting", "progress": None, "message": "", **engine},
        {"type": "engine", "state": "loading", "progress": 0.42, "message": "", **engine},
    ]
    assert await received(ada) == told
    assert await received(ben) == told
    registry = lobby.house.metrics.registry
    assert registry.get_sample_value("roomscribe_engine_restarts_total") == 1
    assert registry.get_sample_value("roomscribe_engine_ready") == 0
    lobby.engine_changed(EngineStatus(EngineState.READY, info))
    assert registry.get_sample_value("roomscribe_engine_ready") == 1


async def test_pages_are_told_when_captions_lag_and_when_they_have_caught_up(
    lobby: Lobby,
) -> None:
    ada = await join(lobby)
    await received(ada)
    for lag_s in (1.0, 2.0, 3.0, 1.0, 0.7, 1.2):
        lobby.batch_done(batch(lag_s))
    assert await received(ada) == [
        {"type": "load", "state": "catching_up", "lag_s": 2.0},
        {"type": "load", "state": "ok", "lag_s": 0.7},
    ]


async def test_who_comes_while_captions_lag_is_told_so_after_the_welcome(lobby: Lobby) -> None:
    ada = await join(lobby)
    lobby.batch_done(batch(2.0))
    told = await received(ada)
    ben = await join(lobby, name="Ben")
    lag = {"type": "load", "state": "catching_up", "lag_s": 2.0}
    assert told[-1] == lag
    assert (await received(ben))[-1] == lag

    back = await join(lobby, resume=ada.resume)
    assert back is ada
    said = types(await received(back))
    assert said.index("welcome") < said.index("load")

    lobby.batch_done(batch(0.1))
    cem = await join(lobby, name="Cem")
    assert "load" not in types(await received(cem))


async def test_captions_have_caught_up_when_there_is_nothing_more_to_do(lobby: Lobby) -> None:
    ada = await join(lobby)
    lobby.batch_done(batch(4.0))
    await received(ada)
    lobby.sweep(time.monotonic() + 1)
    assert await received(ada) == []
    lobby.sweep(time.monotonic() + 2)
    assert await received(ada) == [{"type": "load", "state": "ok", "lag_s": 0.0}]


async def test_a_batch_is_measured(lobby: Lobby) -> None:
    lobby.batch_done(batch(2.0))
    lobby.batch_done(BatchReport(1, 0.0, 0.1, 0.1, 0))
    value = lobby.house.metrics.registry.get_sample_value
    assert value("roomscribe_batch_windows_sum") == 3
    assert value("roomscribe_engine_seconds_sum") == 1.1
    assert value("roomscribe_queue_age_seconds_sum") == 1.1
    assert value("roomscribe_real_time_factor_count") == 1
    assert value("roomscribe_real_time_factor_sum") == 0.25
    assert value("roomscribe_windows_queued") == 0


async def test_a_closed_lobby_says_good_bye_and_lets_no_one_in(lobby: Lobby) -> None:
    ada = await join(lobby)
    await received(ada)
    outgoing = ada.outgoing()
    await lobby.close()
    texts = [text async for text in outgoing]
    assert texts[0] == '{"type":"bye","reason":"shutdown"}'
    with pytest.raises(Refused) as refusal:
        await join(lobby, "Ben")
    assert (refusal.value.code, refusal.value.status) == ("shutting_down", 503)
    assert refusal.value.retryable
    assert refusal.value.retry_after_s == 5
    with pytest.raises(Refused):
        await join(lobby, resume=ada.resume)
    assert joins(lobby, "closing") == 2


async def test_the_summary_of_a_room_says_who_is_there_since_when(lobby: Lobby) -> None:
    await join(lobby)
    told = summary(room_of(lobby))
    people = told.pop("participants")
    assert isinstance(people, list)
    (ada,) = people
    assert str(told.pop("started_at")).endswith("Z")
    assert told == {"room": "standup", "ended_at": None, "locked": False}
    assert str(ada.pop("since")).endswith("Z")
    assert ada == {
        "participant": "p1",
        "name": "Ada",
        "muted": False,
        "speaking": False,
        "dropped_s": {"network": 0.0, "overload": 0.0},
        "audio": {
            "received": 0,
            "transcribed": 0,
            "silence": 0,
            "pending": 0,
            "dropped": {"overload": 0, "network": 0, "engine": 0},
        },
    }
