"""What holds for every test: which skips are allowed, what counts as slow, how examples are drawn."""

import os
from functools import cache
from pathlib import Path

import hypothesis
import pytest

from tests.support.skip_policy import SkipPolicy, read_skip_list

SKIP_LIST = Path(__file__).with_name("skips.txt")
#: Marks that need no second one.
COUNTS_AS_SLOW = ("ci_slow", "clients")
NO_GPU = "no GPU here that torch can use"

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


def pytest_configure(config: pytest.Config) -> None:
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
