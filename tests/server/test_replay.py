"""A room's last events, as they were."""

from hypothesis import given
from hypothesis import strategies as st

from server.replay import MOST, TOGETHER, Event, Replay

texts = st.lists(st.text(max_size=200), max_size=3 * TOGETHER)


def event(seq: int, text: str = "{}") -> Event:
    segment = None if seq % 5 == 0 else f"p1-{seq}"
    return Event(seq, "caption", text, segment, seq % 3 == 0, 0.1 * seq)


def replay_of(events: list[Event]) -> Replay:
    replay = Replay()
    for one in events:
        replay.push(one)
    return replay


@given(texts, st.integers(0, 3 * TOGETHER + 1))
def test_what_is_kept_comes_back_as_it_was(texts: list[str], seq: int) -> None:
    events = [event(seq, text) for seq, text in enumerate(texts, start=1)]
    replay = replay_of(events)
    assert replay.after(0) == events
    assert replay.after(seq) == events[seq:]
    assert replay.since(0.1 * seq) == [one for one in events if one.at >= 0.1 * seq]
    assert replay.oldest_seq == (1 if events else None)


@given(st.integers(0, 2 * TOGETHER))
def test_the_oldest_go(more: int) -> None:
    last = MOST + more
    kept = replay_of([event(seq) for seq in range(1, last + 1)])
    left = kept.after(0)
    assert MOST <= len(left) < MOST + TOGETHER
    assert left == [event(seq) for seq in range(last - len(left) + 1, last + 1)]
    assert kept.oldest_seq == left[0].seq
