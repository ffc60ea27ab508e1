"""Which licences are open: SPDX expressions, held against a list of licences that are."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator

#: SPDX ids that the OSI approved, or that the FSF calls free. Licences that forbid uses (OpenRAIL and those of many
#: well-known models) are not among them; an operator who wants them adds them by name.
OPEN = (
    "0BSD",
    "AFL-3.0",
    "AGPL-3.0-only",
    "AGPL-3.0-or-later",
    "Apache-2.0",
    "Artistic-2.0",
    "BlueOak-1.0.0",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC-BY-4.0",
    "CC-BY-SA-4.0",
    "CC0-1.0",
    "CDLA-Permissive-2.0",
    "CECILL-2.1",
    "ECL-2.0",
    "EPL-2.0",
    "EUPL-1.2",
    "GPL-2.0-only",
    "GPL-2.0-or-later",
    "GPL-3.0-only",
    "GPL-3.0-or-later",
    "ISC",
    "LGPL-2.1-only",
    "LGPL-2.1-or-later",
    "LGPL-3.0-only",
    "LGPL-3.0-or-later",
    "MIT",
    "MIT-0",
    "MPL-2.0",
    "MulanPSL-2.0",
    "OFL-1.1",
    "UPL-1.0",
    "Unlicense",
    "Zlib",
)


class BadExpression(ValueError):
    """Not an SPDX expression."""


def is_open(expression: str, licences: Collection[str]) -> bool:
    """Whether whoever has this may use it by one of these licences alone: of `OR` one side is enough, of `AND` both are
    needed, and `WITH` an exception takes nothing away. Raises `BadExpression`."""
    words = re.findall(r"[()]|[^\s()]+", expression)
    if len(words) > 64:
        raise BadExpression("an expression of more than 64 words")
    waiting = iter([*words, ""])
    found, end = _either(waiting, next(waiting), {licence.lower() for licence in licences})
    if end:
        raise BadExpression(f"{expression[:80]!r} goes on with {end[:40]!r}")
    return found


def _either(words: Iterator[str], word: str, licences: Collection[str]) -> tuple[bool, str]:
    """What the next words up to the end of an `OR` say, and the word behind them."""
    found, word = _both(words, word, licences)
    while word.upper() == "OR":
        other, word = _both(words, next(words), licences)
        found = found or other
    return found, word


def _both(words: Iterator[str], word: str, licences: Collection[str]) -> tuple[bool, str]:
    found, word = _one(words, word, licences)
    while word.upper() == "AND":
        other, word = _one(words, next(words), licences)
        found = found and other
    return found, word


def _one(words: Iterator[str], word: str, licences: Collection[str]) -> tuple[bool, str]:
    if word == "(":
        found, end = _either(words, next(words), licences)
        if end != ")":
            raise BadExpression("a bracket that is not closed")
        return found, next(words)
    if not word or word == ")" or word.upper() in ("AND", "OR", "WITH"):
        raise BadExpression(f"{word!r} where a licence is wanted")
    following = next(words)
    if following.upper() == "WITH":
        if not next(words):
            raise BadExpression("WITH, and no exception behind it")
        following = next(words, "")
    return word.lower() in licences, following
