"""What can be proposed, and how a proposal looks to everybody: decided without any storage."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import msgspec

from protocol.changes import shown
from protocol.errors import BadValue
from protocol.governing import Proposal
from protocol.rules import Rules

#: What the tracker fills in by itself, or the catalogue has.
_NOT_PROPOSED = frozenset({"filter.lists"})


@dataclass(frozen=True)
class Roll:
    """Who has a voice in one vote. size: entries of the ledger that were counted; voices: what each earned."""

    size: int
    voices: dict[int, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Proposed:
    """One proposal as it stands. account: whose. was: the value when the vote began, in JSON. voices: how many could
    vote; size: entries of the ledger by which. outcome, answer: documents, empty where there is none yet."""

    number: int
    digest: bytes
    account: int
    rules: int
    was: str
    opened: int
    until: int
    size: int
    voices: int
    document: bytes
    outcome: bytes = b""
    answer: bytes = b""


def with_value(rules: Rules, key: str, value: str) -> Rules:
    """The rules with one key changed to a value in JSON; raises `BadValue`, saying what can be proposed."""
    table, name, found = _find(rules, key)
    try:
        found[table][name] = msgspec.json.decode(value)
        return msgspec.convert(found, Rules)
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise BadValue(f"{key} = {value[:80]}: {error}; docs/rules.md says what this rule may be") from error


def value_of(rules: Rules, key: str) -> str:
    """A rule's value in JSON; raises `BadValue` if there is no such rule."""
    table, name, found = _find(rules, key)
    return msgspec.json.encode(found[table][name]).decode()


def _find(rules: Rules, key: str) -> tuple[str, str, dict[str, Any]]:
    table, _, name = key.partition(".")
    found: dict[str, Any] = msgspec.to_builtins(rules)
    if table not in found or table == "models" or name not in found[table] or key in _NOT_PROPOSED:
        known = [f"{table}.{one}" for one in found[table]] if table in found and table != "models" else list(found)
        raise BadValue(f"no rule {key[:80]!r} can be proposed to change: known are {', '.join(known)}")
    return table, name, found


def check_proposal(said: Proposal, rules: Rules) -> None:
    """Refuse a proposal that could not be applied, or changes nothing."""
    if with_value(rules, said.key, said.value) == rules:
        raise BadValue(f"{said.key} is {shown(msgspec.json.decode(said.value))} already: propose another value")
