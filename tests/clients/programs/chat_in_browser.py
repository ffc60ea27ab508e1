"""Somebody at a browser: types into the chat of a page, reads along, stops it, and lets a picture be drawn.

The page's component was written by others. Arguments: the browser, the page, where the screenshot goes.
"""

import sys

from playwright.sync_api import Locator, Page, sync_playwright

from tests.clients.programs.browser import opened
from tests.clients.programs.report import say

PATIENCE_MS = 60_000


def ask(chat: Locator, text: str) -> None:
    """Type it, press Enter."""
    box = chat.locator("#text-input")
    box.click()
    box.press_sequentially(text)
    box.press("Enter")


def words_so_far(page: Page, at_least: int) -> int:
    """Wait for so many words of the answer, and count those that are there then."""
    return int(
        page.wait_for_function(
            """(wanted) => {
                const answer = document.querySelector("#words").shadowRoot.querySelector(".ai-message-text");
                const count = answer ? answer.innerText.split(/\\s+/).filter(Boolean).length : 0;
                return count >= wanted ? count : false;
            }""",
            arg=at_least,
            timeout=PATIENCE_MS,
        ).json_value()
    )


def main(executable: str, url: str, picture: str) -> None:
    """All of it."""
    with sync_playwright() as playwright, opened(playwright, executable) as browser:
        page = browser.new_page()
        page.goto(url)
        page.wait_for_selector("body[data-ready]", timeout=PATIENCE_MS)
        words, pictures = page.locator("#words"), page.locator("#pictures")
        ask(words, "What is for dinner?")
        counts = [words_so_far(page, 3)]
        while len(counts) < 4:
            counts.append(words_so_far(page, counts[-1] + 1))
        say("grows", counts=counts)
        words.locator("#stop-icon").click()
        say("stopped", text=words.locator(".ai-message-text").inner_text())
        ask(pictures, "a red circle")
        drawn = pictures.locator(".ai-message img, .ai-message-text img, img.image-message").first
        drawn.wait_for(timeout=PATIENCE_MS)
        page.wait_for_function("(image) => image.naturalWidth > 0", arg=drawn.element_handle(), timeout=PATIENCE_MS)
        say("drawn", size=drawn.evaluate("(image) => [image.naturalWidth, image.naturalHeight]"))
        page.screenshot(path=picture)
        errors = [chat.locator(".error-message-text").count() for chat in (words, pictures)]
        say("errors", counts=errors)


if __name__ == "__main__":
    main(*sys.argv[1:])
