"""What a client may send, before the server has a word with it. Pure."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Bounds:
    messages_per_s: float = 50.0
    message_bytes: int = 64 * 1024
    sdp_bytes: int = 64 * 1024
    sdp_lines: int = 1_000
    body_s: float = 10.0
    # sites besides this one whose pages may open a socket
    origins: frozenset[str] = frozenset()
