"""Writes protocol/filter/lookalikes.txt: letters that look like others, found by their names in Unicode's tables."""

from __future__ import annotations

import re
import sys
import unicodedata
from pathlib import Path

FILE = Path(__file__).parents[2] / "protocol" / "filter" / "lookalikes.txt"

NAMES = re.compile(
    r"(?:LATIN SMALL LETTER|LATIN LETTER SMALL CAPITAL|NEGATIVE CIRCLED LATIN CAPITAL LETTER|"
    r"NEGATIVE SQUARED LATIN CAPITAL LETTER|REGIONAL INDICATOR SYMBOL LETTER) "
    r"(?P<letters>[A-Z])(?: WITH .*| BAR)?"
)
#: Small letters of Cyrillic (also those that look Latin as capitals only), Greek, Armenian and Coptic, capitals of
#: Cherokee (case folding makes capitals of them), Lisu and Canadian syllabics, money and others, and what they are read
#: as. Capitals stand for what has no Latin look-alike, symbols for what only a guess takes for a letter.
ALPHABETS = {
    "абвгдежзиклмнопрстуфхцчшщъыьэюя": "aBbrDeJZukLmhonpctyFxCHwwQYVEUR",
    "іјѕԁԛԝһӏґєў": "ijsdqwhlrey",
    "αβγδεηικλμνορτυχωςσ": "abydenikLuvoptuxwss",
    "օսհոցզժլռի": "ouhngqdlnh",
    "ıɑɡəɛɔʌʏæœþðſʟŋǝɘ": "iageeoayAOTdslnee",
    "ⲁⲃⲉⲏⲓⲕⲙⲛⲟⲣⲥⲧⲩⲭⲱ": "abehikmnopctyxw",
    "ᎠᎡᎢᎥᎩᎪᎫᎬᎳᎷᎻᎽᏀᏂᏃᏆᏏᏒᏔᏙᏚᏞᏟᏢᏦᏧᏳᏴ": "drtiyajewmhyghzibrwvslcpkdgb",
    "ꓐꓑꓓꓔꓖꓗꓙꓚꓜꓝꓟꓠꓡꓢꓣꓦꓧꓪꓫꓬꓮꓰꓲꓳꓴ": "bpdtgkjczfmnlsrvhwxyaeiou",
    "ᗩᗷᑕᗪᗴᖴᕼᒍᒪᗰᑎᑭᖇᑌᐯᗯᘔ": "abcdefhjlmnpruvwz",
    "€£": "&|",
}
#: Of these the letters are two.
DOUBLE = {"A": "ae", "O": "oe", "T": "th"}
DOUBLED = "æœþ"


def table() -> dict[str, str]:
    """Every look-alike and what it is read as."""
    found = {}
    for code in range(0x80, sys.maxunicode + 1):
        character = chr(code)
        match = NAMES.fullmatch(unicodedata.name(character, ""))
        # What folding takes apart by itself needs no row.
        if match and unicodedata.normalize("NFKD", character).casefold() == character:
            found[character] = match["letters"].lower()
    for letters, read_as in ALPHABETS.items():
        found |= dict(zip(letters, read_as, strict=True))
    return found | {letter: DOUBLE[found[letter]] for letter in DOUBLED}


def text() -> str:
    """The file."""
    rows = [f"U+{ord(character):04X} {letters}" for character, letters in sorted(table().items())]
    head = [
        "# Letters that are read as others, since they look like them. A capital stands for a letter of Cyrillic or",
        "# Greek that looks like none. Written by tests/filter/make_lookalikes.py.",
    ]
    return "\n".join([*head, *rows]) + "\n"


if __name__ == "__main__":
    FILE.write_text(text(), "utf-8")
