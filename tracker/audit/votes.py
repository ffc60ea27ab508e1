"""Votes against the ledger and the documents behind them: who had a voice, what was counted, what was said of it."""

from __future__ import annotations

import sqlite3

from protocol import codec
from protocol.documents import Leaf
from protocol.errors import Refusal
from protocol.governing import Answer, Outcome, Proposal, Vote
from protocol.merkle import leaf_hash, root_of
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
            findings.expect(f"{what}: its document", check_signed(raw, horde, Proposal)[0].digest, digest)
        except Refusal as refusal:
            findings.add(f"{what}: its document", refusal, "a signed proposal")
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
            _check_answer(answer, digest, horde, versions, what, findings)


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


def _check_answer(
    raw: bytes, proposal: bytes, horde: Horde, versions: dict[int, Version], what: str, findings: Findings
) -> None:
    try:
        envelope, said = check_signed(raw, horde, Answer)
    except Refusal as refusal:
        findings.add(f"{what}: its answer", refusal, "a signed answer")
        return
    findings.expect(f"{what}: what is answered", said.proposal, proposal)
    may = envelope.key in horde.keys or any(
        is_operator(envelope.key, version.rules, horde.serving) for version in versions.values()
    )
    findings.expect(f"{what}: answered by an operator", may, True)
