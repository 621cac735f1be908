import pytest
from hypothesis import given
from hypothesis import strategies as st

from transcriber.agreement import Agreed, Agreement, same_words, without_doubled_start

texts = st.lists(
    st.lists(st.sampled_from(["one", "One,", "two", "TWO", "three.", "…", "four"]), max_size=6).map(
        " ".join
    ),
    max_size=8,
)


def heard(*interims: str) -> tuple[Agreement, Agreed]:
    agreement = Agreement()
    for text in interims:
        agreed = agreement.update(text)
    return agreement, agreed


def assert_shown(agreed: Agreed, stable: str, tentative: str) -> None:
    assert (agreed.stable, agreed.tentative) == (stable, tentative)


def test_the_first_hypothesis_is_tentative() -> None:
    agreement, agreed = heard("please open the")
    assert_shown(agreed, "", "please open the")
    assert agreement.stable == ""


def test_words_on_which_two_successive_hypotheses_agree_are_stable() -> None:
    agreement, agreed = heard("please open the", "please open a meeting")
    assert_shown(agreed, "please open", " a meeting")
    assert agreement.stable == "please open"


def test_a_word_after_one_that_differs_is_not_stable() -> None:
    _, agreed = heard("please open the meeting", "please shut the meeting")
    assert_shown(agreed, "please", " shut the meeting")


def test_agreement_with_an_older_hypothesis_does_not_count() -> None:
    _, agreed = heard("please open", "peas open", "please open")
    assert_shown(agreed, "", "please open")


def test_case_and_punctuation_are_ignored_and_the_newer_spelling_is_kept() -> None:
    _, agreed = heard("please, open the", "Please open The!")
    assert_shown(agreed, "Please open The!", "")


def test_punctuation_within_a_word_counts() -> None:
    _, agreed = heard("it's", "its")
    assert_shown(agreed, "", "its")


def test_a_word_of_punctuation_alone_equals_itself_only() -> None:
    assert same_words(["…"], ["…"])
    assert not same_words(["…"], ["!"])


def test_lists_of_another_length_are_not_the_same_words() -> None:
    assert not same_words(["one"], ["one", "two"])
    assert same_words(["One,", "two"], ["one", "TWO."])


def test_stable_text_stays_when_a_hypothesis_contradicts_it() -> None:
    agreement, agreed = heard("please open", "please open", "peas hoping the")
    assert_shown(agreed, "please open", " the")
    assert agreement.stable == "please open"


def test_two_hypotheses_that_both_contradict_what_is_stable_add_nothing() -> None:
    agreement, _ = heard("please open", "please open", "peas open the door", "peas open the door")
    assert agreement.stable == "please open"


def test_a_shorter_hypothesis_takes_tentative_words_back_only() -> None:
    _, agreed = heard("please open", "please open the", "please")
    assert_shown(agreed, "please open", "")
    assert agreed.words_taken_back == 1


def test_the_final_may_restate_everything() -> None:
    agreement, _ = heard("peas open", "peas open the")
    agreed = agreement.finish("Please open the meeting.")
    assert_shown(agreed, "Please open the meeting.", "")
    assert agreed.words_taken_back == 3
    assert agreed.words_shown == 4
    assert agreement.stable == "Please open the meeting."


def test_a_final_without_text_takes_all_back() -> None:
    agreement, _ = heard("peas open")
    agreed = agreement.finish("")
    assert_shown(agreed, "", "")
    assert (agreed.words_shown, agreed.words_taken_back) == (0, 2)


def test_words_are_counted_once_when_shown_and_once_when_taken_back() -> None:
    agreement = Agreement()
    counts = [
        (agreed.words_shown, agreed.words_taken_back)
        for agreed in map(agreement.update, ["a b", "a c d", "a C, d e", "a c"])
    ]
    assert counts == [(2, 0), (2, 1), (1, 0), (0, 1)]


def test_space_between_words_is_made_even() -> None:
    _, agreed = heard("  please\n open  ", "please open\tthe")
    assert agreed.stable + agreed.tentative == "please open the"


@given(texts)
def test_stable_text_only_grows_at_its_end(interims: list[str]) -> None:
    agreement, before = Agreement(), ""
    for text in interims:
        agreed = agreement.update(text)
        assert agreed.stable.startswith(before)
        assert agreed.stable == agreement.stable
        before = agreed.stable


@given(texts)
def test_what_is_shown_reads_as_one_sentence(interims: list[str]) -> None:
    agreement = Agreement()
    for text in interims:
        agreed = agreement.update(text)
        shown = agreed.stable + agreed.tentative
        assert shown == " ".join(shown.split())
        assert len(shown.split()) <= max(len(text.split()), len(agreed.stable.split()))


@given(texts, st.text("ab ", max_size=8))
def test_words_shown_less_words_taken_back_are_the_words_there(
    interims: list[str], final: str
) -> None:
    agreement, balance = Agreement(), 0
    for agreed in [*map(agreement.update, interims), agreement.finish(final)]:
        balance += agreed.words_shown - agreed.words_taken_back
        assert balance == len((agreed.stable + agreed.tentative).split())
    assert agreement.stable.split() == final.split()


@given(st.text("abc ", min_size=1), st.text("abc "))
def test_two_equal_hypotheses_in_a_row_are_stable(text: str, before: str) -> None:
    agreement = Agreement()
    agreement.update(text)
    agreed = agreement.update(text)
    assert (agreed.stable.split(), agreed.tentative) == (text.split(), "")


@pytest.mark.parametrize(
    ("previous", "text", "left"),
    [
        ("read the agenda", "agenda for today", "for today"),
        ("read the agenda", "The agenda for today", "for today"),
        ("and read the agenda.", "read the agenda for today", "for today"),
        ("read the agenda", "for today", "for today"),
        ("read the agenda", "read for today", "read for today"),
        ("agenda", "Agenda", ""),
        ("no no", "no no yes", "yes"),
        ("", "agenda for today", "agenda for today"),
        ("read the agenda", "", ""),
    ],
)
def test_words_that_an_overlap_doubles_are_dropped(previous: str, text: str, left: str) -> None:
    assert without_doubled_start(previous, text) == left


def test_an_overlap_doubles_three_words_at_most() -> None:
    assert without_doubled_start("a b c d", "a b c d e") == "a b c d e"
    assert without_doubled_start("a b c d", "b c d e") == "e"
