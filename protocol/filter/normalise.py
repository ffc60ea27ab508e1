"""Readings of a text: what its letters look like, in several ways, whatever code points they were written with.

A text is folded (compatibility forms, case, marks and invisible characters gone, look-alikes replaced), then read
plainly, with digits and symbols as the letters that they stand for, with what separates letters left out, and without
repetitions. Every reading is a few passes over the whole text, each of which takes the same time whatever it meets:
there is no pattern that somebody could make slow.

After folding, the letters of Cyrillic are ASCII: those that look like a Latin letter are that letter, the others are
capitals, which folding leaves free. So most texts stay in the alphabet for which Python's passes are fastest.
"""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from itertools import accumulate

#: Characters of a stretch. Places in different readings are comparable within the error of one stretch at most.
STRETCH = 1024
#: What a table keeps of the characters that it has met.
_MAX_KEPT = 65_536

_ASCII_LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
#: What stands for a letter between letters.
_STANDS_FOR = {"0": "o", "1": "i", "3": "e", "4": "a", "5": "s", "7": "t", "@": "a", "$": "s", "!": "i", "|": "i", "+": "t"}
#: One code point each that would become more than six.
_LONG = ("\ufdfa", "\ufdfb")
_REPEATED = re.compile(r"([^\W\d_])\1\1+")
_SINGLES = re.compile(r"(?: \w){3,}(?= )")


@dataclass(frozen=True)
class Reading:
    """One way to read a text. starts: where each stretch of the text begins in it. mask: the same characters, letters
    as `a`; empty where every hit counts."""

    text: str
    starts: Sequence[int]
    mask: str = ""


@dataclass
class Readings:
    """All ways to read a text. places, sizes: of its stretches. joined: letters that stood alone, put together, and
    where in `plain` they stood."""

    places: Sequence[int]
    sizes: Sequence[int]
    plain: Reading
    others: list[Reading] = field(default_factory=list)
    joined: list[tuple[int, str]] = field(default_factory=list)

    def place(self, reading: Reading, at: int) -> int:
        """About where in the text a character of a reading stands."""
        number = max(0, min(bisect_right(reading.starts, at) - 1, len(self.places) - 1))
        start = reading.starts[number]
        end = reading.starts[number + 1] if number + 1 < len(reading.starts) else len(reading.text)
        return self.places[number] + (at - start) * self.sizes[number] // max(1, end - start)


class _Letters(dict[int, str | None]):
    """What folding makes of each character; looked up once."""

    def __init__(self) -> None:
        super().__init__(_lookalikes())

    def __missing__(self, code: int) -> str | None:
        found = _letter(chr(code))
        if len(self) < _MAX_KEPT:
            self[code] = found
        return found


class _Kept(dict[int, str | None]):
    """A table that leaves letters and digits as they are, and has one answer for everything else but white space."""

    def __init__(self, other: str | None, letters: dict[str, str] | None = None, *, as_mask: bool = False) -> None:
        super().__init__()
        self._other = other
        self._letters = letters or {}
        self._as_mask = as_mask

    def __missing__(self, code: int) -> str | None:
        found = self._look(chr(code))
        if len(self) < _MAX_KEPT:
            self[code] = found
        return found

    def _look(self, character: str) -> str | None:
        if character.isspace():
            return " "
        if character in self._letters:
            return "0" if self._as_mask else self._letters[character]
        if character.isdigit():
            return "0" if self._as_mask else character
        if character.isalpha() or unicodedata.category(character).startswith("M"):
            return "a" if self._as_mask else character
        return self._other


def _letter(character: str) -> str | None:
    """What is left of a character that is no look-alike: itself, a space, a stop for what separates, or nothing."""
    if character.isspace():
        return " "
    if character.isascii():
        return character
    category = unicodedata.category(character)
    if category == "Cf" or _is_mark(ord(character)) or category in ("Cc", "Me"):
        return None
    if category == "Nd":
        return str(unicodedata.decimal(character))
    if character.isalnum() or category.startswith("M"):
        return character
    return "."


def _is_mark(code: int) -> bool:
    """Marks that change how a Latin, Greek or Cyrillic letter looks; those that make another letter of it elsewhere
    (kana, Indic scripts) are none."""
    return (
        0x300 <= code <= 0x36F
        or 0x483 <= code <= 0x489
        or 0x1AB0 <= code <= 0x1AFF
        or 0x1DC0 <= code <= 0x1DFF
        or 0x20D0 <= code <= 0x20FF
        or 0xFE00 <= code <= 0xFE2F
        or code in (0x115F, 0x1160, 0x3164)
    )


@cache
def _lookalikes() -> dict[int, str]:
    """The table in lookalikes.txt: a code point, and the letters that it is read as."""
    text = (resources.files("protocol.filter") / "lookalikes.txt").read_text("utf-8")
    rows = (line.split() for line in text.splitlines() if line and not line.startswith("#"))
    return {int(code.removeprefix("U+"), 16): letters for code, letters in rows}


_FOLDED = _Letters()
_SPACED = _Kept(" ")
_SYMBOLS = _Kept(" ", _STANDS_FOR)
_SYMBOLS_MASK = _Kept(" ", _STANDS_FOR, as_mask=True)
_CLOSED = _Kept(None, _STANDS_FOR)
_CLOSED_MASK = _Kept(None, _STANDS_FOR, as_mask=True)
_SHAPE = _Kept(".", _STANDS_FOR, as_mask=True)


def fold(text: str) -> str:
    """The text's letters by their looks, in lower case; what is no letter is as it was, or a stop."""
    if text.isascii():
        return text.lower()
    for character in _LONG:
        text = text.replace(character, " ")
    return unicodedata.normalize("NFKD", text).casefold().translate(_FOLDED)


def words(text: str) -> str:
    """A term as it is read: folded, its words one space apart, none at the ends."""
    return " ".join(fold(text).translate(_SPACED).split())


def read(stretches: Sequence[str]) -> Readings:
    """Every reading of a text that comes in parts, from `stretches` or as its author separated them."""
    folded = [fold(stretch) for stretch in stretches]
    sizes = [len(stretch) for stretch in stretches]
    plain = _reading([part.translate(_SPACED) for part in folded])
    found = Readings([0, *accumulate(sizes)][:-1], sizes, plain)
    shape = "".join(folded).translate(_SHAPE)
    if "0a" in shape or "a0" in shape:
        found.others.append(_masked(folded, _SYMBOLS, _SYMBOLS_MASK))
    if any(f"a{between}{after}" in shape for between in (".", "..", "0.", ".0") for after in "a0"):
        found.others.append(_masked(folded, _CLOSED, _CLOSED_MASK))
    found.others += [again for reading in (plain, *found.others) for again in _without_repetitions(reading)]
    if " a a a " in plain.text.translate(_SHAPE):
        found.joined = [(match.start(), match[0].replace(" ", "")) for match in _SINGLES.finditer(plain.text)]
    return found


def stretches(text: str) -> list[str]:
    """The text in parts of about `STRETCH` characters, cut at a space where there is one."""
    found = []
    at = 0
    while len(text) - at > STRETCH:
        cut = text.rfind(" ", at + STRETCH // 2, at + STRETCH) + 1 or at + STRETCH
        found.append(text[at:cut])
        at = cut
    return [*found, text[at:]]


def _reading(parts: Sequence[str], masks: Sequence[str] = ()) -> Reading:
    """Parts put together, words one space apart, a space at both ends."""
    texts = _one_space_apart(parts)
    mask = "".join(_one_space_apart(masks)) if masks else ""
    return Reading("".join(texts), [0, *accumulate(len(text) for text in texts)][:-1], mask)


def _one_space_apart(parts: Sequence[str]) -> list[str]:
    found: list[str] = []
    last = ""
    for number, part in enumerate(parts):
        text = (" " if number == 0 else "") + part + (" " if number == len(parts) - 1 else "")
        while "  " in text:
            text = text.replace("  ", " ")
        if last == " " and text.startswith(" "):
            text = text[1:]
        found.append(text)
        last = text[-1:] or last
    return found


def _masked(folded: Sequence[str], table: _Kept, mask: _Kept) -> Reading:
    """Symbols as letters; one at a word's end, or before a space, is what ends a sentence and no letter."""
    parts = [part.replace("! ", " ").replace("!\n", "\n") for part in folded]
    return _reading([part.translate(table) for part in parts], [part.translate(mask) for part in parts])


def _without_repetitions(reading: Reading) -> list[Reading]:
    """Letters that stand three times and more, as one and as two; nothing where there are none."""
    if not any(letter * 3 in reading.text for letter in _ASCII_LETTERS):
        return []
    ends = [*reading.starts[1:], len(reading.text)]
    parts = [reading.text[start:end] for start, end in zip(reading.starts, ends, strict=True)]
    return [_joined([_REPEATED.sub(by, part) for part in parts]) for by in (r"\1", r"\1\1")]


def _joined(parts: Sequence[str]) -> Reading:
    return Reading("".join(parts), [0, *accumulate(len(part) for part in parts)][:-1])
