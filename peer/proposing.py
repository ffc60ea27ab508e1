"""What is proposed in a horde, as it publishes it: every document's signature is checked."""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

from peer.audit.horde import Horde
from peer.events import BadRequest, Unreachable
from peer.home import Home, write_file
from peer.scrape import fetch, http_url
from protocol.documents import Document, open_document, parse_document
from protocol.envelope import Envelope, check_document_context
from protocol.errors import Refusal
from protocol.governing import Answer, Outcome, Proposal, Vote
from protocol.links import Link

D = TypeVar("D", bound=Document)

#: So many first letters of a digest are enough to name a proposal.
LEAST_LETTERS = 6


@dataclass(frozen=True)
class Proposed:
    """One proposal, its documents read. account: whose; was: the value when the vote began, in JSON; until: the last
    moment of the vote; voices: how many could vote."""

    number: int
    account: int
    was: str
    until: int
    voices: int
    envelope: Envelope
    said: Proposal
    outcome: Outcome | None
    answer: Answer | None

    @property
    def state(self) -> str:
        """How far it has come, for people."""
        voices = f"{self.voices} voice{'' if self.voices == 1 else 's'}"
        if self.outcome is None:
            return f"is voted on ({voices})"
        result = "accepted" if self.outcome.accepted else "not accepted"
        counted = f"{result}: {self.outcome.yes} yes, {self.outcome.no} no of {voices}"
        if self.answer is None:
            return counted
        applied = f"applied by version {self.answer.rules} of the rules" if self.answer.rules else "not applied"
        return f"{counted}; {applied}: {self.answer.text}"


async def proposals(link: Link, before: int | None = None) -> list[Proposed]:
    """A part of the list, the newest first; raises `Unreachable` for what cannot be read, or nobody has signed."""
    what = f"proposals?before={before}" if before else "proposals"
    content = await fetch(link, what)
    try:
        delegation = base64.b64decode((await fetch(link, "ledger"))["delegation"], validate=True)
        horde = Horde.of(delegation, link.root)
        return [read(row, horde) for row in content["proposals"]]
    except (KeyError, TypeError, ValueError, RecursionError, binascii.Error, Refusal) as error:
        raise Unreachable(f"{http_url(link)}/{what} shows no proposals that can be read: {error}") from error


def keep_vote(home: Home, root: bytes, vote: Envelope) -> None:
    """Keep our newest vote on a proposal, so that an audit can look whether it was counted."""
    said = open_document(vote, Vote)
    write_file(home.votes_folder(root) / said.proposal.hex(), vote.raw)


def votes_in(home: Home, root: bytes) -> list[bytes]:
    """The votes that this peer has cast in a horde; what has suffered on the disk is left out."""
    found = []
    for path in sorted(home.votes_folder(root).glob("*")):
        with suppress(OSError, Refusal):
            envelope = parse_document(path.read_bytes(), Vote)
            check_document_context(envelope, root)
            envelope.verify()
            open_document(envelope, Vote)
            found.append(envelope.raw)
    return found


async def find(link: Link, named: str) -> Proposed:
    """The proposal that is named by its number, or by first letters of its digest; raises `BadRequest`."""
    number = int(named) if re.fullmatch(r"[0-9]{1,5}", named) else 0
    for one in await proposals(link, number + 1 if number else None):
        begins = len(named) >= LEAST_LETTERS and one.envelope.digest.hex().startswith(named.lower())
        if one.number == number or begins:
            return one
    raise BadRequest(f"no proposal {named[:80]!r} is known there: `potluck proposals` shows them")


def read(row: Mapping[str, Any], horde: Horde) -> Proposed:
    """One proposal as it is published; raises a `Refusal` for what is not signed as it has to be, or what `base64`,
    `json` and dictionaries raise for what is none."""
    envelope, said = _document(row, horde, Proposal)
    outcome = horde.open(_raw(row["outcome"]), Outcome)[1] if row["outcome"] else None
    answer = _document(row["answer"], horde, Answer)[1] if row["answer"] else None
    if any(one is not None and one.proposal != envelope.digest for one in (outcome, answer)):
        raise ValueError("an outcome or answer of another proposal")
    json.loads(said.value)
    numbers = (row["number"], row["account"], row["until"], row["voices"])
    return Proposed(
        int(numbers[0]),
        int(numbers[1]),
        str(row["was"]),
        int(numbers[2]),
        int(numbers[3]),
        envelope,
        said,
        outcome,
        answer,
    )


def _raw(row: Mapping[str, Any]) -> bytes:
    return base64.b64decode(row["document"], validate=True)


def _document(row: Mapping[str, Any], horde: Horde, of: type[D]) -> tuple[Envelope, D]:
    envelope = parse_document(_raw(row), of)
    check_document_context(envelope, horde.root)
    envelope.verify()
    return envelope, open_document(envelope, of)
