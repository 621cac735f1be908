"""What the allocator keeps goes back to the system."""

from server.machine import resident_bytes
from transcriber.trim import give_back


def test_memory_that_the_allocator_keeps_goes_back() -> None:
    ballast = [bytes(1000) for _ in range(100_000)]
    # The allocator gives back by itself what is at the end: something has to stand behind.
    behind = [bytes(1000) for _ in range(100)]
    del ballast
    kept = resident_bytes()

    give_back()

    assert kept - resident_bytes() > 50_000_000
    assert behind
