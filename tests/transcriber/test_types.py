import pytest

from tests.transcriber.builders import window
from transcriber.segmenter import Segmenter
from transcriber.types import SAMPLE_RATE, EngineState, GapReason
from transcriber.vad import FRAME_SAMPLES


def test_a_window_ends_where_its_audio_does() -> None:
    assert window(start_s=2.0, seconds=1.5).end_sample == 3.5 * SAMPLE_RATE


def test_what_was_said_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        window().utterance = 2  # type: ignore[misc]


def test_reasons_and_states_read_as_the_words_on_the_wire() -> None:
    assert [*GapReason] == ["overload", "network", "engine"]
    assert " ".join(EngineState) == ("starting downloading loading warming ready restarting failed")


def test_a_segmenter_counts_on_from_the_utterances_before() -> None:
    segmenter = Segmenter(utterances_before=7)
    assert segmenter.utterance == 7
    segmenter.push(window(seconds=3 * FRAME_SAMPLES / SAMPLE_RATE).samples, [0.9] * 3)
    assert segmenter.utterance == 8
