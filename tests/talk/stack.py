"""The servers behind Talk, for a test: it is skipped where one of them cannot be had."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from soak.talk import stack


def skip_without_talk() -> None:
    try:
        stack.check_installed()
    except stack.Missing as missing:
        pytest.skip(str(missing))


@asynccontextmanager
async def talk_stack(folder: Path) -> AsyncIterator[stack.TalkStack]:
    skip_without_talk()
    async with stack.talk_stack(folder) as started:
        yield started
