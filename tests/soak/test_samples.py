import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from soak.samples import Sample, Scraped, grown, quantile, read_samples, together
from tests.soak.builders import EMPTY

INF = float("inf")


def test_a_sample_is_read_as_it_was_written() -> None:
    assert Sample.of_line(EMPTY.as_line) == EMPTY


def test_one_of_before_there_were_calls_has_none() -> None:
    told = json.loads(EMPTY.as_line)
    del told["in_calls"], told["calls"], told["doing"]["calls"], told["doing"]["calls_failed"]
    assert Sample.of_line(json.dumps(told)) == EMPTY


@pytest.mark.parametrize("change", [{"speakers": None}, {"anything": 3}])
def test_what_lacks_a_field_or_has_another_is_no_sample(change: dict[str, int | None]) -> None:
    told = json.loads(EMPTY.as_line) | change
    told = {name: value for name, value in told.items() if value is not None}
    with pytest.raises(ValueError, match="is no sample"):
        Sample.of_line(json.dumps(told))


def test_what_is_not_known_of_a_server_elsewhere_stays_so() -> None:
    there = Sample.of_line(replace(EMPTY, worker_mb=math.nan).as_line)
    assert math.isnan(there.worker_mb)


def test_a_run_that_was_killed_while_it_wrote_keeps_the_rest(tmp_path: Path) -> None:
    file = tmp_path / "samples.jsonl"
    file.write_text(f"{EMPTY.as_line}\n{EMPTY.as_line}\n{EMPTY.as_line[:40]}")
    assert list(read_samples(file)) == [EMPTY, EMPTY]


def test_quantiles_are_as_prometheus_reckons_them() -> None:
    buckets = ((0.1, 0.0), (0.2, 10.0), (0.5, 20.0), (INF, 20.0))
    assert quantile(buckets, 0.25) == pytest.approx(0.15)
    assert quantile(buckets, 0.75) == pytest.approx(0.35)
    assert quantile(buckets, 1.0) == 0.5


def test_beyond_the_last_bound_the_last_bound_is_told() -> None:
    assert quantile(((0.1, 1.0), (INF, 20.0)), 0.9) == 0.1


def test_nothing_has_no_quantile() -> None:
    assert math.isnan(quantile((), 0.5))
    assert math.isnan(quantile(((0.1, 0.0), (INF, 0.0)), 0.5))


def test_what_grew_between_two_is_their_difference_or_all_of_another_server() -> None:
    assert grown(((1.0, 5.0), (INF, 9.0)), ((1.0, 2.0), (INF, 3.0))) == ((1.0, 3.0), (INF, 6.0))
    assert grown(((1.0, 1.0), (INF, 1.0)), ((1.0, 2.0), (INF, 3.0))) == ((1.0, 1.0), (INF, 1.0))
    assert together([((1.0, 1.0), (INF, 2.0)), ((1.0, 3.0), (INF, 4.0))]) == (
        (1.0, 4.0),
        (INF, 6.0),
    )


def test_series_are_summed_by_name_and_label() -> None:
    scraped = Scraped(
        'roomscribe_captions_total{kind="final"} 3.0\n'
        'roomscribe_captions_total{kind="interim"} 9.0\n'
        'roomscribe_first_text_seconds_bucket{le="0.5"} 2.0\n'
        'roomscribe_first_text_seconds_bucket{le="+Inf"} 4.0\n'
    )
    assert scraped.sum("captions_total") == 12
    assert scraped.sum("captions_total", kind="final") == 3
    assert scraped.sum("no_such_thing") == 0
    assert scraped.buckets("first_text_seconds") == ((0.5, 2.0), (INF, 4.0))
