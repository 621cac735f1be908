import itertools
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.speech import pcm
from tests.transcriber.builders import window
from transcriber.scheduler import FINALS_PER_STREAM, Scheduler
from transcriber.types import SAMPLE_RATE, Samples, StreamId, Window

ADA, BOB = StreamId("ada"), StreamId("bob")


def tone(seconds: float, level: float = 0.5) -> Samples:
    return pcm(np.full(int(seconds * SAMPLE_RATE), level))


def final(stream: str = "ada", *, utterance: int = 1, start_s: float = 0.0) -> Window:
    return window(stream, utterance=utterance, final=True, start_s=start_s)


def filled(*windows: Window, batch_limit: int = 32) -> Scheduler:
    """All offered, a second apart."""
    scheduler = Scheduler(batch_limit)
    for now, offered in enumerate(windows):
        assert scheduler.offer(offered, float(now)) == []
    return scheduler


def full(stream: str = "ada") -> Scheduler:
    """As many finals of one speaker wait as can, each second one."""
    return filled(
        *(final(stream, utterance=n, start_s=2.0 * n) for n in range(1, FINALS_PER_STREAM + 1))
    )


def names(batch: list[Window]) -> list[str]:
    return [f"{w.stream} {'final' if w.is_final else 'interim'} {w.utterance}" for w in batch]


def test_an_empty_scheduler_has_nothing_to_give() -> None:
    scheduler = Scheduler(32)
    assert scheduler.next_batch(0.0) == []
    assert scheduler.waiting == 0
    assert scheduler.oldest_since() is None


def test_finals_go_before_interims_of_all_speakers() -> None:
    scheduler = filled(window("ada"), window("bob"), final("eve"))
    assert names(scheduler.next_batch(9.0)) == ["eve final 1", "ada interim 1", "bob interim 1"]


def test_finals_of_a_speaker_keep_their_order() -> None:
    scheduler = full()
    assert [w.utterance for w in scheduler.next_batch(9.0)] == [1, 2, 3, 4]


def test_a_window_is_given_once() -> None:
    scheduler = filled(window("ada"), final("bob"))
    assert len(scheduler.next_batch(9.0)) == 2
    assert scheduler.next_batch(9.0) == []
    assert scheduler.waiting == 0


def test_one_interim_of_a_speaker_is_in_flight() -> None:
    scheduler = filled(window("ada", revision=1))
    (first,) = scheduler.next_batch(1.0)
    scheduler.offer(window("ada", revision=2), 1.0)
    scheduler.offer(window("bob"), 1.0)
    assert names(scheduler.next_batch(2.0)) == ["bob interim 1"]
    assert scheduler.waiting == 1
    scheduler.complete(first)
    assert [w.revision for w in scheduler.next_batch(3.0)] == [2]


def test_a_final_does_not_wait_for_the_interim_in_flight() -> None:
    scheduler = filled(window("ada"))
    scheduler.next_batch(1.0)
    scheduler.offer(final("ada"), 1.0)
    assert names(scheduler.next_batch(2.0)) == ["ada final 1"]


def test_a_completed_final_says_nothing_of_the_interim_in_flight() -> None:
    scheduler = filled(final("ada", utterance=1), window("ada", utterance=2))
    done, _ = scheduler.next_batch(2.0)
    scheduler.complete(done)
    scheduler.offer(window("ada", utterance=2, revision=2), 2.0)
    assert scheduler.next_batch(3.0) == []


def test_the_newest_interim_replaces_the_one_that_waits() -> None:
    scheduler = filled(window("ada", revision=1), window("ada", revision=2))
    assert scheduler.waiting == 1
    assert [w.revision for w in scheduler.next_batch(9.0)] == [2]


def test_the_newest_interim_keeps_the_place_of_the_older() -> None:
    scheduler = filled(window("ada", revision=1), window("bob"), window("ada", revision=2))
    assert scheduler.oldest_since() == 0.0


def test_a_final_drops_the_waiting_interim_of_its_utterance_and_says_so() -> None:
    scheduler = filled(window("ada", utterance=1))
    assert names(scheduler.offer(final("ada", utterance=1), 1.0)) == ["ada interim 1"]
    assert names(scheduler.next_batch(2.0)) == ["ada final 1"]


def test_a_joined_final_drops_the_waiting_interim_of_its_utterance_too() -> None:
    scheduler = full()
    scheduler.offer(window("ada", utterance=5), 5.0)
    assert names(scheduler.offer(final("ada", utterance=5), 6.0)) == ["ada interim 5"]
    assert scheduler.waiting == FINALS_PER_STREAM


def test_a_final_leaves_the_interim_of_the_next_utterance() -> None:
    scheduler = filled(window("ada", utterance=2), final("ada", utterance=1))
    assert names(scheduler.next_batch(2.0)) == ["ada final 1", "ada interim 2"]


def test_an_interim_after_its_final_is_given_up() -> None:
    scheduler = filled(final("ada", utterance=2))
    for late in (window("ada", utterance=1), window("ada", utterance=2)):
        assert scheduler.offer(late, 1.0) == [late]
    assert scheduler.waiting == 1


def test_the_batch_has_a_limit_and_the_rest_comes_next() -> None:
    scheduler = filled(final("ada"), window("ada", utterance=2), final("bob"), batch_limit=2)
    assert names(scheduler.next_batch(3.0)) == ["ada final 1", "bob final 1"]
    assert names(scheduler.next_batch(4.0)) == ["ada interim 2"]


def test_a_full_batch_of_finals_takes_no_interim() -> None:
    scheduler = filled(final("ada"), window("bob"), batch_limit=1)
    assert names(scheduler.next_batch(2.0)) == ["ada final 1"]
    assert names(scheduler.next_batch(3.0)) == ["bob interim 1"]


def test_the_speaker_who_was_served_longest_ago_goes_first() -> None:
    scheduler = filled(window("ada"), window("bob"), batch_limit=1)
    (ada,) = scheduler.next_batch(2.0)
    scheduler.complete(ada)
    scheduler.offer(window("ada", revision=2), 2.5)
    assert names(scheduler.next_batch(3.0)) == ["bob interim 1"]


def test_a_speaker_with_many_finals_does_not_keep_another_waiting() -> None:
    scheduler = Scheduler(1)
    for n in range(1, 5):
        scheduler.offer(final("ada", utterance=n), 0.0)
    scheduler.offer(final("bob"), 0.5)
    batches = [names(scheduler.next_batch(now)) for now in (1.0, 2.0, 3.0)]
    assert batches == [["ada final 1"], ["bob final 1"], ["ada final 2"]]


def test_a_fifth_final_is_joined_to_the_fourth() -> None:
    scheduler = full()
    fifth = window("ada", utterance=5, final=True, start_s=9.25, samples=tone(2.0))
    assert scheduler.offer(fifth, 5.0) == []
    assert scheduler.waiting == FINALS_PER_STREAM
    joined = scheduler.next_batch(6.0)[-1]
    assert (joined.utterance, joined.absorbed, joined.start_sample) == (4, (5,), 8 * SAMPLE_RATE)
    # one second of the fourth, the silence between them, two of the fifth
    assert np.array_equal(
        joined.samples, np.concatenate([tone(1.0, 0.0), tone(0.25, 0.0), tone(2.0)])
    )


def test_a_long_silence_between_joined_finals_is_cut_to_half_a_second() -> None:
    scheduler = full()
    scheduler.offer(window("ada", utterance=5, final=True, start_s=100.0, seconds=1.0), 5.0)
    assert len(scheduler.next_batch(6.0)[-1].samples) == 2.5 * SAMPLE_RATE


def test_joined_finals_that_overlap_have_no_silence_between() -> None:
    scheduler = full()
    scheduler.offer(window("ada", utterance=5, final=True, start_s=8.8, seconds=1.0), 5.0)
    assert len(scheduler.next_batch(6.0)[-1].samples) == 2 * SAMPLE_RATE


def test_a_sixth_final_is_joined_too() -> None:
    scheduler = full()
    scheduler.offer(final(utterance=5, start_s=9.0), 5.0)
    scheduler.offer(final(utterance=6, start_s=10.0), 6.0)
    assert scheduler.next_batch(7.0)[-1].absorbed == (5, 6)


def test_joined_finals_beyond_a_minute_are_given_up_and_returned() -> None:
    scheduler = full()
    assert scheduler.offer(window("ada", utterance=5, final=True, seconds=58.0), 5.0) == []
    (lost,) = scheduler.offer(window("ada", utterance=6, final=True, seconds=1.5), 6.0)
    assert (lost.utterance, lost.absorbed) == (4, (5,))
    kept = scheduler.next_batch(7.0)[-1]
    assert (kept.utterance, kept.absorbed) == (6, ())


def test_a_minute_of_joined_audio_is_still_taken() -> None:
    scheduler = full()
    assert scheduler.offer(window("ada", utterance=5, final=True, seconds=59.0), 5.0) == []


def test_one_speakers_many_finals_are_not_joined_to_anothers() -> None:
    scheduler = full("ada")
    scheduler.offer(final("bob"), 5.0)
    assert scheduler.waiting == FINALS_PER_STREAM + 1


def test_what_waits_of_a_forgotten_speaker_is_dropped() -> None:
    scheduler = filled(final("ada"), window("ada", utterance=2), window("bob"))
    scheduler.forget(ADA)
    scheduler.forget(StreamId("nobody"))
    assert names(scheduler.next_batch(3.0)) == ["bob interim 1"]


def test_a_batch_of_a_forgotten_speaker_can_be_completed() -> None:
    scheduler = filled(window("ada"))
    (taken,) = scheduler.next_batch(1.0)
    scheduler.forget(ADA)
    scheduler.complete(taken)
    assert scheduler.waiting == 0


@pytest.mark.parametrize(
    ("offers", "since"),
    [
        ([final("ada"), window("ada", utterance=2), window("bob")], 0.0),
        ([window("bob"), final("ada")], 0.0),
        ([window("ada", utterance=2), final("ada", utterance=1)], 0.0),
    ],
)
def test_the_oldest_is_known_by_when_it_came(offers: list[Window], since: float) -> None:
    scheduler = filled(*offers)
    assert scheduler.oldest_since() == since


def test_the_oldest_moves_on_once_it_is_taken() -> None:
    scheduler = filled(final("ada"), window("ada", utterance=2), batch_limit=1)
    scheduler.next_batch(5.0)
    assert scheduler.oldest_since() == 1.0


def length(window: Window) -> int:
    """A kind for tests: windows of one length."""
    return len(window.samples)


def test_a_batch_holds_windows_of_one_kind() -> None:
    scheduler = Scheduler(32, length)
    for name, seconds in (("ada", 1.0), ("bob", 2.0), ("eve", 1.0), ("dan", 2.0)):
        scheduler.offer(window(name, seconds=seconds), 0.0)
    assert names(scheduler.next_batch(1.0)) == ["ada interim 1", "eve interim 1"]
    assert names(scheduler.next_batch(2.0)) == ["bob interim 1", "dan interim 1"]


def test_the_first_that_waits_decides_the_kind_though_others_are_more() -> None:
    scheduler = Scheduler(32, length)
    scheduler.offer(window("ada", seconds=2.0), 0.0)
    for name in ("bob", "eve", "dan"):
        scheduler.offer(window(name), 0.1)
    assert names(scheduler.next_batch(1.0)) == ["ada interim 1"]


def test_a_final_decides_the_kind_before_an_interim_that_waits_longer() -> None:
    scheduler = Scheduler(32, length)
    scheduler.offer(window("ada", seconds=2.0), 0.0)
    scheduler.offer(final("bob"), 5.0)
    scheduler.offer(window("eve"), 6.0)
    assert names(scheduler.next_batch(7.0)) == ["bob final 1", "eve interim 1"]
    assert names(scheduler.next_batch(8.0)) == ["ada interim 1"]


def test_finals_of_a_speaker_keep_their_order_though_of_different_kinds() -> None:
    scheduler = Scheduler(32, length)
    for utterance, seconds in ((1, 1.0), (2, 2.0), (3, 1.0)):
        scheduler.offer(window("ada", utterance=utterance, final=True, seconds=seconds), 0.0)
    scheduler.offer(final("bob"), 1.0)
    batches = [names(scheduler.next_batch(now)) for now in (2.0, 3.0, 4.0)]
    # the third is of the first's kind and waits for the second
    assert batches == [["ada final 1", "bob final 1"], ["ada final 2"], ["ada final 3"]]


def test_the_kind_of_a_joined_final_is_that_of_all_its_audio() -> None:
    scheduler = Scheduler(32, length)
    for n in range(1, FINALS_PER_STREAM + 1):
        scheduler.offer(final(utterance=n), 0.0)
    scheduler.offer(window("bob", final=True, seconds=3.0), 0.0)
    assert len(scheduler.next_batch(1.0)) == FINALS_PER_STREAM
    for n in range(11, 11 + FINALS_PER_STREAM):
        scheduler.offer(final(utterance=n), 2.0)
    assert names(scheduler.next_batch(2.0)) == ["bob final 1"]
    scheduler.offer(window(utterance=15, final=True, start_s=1.0, seconds=2.0), 3.0)
    assert [w.utterance for w in scheduler.next_batch(4.0)] == [11, 12, 13]
    assert [w.absorbed for w in scheduler.next_batch(5.0)] == [(15,)]


def test_the_kind_of_a_window_is_asked_for_once() -> None:
    asked: list[int] = []

    def kind(of: Window) -> int:
        asked.append(of.revision)
        return of.revision

    scheduler = Scheduler(1, kind)
    for number in range(5):
        scheduler.offer(window(f"s{number}", revision=number), float(number))
    while scheduler.next_batch(9.0):
        pass
    assert sorted(asked) == list(range(5))


def test_rooms_take_turns_however_many_speak_in_them() -> None:
    scheduler = Scheduler(2)
    for now, name in enumerate(("big/a", "big/b", "big/c", "small/d", "big/e")):
        scheduler.offer(window(name), float(now))
    assert [w.stream for w in scheduler.next_batch(9.0)] == ["big/a", "small/d"]
    assert [w.stream for w in scheduler.next_batch(9.5)] == ["big/b", "big/c"]


def test_a_room_is_all_before_the_last_stroke() -> None:
    scheduler = Scheduler(2)
    for now, name in enumerate(("a/b/ada", "a/b/bob", "a/c/eve")):
        scheduler.offer(window(name), float(now))
    assert [w.stream for w in scheduler.next_batch(9.0)] == ["a/b/ada", "a/c/eve"]


def test_a_room_with_one_speaker_is_served_as_often_as_one_with_ten() -> None:
    scheduler, served = Scheduler(1), Counter[str]()
    speakers = ["small/one", *(f"big/{n}" for n in range(10))]
    for now in range(40):
        for speaker in speakers:
            scheduler.offer(window(speaker, revision=now), float(now))
        (taken,) = scheduler.next_batch(now + 0.5)
        scheduler.complete(taken)
        served[taken.stream] += 1
    assert served["small/one"] == 20
    assert {served[name] for name in speakers[1:]} == {2}


def test_joined_finals_are_no_longer_than_the_engine_takes() -> None:
    for gap_s, fits in ((0.0, True), (0.5, True), (0.51, False), (9.0, False)):
        scheduler = Scheduler(32, longest_s=30.0)
        for n in range(1, FINALS_PER_STREAM + 1):
            scheduler.offer(window(utterance=n, final=True, seconds=10.0), 0.0)
        fifth = window(utterance=5, final=True, start_s=10.0 + gap_s, seconds=19.5 + (gap_s > 0.5))
        assert (scheduler.offer(fifth, 1.0) == []) == fits
        last = scheduler.next_batch(2.0)[-1]
        assert len(last.samples) <= 30 * SAMPLE_RATE
        assert (last.absorbed == (5,)) == fits


def test_the_silence_between_joined_finals_counts_into_what_the_engine_takes() -> None:
    scheduler = Scheduler(32, longest_s=30.0)
    for n in range(1, FINALS_PER_STREAM + 1):
        scheduler.offer(window(utterance=n, final=True, seconds=10.0), 0.0)
    fifth = window(utterance=5, final=True, start_s=10.25, seconds=19.8)
    (lost,) = scheduler.offer(fifth, 1.0)
    assert lost.utterance == FINALS_PER_STREAM
    assert [w.utterance for w in scheduler.next_batch(2.0)] == [1, 2, 3, 5]


# Properties

voices = st.integers(1, 7)
limits = st.integers(1, 4)


@given(voices, limits)
def test_nobody_starves_when_all_ask_for_interims_without_end(speakers: int, limit: int) -> None:
    scheduler, waited = Scheduler(limit), dict.fromkeys(range(speakers), 0)
    for now in range(40):
        for speaker in range(speakers):
            scheduler.offer(window(f"s{speaker}", revision=now + 1), float(now))
        batch = scheduler.next_batch(now + 0.5)
        assert len(batch) == min(limit, speakers)
        for taken in batch:
            scheduler.complete(taken)
        served = {int(taken.stream[1:]) for taken in batch}
        waited = {s: 0 if s in served else waited[s] + 1 for s in waited}
        assert max(waited.values()) < -(-speakers // limit)


@given(voices, limits)
def test_nobody_starves_when_all_have_more_finals_than_fit(speakers: int, limit: int) -> None:
    scheduler, waited = Scheduler(limit), dict.fromkeys(range(speakers), 0)
    utterances = itertools.count(1)
    for now in range(40):
        for speaker in range(speakers):
            scheduler.offer(
                window(f"s{speaker}", utterance=next(utterances), final=True, seconds=0.001),
                float(now),
            )
        batch = scheduler.next_batch(now + 0.5)
        assert len(batch) <= limit
        served = {int(taken.stream[1:]) for taken in batch}
        waited = {s: 0 if s in served else waited[s] + 1 for s in waited}
        assert max(waited.values()) < speakers


@given(
    st.lists(st.tuples(st.sampled_from(["ada", "bob"]), st.booleans(), st.booleans()), max_size=40),
    limits,
)
def test_every_final_is_given_joined_or_returned_and_bounds_hold(
    steps: list[tuple[str, bool, bool]], limit: int
) -> None:
    scheduler, offered, answered = Scheduler(limit), list[int](), list[int]()

    def answer(windows: list[Window]) -> None:
        for w in windows:
            answered.extend((w.utterance, *w.absorbed) if w.is_final else ())

    for number, (stream, is_final, takes) in enumerate(steps):
        if is_final:
            offered.append(number)
        answer(
            scheduler.offer(
                window(stream, utterance=number, final=is_final, seconds=20.0), float(number)
            )
        )
        assert scheduler.waiting <= 2 * (FINALS_PER_STREAM + 1)
        if takes:
            batch = scheduler.next_batch(float(number))
            assert len(batch) <= limit
            for taken in batch:
                scheduler.complete(taken)
            answer(batch)
    while batch := scheduler.next_batch(float(len(steps))):
        for taken in batch:
            scheduler.complete(taken)
        answer(batch)
    assert sorted(answered) == offered


offers = st.tuples(
    st.sampled_from(["r/ada", "r/bob", "q/eve"]),
    st.booleans(),  # final
    st.integers(1, 4),  # its kind: tens of seconds
    st.sampled_from(["take", "take", "", "", "", "forget"]),
)


@given(st.lists(offers, max_size=60), limits)
def test_everything_that_is_offered_is_answered_exactly_once(
    steps: list[tuple[str, bool, int, str]], limit: int
) -> None:
    """Given in a batch of its own kind, replaced, given up, absorbed, or forgotten."""
    scheduler = Scheduler(limit, length)
    unanswered: dict[tuple[str, int], Window] = {}

    def answer(window: Window) -> None:
        numbers = [window.revision]
        if window.is_final:
            # a test's utterance is its revision
            numbers += window.absorbed
        for number in numbers:
            del unanswered[window.stream, number]

    def take(now: float) -> bool:
        batch = scheduler.next_batch(now)
        assert len(batch) <= limit
        assert len({length(w) for w in batch}) <= 1
        for taken in batch:
            scheduler.complete(taken)
            answer(taken)
        return bool(batch)

    for number, (stream, is_final, tens, then) in enumerate(steps, 1):
        offered = window(
            stream, utterance=number, revision=number, final=is_final, seconds=tens / 100
        )
        before = [w for w in unanswered.values() if w.stream == stream and not w.is_final]
        assert len(before) <= 1
        unanswered[stream, number] = offered
        given_up = scheduler.offer(offered, float(number))
        if not is_final and not given_up:
            for replaced in before:
                answer(replaced)
        for lost in given_up:
            answer(lost)
        if then == "take":
            take(float(number))
        elif then == "forget":
            scheduler.forget(StreamId(stream))
            unanswered = {key: w for key, w in unanswered.items() if key[0] != stream}
    while take(float(len(steps) + 1)):
        pass
    assert unanswered == {}
    assert scheduler.waiting == 0


@given(st.lists(offers, max_size=60), limits)
def test_finals_of_a_speaker_are_given_in_the_order_they_were_said(
    steps: list[tuple[str, bool, int, str]], limit: int
) -> None:
    scheduler, last = Scheduler(limit, length), Counter[str]()
    for number, (stream, is_final, tens, then) in enumerate(steps, 1):
        offered = window(stream, utterance=number, final=is_final, seconds=tens / 100)
        scheduler.offer(offered, float(number))
        for taken in scheduler.next_batch(float(number)) if then else ():
            scheduler.complete(taken)
            if taken.is_final:
                assert taken.utterance > last[taken.stream]
                last[taken.stream] = max(taken.utterance, *taken.absorbed, 0)


@given(st.integers(1, 3), st.integers(1, 5), limits)
def test_nobody_starves_though_all_are_of_different_kinds(
    rooms: int, speakers: int, limit: int
) -> None:
    scheduler = Scheduler(limit, lambda w: w.stream)
    streams = [f"{room}/{n}" for room in range(rooms) for n in range(speakers)]
    waited = dict.fromkeys(streams, 0)
    for now in range(60):
        for stream in streams:
            scheduler.offer(window(stream, revision=now, seconds=0.01), float(now))
        (taken,) = scheduler.next_batch(now + 0.5)
        scheduler.complete(taken)
        waited = {s: 0 if s == taken.stream else n + 1 for s, n in waited.items()}
        assert max(waited.values()) < len(streams)
