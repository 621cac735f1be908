"""What the allocator keeps for later when a peak has passed, of a worker and of a server."""

import ctypes


def give_back() -> None:
    """Return it to the system. Nothing where the allocator is not glibc's."""
    if (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)) is not None:
        trim(0)
