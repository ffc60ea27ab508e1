"""Asks once again where a horde wants words dropped: without them, and saying which."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from peer.events import Event, Refused
from protocol.errors import ContentRefused

if TYPE_CHECKING:
    from peer.client import Client
    from peer.commands.report import Report
    from protocol.filter.rewording import Reworded


async def ask_or_reword(
    horde: Client, folder: Path, report: Report, once: Callable[..., AsyncIterator[Event]], texts: Sequence[str]
) -> AsyncIterator[Event]:
    """What happens to the request that `once` makes of these texts; if this horde wants words of them dropped, to the
    request without them. folder: the home's, which keeps word lists."""
    try:
        async for event in once(*texts):
            yield event
        return
    except Refused as refused:
        again = await _without_dropped(horde, folder, report, texts) if refused.code == ContentRefused.code else None
        if again is None:
            raise
    words = ", ".join(f"{word!r}" for word in again.dropped)
    report.note(f"this horde drops words about {', '.join(again.topics)}; asking again without {words}")
    async for event in once(*again.texts):
        yield event


async def _without_dropped(horde: Client, folder: Path, report: Report, texts: Sequence[str]) -> Reworded | None:
    from peer.content import Content

    content = Content(horde.link, folder / "filter", lambda news: report.note(news.text))
    await content.bring(horde.rules)
    return content.reworded(texts, horde.rules)
