"""What differs between two versions of a horde's rules, key by key."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import msgspec

from protocol.rules import Rules

#: Of a value so many characters are shown.
SHOWN = 60
#: Of many changes so many are told one by one.
TOLD = 12

_MISSING: Any = msgspec.UNSET


class Change(msgspec.Struct, frozen=True):
    """One key. before, after: its value in JSON's types; None for what is not there, as a model that is new."""

    key: str
    before: Any
    after: Any

    def __str__(self) -> str:
        return f"{self.key}: {shown(self.before)} -> {shown(self.after)}"


def changes(before: Rules, after: Rules) -> list[Change]:
    """Every key whose value differs, in the order of the rules; models and lists each by their name."""
    old, new = dict(values(before)), dict(values(after))
    keys = [*new, *(key for key in old if key not in new)]
    return [Change(key, old.get(key), new.get(key)) for key in keys if old.get(key, _MISSING) != new.get(key, _MISSING)]


def told(found: Sequence[Change]) -> str:
    """The changes in one line for people; empty for none."""
    more = [f"and {len(found) - TOLD} more"] if len(found) > TOLD else []
    return "; ".join([*map(str, islice(found, TOLD)), *more])


def values(rules: Rules) -> Iterator[tuple[str, Any]]:
    """Every key with its value, in JSON's types."""
    for table, values in msgspec.to_builtins(rules).items():
        for key, value in values.items():
            path = f"{table}.{_name(key)}"
            if isinstance(value, Mapping):
                yield from ((f"{path}.{_name(name)}", inner) for name, inner in value.items())
            else:
                yield path, value


def _name(key: str) -> str:
    """The key as the rules file has it: in quotes where it is a name that somebody chose."""
    return key if key.isidentifier() else msgspec.json.encode(key).decode()


def shown(value: object) -> str:
    """A value as people read it, cut where it is long."""
    if value is None:
        return "none"
    text = msgspec.json.encode(value).decode()
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 3]}..."
