"""What a test finds in the log."""

import logging

import pytest


def logged(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    """All but what asyncio says in between of a slow machine."""
    return [
        record
        for record in caplog.records
        if record.name != "asyncio" or record.levelno > logging.WARNING
    ]
