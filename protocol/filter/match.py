"""Finds the terms of word lists in the readings of a text, in time linear in both.

One automaton holds all patterns (Aho and Corasick's; the library finds overlapping ones in one pass). A hit is taken
back where an exception of its category covers it.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from ahocorasick_rs import AhoCorasick

from protocol.filter.normalise import Reading, read
from protocol.filter.wordlist import Category, Term, WordList

#: Letters that stood alone and were put together are searched for terms without regard to where words end, if these
#: are at least so long.
LEAST_JOINED = 3
_NUMERALS = frozenset("0123456789一二三四五六七八九十")


class Hit(NamedTuple):
    """A term, and about where it stands in the text."""

    place: int
    term: Term


@dataclass
class Effort:
    """What a search has cost. scanned: characters that went through an automaton. met: patterns that it met."""

    scanned: int = 0
    met: int = 0


#: The terms of each pattern: one of each category, and one exception.
_Terms = defaultdict[str, dict[tuple[Category, bool], Term]]


def _add(terms: dict[tuple[Category, bool], Term], term: Term) -> None:
    """The heaviest counts, where lists of several languages have the same word."""
    known = terms.get((term.category, term.is_exception))
    if known is None or known.weight < term.weight:
        terms[term.category, term.is_exception] = term


class Matcher:
    """All terms of some lists."""

    def __init__(self, lists: Iterable[WordList]) -> None:
        by_pattern: _Terms = defaultdict(dict)
        by_letters: _Terms = defaultdict(dict)
        for term in (term for one in lists for term in one.terms):
            for pattern in {term.pattern, term.pattern.replace("l", "i")}:
                _add(by_pattern[pattern], term)
            letters = term.pattern.replace(" ", "")
            is_long = len(letters) >= (LEAST_JOINED if letters.isascii() else 2)
            if is_long and letters.isalpha() and not term.is_exception and term.category in ("minor", "sexual"):
                _add(by_letters[letters], term)
        self._words = _Automaton(by_pattern)
        self._letters = _Automaton(by_letters)

    def find(self, parts: Sequence[str], effort: Effort | None = None) -> list[Hit]:
        """Every term in a text that comes in parts (`normalise.stretches`), in the order of their places."""
        effort = effort if effort is not None else Effort()
        readings = read(parts)
        found: dict[Hit, None] = {}
        for reading in (readings.plain, *readings.others):
            for start, term in self._standing(reading, effort):
                found[Hit(readings.place(reading, start + (term.pattern[0] == " ")), term)] = None
        for at, letters in readings.joined:
            for start, _, term in self._letters.search(letters, effort):
                found[Hit(readings.place(readings.plain, at + 2 * start), term)] = None
        return sorted(found, key=lambda hit: hit.place)

    def _standing(self, reading: Reading, effort: Effort) -> list[tuple[int, Term]]:
        """Hits in a reading that no exception covers."""
        hits: list[tuple[int, int, Term]] = []
        covered: dict[Category, list[tuple[int, int]]] = defaultdict(list)
        for start, end, term in self._words.search(reading.text, effort):
            if term.is_exception:
                covered[term.category].append((start, end))
            elif _counts(reading, start, end, term):
                hits.append((start, end, term))
        if not covered:
            return [(start, term) for start, _, term in hits]
        covers = {category: _Covers(spans) for category, spans in covered.items()}
        return [
            (start, term)
            for start, end, term in hits
            if term.category not in covers or not covers[term.category].cover(start, end)
        ]


def _counts(reading: Reading, start: int, end: int, term: Term) -> bool:
    """Whether a hit is one: a number is a word of its own, and digits alone are no letters."""
    first = reading.text[start]
    if first in _NUMERALS and (reading.is_guess or (start and reading.text[start - 1] in _NUMERALS)):
        return False
    return not reading.is_guess or not term.pattern.strip().isalpha() or "a" in reading.mask[start:end]


class _Automaton:
    """Patterns, each with the terms that it stands for."""

    def __init__(self, terms: _Terms) -> None:
        self._terms = [tuple(of.values()) for of in terms.values()]
        self._found = AhoCorasick(list(terms), store_patterns=False) if terms else None

    def search(self, text: str, effort: Effort) -> Iterable[tuple[int, int, Term]]:
        """Begin, end and term of every occurrence."""
        if self._found is None:
            return
        effort.scanned += len(text)
        for number, start, end in self._found.find_matches_as_indexes(text, overlapping=True):
            effort.met += 1
            for term in self._terms[number]:
                yield start, end, term


class _Covers:
    """Spans, and whether one of them holds another span whole. Spans are asked for in any order."""

    def __init__(self, spans: Sequence[tuple[int, int]]) -> None:
        # The furthest end of all spans that begin at or before a place, by beginnings in order.
        self._starts: list[int] = []
        self._ends: list[int] = []
        furthest = 0
        for start, end in sorted(spans):
            furthest = max(furthest, end)
            self._starts.append(start)
            self._ends.append(furthest)

    def cover(self, start: int, end: int) -> bool:
        """Whether a span that begins no later reaches this end."""
        number = bisect_right(self._starts, start)
        return number > 0 and self._ends[number - 1] >= end
