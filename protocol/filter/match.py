"""Finds the terms of word lists in the readings of a text, in time linear in both.

One automaton holds all patterns (Aho and Corasick's; the library finds overlapping ones in one pass). A hit is taken
back where an exception of its category covers it.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, product
from operator import itemgetter

from ahocorasick_rs import AhoCorasick

from protocol.filter.normalise import Reading, Readings
from protocol.filter.wordlist import Category, Term, WordList

#: Letters that stood alone and were put together are searched for terms without regard to where words end, if these
#: are at least so long.
LEAST_JOINED = 3
_NUMERALS = frozenset("0123456789一二三四五六七八九十")

#: About where in the text a term stands, and the term.
Hit = tuple[int, Term]
_PLACE = _START = _NUMBER = itemgetter(0)
_TERM = itemgetter(2)


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


def _joined(lists: Sequence[WordList]) -> Iterator[tuple[str, Term]]:
    """Words of the two groups written as one, either first; each stands for both of its terms."""
    for one in lists:
        for other in lists:
            if (one.category, other.category, one.language) != ("minor", "sexual", other.language):
                continue
            for minor, sexual in product(one.joined, other.joined):
                for first, second in ((minor, sexual), (sexual, minor)):
                    pattern = first.pattern.rstrip() + second.pattern.lstrip()
                    yield pattern, minor
                    yield pattern, sexual


class Matcher:
    """All terms of some lists."""

    def __init__(self, lists: Iterable[WordList]) -> None:
        lists = tuple(lists)
        by_pattern: _Terms = defaultdict(dict)
        by_letters: _Terms = defaultdict(dict)
        terms = [term for one in lists for term in one.terms]
        for written, term in [*((term.pattern, term) for term in terms), *_joined(lists)]:
            for pattern in {written, written.replace("l", "i")}:
                _add(by_pattern[pattern], term)
        for term in terms:
            letters = term.pattern.replace(" ", "")
            is_long = len(letters) >= (LEAST_JOINED if letters.isascii() else 2)
            if is_long and letters.isalpha() and not term.is_exception and term.category in ("minor", "sexual"):
                _add(by_letters[letters], term)
        self._words = _Automaton(by_pattern)
        self._letters = _Automaton(by_letters)

    def find(
        self, parts: Sequence[str], effort: Effort | None = None, is_certain: Callable[[list[Hit]], bool] | None = None
    ) -> list[Hit]:
        """Every term in a text that comes in parts (`normalise.stretches`), in the order of their places.

        is_certain: asked about the terms of the plain reading; where it says yes nothing else is read. Context counts
        in the plain reading alone: nobody hides it, and in each further reading it would weigh once more.
        """
        effort = effort if effort is not None else Effort()
        readings = Readings(parts)
        found = self._standing(readings, readings.plain, effort)
        found.sort(key=_PLACE)
        if is_certain is not None and is_certain(found):
            return found
        count = len(found)
        for reading in readings.others:
            found += [hit for hit in self._standing(readings, reading, effort) if hit[1].category != "context"]
        found += self._spelt(readings, effort)
        if len(found) > count:
            found.sort(key=_PLACE)
        return found

    def _standing(self, readings: Readings, reading: Reading, effort: Effort) -> list[Hit]:
        """Hits in a reading that count and that no exception covers."""
        terms, is_guess = self._words.terms, reading.is_guess
        hits: list[tuple[int, int, Term]] = []
        covered: dict[Category, list[tuple[int, int]]] = defaultdict(list)
        for number, start, end in self._words.search(reading.text, effort):
            for term, begin, is_exception, is_simple in terms[number]:
                if is_exception:
                    covered[term.category].append((start, end))
                elif (is_simple and not is_guess) or _counts(reading, start, end, term):
                    hits.append((start + begin, end, term))
        if covered:
            covers = {category: _Covers(spans) for category, spans in covered.items()}
            hits = [
                (start, end, term)
                for start, end, term in hits
                if term.category not in covers or not covers[term.category].cover(start, end)
            ]
        places = readings.places(reading, map(_START, hits))
        return list(zip(places, map(_TERM, hits), strict=True))

    def _spelt(self, readings: Readings, effort: Effort) -> Iterator[Hit]:
        """Hits among the letters that stood alone."""
        joined = readings.joined
        begins = list(accumulate((len(letters) + 1 for _, letters in joined), initial=0))
        ats: list[int] = []
        terms: list[Term] = []
        for number, start, _ in _ends_of_runs(self._letters.search("\n".join(map(itemgetter(1), joined)), effort)):
            piece = bisect_right(begins, start) - 1
            for term, *_ in self._letters.terms[number]:
                ats.append(joined[piece][0] + 2 * (start - begins[piece]))
                terms.append(term)
        return zip(readings.places(readings.plain, ats), terms, strict=True)


def _ends_of_runs(found: Sequence[tuple[int, int, int]]) -> list[tuple[int, int, int]]:
    """Of a pattern that is met again and again the first and the last: what stands between meets nothing else."""
    numbers = [-1, *map(_NUMBER, found), -1]
    around = zip(numbers, found, numbers[2:], strict=False)
    return [hit for before, hit, after in around if not before == hit[0] == after]


def _counts(reading: Reading, start: int, end: int, term: Term) -> bool:
    """Whether a hit is one: a number is a word of its own, and digits alone are no letters."""
    first = reading.text[start]
    if first in _NUMERALS and (reading.is_guess or (start and reading.text[start - 1] in _NUMERALS)):
        return False
    return not reading.is_guess or not term.pattern.strip().isalpha() or "a" in reading.mask[start:end]


class _Automaton:
    """Patterns. terms: by a pattern's number the terms that it stands for; of each how many characters of the pattern
    stand before its first word, whether it is an exception, and whether it counts wherever it is met in plain text."""

    def __init__(self, terms: _Terms) -> None:
        self.terms = [
            tuple(
                (term, int(pattern[0] == " "), term.is_exception, pattern[0] not in _NUMERALS) for term in of.values()
            )
            for pattern, of in terms.items()
        ]
        self._found = AhoCorasick(list(terms), store_patterns=False) if terms else None

    def search(self, text: str, effort: Effort) -> list[tuple[int, int, int]]:
        """Number of the pattern, begin and end of every occurrence."""
        if self._found is None or not text:
            return []
        found = self._found.find_matches_as_indexes(text, overlapping=True)
        effort.scanned += len(text)
        effort.met += len(found)
        return found


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
