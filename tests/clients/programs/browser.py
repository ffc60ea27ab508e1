"""Debian's Chromium, as Playwright drives it."""

from collections.abc import Iterator
from contextlib import contextmanager

from playwright.sync_api import Browser, Playwright

#: Names that lead to this machine, as a resolver would have it that serves a hostile page.
NAMES = ("front-end.example", "hostile.example", "rebound.example")
SWITCHES = (
    f"--host-resolver-rules={','.join(f'MAP {name} 127.0.0.1' for name in NAMES)}",
    # A browser that asks people before a page reaches their machine would hide what the gateway itself refuses.
    "--disable-features=LocalNetworkAccessChecks,BlockInsecurePrivateNetworkRequests,PrivateNetworkAccessSendPreflights",
    # Root has no use for its sandbox, and a container allows none.
    "--no-sandbox",
    "--disable-dev-shm-usage",
)


@contextmanager
def opened(playwright: Playwright, executable: str) -> Iterator[Browser]:
    """A browser; it has ended behind the block."""
    browser = playwright.chromium.launch(executable_path=executable, args=list(SWITCHES))
    try:
        yield browser
    finally:
        browser.close()
