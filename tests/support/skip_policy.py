"""Holds a test run to the list of allowed skips: one with an unlisted reason makes the whole run fail.

A test that quietly stops running is worse than one that fails. Expected failures count as skips here, for they too
are tests that no longer say anything.
"""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import pytest


class BadSkipList(ValueError):
    """A line of the list is not of the form that is wanted."""


def read_skip_list(path: Path) -> dict[str, str]:
    """The allowed reasons, each with why it is allowed."""
    allowed: dict[str, str] = {}
    for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        reason, bar, why = (part.strip() for part in line.partition("|"))
        if not (reason and bar and why):
            raise BadSkipList(f"{path.name}:{number}: wanted 'reason | why it is allowed', got {line!r}")
        if reason in allowed:
            raise BadSkipList(f"{path.name}:{number}: listed twice: {reason}")
        allowed[reason] = why
    return allowed


def reason_for_skipping(report: pytest.TestReport | pytest.CollectReport) -> str | None:
    """Why this test, or file of tests, did not count; None where it did."""
    if not report.skipped:
        return None
    expected_failure: str | None = getattr(report, "wasxfail", None)
    if expected_failure is not None:
        return expected_failure.removeprefix("reason: ").strip()
    if isinstance(report.longrepr, tuple):
        return report.longrepr[2].removeprefix("Skipped: ").strip()
    return str(report.longrepr)


class SkipPolicy:
    """A pytest plugin for the process that reports: with xdist the controller, which hears of every worker's skips."""

    def __init__(self, allowed: Mapping[str, str], list_name: str) -> None:
        self._allowed = allowed
        self._list_name = list_name
        self._unlisted: Counter[tuple[str, str]] = Counter()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._take(report)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        self._take(report)

    def _take(self, report: pytest.TestReport | pytest.CollectReport) -> None:
        reason = reason_for_skipping(report)
        if reason is not None and reason not in self._allowed:
            self._unlisted[reason, report.nodeid] += 1

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        quiet_ends = (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED)
        if self._unlisted and session.exitstatus in quiet_ends:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if not self._unlisted:
            return
        terminalreporter.section("skips that are not allowed", red=True, bold=True)
        for reason, test in self._unlisted:
            terminalreporter.write_line(f"{test}: {reason or '(no reason given)'}")
        terminalreporter.write_line(
            f"{self._list_name} does not list these reasons, so this run fails: "
            "make the tests run, or list the reason there and say why it is allowed."
        )
