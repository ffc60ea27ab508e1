"""What the terms in a prompt amount to.

The red line is a meeting of two groups: a word that says somebody is a minor, and one that makes it sexual. The heavier
both are, the further apart they may stand and still meet. Words of family, medicine and education weigh against a
meeting, but never against one with the heaviest sexual words. No rule of a horde switches this off.

The other categories are the horde's to judge: each is allowed, labelled, dropped or refused, as its rules say.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from operator import itemgetter
from typing import Literal, get_args

from protocol.filter.doors import Words
from protocol.filter.match import Effort, Hit, Matcher
from protocol.filter.normalise import stretches
from protocol.filter.wordlist import MAX_WEIGHT, Category, Term, WordList
from protocol.rules import Treatment

#: What a horde decides by its rules.
Topic = Literal["adult", "violence", "people", "hate", "other"]
TOPICS: tuple[Topic, ...] = get_args(Topic)
#: Sexual content about minors: refused everywhere.
MINORS = "minors"

#: Product of the two weights, and at how many characters from each other they meet; below the first, nowhere.
REACH = ((2, 24), (3, 100), (4, 200), (6, 600), (9, 1_000))
#: So heavy is a sexual word against which no context helps.
EXPLICIT = 3
#: Context counts within so many characters around a meeting.
AROUND = 300
#: A topic is there when the weights of its words reach this.
ENOUGH = 3
#: What a list of unwanted things separates, and how many of them are told apart.
_SEPARATORS = str.maketrans(dict.fromkeys(";\n|\u3001\uff0c", ","))
_MAX_ITEMS = 512

_OF_TOPIC: Mapping[Category, Topic] = {
    "sexual": "adult",
    "violence": "violence",
    "people": "people",
    "hate": "hate",
    "other": "other",
}


@dataclass(frozen=True)
class Verdict:
    """What was found. refused: the category for which the prompt is refused, empty if it is not. dropped: topics whose
    words the horde wants dropped. labels: topics that the job is marked with. hits: for tests of the lists; they are
    part of a prompt, and nothing keeps or logs them."""

    refused: str = ""
    dropped: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    hits: tuple[Hit, ...] = ()


class Filter:
    """Word lists in force, and how a horde treats each topic; topics that are not named are allowed."""

    def __init__(self, lists: Iterable[WordList], treatments: Mapping[str, Treatment] | None = None) -> None:
        self.lists = tuple(lists)
        self._treatments = treatments or {}
        self._matcher = Matcher(self.lists)

    @property
    def digests(self) -> frozenset[bytes]:
        """Of the lists in force."""
        return frozenset(one.digest for one in self.lists)

    def judge(
        self, words: Words, treatments: Mapping[str, Treatment] | None = None, effort: Effort | None = None
    ) -> Verdict:
        """The verdict on all words of one job. treatments: other ones than this filter was made with."""
        treatments = self._treatments if treatments is None else treatments
        wanted = self._matcher.find(stretches(words.wanted), effort, _meet)
        unwanted, ends = self._find_unwanted(words.unwanted, effort)
        hits = (*wanted, *unwanted)
        if _meet(wanted) or _meet_in_an_item(unwanted, ends) or _is_inverted(wanted, unwanted):
            return Verdict(MINORS, hits=hits)
        topics = _topics(wanted)
        refused = next((topic for topic in topics if treatments.get(topic) == "refuse"), "")
        return Verdict(
            refused,
            dropped=tuple(topic for topic in topics if treatments.get(topic) == "replace"),
            labels=tuple(topic for topic in topics if treatments.get(topic, "allow") != "allow"),
            hits=hits,
        )

    def find(self, parts: Sequence[str], topics: Iterable[str]) -> list[Hit]:
        """Terms of these topics in a text that comes in parts; each stands in the part where it begins."""
        among = set(topics)
        return [hit for hit in self._matcher.find(parts) if _OF_TOPIC.get(hit[1].category) in among]

    def _find_unwanted(self, text: str, effort: Effort | None) -> tuple[list[Hit], list[int]]:
        """Terms among the things that are not wanted, and where each thing ends."""
        if not text:
            return [], []
        items = [item + "," for item in text.translate(_SEPARATORS).split(",", _MAX_ITEMS)]
        return self._matcher.find(items, effort), list(accumulate(map(len, items)))


def _terms(hits: Iterable[Hit]) -> set[Term]:
    """Each once, however often it was met."""
    return set(map(itemgetter(1), hits))


def _topics(hits: Sequence[Hit]) -> list[Topic]:
    """Topics of which there is enough. Each term counts once, however often it is said."""
    weights = dict.fromkeys(TOPICS, 0)
    for term in {(term.category, term.pattern): term for term in _terms(hits)}.values():
        if (topic := _OF_TOPIC.get(term.category)) is not None:
            weights[topic] += term.weight
    return [topic for topic, weight in weights.items() if weight >= ENOUGH]


def _meet(hits: Sequence[Hit]) -> bool:
    """Whether a minor and something sexual meet. Of what stands before a word only the nearest of each weight can
    matter, and of words of one weight that follow each other the first and the last, so this is one pass."""
    if not _terms_meet(_terms(hits)):
        return False
    context = _Context(hits)
    minor: dict[int, int] = {}
    sexual: dict[int, int] = {}
    last: tuple[dict[int, int], int] | None = None
    for place, term in hits:
        if term.category == "minor":
            mine, others = minor, sexual
        elif term.category == "sexual":
            mine, others = sexual, minor
        else:
            continue
        weight = term.weight
        if last is None or last[0] is not mine or last[1] != weight:
            last = mine, weight
            for other, before in others.items():
                if place - before > _REACH[weight * other]:
                    continue
                is_explicit = (weight if mine is sexual else other) >= EXPLICIT
                credit = 0 if is_explicit else 2 * context.around(before, place)
                if place - before <= _REACH[max(0, weight * other - credit)]:
                    return True
        mine[weight] = place
    return False


def _terms_meet(terms: Iterable[Term]) -> bool:
    """Whether they would, if all of them stood side by side without context."""
    heaviest: dict[Category, int] = {}
    for term in terms:
        heaviest[term.category] = max(heaviest.get(term.category, 0), term.weight)
    return reach(heaviest.get("minor", 0) * heaviest.get("sexual", 0)) > 0


def reach(product: int) -> int:
    """At how many characters from each other two words still meet; negative if they never do."""
    return next((far for least, far in reversed(REACH) if product >= least), -1)


_REACH = [reach(product) for product in range(MAX_WEIGHT * MAX_WEIGHT + 1)]


def _meet_in_an_item(hits: Sequence[Hit], ends: Sequence[int]) -> bool:
    """Whether they meet in one of the things that are not wanted: `child, nude` there holds both off, each by itself;
    `nude child` names what nobody may name."""
    seen: defaultdict[int, set[Term]] = defaultdict(set)
    for place, term in hits:
        seen[bisect_right(ends, place)].add(term)
    return any(map(_terms_meet, seen.values()))


def _is_inverted(wanted: Sequence[Hit], unwanted: Sequence[Hit]) -> bool:
    """Whether a minor is wanted, and what hides a body is not."""
    return any(term.category == "inverse" for term in _terms(unwanted)) and any(
        term.category == "minor" and term.weight > 1 for term in _terms(wanted)
    )


class _Context:
    """Words of family, medicine and education, and how much they weigh around a place."""

    def __init__(self, hits: Sequence[Hit]) -> None:
        of = [(place, term.weight) for place, term in hits if term.category == "context"]
        self._places = [place for place, _ in of]
        self._sums = [0, *accumulate(weight for _, weight in of)]

    def around(self, start: int, end: int) -> int:
        """Their weight from a little before `start` to a little after `end`."""
        first, last = bisect_left(self._places, start - AROUND), bisect_right(self._places, end + AROUND)
        return self._sums[last] - self._sums[first]
