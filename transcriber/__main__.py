"""`python -m transcriber`: an engine without a server.

`serve` keeps a worker on a socket for several servers. `models`, `evaluate` and `calibrate` are
for those who choose an engine. `work` is the worker's own process, which others start.
"""

import argparse
import asyncio
import contextlib
import dataclasses
import json
import logging
import os
import signal
import sys
from pathlib import Path

from transcriber.engines import EngineOptions, make_engine
from transcriber.errors import TranscriberError
from transcriber.worker import EXIT_ENGINE, Worker, serve

_USAGE = 2


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m transcriber", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)

    command = commands.add_parser("serve", help="keep an engine on a socket for several servers")
    command.add_argument("--socket", type=Path, required=True, help="where the servers find it")
    _add_options(command)
    command.set_defaults(run=_serve)

    command = commands.add_parser("models", help="list the models that are here; fetch one")
    command.add_argument("--fetch", metavar="NAME", help="a name below, or owner/name on the hub")
    command.set_defaults(run=_models)

    command = commands.add_parser("evaluate", help="how well and how soon an engine understands")
    command.add_argument(
        "folder", type=Path, help="pairs of audio and text: a.wav and a.txt, optionally a.lang"
    )
    command.add_argument(
        "--speed", type=float, default=1.0, help="times real time; latencies mean little beyond 1"
    )
    command.add_argument("--speakers", type=int, default=4, help="how many speak at once")
    command.add_argument("--json", type=Path, help="write the result here, too")
    _add_options(command)
    command.set_defaults(run=_evaluate)

    command = commands.add_parser(
        "calibrate", help="what a short context costs a Whisper model in words, and saves in time"
    )
    command.add_argument("audio", type=Path, help="speech: WAV, or what else FFmpeg reads")
    command.add_argument("text", type=Path, help="what is said in it")
    command.add_argument("--json", type=Path, help="write the result here, too")
    _add_options(command)
    command.set_defaults(run=_calibrate)

    command = commands.add_parser("work")
    command.add_argument("--socket", type=Path, required=True)
    command.add_argument("--deadline-s", type=float, default=20.0)
    command.add_argument("--first-batch", type=int, default=0)
    _add_options(command)
    command.set_defaults(run=_work)

    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s", handlers=[_handler()])
    for library in ("httpx", "httpx2"):  # each request would be a line, with its address
        logging.getLogger(library).setLevel(logging.WARNING)
    try:
        sys.exit(arguments.run(arguments))
    except TranscriberError as error:
        print(f"transcriber: {error}", file=sys.stderr)  # noqa: T201 - the answer to a command
        sys.exit(_USAGE)
    except KeyboardInterrupt:
        sys.exit(130)


def _add_options(command: argparse.ArgumentParser) -> None:
    """One for each of `EngineOptions`."""
    for field in dataclasses.fields(EngineOptions):
        default = field.default
        kind = _truth if isinstance(default, bool) else type(default)
        command.add_argument(
            f"--{field.name.replace('_', '-')}",
            type=kind,
            default=default,
            help=f"{field.metadata['meaning']} ({default!r})",
        )


def _truth(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise argparse.ArgumentTypeError("true or false")
    return text.lower() == "true"


def _options(arguments: argparse.Namespace) -> EngineOptions:
    names = [field.name for field in dataclasses.fields(EngineOptions)]
    return EngineOptions(**{name: getattr(arguments, name) for name in names})


def _work(arguments: argparse.Namespace) -> int:
    # Ctrl-C reaches the whole group; the server still wants its finals from here.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # The key that a server must know is the first line of standard input, in hexadecimal.
    # Unbuffered: what follows it is for the event loop.
    key = bytes.fromhex(_read_line(sys.stdin.fileno()))
    try:
        engine = make_engine(_options(arguments))
    except TranscriberError as error:
        logging.getLogger("roomscribe.worker").error(
            "the engine cannot start", extra={"reason": str(error)}
        )
        return EXIT_ENGINE
    worker = Worker(engine, key, arguments.first_batch, arguments.deadline_s)
    code = asyncio.run(serve(worker, arguments.socket))
    sys.stdout.flush()
    # The engine's thread may be in the middle of a batch that nobody waits for.
    os._exit(code)


def _serve(arguments: argparse.Namespace) -> int:
    from transcriber.shared import Supervisor

    supervisor = Supervisor(_options(arguments), arguments.socket)
    print(f"transcriber: an engine at {arguments.socket}", flush=True)  # noqa: T201

    async def run() -> None:
        task = asyncio.create_task(supervisor.run())
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, task.cancel)
        with contextlib.suppress(asyncio.CancelledError):
            await task

    asyncio.run(run())
    return 0


def _models(arguments: argparse.Namespace) -> int:
    from transcriber.cli_models import main as models

    return models(arguments.fetch)


def _evaluate(arguments: argparse.Namespace) -> int:
    from transcriber.evaluate import main as evaluate

    return evaluate(
        arguments.folder,
        _options(arguments),
        speed=arguments.speed,
        speakers=arguments.speakers,
        write_to=arguments.json,
    )


def _calibrate(arguments: argparse.Namespace) -> int:
    from transcriber.calibrate import main as calibrate

    return calibrate(arguments.audio, arguments.text, _options(arguments), write_to=arguments.json)


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
        for name in ("engine", "reason"):
            if hasattr(record, name):
                line[name] = getattr(record, name)
        if record.exc_info is not None and record.exc_info[0] is not None:
            line["error"] = record.exc_info[0].__name__
        return json.dumps(line)


def _handler() -> logging.Handler:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Lines())
    return handler


if __name__ == "__main__":
    main()
