"""Inputs that are nearly others: the mutator that works everywhere, without a look at coverage."""

import random
import re
from collections.abc import Sequence

_EDGES = (0, 1, 2, 9, 10, 13, 32, 127, 128, 254, 255)
_NUMBERS = (
    *(b"0", b"1", b"-1", b"255", b"256", b"65535", b"65536", b"4294967296", b"1e999", b"9" * 40),
    *(b"0.5", b"-0", b"00", b"NaN", "٣".encode()),
)
_WORDS = (
    *(b"", b" ", b"\r\n", b"\n", b"\0", b":", b"/", b"=", b";", b",", b'"', b"{", b"}", b"[", b"]"),
    *(b"\xff", "é".encode(), "\u2028".encode(), b"\\ud800", b"null", b"true", b"{}", b"[]"),
    *(b"a=", b"m=", b"m=audio 9 ", b"a=rtpmap:111 opus/48000/2", b"a=mid:0", b"BUNDLE"),
    *(b"opus/0/2", b"inactive", b"active", b"holdconn", b"::1", b"127.0.0.1", b"fe80::1%2"),
    *(b"tcp", b"relay", b"%00", b"%2f", b"..", b"*"),
)
_MOST_BYTES = 16_384


def mutate(chance: random.Random, data: bytes, others: Sequence[bytes] = ()) -> bytes:
    """The same after one to five accidents; `others` lend their parts."""
    for _ in range(chance.randint(1, 5)):
        accident = chance.choice(_ACCIDENTS)
        data = accident(chance, data, others or (data,))
    return data[:_MOST_BYTES]


def _flip(chance: random.Random, data: bytes, _others: Sequence[bytes]) -> bytes:
    if not data:
        return chance.randbytes(4)
    changed = bytearray(data)
    changed[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    return bytes(changed)


def _edge(chance: random.Random, data: bytes, _others: Sequence[bytes]) -> bytes:
    at = chance.randrange(len(data) + 1)
    return data[:at] + bytes([chance.choice(_EDGES)]) + data[at + 1 :]


def _cut(chance: random.Random, data: bytes, _others: Sequence[bytes]) -> bytes:
    return data[: chance.randrange(len(data) + 1)]


def _remove(chance: random.Random, data: bytes, _others: Sequence[bytes]) -> bytes:
    start, end = _part(chance, data)
    return data[:start] + data[end:]


def _repeat(chance: random.Random, data: bytes, _others: Sequence[bytes]) -> bytes:
    start, end = _part(chance, data)
    return data[:end] + data[start:end] * chance.choice((1, 1, 2, 20)) + data[end:]


def _splice(chance: random.Random, data: bytes, others: Sequence[bytes]) -> bytes:
    """Go on as another does, or hold a part of it."""
    other = chance.choice(others)
    start, end = _part(chance, other)
    at, to = _part(chance, data)
    return data[:at] + (other[start:] if chance.random() < 0.3 else other[start:end] + data[to:])


def _number(chance: random.Random, data: bytes, _others: Sequence[bytes]) -> bytes:
    found = list(re.finditer(rb"\d+", data))
    if not found:
        return data
    number = chance.choice(found)
    return data[: number.start()] + chance.choice(_NUMBERS) + data[number.end() :]


def _word(chance: random.Random, data: bytes, _others: Sequence[bytes]) -> bytes:
    """Another word between two separators, or one more."""
    if chance.random() < 0.3:
        at = chance.randrange(len(data) + 1)
        return data[:at] + chance.choice(_WORDS) + data[at:]
    words = re.split(rb"([\s:/=;,\"{}]+)", data)
    words[chance.randrange(len(words))] = chance.choice(_WORDS)
    return b"".join(words)


def _lines(chance: random.Random, data: bytes, others: Sequence[bytes]) -> bytes:
    """One line less, twice, elsewhere, or of another."""
    lines = data.splitlines(keepends=True)
    if not lines:
        return data
    line = lines[chance.randrange(len(lines))]
    match chance.randrange(4):
        case 0:
            lines.remove(line)
        case 1:
            lines.insert(chance.randrange(len(lines)), line)
        case 2:
            lines.remove(line)
            lines.insert(chance.randrange(len(lines) + 1), line)
        case _:
            lent = chance.choice(others).splitlines(keepends=True) or [b""]
            lines.insert(chance.randrange(len(lines) + 1), chance.choice(lent))
    return b"".join(lines)


def _part(chance: random.Random, data: bytes) -> tuple[int, int]:
    start = chance.randrange(len(data) + 1)
    return start, min(len(data), start + chance.choice((1, 2, 4, 8, 40, 400)))


# A text is spoilt best by its words and lines, a packet by its bits.
_ACCIDENTS = (_flip, _edge, _cut, _remove, _repeat, _splice, _number, _word, _word, _lines, _lines)
