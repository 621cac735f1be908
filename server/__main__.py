"""`python -m server`: serve, or tell what can be set."""

import argparse
import asyncio
import os
import sys
from collections.abc import Iterable, Sequence
from typing import NoReturn

from media.sockets import MediaLoop
from server import invite, logs, machine, talk_check
from server.app import CannotListen, serve
from server.config import BadSettings, Settings, as_json, describe, load_settings
from server.doors import fault_of
from server.metrics import Metrics
from server.store import StoreError
from transcriber import allocator

_USAGE = 2
# Bytes. Below are the many pieces of a connection, above its few large ones, audio and windows.
_APART_FROM = 3_000


def main() -> None:
    """The entry point of `roomscribe` too. Exits 2 when it cannot start."""
    parser = argparse.ArgumentParser(
        prog="roomscribe",
        description="Live transcription of rooms. Settings come from the environment and .env:",
        epilog=_settings_text(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    _add_serving(parser)
    _add_serving(
        commands.add_parser("serve", help="serve (what happens without a command)"),
        default=argparse.SUPPRESS,
    )
    inviting = commands.add_parser("token", help="a join token, and the link that carries it")
    invite.add_arguments(inviting)
    listing = commands.add_parser("settings", help="list the settings, and those in force")
    listing.add_argument("--markdown", action="store_true", help="as a table for the README")
    commands.add_parser("metrics", help="list what /metrics tells, as a table in Markdown")
    checking = commands.add_parser(
        "talk-check", help="whether the bot could join Nextcloud Talk's calls, step by step"
    )
    checking.add_argument("--room", metavar="TOKEN", help="a conversation to join for a moment")
    arguments = parser.parse_args()

    if arguments.command == "settings" and arguments.markdown:
        print(_settings_markdown())
        return
    if arguments.command == "metrics":
        print(_metrics_markdown())
        return
    settings = _load(arguments)
    if arguments.command == "settings":
        print(_settings_text())
        print("\nIn force:\n" + as_json(settings))
        return
    if arguments.command == "talk-check":
        sys.exit(0 if asyncio.run(talk_check.check(settings.talk, arguments.room, print)) else 1)
    if arguments.command == "token":
        try:
            print(invite.invite(settings, arguments))
        except invite.CannotInvite as error:
            _end(str(error))
        return
    if (fault := fault_of(settings)) is not None:
        _end(fault)
    _serve(settings)


def _add_serving(parser: argparse.ArgumentParser, default: object = None) -> None:
    parser.add_argument(
        "--open-to-everyone",
        action="store_const",
        const="true",
        default=default,
        help="let everyone in without a token, also on other addresses than loopback",
    )
    parser.add_argument(
        "--tls",
        metavar="auto|CERT,KEY",
        default=default,
        help="HTTPS: with a certificate of its own making, or with these files",
    )


def _load(arguments: argparse.Namespace) -> Settings:
    if arguments.open_to_everyone is not None:
        os.environ["AUTH__OPEN_TO_EVERYONE"] = arguments.open_to_everyone
    if arguments.tls is not None:
        os.environ["SERVER__TLS"] = arguments.tls
    try:
        return load_settings()
    except BadSettings as error:
        for fault in error.faults:
            print(f"roomscribe: {fault}", file=sys.stderr)
        sys.exit(_USAGE)


def _serve(settings: Settings) -> None:
    logs.configure(settings.server.log_level)
    machine.allow_files()
    allocator.keep_apart(_APART_FROM)
    try:
        with asyncio.Runner(loop_factory=MediaLoop) as runner:
            runner.run(serve(settings))
    except* (CannotListen, StoreError) as errors:
        _end(str(_first(errors)))


def _end(fault: str) -> NoReturn:
    print(f"roomscribe: {fault}", file=sys.stderr)
    sys.exit(_USAGE)


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    first = group.exceptions[0]
    return _first(first) if isinstance(first, BaseExceptionGroup) else first


def _settings_text() -> str:
    lines = []
    for name, kind, default, meaning in describe():
        lines.append(f"  {name}  ({kind}; {default or 'unset'})")
        lines.append(f"      {meaning}")
    return "\n".join(lines)


def _settings_markdown() -> str:
    rows = [(_code(name), _code(default), meaning) for name, _kind, default, meaning in describe()]
    return _table(("setting", "default", "meaning"), rows)


def _metrics_markdown() -> str:
    told = Metrics().describe()
    rows = [(_code(name), kind, _code(labels), meaning) for name, kind, labels, meaning in told]
    return _table(("metric", "kind", "labels", "meaning"), rows)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, *rows]
    told = [f"| {' | '.join(line)} |" for line in lines]
    return "\n".join([told[0], "|---" * len(head) + "|", *told[1:]])


def _code(text: str) -> str:
    return f"`{text}`" if text else ""


if __name__ == "__main__":
    main()
