"""What the documents name exists."""

import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = "server|signaling|media|transcriber"
NAMES = sorted(
    set(
        re.findall(
            rf"`((?:{PACKAGES})\.[\w.]+)`",
            (ROOT / "docs/architecture.md").read_text(encoding="utf-8"),
        )
    )
)


def test_the_architecture_names_the_way_of_a_packet() -> None:
    assert len(NAMES) > 25


@pytest.mark.parametrize("name", NAMES)
def test_a_name_in_the_architecture_exists(name: str) -> None:
    parts = name.split(".")
    for split in range(len(parts), 0, -1):
        try:
            found: object = importlib.import_module(".".join(parts[:split]))
        except ModuleNotFoundError:
            continue
        for attribute in parts[split:]:
            found = getattr(found, attribute)
        return
    pytest.fail(f"{name} is not there")


def test_every_module_stands_in_the_architecture() -> None:
    told = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    for package in PACKAGES.split("|"):
        for module in (ROOT / package).glob("*.py"):
            if module.name not in ("__init__.py", "__main__.py", "errors.py"):
                assert module.name in told, f"{package}/{module.name}"
