from collections import Counter
from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from transcriber.account import Account, Fates
from transcriber.types import GapReason

NETWORK, OVERLOAD, ENGINE = GapReason.NETWORK, GapReason.OVERLOAD, GapReason.ENGINE


def account(end: int, start: int = 0) -> Account:
    """Of someone who was heard from one position to another."""
    begun = Account()
    begun.heard(start, end)
    return begun


def test_an_account_begins_empty() -> None:
    assert Account().fates() == Fates()


def test_what_was_heard_is_pending_until_it_is_known_what_it_was() -> None:
    assert account(150, start=100).fates() == Fates(received=50, pending=50)


def test_what_no_utterance_can_have_any_more_is_silence() -> None:
    begun = account(100)
    begun.silent_to(30)
    begun.silent_to(20)
    assert begun.fates() == Fates(received=100, silence=30, pending=70)


def test_an_utterance_is_pending_until_it_is_answered() -> None:
    begun = account(100)
    assert begun.utterance(30, 80) == 50
    assert begun.fates() == Fates(received=100, silence=30, pending=70)
    begun.settle(50, None, was_said=True)
    assert begun.fates() == Fates(received=100, transcribed=50, silence=30, pending=20)


def test_an_utterance_that_nobody_said_is_silence_and_a_lost_one_is_dropped() -> None:
    begun = account(100)
    begun.settle(begun.utterance(0, 40), None, was_said=False)
    begun.settle(begun.utterance(40, 100), ENGINE, was_said=True)
    assert begun.fates() == Fates(received=100, silence=40, dropped={ENGINE: 60})


def test_what_two_utterances_overlap_is_counted_with_the_first() -> None:
    begun = account(100)
    assert begun.utterance(0, 60) == 60
    assert begun.utterance(40, 100) == 40
    assert begun.utterance(80, 100) == 0
    assert begun.fates().pending == 100


def test_what_was_missed_is_dropped_with_its_reason_or_silence() -> None:
    begun = account(100)
    begun.missed(100, 130, NETWORK)
    begun.heard(130, 140)
    begun.missed(140, 190, None)
    begun.missed(190, 195, OVERLOAD)
    assert begun.fates() == Fates(received=195, silence=160, dropped={NETWORK: 30, OVERLOAD: 5})


def test_a_bridged_hole_is_no_part_of_the_utterance_around_it() -> None:
    begun = account(100)
    begun.bridged(100, 130, NETWORK)
    assert begun.fates() == Fates(received=130, pending=100, dropped={NETWORK: 30})
    begun.heard(130, 200)
    assert begun.utterance(50, 180) == 100
    assert begun.fates() == Fates(received=200, silence=50, pending=120, dropped={NETWORK: 30})


def test_an_utterance_that_ends_within_a_bridged_hole_has_what_is_before_it() -> None:
    begun = account(100)
    begun.bridged(100, 130, NETWORK)
    begun.heard(130, 200)
    assert begun.utterance(0, 110) == 100
    begun.silent_to(200)
    assert begun.fates() == Fates(received=200, silence=70, pending=100, dropped={NETWORK: 30})


def test_the_fates_of_two_streams_add_up() -> None:
    one = Fates(10, 4, 3, 2, {NETWORK: 1})
    other = Fates(25, 5, 6, 7, {OVERLOAD: 3, NETWORK: 4})
    assert one.plus(other) == Fates(35, 9, 9, 9, {NETWORK: 5, OVERLOAD: 3})
    assert one.plus(Fates()) == one


@dataclass
class Model:
    """One label for each sample; slow, and plainly right."""

    labels: list[str]

    def __init__(self) -> None:
        self.labels = []

    def label(self, start: int, end: int, label: str) -> int:
        """Those that have none yet; how many they were."""
        free = [at for at in range(start, end) if self.labels[at] == "pending"]
        for at in free:
            self.labels[at] = label
        return len(free)

    def fates(self) -> Fates:
        count = Counter(self.labels)
        pending = sum(n for label, n in count.items() if label.startswith("pending"))
        dropped = {reason: count[reason] for reason in GapReason if count[reason]}
        return Fates(len(self.labels), count["transcribed"], count["silence"], pending, dropped)


reasons = st.sampled_from([*GapReason, None])
sizes = st.integers(1, 30)
steps = st.one_of(
    st.tuples(st.just("heard"), sizes),
    st.tuples(st.just("missed"), sizes, reasons),
    st.tuples(st.just("bridged"), sizes, st.sampled_from(list(GapReason))),
    st.tuples(st.just("silent"), st.floats(0, 1)),
    st.tuples(st.just("utterance"), st.floats(-0.2, 1), st.floats(0, 1)),
    st.tuples(st.just("settle"), st.integers(0, 5), reasons, st.booleans()),
)


@given(st.integers(0, 1000), st.lists(steps, max_size=60))
def test_an_account_is_right_to_the_sample(first: int, happened: list[tuple[object, ...]]) -> None:
    begun, model = account(first + 1, start=first), Model()
    model.labels = ["pending"]
    owned: list[tuple[int, str]] = []  # utterances that are not answered
    taken_to = 0  # nothing before is asked for again, but for an overlap

    def end() -> int:
        return len(model.labels)

    def silent_to(position: int) -> None:
        nonlocal taken_to
        model.label(0, position, "silence")
        taken_to = max(taken_to, position)

    for number, step in enumerate(happened):
        match step:
            case ("heard", int(size)):
                begun.heard(first + end(), first + end() + size)
                model.labels += ["pending"] * size
            case ("missed", int(size), reason):
                # the utterance before has ended where the audio did
                assert reason is None or isinstance(reason, GapReason)
                silent_to(end())
                begun.missed(first + end(), first + end() + size, reason)
                model.labels += [reason or "silence"] * size
                taken_to = end()
            case ("bridged", int(size), GapReason() as why):
                begun.bridged(first + end(), first + end() + size, why)
                model.labels += [why] * size
            case ("silent", float(where)):
                position = round(where * end())
                begun.silent_to(first + position)
                silent_to(position)
            case ("utterance", float(where), float(length)):
                start = max(0, taken_to + round(where * (end() - taken_to)))
                stop = start + round(length * (end() - start))
                silent_to(start)
                share = model.label(start, stop, f"pending {number}")
                taken_to = max(taken_to, stop)
                assert begun.utterance(first + start, first + stop) == share
                owned.append((share, f"pending {number}"))
            case ("settle", int(which), lost, bool(was_said)) if owned:
                assert lost is None or isinstance(lost, GapReason)
                share, label = owned.pop(which % len(owned))
                begun.settle(share, lost, was_said=was_said)
                became = lost or ("transcribed" if was_said else "silence")
                model.labels = [became if each == label else each for each in model.labels]
        told, fates = model.fates(), begun.fates()
        assert {r: n for r, n in fates.dropped.items() if n} == told.dropped
        assert fates.received == told.received
        assert (fates.transcribed, fates.silence) == (told.transcribed, told.silence)
        assert fates.pending == told.pending
