from hypothesis import given
from hypothesis import strategies as st

from transcriber.language import AUTO, LanguageChoice

ALLOWED = ("en", "de", "fr")


def hearing(*heard: str, wanted: str = AUTO) -> LanguageChoice:
    """A choice after utterances that were surely heard as these."""
    choice = LanguageChoice(wanted, ALLOWED)
    for language in heard:
        choice.heard(language, 0.9)
    return choice


def test_a_language_that_was_chosen_holds_whatever_is_heard() -> None:
    choice = hearing("de", "de", "de", wanted="en")
    assert (choice.current, choice.detect) == ("en", ())


def test_none_is_known_before_an_utterance_was_heard() -> None:
    choice = hearing()
    assert (choice.current, choice.detect) == ("", ALLOWED)


def test_what_the_first_utterance_was_heard_as_holds() -> None:
    choice = hearing("de")
    assert (choice.current, choice.detect) == ("de", ALLOWED)


def test_one_utterance_in_another_language_changes_nothing() -> None:
    assert hearing("de", "en").current == "de"
    assert hearing("de", "en", "de", "en", "de", "en").current == "de"


def test_two_utterances_in_a_row_in_another_language_change_it() -> None:
    assert hearing("de", "en", "en").current == "en"
    assert hearing("de", "en", "en", "de").current == "en"
    assert hearing("de", "en", "en", "de", "de").current == "de"


def test_two_others_that_do_not_agree_change_nothing() -> None:
    assert hearing("de", "en", "fr", "en", "fr").current == "de"
    assert hearing("de", "en", "fr", "fr").current == "fr"


def test_who_is_unsure_is_not_heard() -> None:
    choice = LanguageChoice(AUTO, ALLOWED)
    choice.heard("de", 0.69)
    assert choice.current == ""
    choice.heard("de", 0.7)
    assert choice.current == "de"
    for _ in range(5):
        choice.heard("en", 0.69)
    assert choice.current == "de"
    choice.heard("en", 0.7)
    choice.heard("", 0.9)  # an engine that does not detect
    choice.heard("fr", 0.1)
    assert choice.current == "de"
    choice.heard("en", 0.7)
    assert choice.current == "en"


def test_a_speaker_may_choose_and_choose_again() -> None:
    choice = hearing("de")
    choice.want("fr")
    assert (choice.current, choice.detect) == ("fr", ())
    choice.heard("en", 0.9)
    choice.heard("en", 0.9)
    choice.want(AUTO)
    # what was heard while it was fixed is not known
    assert (choice.current, choice.detect) == ("de", ALLOWED)


def test_what_was_heard_before_a_choice_does_not_count_after_it() -> None:
    choice = hearing("de", "en")
    choice.want("fr")
    choice.want(AUTO)
    choice.heard("en", 0.9)
    assert choice.current == "de"
    choice.heard("en", 0.9)
    assert choice.current == "en"


utterances = st.lists(st.tuples(st.sampled_from(["", *ALLOWED]), st.floats(0, 1)), max_size=30)


@given(utterances)
def test_it_never_changes_but_for_two_sure_ones_in_a_row(heard: list[tuple[str, float]]) -> None:
    choice, sure = LanguageChoice(AUTO, ALLOWED), list[str]()
    for language, probability in heard:
        before = choice.current
        choice.heard(language, probability)
        if language and probability >= 0.7:
            sure.append(language)
        if choice.current != before:
            assert choice.current == sure[-1]
            assert before == "" or sure[-2:] == [choice.current] * 2
    # and it always changes for them
    if sure[-2:] and len(set(sure[-2:])) == 1:
        assert choice.current == sure[-1]
