"""`python -m tests.fuzz.run TARGET|all --for 10m`: fuzz for long, by hand.

Each target runs in a process of its own. Where atheris is installed (the extra `fuzz`) it is
guided by coverage, and what it found interesting waits in `.fuzz/` for the next run; else inputs
are changed at random. What breaks something is kept in the corpus, so that a test fails from then
on until it is mended.
"""

import argparse
import importlib.util
import logging
import random
import re
import subprocess
import sys
import time
from pathlib import Path

from tests.fuzz.kept import CORPUS, keep, seeds_of
from tests.fuzz.mutation import mutate
from tests.fuzz.target import HANGS_AFTER_S, Hangs, not_for_ever

FOUND = Path(".fuzz")
_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0}
_LONGEST_INPUT = 16_384
_GRACE_S = 120.0  # to start, and to take in what the last run found


def main() -> int:
    asked = _arguments().parse_args()
    if asked.alone:
        return _run_alone(asked.target, asked.seconds)
    targets = sorted(_targets()) if asked.target == "all" else [asked.target]
    guided = importlib.util.find_spec("atheris") is not None
    if not guided:
        print("atheris is not installed (pip install -e '.[fuzz]'): inputs are changed at random")
    failed = [name for name in targets if not _run(name, asked.seconds / len(targets), guided)]
    if failed:
        print(f"something broke in: {', '.join(failed)}")
    return 1 if failed else 0


def _arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.run", description=__doc__)
    parser.add_argument("target", choices=["all", *sorted(_targets())])
    parser.add_argument("--for", dest="seconds", type=_seconds, default=600.0, metavar="10m")
    parser.add_argument("--alone", action="store_true", help=argparse.SUPPRESS)
    return parser


def _seconds(text: str) -> float:
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", text)
    if found is None:
        raise argparse.ArgumentTypeError(f"a time is 90s, 10m or 2h, not {text}")
    return float(found[1]) * _UNITS[found[2]]


def _targets() -> list[str]:
    """By their corpus: the parsers are not to be imported before atheris looks."""
    return [folder.name for folder in CORPUS.iterdir() if folder.is_dir()]


def _run(name: str, seconds: float, guided: bool) -> bool:
    """Whether nothing broke. Says what was done in one line."""
    mode = _guided(name, seconds) if guided else _at_random(name, seconds)
    began = time.monotonic()
    try:
        ended = subprocess.run(mode, capture_output=True, text=True, timeout=seconds + _GRACE_S)
        told, code = ended.stdout + ended.stderr, ended.returncode
    except subprocess.TimeoutExpired as error:
        told, code = f"it hung\n{(error.stderr or b'').decode('utf-8', 'replace')}", 1
    count = re.findall(r"(?:executed_units|executions): *(\d+)", told)
    took = time.monotonic() - began
    print(f"{name}: {count[-1] if count else '?'} executions in {took:.0f} s", flush=True)
    if code:
        print("\n".join(f"  {line}" for line in told.splitlines()[-60:]), flush=True)
    return code == 0


def _at_random(name: str, seconds: float) -> list[str]:
    return [sys.executable, "-m", "tests.fuzz.run", name, "--for", f"{seconds}s", "--alone"]


def _guided(name: str, seconds: float) -> list[str]:
    found = FOUND / name
    found.mkdir(parents=True, exist_ok=True)
    return [
        *(sys.executable, "-m", "tests.fuzz.guided", name, str(found), str(CORPUS / name)),
        f"-max_total_time={max(1, int(seconds))}",
        f"-artifact_prefix={CORPUS / name}/",
        f"-timeout={HANGS_AFTER_S:.0f}",
        f"-max_len={_LONGEST_INPUT}",
        *("-rss_limit_mb=3000", "-print_final_stats=1", "-verbosity=0"),
    ]


def _run_alone(name: str, seconds: float) -> int:
    """At random, in this process."""
    from tests.fuzz.targets import TARGETS

    chance, seeds, count = random.Random(), seeds_of(name), 0
    end = time.monotonic() + seconds
    with TARGETS[name]() as feed:
        while time.monotonic() < end:
            data = mutate(chance, chance.choice(seeds), seeds)
            count += 1
            try:
                with not_for_ever():
                    feed(data)
            except (Exception, Hangs):
                print(f"executions: {count}")
                logging.exception("kept as %s", keep(name, data))
                return 1
    print(f"executions: {count}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
