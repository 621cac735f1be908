"""Several packets in one input: each has its kind (5 bits) and its length (11) before it."""

from collections.abc import Iterator

LONGEST = 0x7FF


def frame(kind: int, body: bytes) -> bytes:
    """`kind` is below 32; each target says what it means."""
    assert kind < 32
    assert len(body) <= LONGEST
    return (kind << 11 | len(body)).to_bytes(2, "big") + body


def frames(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Any bytes are frames; of the last one, as much as is there."""
    at = 0
    while at + 2 <= len(data):
        head = int.from_bytes(data[at : at + 2], "big")
        end = at + 2 + (head & LONGEST)
        yield head >> 11, data[at + 2 : end]
        at = end
