"""`potluck-tracker filter`: what the word lists of a horde are, and what they make of prompts in a file."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from protocol.filter.doors import Words
from protocol.filter.verdict import MINORS, Filter, Verdict
from tracker.commands.exits import BAD_COMMAND_LINE, CommandError
from tracker.commands.folder import read_config, read_lists

LABELS = ("clean", "borderline", "blocked")


@dataclass(frozen=True)
class Tested:
    """One line of the file. label: what it is said to be, empty for a bare prompt. terms: weight, category and term."""

    line: int
    label: str
    text: str
    verdict: Verdict

    @property
    def is_wrong(self) -> bool:
        """Whether the red line has held back what is clean, or let through what is to be blocked."""
        return self.label in ("clean", "blocked") and (self.verdict.refused == MINORS) != (self.label == "blocked")

    @property
    def outcome(self) -> str:
        """What becomes of it."""
        if self.verdict.refused:
            return f"refused ({self.verdict.refused})"
        if self.verdict.dropped:
            return f"to be asked without words of {self.verdict.dropped[0]}"
        return f"labelled {', '.join(self.verdict.labels)}" if self.verdict.labels else "passes"

    @property
    def terms(self) -> list[tuple[int, str, str]]:
        """What was found, in the order of the text."""
        hits = sorted(self.verdict.hits, key=lambda hit: hit[0])
        return list(dict.fromkeys((term.weight, term.category, term.shown) for _, term in hits))


def test(folder: Path, file: Path) -> Iterator[Tested]:
    """The verdict on each prompt of the file: one a line, bare, or behind its label and a tab.

    Raises `CommandError`, also for a label that is none: such a line would be held to nothing.
    """
    config = read_config(folder)
    judge = Filter(read_lists(folder), config.rules.filter.treatments())
    try:
        text = file.read_text("utf-8-sig")
    except OSError as error:
        raise CommandError(f"{file}: cannot be read: {error.strerror}", BAD_COMMAND_LINE) from error
    except UnicodeDecodeError as error:
        raise CommandError(f"{file}: not UTF-8: save the file in that encoding", BAD_COMMAND_LINE) from error
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        before, tab, prompt = line.rpartition("\t")
        label = next((part for part in before.split("\t") if part in LABELS), "")
        if tab and not label:
            wanted = "clean, borderline or blocked before the last tab, or no tab"
            raise CommandError(f"{file}:{number}: wanted {wanted}; found {before!r}", BAD_COMMAND_LINE)
        yield Tested(number, label, prompt, judge.judge(Words(prompt)))
