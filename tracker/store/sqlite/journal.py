"""What the store keeps in memory of its own tables, and how it goes back when a step or a commit does."""

from __future__ import annotations

from collections.abc import Hashable
from typing import TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Journal:
    """What stood in memory before each change since the last commit. Values are replaced, and never changed in place.

    Only what is written goes through it: a row that was merely read is right whatever is undone, since whoever writes
    a row puts it into memory in the same breath.
    """

    def __init__(self) -> None:
        self._before: list[tuple[dict[object, object], object, object]] = []

    def put(self, table: dict[K, V], key: K, value: V) -> None:
        """From now on `value` stands under `key`."""
        self._before.append((table, key, table.get(key)))  # type: ignore[arg-type]
        table[key] = value

    @property
    def mark(self) -> int:
        """How many changes there are: to come back to."""
        return len(self._before)

    def undo(self, mark: int) -> None:
        """All is as it was at `mark`."""
        while len(self._before) > mark:
            table, key, before = self._before.pop()
            if before is None:
                table.pop(key, None)
            else:
                table[key] = before

    def forget(self) -> None:
        """The changes are durable."""
        self._before.clear()
