import pytest

from soak.scenario import SCENARIOS, BadScenario, load_scenario, read_scenario, seconds


@pytest.mark.parametrize("file", sorted(SCENARIOS.glob("*.toml")), ids=lambda f: f.stem)
def test_those_that_come_along_are_valid(file: object) -> None:
    assert load_scenario(str(file)).title


@pytest.mark.parametrize(
    ("text", "expected"), [("90s", 90), ("10m", 600), ("1.5h", 5400), ("7d", 604_800), (5, 5)]
)
def test_durations_have_a_unit(text: object, expected: float) -> None:
    assert seconds(text) == expected


@pytest.mark.parametrize("text", ["", "10", "10 minutes", "-5m", "m"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="no duration"):
        seconds(text)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ('title = "x"\nspeeekers = 3', "speeekers: there is no such setting"),
        ('title = "x"\ntalkers = 2', "talkers: "),
        ('title = "x"\n[network]\nloss = "much"', "network.loss: "),
        ('title = "x"\nwarm_up = "soon"', "warm_up: is no duration"),
        ('title = "x"\n[calls]\nhowmany = 2', "calls.howmany: there is no such setting"),
        ('title = "x"\n[calls]\ncount = -1', "calls.count: "),
        ('title = "x"\n[calls]\nspeakers = 0', "calls.speakers: "),
        ('title = "x"\n[calls]\nlength = "2s"', "calls.length: .*greater than or equal to 10"),
        ('title = "x"\n[calls]\nlength = "never"', "calls.length: is no duration"),
        ("title = ", "is not TOML"),
        ("", "title: "),
    ],
)
def test_what_is_wrong_is_said_by_its_name(text: str, fault: str) -> None:
    with pytest.raises(BadScenario, match=fault):
        read_scenario(text, "mine.toml")


def test_there_are_calls_only_where_it_is_said() -> None:
    assert read_scenario('title = "x"', "mine.toml").calls.count == 0
    some = read_scenario('title = "x"\n[calls]\ncount = 2\nlength = "90s"', "mine.toml").calls
    assert (some.count, some.speakers, some.length) == (2, 3, 90)


def test_every_fault_is_said() -> None:
    with pytest.raises(BadScenario) as raised:
        read_scenario('title = "x"\ntalkers = 2\nrooms = 0', "mine.toml")
    assert str(raised.value).count("mine.toml:") == 2


def test_an_unknown_name_is_answered_with_those_there_are() -> None:
    with pytest.raises(BadScenario, match="calls, day, short"):
        load_scenario("dya")
