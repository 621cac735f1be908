"""What goes wrong inside a server or its worker, from outside: in their PYTHONPATH, in tests alone.

A server that gets SIGUSR1 does nothing for 2 s. A worker answers with garbage while the file that
FAULTS_GARBAGE names is there.
"""

import os
import signal
import sys
import time

BLOCKED_S = 2.0


def block(_number: int, _frame: object) -> None:
    time.sleep(BLOCKED_S)


def garble(switch: str) -> None:
    from transcriber import protocol
    from transcriber.types import Hypothesis

    encode = protocol.encode

    def encode_or_garble(message: protocol.Message) -> bytes:
        if isinstance(message, Hypothesis) and os.path.exists(switch):
            return os.urandom(4096)
        return encode(message)

    protocol.encode = encode_or_garble


if "work" in sys.orig_argv and "FAULTS_GARBAGE" in os.environ:
    garble(os.environ["FAULTS_GARBAGE"])
elif sys.orig_argv[1:3] == ["-m", "server"]:
    signal.signal(signal.SIGUSR1, block)
