"""What AI Horde publishes as documents: short and true ones, since nobody runs a service here."""

from __future__ import annotations

import html
from collections.abc import Sequence
from types import MappingProxyType

#: Paragraphs of each document, by its name in the path; the first one is the headline.
DOCUMENTS: MappingProxyType[str, Sequence[str]] = MappingProxyType(
    {
        "terms": (
            "Terms",
            (
                "This is a gateway on somebody's own machine to a Potluck horde, in which people serve each other for"
                " free. Nobody sells anything here, and nobody promises anything: a job may wait, or fail."
            ),
            (
                "Each horde has rules, which its operator sets and its tracker publishes at the address /rules. They"
                " say what may be asked for, how much of it at once, and what a request costs in kudos."
            ),
            "Kudos cannot be bought or sold. Whoever has too few is served all the same, after those who have more.",
        ),
        "privacy": (
            "Privacy",
            "The gateway keeps requests and results in memory only, for a while, and writes no prompts into its log.",
            (
                "A prompt goes to the tracker, which checks it and stores nothing of it, and to the worker that makes"
                " the result. A worker does not learn whose request it is, but it reads the prompt: send no secrets."
            ),
            "The ledger that a tracker publishes names neither prompts nor results.",
        ),
        "sponsors": (
            "Sponsors",
            "There are none. What a horde does is done by its volunteers' machines, and carried by them.",
        ),
    }
)
FORMATS = ("html", "markdown")


def document(name: str, form: str) -> str:
    """The document of this name, in one of `FORMATS`."""
    title, *paragraphs = DOCUMENTS[name]
    if form == "markdown":
        return "\n\n".join([f"# {title}", *paragraphs]) + "\n"
    body = "".join(f"<p>{html.escape(paragraph)}</p>" for paragraph in paragraphs)
    return f"<h1>{html.escape(title)}</h1>{body}"
