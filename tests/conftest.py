"""What holds for every test: which skips are allowed, what counts as slow, how examples are drawn."""

import os
import sys
from functools import cache
from pathlib import Path

import hypothesis
import pytest

from tests.support.skip_policy import SkipPolicy, read_skip_list

SKIP_LIST = Path(__file__).with_name("skips.txt")
#: Marks that need no second one.
COUNTS_AS_SLOW = ("ci_slow", "clients")
NO_GPU = "no GPU here that torch can use"
#: What all tests together write, generously; and where pytest is told to put its folders.
ROOM = 2 << 30
FOLDERS_AT = "PYTEST_DEBUG_TEMPROOT"

# A busy machine is no fault of the code, so nothing is held to a duration. In CI the examples are the same each time:
# a change does not fail by what another one brought in; whoever runs the tests elsewhere draws new ones.
hypothesis.settings.register_profile(
    "potluck",
    deadline=None,
    derandomize="CI" in os.environ,
    print_blob=True,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("potluck")


@cache
def has_gpu() -> bool:
    import torch

    return torch.cuda.is_available() or torch.backends.mps.is_available()


def memory_with_room() -> Path | None:
    """A folder that lies in memory, has room for what the tests write, and lets programs be run from it."""
    folder = Path("/dev/shm")
    if sys.platform == "linux" and os.access(folder, os.W_OK | os.X_OK):
        found = os.statvfs(folder)
        if found.f_bavail * found.f_frsize >= ROOM and not found.f_flag & os.ST_NOEXEC:
            return folder
    return None


def pytest_configure(config: pytest.Config) -> None:
    # The tests' databases are synced thousands of times: on a disk that is half of the time that some of them take.
    # That they are synced at all, and when, is seen by the system calls.
    if (folder := memory_with_room()) is not None:
        os.environ.setdefault(FOLDERS_AT, str(folder))
    # Processes that xdist starts have this attribute; they pass on what they see to the one that reports.
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(SkipPolicy(read_skip_list(SKIP_LIST), f"tests/{SKIP_LIST.name}"))


# First, for pytest's own hook of this name chooses by -m, which has to see the mark that is added here.
@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if any(item.get_closest_marker(name) is not None for name in COUNTS_AS_SLOW):
            item.add_marker(pytest.mark.slow)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What tests have to show beside whether they pass: each text that one has recorded as its `table`."""
    for report in (report for reports in terminalreporter.stats.values() for report in reports):
        for name, text in getattr(report, "user_properties", ()) if getattr(report, "when", "") == "call" else ():
            if name == "table":
                terminalreporter.section(report.nodeid)
                terminalreporter.write_line(str(text))


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("gpu") is not None and not has_gpu():
        pytest.skip(NO_GPU)
