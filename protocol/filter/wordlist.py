"""Word lists: one file for each category and language, strictly typed; docs/content.md describes the format.

    category: minor
    language: en
    numbers: one two three ...
    tens: twenty thirty ...         with one of these before it a number is no age of a minor
    joined: child kid ...           counts also where it is written together with a `joined` word of the other group

    3 {age} years old       a weight, then a term; * at its end: however the word goes on
    - minor key             here no term of this category counts

Every mistake in a file is an error that names file and line.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Literal, get_args

from protocol.filter.normalise import words

Category = Literal["minor", "sexual", "inverse", "context", "violence", "people", "hate", "other"]
CATEGORIES: tuple[Category, ...] = get_args(Category)
MAX_BYTES = 256 * 1024
MAX_TERMS = 20_000
#: Every one is looked for with every one of the other group.
MAX_JOINED = 64
#: Under an age: whoever has it is no adult.
AGES = range(1, 18)
#: What can follow a word for a ten.
ONES = range(1, 10)
MAX_WEIGHT = 6
#: A term with a star, or in a language without spaces, is found within words: shorter ones would be found everywhere.
LEAST_OPEN = 3

_WEIGHTED = re.compile(r"([1-9]) +(\S.*)")
_WIDE = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\u0e00-\u0e7f]")


class BadWordList(Exception):
    """A list that cannot be followed; the text names file and line, what was found and what is wanted."""


@dataclass(frozen=True, eq=False)
class Term:
    """One line of a list. pattern: as it is looked for in a reading, spaces where a word has to begin or end.
    weight: 0 for an exception."""

    category: Category
    language: str
    shown: str
    pattern: str
    weight: int

    @property
    def is_exception(self) -> bool:
        """Whether terms of its category do not count within it."""
        return self.weight == 0


@dataclass(frozen=True)
class WordList:
    """One file. name: of the file, without ending. digest: SHA-256 of its bytes. joined: those of its terms that are
    also looked for written together with those of the other group (`minor`, `sexual`) in the same language."""

    name: str
    category: Category
    language: str
    digest: bytes
    raw: bytes
    terms: tuple[Term, ...]
    joined: tuple[Term, ...] = ()


@dataclass
class _Head:
    category: Category | None = None
    language: str = ""
    spaced: bool = True
    numbers: tuple[str, ...] = ()
    tens: tuple[str, ...] = ()
    joined: tuple[str, ...] = ()


def parse(raw: bytes, name: str) -> WordList:
    """The list in `raw`; raises `BadWordList`. name: of the file, for faults."""
    if len(raw) > MAX_BYTES:
        raise BadWordList(f"{name}: {len(raw)} bytes: wanted at most {MAX_BYTES}; make two lists of it")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        at = raw.count(b"\n", 0, error.start) + 1
        raise BadWordList(f"{name}:{at}: not UTF-8: save the file in that encoding") from error
    head = _Head()
    terms: dict[tuple[str, bool], Term] = {}
    made = 0
    for number, line in enumerate(text.splitlines(), 1):
        said = line.partition(" #")[0].strip()
        if not said or said.startswith("#"):
            continue
        try:
            if ":" in said and said[0].isalpha():
                _take_head(head, said, begun=bool(terms))
                continue
            for term in _terms(head, said):
                terms[term.pattern, term.is_exception] = term
                made += 1
                if made > MAX_TERMS:
                    raise ValueError(f"more than {MAX_TERMS} terms, each age counted: make two lists of it")
        except ValueError as error:
            raise BadWordList(f"{name}:{number}: {error}") from error
    if head.category is None or not head.language:
        raise BadWordList(f"{name}:1: wanted `category:` and `language:` before the terms")
    if unknown := [word for word in head.joined if (f" {words(word)} ", False) not in terms]:
        raise BadWordList(f"{name}:1: `joined:` names {unknown[0]!r}: wanted whole words that are terms of this list")
    return WordList(
        name.removesuffix(".txt"),
        head.category,
        head.language,
        hashlib.sha256(raw).digest(),
        raw,
        tuple(terms.values()),
        tuple(terms[f" {words(word)} ", False] for word in head.joined),
    )


def _take_head(head: _Head, said: str, *, begun: bool) -> None:
    key, _, value = (part.strip() for part in said.partition(":"))
    if begun:
        raise ValueError(f"`{key}:` after the first term: what is true of the whole list stands before its terms")
    match key:
        case "category":
            if value not in CATEGORIES:
                raise ValueError(f"category {value!r}: wanted one of {', '.join(CATEGORIES)}")
            head.category = value
        case "language":
            if not re.fullmatch(r"[a-z]{2,8}", value):
                raise ValueError(f"language {value!r}: wanted a code such as en")
            head.language = value
        case "spaced":
            if value not in ("yes", "no"):
                raise ValueError(f"spaced {value!r}: wanted yes or no")
            head.spaced = value == "yes"
        case "numbers":
            head.numbers = tuple(value.split())
            if len(head.numbers) != len(AGES):
                raise ValueError(f"{len(head.numbers)} numbers: wanted the words for {AGES[0]} to {AGES[-1]}")
        case "tens":
            head.tens = tuple(value.split())
        case "joined":
            if head.category not in ("minor", "sexual"):
                raise ValueError("`joined:` is for lists of category minor or sexual, and stands behind the category")
            head.joined = tuple(value.split())
            if len(head.joined) > MAX_JOINED:
                raise ValueError(f"{len(head.joined)} words: wanted at most {MAX_JOINED}")
        case _:
            raise ValueError(f"`{key}:` is not known: known are category, language, spaced, numbers, tens, joined")


def _terms(head: _Head, said: str) -> Iterator[Term]:
    """What one line says: one term, or one for each age."""
    if head.category is None or not head.language:
        raise ValueError("wanted `category:` and `language:` before the terms")
    if said.startswith("- "):
        weight, shown = 0, said[2:].strip()
    elif match := _WEIGHTED.fullmatch(said):
        weight, shown = int(match[1]), match[2]
        if weight > MAX_WEIGHT:
            raise ValueError(f"weight {weight}: wanted 1 to {MAX_WEIGHT}")
    else:
        raise ValueError(f"{said[:60]!r}: wanted `WEIGHT TERM`, or `- PHRASE` for an exception")
    for written in _by_age(head, shown):
        yield Term(head.category, head.language, shown, _pattern(written, spaced=head.spaced), weight)
    if weight and shown.startswith("{age} "):
        for written in _beyond(head, shown):
            yield Term(head.category, head.language, written, _pattern(written, spaced=head.spaced), 0)


def _beyond(head: _Head, shown: str) -> Iterator[str]:
    """Ages that end like one of a minor and are none: `twenty five years old`."""
    for ten in head.tens:
        for spelling in _spellings(head, ONES):
            yield shown.replace("{age}", f"{ten.replace('_', ' ')} {spelling}")


def _by_age(head: _Head, shown: str) -> Iterator[str]:
    if "{age}" not in shown:
        if "{" in shown:
            raise ValueError(f"{shown!r}: the one place-holder is {{age}}")
        yield shown
        return
    for age in AGES:
        yield shown.replace("{age}", str(age))
    for spelling in _spellings(head):
        yield shown.replace("{age}", spelling)


def _spellings(head: _Head, ages: range = AGES) -> list[str]:
    """The words for these ages, in all their spellings."""
    among = head.numbers[ages.start - 1 : ages.stop - 1]
    return [spelling.replace("_", " ") for spellings in among for spelling in spellings.split("/")]


def _pattern(written: str, *, spaced: bool) -> str:
    is_begun, is_ended = written.startswith("*"), written.endswith("*")
    inner = written[is_begun : len(written) - is_ended]
    if "*" in inner:
        raise ValueError(f"{written!r}: a star stands at the beginning or the end of a term")
    core = words(inner)
    if not core:
        raise ValueError(f"{written!r}: no letter or digit in it")
    is_open = is_begun or is_ended or not spaced
    if is_open and len(core) < (1 if _WIDE.search(inner) else LEAST_OPEN):
        raise ValueError(f"{written!r}: too short to be found within words: wanted at least {LEAST_OPEN} letters")
    if not spaced:
        return core
    return ("" if is_begun else " ") + core + ("" if is_ended else " ")


@cache
def shipped() -> Sequence[WordList]:
    """The lists that come with Potluck, by name. They are always in force."""
    folder = resources.files("protocol.filter") / "lists"
    files = sorted((file.name, file.read_bytes()) for file in folder.iterdir() if file.name.endswith(".txt"))
    return tuple(parse(raw, name) for name, raw in files)
