"""Votes against the ledger and the documents behind them: who had a voice, what was counted, what was said of it."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

from protocol import codec
from protocol.documents import MAX_VALIDITY_MS, Leaf
from protocol.errors import BadValue, Refusal
from protocol.governing import Answer, Outcome, Proposal, Vote
from protocol.merkle import leaf_hash, root_of
from protocol.proposing import with_value
from protocol.rules import Rules
from protocol.standing import days_that_count, earned, is_accepted, voices
from tracker.audit.papers import Horde, Version, check_signed, version_at
from tracker.audit.report import Findings
from tracker.sanctions import is_operator


def check_votes(connection: sqlite3.Connection, horde: Horde, versions: dict[int, Version], findings: Findings) -> None:
    """Every proposal: its roll computed again from the leaves, its votes counted again."""
    rows = connection.execute(
        "SELECT number, digest, signer, nonce, rules, opened, until, size, outcome, answer FROM proposals"
    ).fetchall()
    for number, digest, signer, nonce, rules, opened, until, size, outcome, answer in rows:
        what = f"proposal {number}"
        version = versions.get(rules)
        if version is None or version_at(versions, opened) != rules:
            findings.add(f"{what}: the rules by which it goes", rules, "the version in force when it was opened")
            continue
        raw = _raw(connection, signer, Proposal.KIND, nonce)
        try:
            envelope, proposal = check_signed(raw, horde, Proposal)
        except Refusal as refusal:
            findings.add(f"{what}: its document", refusal, "a signed proposal")
            continue
        findings.expect(f"{what}: its document", envelope.digest, digest)
        votes = version.rules.votes
        findings.expect(f"{what}: its end", until, opened + votes.open * 1000)
        roll = voices(earned(_leaves(connection, size), *days_that_count(opened, votes)), votes)
        kept = dict(connection.execute("SELECT account, earned FROM voices WHERE proposal = ?", (number,)))
        findings.expect(f"{what}: who has a voice", kept, roll)
        ballots, yes = _ballots(connection, horde, number, digest, findings)
        if outcome:
            try:
                said = check_signed(outcome, horde, Outcome)[1]
            except Refusal as refusal:
                findings.add(f"{what}: its outcome", refusal, "a document of the serving key")
                continue
            no = len(ballots) - yes
            right = (digest, yes, no, is_accepted(yes, no, votes), root_of([leaf_hash(raw) for raw in ballots]))
            found = (said.proposal, said.yes, said.no, said.accepted, said.root)
            terms = (said.opened, said.rules, said.size, said.voices)
            findings.expect(f"{what}: by what its outcome was counted", terms, (opened, rules, size, len(roll)))
            findings.expect(f"{what}: its outcome", found, right)
        if answer:
            _check_answer(answer, Judged(digest, proposal, rules), horde, versions, what, findings)


def _leaves(connection: sqlite3.Connection, size: int) -> list[Leaf]:
    return [
        codec.decode(raw, Leaf) for (raw,) in connection.execute("SELECT leaf FROM entries WHERE entry < ?", (size,))
    ]


def _raw(connection: sqlite3.Connection, signer: bytes, kind: str, identity: bytes) -> bytes:
    row = connection.execute(
        "SELECT raw FROM documents WHERE signer = ? AND kind = ? AND identity = ?", (signer, kind, identity)
    ).fetchone()
    return row[0] if row else b""


def _ballots(
    connection: sqlite3.Connection, horde: Horde, number: int, proposal: bytes, findings: Findings
) -> tuple[list[bytes], int]:
    """The votes in the order of their digests, and how many of them are for it."""
    found, yes = [], 0
    for account, signer, digest, version, said_yes in connection.execute(
        "SELECT account, signer, digest, version, yes FROM voices WHERE proposal = ? AND version > 0 ORDER BY digest",
        (number,),
    ).fetchall():
        what = f"the vote of account {account} on proposal {number}"
        raw = _raw(connection, signer, Vote.KIND, proposal + version.to_bytes(8, "big"))
        try:
            envelope, said = check_signed(raw, horde, Vote)
        except Refusal as refusal:
            findings.add(what, refusal, "a signed vote")
            continue
        findings.expect(what, (envelope.digest, said.proposal, said.yes), (digest, proposal, bool(said_yes)))
        own = connection.execute("SELECT 1 FROM keys WHERE key = ? AND account = ?", (signer, account)).fetchone()
        findings.expect(f"{what}: by a key of that account", bool(own), True)
        found.append(raw)
        yes += said.yes
    return found, yes


@dataclass(frozen=True)
class Judged:
    """What an answer is about. rules: the version by which the vote went."""

    digest: bytes
    said: Proposal
    rules: int


def _check_answer(
    raw: bytes, about: Judged, horde: Horde, versions: dict[int, Version], what: str, findings: Findings
) -> None:
    try:
        envelope, said = check_signed(raw, horde, Answer)
    except Refusal as refusal:
        findings.add(f"{what}: its answer", refusal, "a signed answer")
        return
    findings.expect(f"{what}: what is answered", said.proposal, about.digest)
    # It was taken within the hour before the end of its validity.
    earliest, latest = (version_at(versions, said.valid_until - ago) for ago in (MAX_VALIDITY_MS, 0))
    may = envelope.key in horde.keys or any(
        is_operator(envelope.key, version.rules, horde.serving)
        for number, version in versions.items()
        if earliest <= number <= latest
    )
    findings.expect(f"{what}: answered by an operator", may, True)
    applied = versions.get(said.rules)
    if said.rules and (applied is None or said.rules <= about.rules or not _is_applied(about.said, applied.rules)):
        findings.add(f"{what}: the version that applies it", said.rules, "a later one, with that value")


def _is_applied(said: Proposal, rules: Rules) -> bool:
    try:
        return with_value(rules, said.key, said.value) == rules
    except BadValue:
        return False
