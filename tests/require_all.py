"""A pytest plugin: nothing may be skipped where everything is installed.

On a developer's machine a test that needs Chromium, flite or root skips itself and says why.
With ROOMSCRIBE_REQUIRE_ALL=1 (set by .ci/run) the same skip is a failure, so that CI cannot
turn green by lacking something. Loaded by `-p tests.require_all` in the Makefile.
"""

import os
from collections.abc import Generator
from typing import TypeVar

import pytest

Report = TypeVar("Report", pytest.TestReport, pytest.CollectReport)

REQUIRE_ALL = os.environ.get("ROOMSCRIBE_REQUIRE_ALL") == "1"


def refuse_skip(report: Report) -> Report:
    # an expected failure is reported as skipped too, and stays one
    if REQUIRE_ALL and report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"not allowed under ROOMSCRIBE_REQUIRE_ALL=1: {reason}"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    return refuse_skip((yield))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    return refuse_skip((yield))
