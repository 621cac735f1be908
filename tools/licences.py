"""The licences of what requirements.lock installs, as a page in Markdown.

Read from what is installed here: run it after `.ci/setup`, as `make lock` does.
"""

import re
from email.message import Message
from importlib.metadata import PackageNotFoundError, metadata
from pathlib import Path
from typing import cast

LOCK = Path(__file__).parents[1] / "requirements.lock"
_NAME = re.compile(r"^([A-Za-z0-9._-]+)==([^ ]+)([^\\\n]*)", re.MULTILINE)
_LONGEST = 60


def locked(text: str) -> dict[str, str]:
    """Names, and for which machines where not for all."""
    found: dict[str, str] = {}
    for name, _version, rest in _NAME.findall(text):
        found[name] = rest.strip(" ;") if name not in found else ""
    return found


def licence_of(name: str) -> str:
    """In the package's own words. Raises `PackageNotFoundError`."""
    told = cast(Message, metadata(name))
    if expression := told.get("License-Expression"):
        return str(expression)
    prefix = "License :: OSI Approved :: "
    classified = [
        line.removeprefix(prefix)
        for line in told.get_all("Classifier") or []
        if line.startswith(prefix)
    ]
    written = (told.get("License") or "").strip().splitlines()
    if classified:
        return ", ".join(classified)
    return written[0][:_LONGEST] if written else "not told"


def page() -> str:
    lines = [
        "# Licences",
        "",
        "What the server installs (`requirements.lock`), and under which licence, in each",
        "package's own words. `make lock` writes this page.",
        "",
        "| package | licence |",
        "|---|---|",
    ]
    for name, only_on in sorted(locked(LOCK.read_text(encoding="utf-8")).items()):
        try:
            licence = licence_of(name)
        except PackageNotFoundError:
            licence = f"not installed here; only where {only_on}"
        lines.append(f"| {name} | {licence} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(page())  # noqa: T201 - the answer to a command
