"""A room's last events, as they were."""

from hypothesis import given
from hypothesis import strategies as st

from server.replay import MOST, Event, Replay


def event(seq: int, text: str = "{}", at: float = 0.0) -> Event:
    return Event(seq, "caption", text, f"p1-{seq}", seq % 3 == 0, at)


@given(st.lists(st.text(max_size=2_000), max_size=8))
def test_what_is_kept_comes_back_as_it_was(texts: list[str]) -> None:
    replay = Replay()
    events = [event(seq, text) for seq, text in enumerate(texts, start=1)]
    for one in events:
        replay.push(one)
    assert replay.after(0) == events


def test_the_oldest_go() -> None:
    replay = Replay()
    assert replay.oldest_seq is None
    for seq in range(1, MOST + 4):
        replay.push(event(seq))
    assert replay.oldest_seq == 4
    assert [kept.seq for kept in replay.after(MOST)] == [MOST + 1, MOST + 2, MOST + 3]


def test_they_are_found_by_time_too() -> None:
    replay = Replay()
    for seq in range(1, 6):
        replay.push(event(seq, at=float(seq)))
    assert [kept.seq for kept in replay.since(4.0)] == [4, 5]
