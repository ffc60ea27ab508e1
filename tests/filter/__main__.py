"""Prints what the shipped word lists make of the labelled prompts."""

from __future__ import annotations

import sys

from protocol.filter.verdict import Filter
from protocol.filter.wordlist import shipped
from tests.filter.labelled import prompts, report, wrong

if __name__ == "__main__":
    judge, given = Filter(shipped()), prompts()
    lines = [report(judge, given), *(f"{one.place}: {one.label}" for one in wrong(judge, given))]
    sys.stdout.write("\n".join(lines) + "\n")
