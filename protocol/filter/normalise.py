"""Readings of a text: what its letters look like, in several ways, whatever code points they were written with.

A text is folded (compatibility forms, case, marks and invisible characters gone, look-alikes replaced), then read
plainly, with digits and symbols as the letters that they stand for, with what separates letters left out, and without
repetitions. Every reading is a few passes over the whole text, each of which takes the same time whatever it meets:
there is no pattern that somebody could make slow.

After folding, the letters of Cyrillic are ASCII: those that look like a Latin letter are that letter, the others are
capitals, which folding leaves free. So most texts stay in the alphabet for which Python's passes are fastest.
"""

from __future__ import annotations

import html
import re
import string
import unicodedata
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache, cached_property, lru_cache
from html.entities import html5
from importlib import resources
from itertools import accumulate

from ahocorasick_rs import BytesAhoCorasick, Implementation

#: Characters of a stretch. Places in different readings are comparable within the error of one stretch at most.
STRETCH = 1024
#: What a table keeps of the characters that it has met.
_MAX_KEPT = 65_536

#: So many different characters of a stretch are changed one after the other.
_FEW = 64

#: What stands for a letter between letters.
_STANDS_FOR = {
    "0": "o",
    "1": "i",
    "3": "e",
    "4": "a",
    "5": "s",
    "7": "t",
    "8": "b",
    "9": "g",
    "&": "e",
    "@": "a",
    "$": "s",
    "!": "i",
    "|": "i",
    "+": "t",
}
#: A character by its number or its name, as pages of the web write it.
_ENTITY = re.compile(r"&(?:#[0-9]{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z]{2,8});")
#: Signs that are whole words in one code point: taken apart, they would make a text many times as long.
_LONG = re.compile(r"[\u3300-\u33ff\ufdf0-\ufdff]")
#: Letters that look like a space.
_BLANKS = "\u115f\u1160\u3164"
_WIDE_RUNS = re.compile(r"([^\x00-\x7f])\1\1")
_SINGLES = re.compile(r"(?: \w){3,}(?= )")
_ALONE = " a a a "
#: Stands for a run of a letter: passes leave no such character.
_RUN = "\1"
#: Between stretches in a text that is changed as a whole: passes keep it, folding leaves no other.
_CUT = "\0"


class Reading:
    """One way to read a text: `text`, and in `starts` where each stretch begins in it.

    texts: of each stretch. by, guessed_from: the pass that took digits and symbols for letters, and what it was given.
    """

    def __init__(self, texts: Sequence[str], guessed_from: str = "", by: _Pass | None = None) -> None:
        self.text = "".join(texts)
        self.starts = [0, *accumulate(len(text) for text in texts)][:-1]
        self.is_guess = by is not None
        self._guessed_from = guessed_from
        self._other = by.other if by is not None else ""

    @cached_property
    def mask(self) -> str:
        """Of a guess, character by character: `a` what was a letter before, `0` what was taken for one."""
        return "".join(_one_space_apart(shape(self._guessed_from).replace(".", self._other)))


class Readings:
    """All ways to read a text that comes in parts, from `stretches` or as its author separated them. All but the plain
    one are made when they are asked for."""

    def __init__(self, stretches: Sequence[str]) -> None:
        self._folded = _CUT.join([fold(stretch) for stretch in stretches])
        self._sizes = [len(stretch) for stretch in stretches]
        self._begins = [0, *accumulate(self._sizes)]
        self.plain = Reading(_one_space_apart(_SPACED.over(self._folded)))

    @cached_property
    def others(self) -> list[Reading]:
        """Guesses, where there is something to guess, and readings without repetitions, where something is repeated."""
        signs = shape(self._folded)
        found = []
        if "0" in signs and _is_mixed(signs.encode()):
            found.append(_guess(self._folded, _SYMBOLS))
        if "." in signs or "0" in signs:
            found.append(_guess(self._folded, _CLOSED))
        if (bare := _without_digits(self._folded)) is not None:
            found.append(bare)
        if _runs(self.plain.text):
            found += [again for reading in (self.plain, *found) for again in _without_repetitions(reading)]
        return found

    @cached_property
    def joined(self) -> list[tuple[int, str]]:
        """Letters that stood alone, put together, and where in `plain` they stood."""
        return list(_joined(self.plain.text))

    def places(self, reading: Reading, ats: Iterable[int]) -> Iterator[int]:
        """About where in the text characters of a reading stand."""
        ends = [*reading.starts[1:], len(reading.text)]
        start = end = 0
        begin = size = 0
        for at in ats:
            if not start <= at < end:
                number = bisect_right(ends, at)
                start, end = reading.starts[number], ends[number]
                begin, size = self._begins[number], self._sizes[number]
            yield begin + (at - start) * size // (end - start)


class _Letters(dict[int, str | None]):
    """What folding makes of each character; looked up once."""

    def __init__(self) -> None:
        super().__init__(_lookalikes())

    def __missing__(self, code: int) -> str | None:
        found = _letter(chr(code))
        if len(self) < _MAX_KEPT:
            self[code] = found
        return found


def _letter(character: str) -> str | None:
    """What is left of a character that is no look-alike: itself, a space, a stop for what separates, or nothing."""
    if character.isspace():
        return " "
    if character.isascii():
        return character
    if character in _BLANKS:
        return "."
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
        or _is_invisible(code)
    )


def _is_invisible(code: int) -> bool:
    """Marks that nobody sees, beyond those of category Cf."""
    return code in (0x17B4, 0x17B5) or 0x180B <= code <= 0x180F or 0xE0100 <= code <= 0xE01EF


@lru_cache(maxsize=256)
def _behind_ascii(marks: str) -> re.Pattern[str]:
    """These marks behind a character of ASCII."""
    return re.compile(f"(?<=[\\x00-\\x7f])[{marks}]+")


@cache
def _lookalikes() -> dict[int, str]:
    """The table in lookalikes.txt: a code point, and the letters that it is read as."""
    text = (resources.files("protocol.filter") / "lookalikes.txt").read_text("utf-8")
    rows = (line.split() for line in text.splitlines() if line and not line.startswith("#"))
    return {int(code.removeprefix("U+"), 16): letters for code, letters in rows}


_FOLDED = _Letters()


class _Pass:
    """One pass over folded text, in which everything but ASCII is a letter and stays. letters: what symbols become.
    other: what becomes of the rest that is neither letter, digit nor white space; nothing where it is empty."""

    def __init__(self, letters: Mapping[str, str], other: str) -> None:
        self.other = other
        changes = {
            character: letters.get(character) or (" " if character.isspace() else other)
            for character in map(chr, range(128))
            if character != _CUT and (character in letters or not character.isalnum())
        }
        self._table = bytes(ord(changes.get(chr(code)) or chr(code)) for code in range(256))
        self._dropped = "".join(character for character, becomes in changes.items() if not becomes).encode()

    def over(self, text: str) -> str:
        """The text after it. In UTF-8 no byte below 128 is a part of something else, and bytes change at the speed of
        memory."""
        return text.encode().translate(self._table, self._dropped).decode()


_SPACED = _Pass({}, " ")
_SYMBOLS = _Pass(_STANDS_FOR, " ")
_CLOSED = _Pass(_STANDS_FOR, "")
_BARE = _Pass(dict.fromkeys(string.digits, ""), "")
#: A digit as `0`, a letter as `a`, what separates neither.
_DIGITS = _Pass(dict.fromkeys(string.digits, "0") | dict.fromkeys(string.ascii_letters, "a"), "")

_SHAPES = bytes(
    ord(
        "0"
        if chr(code) in _STANDS_FOR or chr(code).isdigit()
        else "a"
        if chr(code).isalpha() or code > 127
        else " "
        if chr(code).isspace()
        else _CUT
        if chr(code) == _CUT
        else "."
    )
    for code in range(256)
)


def shape(text: str) -> str:
    """Folded text, character by character: letters as `a`, digits and symbols that stand for letters as `0`, white
    space as it is, the rest as a stop; what cuts stretches stays."""
    return text.replace("?", ".").encode("ascii", "replace").replace(b"?", b"a").translate(_SHAPES).decode()


_RUNS = BytesAhoCorasick([(letter * 3).encode() for letter in string.ascii_letters], implementation=Implementation.DFA)
#: Few patterns are found at the speed of memory, which `str.find` is far from for pieces of frequent characters.
_ALONE_AT = BytesAhoCorasick([_ALONE.encode()])
_MIXED = BytesAhoCorasick([b"0a", b"a0"])


def fold(text: str) -> str:
    """The text's letters by their looks, in lower case; what is no letter is as it was, or a stop."""
    text = text.replace(_CUT, _RUN)
    if "&" in text and ";" in text:
        text = _ENTITY.sub(lambda match: _character(match[0]), text)
    if text.isascii():
        return text.lower()
    text = _LONG.sub(" ", text)
    text = unicodedata.normalize("NFKD", text).casefold()
    characters = set(text)
    changes = [(character, becomes) for character in characters if (becomes := _FOLDED[ord(character)]) != character]
    if len(changes) > _FEW:
        text = text.translate(_FOLDED)
    else:
        # `translate` asks for each character of the text, `replace` looks for one at the speed of memory. What it puts
        # in is never changed again.
        for character, becomes in changes:
            text = text.replace(character, becomes or "")
    marks = [one for one in characters if unicodedata.category(one).startswith("M") and _FOLDED[ord(one)] == one]
    if marks:
        # Marks of any script are no part of a letter of ours. To split takes half the time of `sub`.
        text = "".join(_behind_ascii("".join(sorted(marks))).split(text))
    return text


@lru_cache(maxsize=4096)
def _character(entity: str) -> str:
    """What an entity stands for; itself, if it is none."""
    if not entity.startswith("&#"):
        return html5.get(entity[1:], entity)
    return html.unescape(entity)


def words(text: str) -> str:
    """A term as it is read: folded, its words one space apart, none at the ends."""
    return " ".join(_SPACED.over(fold(text)).split())


def stretches(text: str) -> list[str]:
    """The text in parts of about `STRETCH` characters, cut at a space where there is one."""
    found = []
    at = 0
    while len(text) - at > STRETCH:
        cut = text.rfind(" ", at + STRETCH // 2, at + STRETCH) + 1 or at + STRETCH
        found.append(text[at:cut])
        at = cut
    return [*found, text[at:]]


def _is_mixed(signs: bytes) -> bool:
    """Whether a letter has beside it what may be one. In pieces, since the library collects what it finds."""
    return any(_MIXED.find_matches_as_indexes(signs[at : at + STRETCH + 1]) for at in range(0, len(signs), STRETCH))


def _guess(folded: str, by: _Pass) -> Reading:
    """A reading with symbols as letters, but for those that end a sentence."""
    if "!" in folded:
        folded = folded.replace("! ", " ").replace("!\n", "\n")
    return Reading(_one_space_apart(by.over(folded)), folded, by)


def _without_digits(folded: str) -> Reading | None:
    """A reading without digits, of the stretches in which they stick to letters; None where they do so in none."""
    signs = _DIGITS.over(folded)
    if not _is_mixed(signs.encode()):
        return None
    stuck = [_is_mixed(part.encode()) for part in signs.split(_CUT)]
    parts = zip(folded.split(_CUT), stuck, strict=True)
    return Reading(_one_space_apart(_BARE.over(_CUT.join([part if is_stuck else "" for part, is_stuck in parts]))))


def _one_space_apart(text: str) -> list[str]:
    """The stretches of a text, words one space apart, a space at both ends."""
    pieces = text.split("  ")
    if len(pieces) > 1:
        text = " ".join([left for piece in pieces if (left := piece.lstrip(" "))])
    found: list[str] = []
    last = " "
    for part in text.split(_CUT):
        stretch = part[1:] if last == " " and part.startswith(" ") else part
        found.append(stretch)
        last = stretch[-1:] or last
    found[0] = " " + found[0]
    if last != " ":
        found[-1] += " "
    return found


def _joined(plain: str) -> Iterator[tuple[int, str]]:
    """Letters that stand alone, three and more of them in a row, put together; and where they stood."""
    done = 0
    for _, start, end in _ALONE_AT.find_matches_as_indexes(shape(plain).encode()):
        if end <= done:
            continue
        # What a shape takes for a letter may be a mark: then letters alone may begin within what was found.
        for at in range(max(start, done), end):
            if (match := _SINGLES.match(plain, at)) is not None:
                yield at, match[0].replace(" ", "")
                done = match.end()
                break


def _runs(text: str) -> set[str]:
    """Letters that stand three times and more in a row."""
    found = {string.ascii_letters[number] for number, _, _ in _RUNS.find_matches_as_indexes(text.encode())}
    return found if text.isascii() else found.union(_WIDE_RUNS.findall(text))


def _without_repetitions(reading: Reading) -> list[Reading]:
    """Runs of a letter as one and as two of it."""
    ends = [*reading.starts[1:], len(reading.text)]
    parts = [reading.text[start:end] for start, end in zip(reading.starts, ends, strict=True)]
    runs = [_runs(part) for part in parts]
    return [Reading([_shortened(part, of, to) for part, of in zip(parts, runs, strict=True)]) for to in (1, 2)]


def _shortened(text: str, letters: Iterable[str], to: int) -> str:
    """Runs of these letters made so long."""
    for letter in letters:
        text = text.replace(letter * 3, _RUN)
        while _RUN * 2 in text:
            text = text.replace(_RUN * 2, _RUN)
        text = text.replace(_RUN + letter * 2, _RUN).replace(_RUN + letter, _RUN).replace(_RUN, letter * to)
    return text
