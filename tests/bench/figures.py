"""What the bench finds: figures with their aims, as a table for people and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any


@dataclass(frozen=True)
class Aim:
    """What a figure should reach. at_least: whether more is better."""

    bound: float
    at_least: bool

    def is_met(self, value: float) -> bool:
        """Whether this value reaches it."""
        return value >= self.bound if self.at_least else value <= self.bound

    def __str__(self) -> str:
        return f"{'>=' if self.at_least else '<='} {shown(self.bound)}"


def at_least(bound: float) -> Aim:
    """So much or more."""
    return Aim(bound, at_least=True)


def at_most(bound: float) -> Aim:
    """So much or less."""
    return Aim(bound, at_least=False)


@dataclass(frozen=True)
class Figure:
    """One thing measured. samples: of each repetition; none where it could not be measured, and then `note` says why.
    what: in a few words, for the table. about: what else was seen, for the JSON."""

    name: str
    unit: str
    what: str
    samples: Sequence[float]
    aim: Aim | None = None
    note: str = ""
    about: dict[str, Any] = field(default_factory=dict)

    @property
    def median(self) -> float | None:
        """The middle one of the samples."""
        return median(self.samples) if self.samples else None

    @property
    def is_met(self) -> bool | None:
        """Whether the median reaches the aim; None without an aim or without samples."""
        return None if self.aim is None or self.median is None else self.aim.is_met(self.median)

    def as_json(self) -> dict[str, Any]:
        """All of it."""
        spread = {"low": min(self.samples), "high": max(self.samples)} if self.samples else {}
        return {
            "median": self.median,
            **spread,
            "samples": list(self.samples),
            "unit": self.unit,
            "what": self.what,
            "aim": str(self.aim) if self.aim else None,
            "met": self.is_met,
            **({"note": self.note} if self.note else {}),
            **self.about,
        }


def missing(name: str, unit: str, what: str, why: str, aim: Aim | None = None) -> Figure:
    """A figure that could not be measured here."""
    return Figure(name, unit, what, (), aim, note=why)


def ratios(ones: Sequence[float], others: Sequence[float]) -> list[float]:
    """One by one, in the order in which they were measured."""
    return [one / other for one, other in zip(ones, others, strict=True)]


def shown(value: float) -> str:
    """Three digits that matter."""
    if value and abs(value) < 100:
        return f"{value:.3g}"
    return f"{value:,.0f}"


HEAD = ("figure", "median", "spread", "unit", "aim", "", "what")


def table(figures: Sequence[Figure]) -> str:
    """One line for each figure."""
    rows = [HEAD, *(_row(figure) for figure in figures)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEAD))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])


def _row(figure: Figure) -> tuple[str, ...]:
    middle = figure.median
    met = {True: "met", False: "missed", None: ""}[figure.is_met]
    spread = f"{shown(min(figure.samples))} to {shown(max(figure.samples))}" if figure.samples else ""
    what = f"{figure.what} ({figure.note})" if figure.note else figure.what
    value = "not measured" if middle is None else shown(middle)
    return (figure.name, value, spread, figure.unit, str(figure.aim or ""), met, what)
