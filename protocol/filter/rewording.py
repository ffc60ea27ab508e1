"""Leaves out of texts the words that a horde wants dropped. Who asks does that, and signs what is left."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

from protocol.filter.doors import Words
from protocol.filter.verdict import Filter
from protocol.rules import Treatment

#: What is left may be words again that are to be dropped.
ROUNDS = 4
_WIDE = r"\u3040-\u30ff\u3400-\u9fff"
#: A word with the space behind it; where words are not spaced, a character.
_PIECE = re.compile(rf"[{_WIDE}]\s*|[^\s{_WIDE}]+\s*|^\s+")


@dataclass(frozen=True)
class Reworded:
    """texts: what is left of each. topics: what they were about. dropped: words that are no longer in them."""

    texts: tuple[str, ...]
    topics: tuple[str, ...]
    dropped: tuple[str, ...]


def reworded(texts: Sequence[str], judge: Filter, treatments: Mapping[str, Treatment]) -> Reworded | None:
    """The texts without the words of topics that the horde wants dropped; None if there is nothing to drop, if the
    first text would be empty, or if they would be refused all the same."""
    verdict = judge.judge(_together(texts), treatments)
    if verdict.refused or not verdict.dropped:
        return None
    gone: dict[str, None] = {}
    left = tuple(_without(text, verdict.dropped, judge, gone) for text in texts)
    again = judge.judge(_together(left), treatments)
    if not left[0].strip() or again.refused or again.dropped:
        return None
    return Reworded(left, verdict.dropped, tuple(gone))


def _together(texts: Sequence[str]) -> Words:
    return Words("\n".join(text for text in texts if text))


def _without(text: str, topics: Sequence[str], judge: Filter, gone: dict[str, None]) -> str:
    for _ in range(ROUNDS):
        pieces = _PIECE.findall(text)
        ends = list(accumulate(map(len, pieces)))
        dropped: set[int] = set()
        for place, term in judge.find(pieces, topics):
            first = bisect_right(ends, place)
            dropped.update(range(first, min(first + len(_PIECE.findall(term.pattern.strip())), len(pieces))))
        if not dropped:
            break
        gone.update(dict.fromkeys(pieces[number].strip() for number in sorted(dropped)))
        text = "".join(piece for number, piece in enumerate(pieces) if number not in dropped)
    return text
