"""What the C library's allocator keeps, of a worker and of a server; nothing is done where it is
not glibc's."""

import ctypes

_M_MMAP_THRESHOLD, _M_MMAP_MAX = -3, -4  # of malloc.h
_PIECES_AT_MOST = 20_000  # apart: of all kinds Linux lets a process have 65,530, unless told


def give_back() -> None:
    """Return to the system what it keeps for later when a peak has passed."""
    if (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)) is not None:
        trim(0)


def keep_apart(at_least: int) -> None:
    """Give what takes so many bytes pages of its own from now on, which go when it goes, unless a
    hole in the heap or its end has room for it.

    Left to itself glibc begins with 128 kB, and then puts into its heap whatever size it has seen
    go: what stays settles in the holes of what went, and what comes next wants new room.
    """
    if (option := getattr(ctypes.CDLL(None), "mallopt", None)) is not None:
        option(_M_MMAP_THRESHOLD, at_least)
        option(_M_MMAP_MAX, _PIECES_AT_MOST)
