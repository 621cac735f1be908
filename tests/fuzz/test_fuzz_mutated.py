"""Kept inputs after accidents, for a minute over all targets: `python -m tests.fuzz.run` goes on
for longer.

ROOMSCRIBE_FUZZ_S says how long all of it lasts. What breaks a target is kept in its corpus.
"""

import os
import random
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz.kept import keep, seeds_of
from tests.fuzz.mutation import mutate
from tests.fuzz.target import Hangs, not_for_ever
from tests.fuzz.targets import TARGETS

FUZZ_S = float(os.environ.get("ROOMSCRIBE_FUZZ_S", "60"))
# They open sockets or answer offers, and take milliseconds for each input.
SLOW = ("offer", "candidate", "websocket", "whip", "captions", "talk_http")
FEW, MANY = 10, 60


@pytest.mark.slow
@pytest.mark.parametrize("target", TARGETS)
def test_mutated_inputs_break_nothing(target: str) -> None:
    chance, seeds = random.Random(), seeds_of(target)
    with TARGETS[target]() as feed:
        end = time.monotonic() + FUZZ_S / len(TARGETS)
        while True:
            data = mutate(chance, chance.choice(seeds), seeds)
            try:
                with not_for_ever():
                    feed(data)
            except (Exception, Hangs) as error:
                kept = keep(target, data)
                raise AssertionError(f"kept as {kept}: {data[:2_000]!r}") from error
            if time.monotonic() > end:
                break


@pytest.mark.parametrize("target", TARGETS)
def test_no_bytes_break_a_parser(target: str) -> None:
    """Some that hypothesis thinks of, and the smallest that does."""
    seeds = seeds_of(target)
    spoilt = st.builds(
        lambda chance, seed: mutate(chance, seed, seeds),
        st.randoms(use_true_random=False),
        st.sampled_from(seeds),
    )
    examples = FEW if target in SLOW else MANY
    with TARGETS[target]() as feed:

        def comes_back(data: bytes) -> None:
            try:
                with not_for_ever():
                    feed(data)
            except Hangs as error:
                kept = keep(target, data)
                raise AssertionError(f"does not come back, kept as {kept}") from error

        settings(deadline=None, max_examples=examples)(
            given(st.binary(max_size=200) | spoilt)(comes_back)
        )()
