import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest
from aiohttp import ClientResponse, web
from aiohttp.test_utils import TestClient

from server import replay
from server.lobby import Lobby
from server.participant import Participant
from server.replay import MOST, TOGETHER
from server.room import Room
from tests.clients import until
from tests.server.rooms import caption, gap, join, received, room_of

Http = TestClient[web.Request, web.Application]

PATH = "/api/v1/rooms/standup/captions"


@dataclass(frozen=True)
class Event:
    kind: str
    id: int | None
    data: dict[str, object]


class Reader:
    """Reads Server-Sent Events as a browser does. `comments` counts comment lines."""

    def __init__(self, answer: ClientResponse) -> None:
        self._answer = answer
        self.comments = 0

    async def next(self) -> Event | None:
        """The next event; None at the end of the stream."""
        fields: dict[str, str] = {}
        async with asyncio.timeout(10):
            async for line in self._answer.content:
                text = line.decode().rstrip("\n")
                if text.startswith(":"):
                    self.comments += 1
                elif text:
                    name, value = text.split(": ", 1)
                    assert name not in fields
                    fields[name] = value
                elif fields:
                    number = int(fields["id"]) if "id" in fields else None
                    return Event(fields["event"], number, json.loads(fields["data"]))
        return None

    async def ids_until(self, last: int) -> list[int]:
        """The ids of what comes, up to `last`."""
        ids: list[int] = []
        while last not in ids:
            event = await self.next()
            assert event is not None, f"ended after {ids[-3:]}"
            assert event.id is not None
            assert event.id == event.data["seq"]
            ids.append(event.id)
        return ids


@asynccontextmanager
async def reading(http: Http, last_event_id: object = None) -> AsyncIterator[Reader]:
    headers = {} if last_event_id is None else {"Last-Event-ID": str(last_event_id)}
    async with http.get(PATH, headers=headers) as answer:
        assert answer.status == 200, await answer.text()
        yield Reader(answer)


async def say(
    room: Room, speaker: Participant, count: int, *, interims: int = 0, text: str = "we meet"
) -> None:
    """Publish finals, each after some interims."""
    for number in range(count):
        utterance = room.seq + number
        for revision in range(interims):
            room.publish(
                speaker, caption(speaker, utterance=utterance, revision=revision, is_final=False)
            )
        room.publish(speaker, caption(speaker, text, utterance=utterance, revision=interims))
        await received(speaker)


async def test_captions_and_gaps_come_as_events_with_ids(http: Http, lobby: Lobby) -> None:
    ada = await join(lobby)
    room = room_of(lobby)
    async with reading(http) as reader:
        room.publish(ada, caption(ada, "we", tentative=" meet", is_final=False))
        first = await reader.next()
        room.publish(ada, caption(ada, "We meet.", revision=2))
        second = await reader.next()
        room.publish(ada, gap(ada))
        third = await reader.next()
    assert first is not None
    assert second is not None
    assert third is not None
    assert [(e.kind, e.id) for e in (first, second, third)] == [
        ("caption", 1),
        ("caption", 2),
        ("gap", 3),
    ]
    assert (first.data["tentative"], first.data["final"]) == (" meet", False)
    assert (second.data["stable"], second.data["final"]) == ("We meet.", True)
    assert third.data["reason"] == "network"


async def test_the_stream_is_not_cached_or_buffered_on_its_way(http: Http, lobby: Lobby) -> None:
    await join(lobby)
    async with http.get(PATH) as answer:
        assert answer.headers["Content-Type"] == "text/event-stream; charset=utf-8"
        assert answer.headers["Cache-Control"] == "no-store"
        assert answer.headers["X-Accel-Buffering"] == "no"


async def test_without_an_id_a_reader_gets_what_comes_from_now_on(http: Http, lobby: Lobby) -> None:
    ada = await join(lobby)
    await say(room_of(lobby), ada, 3)
    async with reading(http) as reader:
        await say(room_of(lobby), ada, 1)
        assert await reader.ids_until(4) == [4]


@pytest.mark.parametrize("last", [0, 1, 7, 9, 10])
async def test_a_reader_goes_on_after_the_last_it_has_seen(
    http: Http, lobby: Lobby, last: int
) -> None:
    ada = await join(lobby)
    await say(room_of(lobby), ada, 5, interims=1)
    async with reading(http, last) as reader:
        await say(room_of(lobby), ada, 1)
        assert await reader.ids_until(11) == list(range(last + 1, 12))


async def test_the_last_id_can_be_given_in_the_query(http: Http, lobby: Lobby) -> None:
    ada = await join(lobby)
    await say(room_of(lobby), ada, 3)
    async with http.get(f"{PATH}?last_event_id=1") as answer:
        assert await Reader(answer).ids_until(3) == [2, 3]


@pytest.mark.parametrize("last", [0, 3, 250])
async def test_beyond_what_is_in_memory_finals_come_from_the_store(
    http: Http, lobby: Lobby, last: int
) -> None:
    ada = await join(lobby)
    room = room_of(lobby)
    await say(room, ada, 300, interims=2)  # 900 events, every third a final
    room.publish(ada, gap(ada))
    in_memory_from = room.history.oldest_seq
    assert MOST <= 902 - in_memory_from < MOST + TOGETHER
    async with reading(http, last) as reader:
        ids = await reader.ids_until(901)
    old = [seq for seq in range(last + 1, in_memory_from) if seq % 3 == 0]
    assert ids == old + list(range(in_memory_from, 902))


async def test_what_comes_from_the_store_is_what_was_sent(http: Http, lobby: Lobby) -> None:
    ada = await join(lobby)
    ada.began_at = 1_760_000_000.0
    room = room_of(lobby)
    async with reading(http) as reader:
        room.publish(ada, caption(ada, "We meet.", utterance=17, revision=4))
        room.publish(ada, gap(ada))
        sent = [await reader.next(), await reader.next()]
    await say(room, ada, MOST + TOGETHER)
    assert room.history.oldest_seq > 2
    async with reading(http, 0) as reader:
        replayed = [await reader.next(), await reader.next()]
    for before, after in zip(sent, replayed, strict=True):
        assert before is not None
        assert after is not None
        assert (before.kind, before.id) == (after.kind, after.id)
        # how late it once was is not kept, nor who a gap's speaker was called
        for field in ("latency_ms", "name"):
            before.data.pop(field, None), after.data.pop(field, None)
        assert before.data == after.data


async def test_what_is_said_while_the_past_is_sent_comes_once_and_in_order(
    http: Http, lobby: Lobby
) -> None:
    ada = await join(lobby)
    room = room_of(lobby)
    # more than the buffers on the way take: the past waits for its reader
    await say(room, ada, 1200, text="word " * 2000)
    async with reading(http, 0) as reader:
        ids = []
        for _ in range(30):
            event = await reader.next()
            assert event is not None
            ids.append(event.id)
            await say(room, ada, 1)
        rest = await reader.ids_until(1230)
        await say(room, ada, 1)
        last = await reader.ids_until(1231)
    assert ids + rest + last == list(range(1, 1232))


async def test_what_leaves_memory_while_the_past_is_sent_comes_once(
    http: Http, lobby: Lobby, monkeypatch: pytest.MonkeyPatch
) -> None:
    ada = await join(lobby)
    room = room_of(lobby)
    await say(room, ada, 600)
    older, last = room.history.older, 1300

    async def older_and_more(seq: int, limit: int) -> list[replay.Event]:
        """While it reads, more is said than memory keeps."""
        for utterance in range(room.seq, last):
            room.publish(ada, caption(ada, utterance=utterance))
        return await older(seq, limit)

    monkeypatch.setattr(room.history, "older", older_and_more)
    async with reading(http, 0) as reader:
        assert await reader.ids_until(last) == list(range(1, last + 1))


async def test_without_the_store_a_reader_gets_what_is_in_memory(http: Http, lobby: Lobby) -> None:
    ada = await join(lobby)
    room = room_of(lobby)
    await say(room, ada, MOST + TOGETHER)
    await lobby.house.store.close()
    async with reading(http, 0) as reader:
        assert await reader.ids_until(MOST + TOGETHER) == list(range(TOGETHER + 1, 521))


async def test_an_id_of_an_earlier_room_of_this_name_begins_anew(http: Http, lobby: Lobby) -> None:
    ada = await join(lobby)
    await say(room_of(lobby), ada, 3)
    async with reading(http, 812) as reader:
        assert await reader.ids_until(3) == [1, 2, 3]


async def test_a_reader_with_nothing_to_read_gets_comments(
    http: Http, lobby: Lobby, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.sse._COMMENT_S", 0.02)
    ada = await join(lobby)
    async with reading(http) as reader:
        for _ in range(3):
            assert await reader._answer.content.readline() == b": still here\n"
            assert await reader._answer.content.readline() == b"\n"
        await say(room_of(lobby), ada, 1)
        assert await reader.ids_until(1) == [1]


async def test_comments_come_every_fifteen_seconds() -> None:
    from server import sse

    assert sse._COMMENT_S == 15.0


@pytest.mark.parametrize("last", ["abc", "-1", "1.5", "²", "1" * 16, "0x10", "1 2"])
async def test_an_id_that_is_no_number_is_refused(http: Http, lobby: Lobby, last: str) -> None:
    await join(lobby)
    answer = await http.get(PATH, headers={"Last-Event-ID": last})
    assert answer.status == 400
    body = await answer.json()
    assert body["error"]["code"] == "bad_last_event_id"
    assert room_of(lobby).sse_listeners == 0


async def test_the_stream_ends_with_the_room_and_says_why(http: Http, lobby: Lobby) -> None:
    ada = await join(lobby)
    room = room_of(lobby)
    async with reading(http) as reader:
        await say(room, ada, 1)
        room.end()
        assert await reader.ids_until(1) == [1]
        assert await reader.next() == Event("bye", None, {"reason": "ended"})
        assert await reader.next() is None
    assert room.sse_listeners == 0


async def test_there_is_nothing_to_read_of_a_room_that_is_ending(http: Http, lobby: Lobby) -> None:
    await join(lobby)
    room_of(lobby).end()
    answer = await http.get(PATH)
    assert answer.status == 404
    assert (await answer.json())["error"]["code"] == "no_such_room"


async def test_what_a_reader_does_not_take_waits_where_it_is_seen(
    http: Http, lobby: Lobby, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel would take megabytes, which are minutes of a room."""
    monkeypatch.setattr("server.sse._WRITE_S", 0.2)
    ada = await join(lobby)
    room = room_of(lobby)
    waiting = 0
    with socket.socket() as reader:
        reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        reader.connect(("127.0.0.1", http.port))
        reader.sendall(f"GET {PATH} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        await until(lambda: room.sse_listeners == 1)
        async with asyncio.timeout(20):
            while room.sse_listeners:
                room.publish(ada, caption(ada, "word " * 400))
                waiting += 2_000
                await received(ada)
                await asyncio.sleep(0.01)
    assert waiting < 150_000
    assert lobby.house.metrics.registry.get_sample_value("roomscribe_listeners_dropped_total") == 1


async def test_a_reader_who_goes_away_is_forgotten(http: Http, lobby: Lobby) -> None:
    ada = await join(lobby)
    room = room_of(lobby)
    async with reading(http):
        assert room.sse_listeners == 1
    async with asyncio.timeout(20):
        while room.sse_listeners:
            await say(room, ada, 1)
            await asyncio.sleep(0.01)


async def test_a_reader_who_never_reads_is_let_go_and_keeps_no_one_waiting(
    http: Http, lobby: Lobby, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.sse._WRITE_S", 1.0)
    ada = await join(lobby)
    room = room_of(lobby)
    long = "word " * 4000
    reader, writer = await asyncio.open_connection("127.0.0.1", http.port, limit=1024)
    writer.write(f"GET {PATH} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    await reader.readuntil(b"\r\n\r\n")
    assert room.sse_listeners == 1
    async with asyncio.timeout(10), reading(http) as another:
        while room.sse_listeners == 2:
            room.publish(ada, caption(ada, long))
            await received(ada)
            assert (await another.next()) is not None
    assert room.sse_listeners == 1
    # and the connection with it, though nothing more was read of it
    runner = http.server.runner
    assert runner is not None
    assert runner.server is not None
    server = runner.server
    await until(lambda: len(server.connections) == 0)
    writer.transport.abort()
