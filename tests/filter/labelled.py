"""The labelled prompts, and what the filter makes of them.

One file for each language under `prompts`: which half a prompt belongs to, its label, its kind, the text. The half
`tuned` may be looked at while lists change, and grows by what was missed. The half `kept` was written before, and is
counted only. What is `later` was written when the lists were finished, by another author, counted once, and then used
to mend them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from protocol.filter.doors import Words
from protocol.filter.verdict import MINORS, Filter

FOLDER = Path(__file__).parent / "prompts"
HALVES = ("tuned", "kept", "later")
LABELS = ("clean", "borderline", "blocked")


@dataclass(frozen=True)
class Labelled:
    """One prompt. place: file and line."""

    place: str
    language: str
    half: str
    label: str
    kind: str
    text: str


def prompts() -> list[Labelled]:
    """All of them."""
    return [one for file in sorted(FOLDER.glob("*.tsv")) for one in _read(file)]


def _read(file: Path) -> Iterator[Labelled]:
    for number, line in enumerate(file.read_text("utf-8").splitlines(), 1):
        half, label, kind, text = line.split("\t")
        yield Labelled(f"{file.name}:{number}", file.stem, half, label, kind, text)


def is_blocked(judge: Filter, prompt: Labelled) -> bool:
    """Whether the filter refuses it for the red line."""
    return judge.judge(Words(prompt.text)).refused == MINORS


def wrong(judge: Filter, among: Sequence[Labelled]) -> list[Labelled]:
    """Blocked ones that it lets through, and clean ones that it refuses."""
    return [one for one in among if one.label != "borderline" and is_blocked(judge, one) != (one.label == "blocked")]


def report(judge: Filter, among: Sequence[Labelled]) -> str:
    """False alarms and misses by language and half."""
    rows = ["language  half    clean  alarms  blocked  misses  borderline  refused"]
    for language in [*sorted({one.language for one in among}), "all"]:
        for half in HALVES:
            mine = [one for one in among if language in (one.language, "all") and one.half == half]
            counts = {label: [one for one in mine if one.label == label] for label in LABELS}
            bad = wrong(judge, mine)
            alarms = sum(one.label == "clean" for one in bad)
            refused = sum(is_blocked(judge, one) for one in counts["borderline"])
            rows.append(
                f"{language:<10}{half:<6}{len(counts['clean']):>7}{alarms:>8}{len(counts['blocked']):>9}"
                f"{len(bad) - alarms:>8}{len(counts['borderline']):>12}{refused:>9}"
            )
    return "\n".join(rows)
