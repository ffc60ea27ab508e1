"""Somebody who opens pages that mean no good. Arguments: the browser, then NAME=URL for each page.

A page at rebound.example is answered by the folder PAGES, as by a server that had this name until a moment ago;
whatever it asks for after that goes to where the name leads now.
"""

import os
import sys
from pathlib import Path

from playwright.sync_api import Route, sync_playwright

from tests.clients.programs.browser import opened
from tests.clients.programs.report import say

PATIENCE_MS = 120_000
TYPES = {".html": "text/html", ".js": "text/javascript", ".json": "application/json"}


def from_before(route: Route) -> None:
    """What the name's former server has said: the files of the page; all else goes on."""
    file = Path(os.environ["PAGES"]) / route.request.url.rpartition("/")[2]
    if route.request.method == "GET" and file.name in {"hostile.html", "hostile.js", "config.json"}:
        route.fulfill(body=file.read_text("utf-8"), content_type=TYPES[file.suffix])
    else:
        route.continue_()


def main(executable: str, *pages: str) -> None:
    """One after the other, each as if it were the first in this browser."""
    with sync_playwright() as playwright, opened(playwright, executable) as browser:
        for name, _, url in (page.partition("=") for page in pages):
            page = browser.new_page()
            page.route("http://rebound.example:*/**", from_before)
            page.goto(url)
            page.wait_for_selector("body[data-found]", timeout=PATIENCE_MS, state="attached")
            say("found", page=name, tries=page.evaluate("() => JSON.parse(document.body.dataset.found)"))
            page.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
