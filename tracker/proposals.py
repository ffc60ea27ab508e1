"""What can be proposed, and how a proposal looks to everybody: decided without any storage."""

from __future__ import annotations

import base64
from dataclasses import dataclass, field

import msgspec

from protocol.changes import shown
from protocol.documents import open_document
from protocol.envelope import parse
from protocol.errors import BadValue
from protocol.governing import Answer, Outcome, Proposal
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


def as_shown(one: Proposed) -> dict[str, object]:
    """One proposal as everybody may read it, with the documents that were signed."""
    said = open_document(parse(one.document), Proposal)
    outcome = open_document(parse(one.outcome), Outcome) if one.outcome else None
    answered = open_document(parse(one.answer), Answer) if one.answer else None
    return {
        "number": one.number,
        "digest": one.digest.hex(),
        "account": one.account,
        "key": said.key,
        "value": said.value,
        "was": one.was,
        "text": said.text,
        "rules": one.rules,
        "opened": one.opened,
        "until": one.until,
        "voices": one.voices,
        "ledger_size": one.size,
        "document": base64.b64encode(one.document).decode("ascii"),
        "outcome": outcome
        and {
            "yes": outcome.yes,
            "no": outcome.no,
            "accepted": outcome.accepted,
            "ended": outcome.ended,
            "root": outcome.root.hex(),
            "document": base64.b64encode(one.outcome).decode("ascii"),
        },
        "answer": answered
        and {
            "text": answered.text,
            "rules": answered.rules or None,
            "document": base64.b64encode(one.answer).decode("ascii"),
        },
    }
