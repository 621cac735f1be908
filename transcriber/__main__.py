"""`python -m transcriber serve`: the worker process; the server starts it.

The key that a server must know comes as the first line of standard input, in hexadecimal.
"""

import argparse
import asyncio
import json
import logging
import os
import signal
import sys
from pathlib import Path

from transcriber.engines import EngineOptions, make_engine
from transcriber.errors import EngineError
from transcriber.worker import EXIT_ENGINE, serve


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m transcriber")
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("serve", help="run an engine behind a Unix socket")
    command.add_argument("--socket", type=Path, required=True)
    command.add_argument("--engine", default="auto")
    command.add_argument("--model", default="")
    command.add_argument("--language", default="en")
    arguments = parser.parse_args()

    logging.basicConfig(level=logging.INFO, format="%(message)s", handlers=[_handler()])
    # Ctrl-C reaches the whole group; the server still wants its finals from here.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # unbuffered: what follows the key is for the event loop
    key = bytes.fromhex(_read_line(sys.stdin.fileno()))
    try:
        options = EngineOptions(arguments.engine, arguments.model, arguments.language)
        engine, steps = make_engine(options)
    except EngineError as error:
        logging.getLogger("roomscribe.worker").error(
            "the engine cannot start", extra={"reason": str(error)}
        )
        sys.exit(EXIT_ENGINE)
    for step in steps:
        logging.getLogger("roomscribe.worker").info("engine chosen", extra={"reason": step})
    code = asyncio.run(serve(engine, key, arguments.socket))
    sys.stdout.flush()
    # The engine's thread may be in the middle of a batch that nobody waits for.
    os._exit(code)


def _read_line(descriptor: int) -> str:
    line = bytearray()
    while (byte := os.read(descriptor, 1)) not in (b"", b"\n"):
        line += byte
    return line.decode()


class _Lines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line = {
            "level": record.levelname.lower(),
            "component": "worker",
            "message": record.getMessage(),
        }
        if hasattr(record, "reason"):
            line["reason"] = record.reason
        if record.exc_info is not None and record.exc_info[0] is not None:
            line["error"] = record.exc_info[0].__name__
        return json.dumps(line)


def _handler() -> logging.Handler:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Lines())
    return handler


if __name__ == "__main__":
    main()
