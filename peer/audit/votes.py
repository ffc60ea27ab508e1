"""Votes as everybody can check them: what is shown is signed by who may, voices are counted again from the leaves, and
whoever has voted is shown that this was counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import msgspec

from peer.audit.horde import Horde
from peer.audit.report import Findings
from protocol.documents import MAX_VALIDITY_MS, Document, Leaf, open_document, parse_document
from protocol.envelope import Envelope, check_document_context
from protocol.errors import BadValue, Refusal
from protocol.governing import Answer, Outcome, Proposal, Vote
from protocol.keys import show_key
from protocol.merkle import leaf_hash, verify_inclusion
from protocol.proposing import with_value
from protocol.rules import Rules
from protocol.standing import EARNING, count, days_that_count, is_accepted, voices

D = TypeVar("D", bound=Document)


class Said(msgspec.Struct, frozen=True):
    """A document beside a proposal."""

    document: bytes


class Row(msgspec.Struct, frozen=True):
    """A proposal as `/proposals` shows it, as far as it is signed."""

    number: int
    document: bytes
    outcome: Said | None = None
    answer: Said | None = None


class Rows(msgspec.Struct, frozen=True):
    """A part of the list. before: from where the next one goes on, if there is one."""

    proposals: tuple[Row, ...]
    before: int | None = None


class Counted(msgspec.Struct, frozen=True):
    """Where a vote stands among those that were counted; hashes in hex."""

    place: int
    size: int
    proof: tuple[str, ...]


class _Wrong(Exception):
    """Something about a vote that is not right; the text says what."""


@dataclass(frozen=True)
class Voted:
    """A proposal whose vote has ended."""

    number: int
    outcome: Outcome
    rules: Rules


@dataclass
class Rolls:
    """Goes along the leaves, and counts for each vote who had a voice in it."""

    voted: Sequence[Voted] = ()
    _earned: list[Counter[int]] = field(init=False)
    _by_day: dict[int, list[int]] = field(init=False)
    _first: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        """Lay out which votes a day counts for, so that most entries cost nothing."""
        self._earned = [Counter() for _ in self.voted]
        self._by_day = {}
        for place, one in enumerate(self.voted):
            for day in range(*days_that_count(one.outcome.opened, one.rules.votes)):
                self._by_day.setdefault(day, []).append(place)

    def begin(self, day: int) -> None:
        """Leaves are read from some moment of this day on: votes for which earlier ones count are not counted again."""
        early = {place for known, places in self._by_day.items() if known <= day for place in places}
        self.voted = [one for place, one in enumerate(self.voted) if place not in early]
        self.__post_init__()

    def enter(self, index: int, leaf: Leaf) -> None:
        """The next entry."""
        if self._first is None:
            self._first = index, leaf.day
        for place in self._by_day.get(leaf.day, ()) if leaf.event in EARNING else ():
            if index < self.voted[place].outcome.size:
                count(leaf, self._earned[place])

    def end(self, size: int, findings: Findings) -> None:
        """All leaves up to here were seen: compare the votes that they cover from the first day on that counts."""
        first, day = self._first or (0, 0)
        for one, found in zip(self.voted, self._earned, strict=True):
            since, _ = days_that_count(one.outcome.opened, one.rules.votes)
            right = len(voices(found, one.rules.votes))
            is_covered = one.outcome.size <= size and (not first or day < since)
            if is_covered and right != one.outcome.voices:
                text = f"proposal {one.number}: {one.outcome.voices} voices, and by the leaves {right} accounts had one"
                findings.add("votes", text)


class Votes:
    """One list of proposals, judged. issued: since when each version of the rules was in force."""

    def __init__(self, horde: Horde, rules: Mapping[int, Rules], issued: Mapping[int, int], findings: Findings) -> None:
        self._horde = horde
        self._rules = rules
        self._issued = issued
        self._findings = findings
        self._proposals: dict[bytes, int] = {}
        self.voted: dict[bytes, Voted] = {}

    def read(self, rows: Iterable[Row]) -> None:
        """Look at everything that is signed."""
        for row in rows:
            try:
                self._read(row)
            except (_Wrong, Refusal) as error:
                self._findings.add("votes", f"proposal {row.number}: {error}")

    def _read(self, row: Row) -> None:
        envelope, said = self._open(row.document, Proposal)
        self._proposals[envelope.digest] = row.number
        if row.outcome is None:
            if row.answer is not None:
                raise _Wrong("is answered, and its vote has not ended")
            return
        outcome = self._horde.open(row.outcome.document, Outcome)[1]
        if outcome.proposal != envelope.digest:
            raise _Wrong("shows the outcome of another one")
        rules = self._rules.get(outcome.rules)
        if rules is None or self._in_force(outcome.opened) != outcome.rules:
            raise _Wrong(f"was voted on by version {outcome.rules} of the rules, which was not in force then")
        self.voted[envelope.digest] = Voted(row.number, outcome, rules)
        self._check(outcome, rules)
        _changed(said, rules)
        if row.answer is not None:
            self._check_answer(row.answer.document, said, outcome, envelope.digest)

    def _check(self, outcome: Outcome, rules: Rules) -> None:
        """Whether the outcome follows from its own numbers."""
        if outcome.ended <= outcome.opened + rules.votes.open * 1000:
            raise _Wrong("was counted before its end")
        if outcome.yes + outcome.no > outcome.voices:
            raise _Wrong(f"{outcome.yes + outcome.no} votes were counted, of {outcome.voices} voices")
        if outcome.accepted != is_accepted(outcome.yes, outcome.no, rules.votes):
            said = "accepted" if outcome.accepted else "not accepted"
            raise _Wrong(f"is {said} by {outcome.yes} yes and {outcome.no} no, against rules votes")

    def _check_answer(self, raw: bytes, proposal: Proposal, outcome: Outcome, digest: bytes) -> None:
        envelope, said = self._open(raw, Answer)
        if said.proposal != digest:
            raise _Wrong("shows the answer to another one")
        earliest, latest = (self._in_force(said.valid_until - ago) for ago in (MAX_VALIDITY_MS, 0))
        named = (
            key
            for version, rules in self._rules.items()
            if earliest <= version <= latest
            for key in rules.roles.operators
        )
        if envelope.key not in (self._horde.serving, *self._horde.former) and show_key(envelope.key) not in named:
            raise _Wrong(f"is answered by key {show_key(envelope.key)[:8]}…, which was no operator's")
        if said.rules:
            rules = self._rules.get(said.rules)
            if rules is None or said.rules <= outcome.rules or _changed(proposal, rules) != rules:
                raise _Wrong(f"is said to be applied by version {said.rules} of the rules, which does not")

    def _in_force(self, time: int) -> int:
        return max((version for version, issued in self._issued.items() if issued <= time), default=0)

    def _open(self, raw: bytes, of: type[D]) -> tuple[Envelope, D]:
        envelope = parse_document(raw, of)
        check_document_context(envelope, self._horde.root)
        envelope.verify()
        return envelope, open_document(envelope, of)

    # What this peer said itself

    def ended(self, votes: Iterable[bytes]) -> list[tuple[bytes, Voted]]:
        """Of the votes that this peer has cast, the newest on each proposal that has ended; a proposal that is shown
        no more is a finding."""
        newest: dict[bytes, tuple[int, bytes]] = {}
        for raw in votes:
            said = open_document(parse_document(raw, Vote), Vote)
            newest[said.proposal] = max(newest.get(said.proposal, (0, b"")), (said.version, raw))
        for proposal in newest.keys() - self._proposals.keys():
            text = f"proposal {proposal[:6].hex()}, on which this peer has voted, is not shown"
            self._findings.add("votes", text)
        return [(raw, self.voted[proposal]) for proposal, (_, raw) in newest.items() if proposal in self.voted]

    def check_counted(self, raw: bytes, voted: Voted, counted: Counted | None) -> bool:
        """Whether a vote of this peer is shown to be among those of the outcome; else a finding."""
        outcome, right = voted.outcome, False
        if counted is not None and counted.size == outcome.yes + outcome.no:
            try:
                proof = [bytes.fromhex(node) for node in counted.proof]
                right = verify_inclusion(leaf_hash(raw), counted.place, counted.size, proof, outcome.root)
            except ValueError:
                right = False
        if not right:
            text = f"proposal {voted.number}: the vote that this peer has cast is not shown to be among those counted"
            self._findings.add("votes", f"{text}; one by the same account from elsewhere may have replaced it")
        return right


def _changed(said: Proposal, rules: Rules) -> Rules:
    try:
        return with_value(rules, said.key, said.value)
    except BadValue as error:
        raise _Wrong(f"proposes what could not be: {error}") from error
