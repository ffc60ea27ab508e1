"""The prompt filter at the tracker: it looks at a private part on its one visit, before any worker can see it.

What stays is the verdict: a category, and labels. Whose prompt is refused for what no rule allows or the horde's rules
refuse gets a strike, of which nothing is kept but the number and the time.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from protocol.errors import ContentRefused
from protocol.filter.doors import words_of
from protocol.filter.verdict import MINORS, Filter, Verdict
from protocol.filter.wordlist import WordList
from protocol.rules import FilterSection
from protocol.work import PrivatePart

if TYPE_CHECKING:
    from tracker.store.base import Store

#: A category in words.
_NAMES: Mapping[str, str] = {
    MINORS: "sexual content about minors, which no horde takes",
    "adult": "adult content",
    "violence": "cruelty and gore",
    "people": "people who live",
    "hate": "hate against groups of people",
    "other": "what this horde's operator has listed",
}


class ContentFilter:
    """The word lists of this process. Without any, nothing is found."""

    def __init__(self, lists: Iterable[WordList] = ()) -> None:
        self._filter = Filter(lists)

    def use(self, lists: Iterable[WordList]) -> None:
        """Look with these lists from now on."""
        self._filter = Filter(lists)

    def find(self, digest: bytes) -> WordList | None:
        """The list in force with this digest."""
        return next((one for one in self._filter.lists if one.digest == digest), None)

    def look(self, private: PrivatePart, rules: FilterSection) -> Verdict:
        """The verdict on a private part by these rules, and nothing of what was said."""
        found = self._filter.judge(words_of(private), rules.treatments())
        return Verdict(found.refused, found.dropped, found.labels)


async def check_content(
    verdict: Verdict, payer: int, origin: str, user: bytes, store: Store, rules: FilterSection, now: int
) -> None:
    """Raise `ContentRefused` for what may not be asked for here, and count it against who asked: the account or
    `origin`, or the user of a service. Raises what `Store.strike` raises.

    The text names the category and none of the words: who asked knows them, and whoever looks for the gaps of the lists
    shall not be shown them.
    """
    if verdict.refused:
        strikes = await store.strike(payer, origin, user, rules, now)
        follows = (
            f"nothing is taken from you for {-(-(strikes.until - now) // 1000)} s now"
            if strikes.until > now
            else f"refusal {strikes.count}: after refusal {rules.strikes + 1} nothing is taken for a while"
        )
        raise ContentRefused(
            f"{verdict.refused}: the prompt filter found {_NAMES[verdict.refused]}; ask for something else ({follows})"
        )
    if verdict.dropped:
        topic = verdict.dropped[0]
        raise ContentRefused(
            f"{topic}: this horde drops words about {_NAMES[topic]}, and a signed request cannot be changed: ask again"
            " without them"
        )
