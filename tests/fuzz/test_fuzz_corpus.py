"""Every kept input is taken or refused as documented, by every target that it was kept for."""

import pytest

from tests.fuzz.kept import CORPUS, files_of, seeds_of
from tests.fuzz.target import not_for_ever
from tests.fuzz.targets import TARGETS

MOST_BYTES = 300_000


@pytest.mark.parametrize("target", TARGETS)
def test_kept_inputs_break_nothing(target: str) -> None:
    with TARGETS[target]() as feed:
        for file in files_of(target):
            try:
                with not_for_ever():
                    feed(file.read_bytes())
            except Exception as error:
                raise AssertionError(f"broken by {file}") from error


def test_every_target_has_a_corpus_and_it_is_small() -> None:
    assert {folder.name for folder in CORPUS.iterdir()} == set(TARGETS)
    assert all(len(seeds_of(target)) > 1 for target in TARGETS)
    assert sum(len(seed) for target in TARGETS for seed in seeds_of(target)) < MOST_BYTES
