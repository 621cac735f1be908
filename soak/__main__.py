"""`python -m soak SCENARIO --for 24h`: put a load on a server for long, and judge it.

Starts a server of its own, or takes one by `--url`. All that is seen goes to a folder as it comes;
`report` draws it at any time, `--resume` goes on. Exits 0 where all is in order, 1 where it is not.
"""

import argparse
import asyncio
import logging
import signal
import sys
import time
from pathlib import Path
from typing import NoReturn

from soak.folder import Folder
from soak.progress import Board, shown
from soak.report import write_report
from soak.run import Run
from soak.scenario import BadScenario, Scenario, load_scenario, seconds
from soak.server import CannotServe
from soak.talk.stack import CannotStart, check_installed
from soak.token import add_token

_USAGE = 2


def main() -> None:
    if sys.argv[1:2] == ["report"]:
        _report(sys.argv[2:])
        return
    given = _arguments()
    try:
        folder = Folder(given.resume) if given.resume else _begin(given)
        folder.what()
        asyncio.run(_run(folder, given.token))
    except (BadScenario, CannotServe, CannotStart, OSError) as error:
        _refuse(str(error))
    _judge(folder)


def _judge(folder: Folder) -> NoReturn:
    try:
        passed = write_report(folder, sys.stdout)
    except FileNotFoundError:
        _refuse(f"{folder.path}: is no run")
    except (BadScenario, OSError) as error:
        _refuse(f"{folder.path}: {error}")
    sys.exit(0 if passed else 1)


def _refuse(why: str) -> NoReturn:
    sys.stderr.write(f"soak: {why}\n")
    sys.exit(_USAGE)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m soak",
        description=__doc__,
        epilog="python -m soak report DIR: draw and judge what is in the folder by now",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "scenario", nargs="?", help="a TOML file, or day (that is meant), short, calls"
    )
    parser.add_argument(
        "--for", dest="for_s", type=_duration, metavar="10m|24h|7d", help="10 minutes, if not given"
    )
    parser.add_argument("--url", help="a server that runs; else one is started")
    add_token(parser)
    parser.add_argument("--out", type=Path, help="the run's folder; else soak-runs/ and the time")
    parser.add_argument("--memray", action="store_true", help="what is allocated, and where")
    parser.add_argument("--resume", type=Path, metavar="DIR", help="go on with a run")
    given = parser.parse_args()
    if given.resume and (
        given.scenario or given.for_s is not None or given.url or given.out or given.memray
    ):
        parser.error("--resume goes on with the run as it began; beside it only --token is taken")
    given.scenario = given.scenario or "day"
    given.for_s = 600.0 if given.for_s is None else given.for_s
    if given.url and given.memray:
        parser.error("--memray needs a server that the soak starts; leave out --url")
    return given


def _duration(text: str) -> float:
    try:
        found = seconds(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    assert isinstance(found, float)
    return found


def _begin(given: argparse.Namespace) -> Folder:
    scenario = load_scenario(given.scenario)
    if scenario.calls.count:
        if given.url:
            raise BadScenario(
                f"{given.scenario}: calls need a server that the soak starts; leave out --url"
            )
        check_installed()
    name = time.strftime("%Y-%m-%d-%H%M%S")
    folder = Folder(given.out or Path("soak-runs") / name)
    url = given.url.rstrip("/") if given.url else None
    folder.begin(scenario, given.for_s, url, memray=given.memray)
    sys.stderr.write(f"soak: {scenario.title}; in {folder.path}\n")
    return folder


async def _run(folder: Folder, token: str | None) -> None:
    logging.getLogger("aioice").setLevel(logging.WARNING)
    scenario: Scenario = folder.scenario
    with shown(Board(scenario, folder.samples())) as board:
        run = Run(folder, board.tell, token)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, run.stop)
        await run.go()


def _report(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m soak report")
    parser.add_argument("folder", type=Path)
    _judge(Folder(parser.parse_args(arguments).folder))


if __name__ == "__main__":
    main()
