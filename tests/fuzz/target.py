"""What a target is: opened once, then fed many inputs, which it takes or refuses as documented."""

import gc
import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

Feed = Callable[[bytes], None]
Target = Callable[[], AbstractContextManager[Feed]]


def plain(feed: Feed) -> Target:
    """Of a function that needs nothing around it."""
    return lambda: nullcontext(feed)


def lines(data: bytes, at_most: int = 60) -> list[str]:
    """As text, also where it is none."""
    return data.decode("utf-8", "replace").split("\n")[:at_most]


# Many times what the slowest takes.
HANGS_AFTER_S = 10.0
_AGAIN_S = 0.5


class Hangs(BaseException):
    """What is fuzzed does not come back. No `Exception`: nobody is to contain it."""


@contextmanager
def not_for_ever() -> Iterator[None]:
    """Raises `Hangs` where a loop has no end. For the main thread."""
    is_over = False

    def end(*_: object) -> None:
        if not is_over:
            raise Hangs

    before = signal.signal(signal.SIGALRM, end)
    # Again and again: what is raised in a destructor comes to nothing. The same holds for those
    # whom the collector tells, as hypothesis has it.
    gc.disable()
    timer = signal.setitimer(signal.ITIMER_REAL, HANGS_AFTER_S, _AGAIN_S)
    try:
        yield
    finally:
        is_over = True
        signal.signal(signal.SIGALRM, before)
        signal.setitimer(signal.ITIMER_REAL, *timer)  # pytest's own, where it has one
        gc.enable()
