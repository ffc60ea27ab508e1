"""What can be proposed, and how a proposal looks to everybody: decided without any storage."""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec

from protocol.changes import shown
from protocol.errors import BadValue
from protocol.governing import Proposal
from protocol.proposing import with_value
from protocol.rules import Rules
from tracker.config import cross_checks


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


def check_proposal(said: Proposal, rules: Rules) -> None:
    """Refuse a proposal that could not be applied, or changes nothing."""
    changed = with_value(rules, said.key, said.value)
    if changed == rules:
        raise BadValue(f"{said.key} is {shown(msgspec.json.decode(said.value))} already: propose another value")
    known = set(cross_checks(rules))  # a rule may have stricter checks by now than when it came into force
    for key, fault in cross_checks(changed):
        if (key, fault) not in known:
            raise BadValue(
                f"{said.key} = {said.value[:80]} cannot stand beside the other rules: {'.'.join(key)}: {fault}"
            )
