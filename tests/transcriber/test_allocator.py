"""What the allocator keeps, and what it keeps apart."""

import subprocess
import sys

from server.machine import resident_bytes
from transcriber.allocator import give_back


def test_memory_that_the_allocator_keeps_goes_back() -> None:
    ballast = [bytes(1000) for _ in range(100_000)]
    # The allocator gives back by itself what is at the end: something has to stand behind.
    behind = [bytes(1000) for _ in range(100)]
    del ballast
    kept = resident_bytes()

    give_back()

    assert kept - resident_bytes() > 50_000_000
    assert behind


_HOLES = """
from server.machine import resident_bytes
from transcriber.allocator import keep_apart

if {is_kept_apart}:
    keep_apart(16_384)
bytes(30_000_000)  # from now on glibc would keep smaller ones in its heap
kept = [b"x" * (100_000 if number % 2 else 1_000) for number in range(400)]
before = resident_bytes()
del kept[1::2]
print(before - resident_bytes())
"""


def went_back(*, is_kept_apart: bool) -> int:
    """Bytes that a process of its own gives back as every other of what it has goes."""
    ran = subprocess.run(
        [sys.executable, "-c", _HOLES.format(is_kept_apart=is_kept_apart)],
        capture_output=True,
        check=True,
    )
    return int(ran.stdout)


def test_what_is_large_goes_back_at_once_from_between_what_stays() -> None:
    assert went_back(is_kept_apart=False) < 1_000_000
    assert went_back(is_kept_apart=True) > 15_000_000
