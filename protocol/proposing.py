"""What a proposal would change in the rules: one key, to a value in JSON. Who checks an answer computes it too."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from protocol.errors import BadValue
from protocol.rules import Rules
from protocol.toml_file import MAX_NUMBER

#: What the tracker fills in by itself, and what is a program on its machine.
NOT_PROPOSED = frozenset({"filter.lists", "catalogue.digest", "prices.plugin"})


def with_value(rules: Rules, key: str, value: str) -> Rules:
    """The rules with one key changed to a value in JSON; raises `BadValue`, saying what can be proposed."""
    table, name, found = _find(rules, key)
    try:
        said = msgspec.json.decode(value)
        if any(number > MAX_NUMBER for number in _numbers(said)):
            raise BadValue(f"{key} = {value[:80]}: wanted numbers of at most {MAX_NUMBER}")
        found[table][name] = said
        return msgspec.convert(found, Rules)
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise BadValue(f"{key} = {value[:80]}: {error}; docs/rules.md says what this rule may be") from error
    except RecursionError as error:
        raise BadValue(f"{key} = {value[:80]}: wanted a list of lists at most, found brackets far deeper") from error


def value_of(rules: Rules, key: str) -> str:
    """A rule's value in JSON; raises `BadValue` if there is no such rule."""
    table, name, found = _find(rules, key)
    return msgspec.json.encode(found[table][name]).decode()


def _find(rules: Rules, key: str) -> tuple[str, str, dict[str, Any]]:
    table, _, name = key.partition(".")
    found: dict[str, Any] = msgspec.to_builtins(rules)
    if table not in found or table == "models" or name not in found[table] or key in NOT_PROPOSED:
        names = found[table] if table in found and table != "models" else ()
        known = [one for one in (f"{table}.{name}" for name in names) if one not in NOT_PROPOSED] or list(found)
        raise BadValue(f"no rule {key[:80]!r} can be proposed to change: known are {', '.join(known)}")
    return table, name, found


def _numbers(value: object) -> Iterator[int]:
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from _numbers(item)
    elif isinstance(value, int):
        yield value
