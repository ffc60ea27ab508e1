"""Proposals, votes, outcomes and answers as they are kept. All but `read_roll` are steps of the store."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from protocol import codec, documents
from protocol.documents import Leaf
from protocol.envelope import Envelope, parse
from protocol.errors import BadValue, NotAllowed, OutOfTurn, OverLimit, UnknownAct
from protocol.governing import Answer, Outcome, Proposal, Vote
from protocol.merkle import inclusion_proof, leaf_hash, root_of
from protocol.proposing import value_of, with_value
from protocol.rules import VotesSection
from protocol.standing import days_that_count, earned, is_accepted, voices
from tracker.ledger import show_kudos
from tracker.proposals import Proposed, Roll, check_proposal
from tracker.sanctions import check_operator
from tracker.store.sqlite import papers
from tracker.store.sqlite.acts import owner_of
from tracker.store.sqlite.moderating import check_free
from tracker.store.sqlite.tables import Tables

_PROPOSED = (
    "SELECT p.number, p.digest, p.account, p.rules, p.was, p.opened, p.until, p.size,"
    " (SELECT count(*) FROM voices v WHERE v.proposal = p.number), d.raw, p.outcome, p.answer FROM proposals p"
    " JOIN documents d ON d.identity = p.nonce AND d.signer = p.signer AND d.kind = 'proposal'"
)


def read_roll(path: Path, rules: VotesSection, now: int) -> Roll:
    """Who has a voice now, by a connection of its own: it takes a while, and nobody has to wait for it."""
    with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as connection:
        connection.execute("BEGIN")
        [size] = connection.execute("SELECT coalesce(max(entry), -1) + 1 FROM entries").fetchone()
        since, before = days_that_count(now, rules)
        found = earned(_leaves_since(connection, since), since, before)
        return Roll(size, voices(found, rules))


def _leaves_since(connection: sqlite3.Connection, day: int) -> Iterator[Leaf]:
    """Leaves from the newest back to the first of that day; where the clock went back, those of a day before too."""
    for (raw,) in connection.execute("SELECT leaf FROM entries ORDER BY entry DESC"):
        leaf = codec.decode(raw, Leaf)
        if leaf.day < day - 1:
            return
        yield leaf


@dataclass(frozen=True)
class Proposer:
    """Who proposes. own: what it has earned in all, without what is withheld. known: the number of this very proposal
    if it was taken before, else 0."""

    account: int
    own: int
    known: int = 0


def proposer(connection: sqlite3.Connection, tables: Tables, envelope: Envelope, said: Proposal, now: int) -> Proposer:
    """The account that proposes; refuses what needs no roll to be refused."""
    known = _known(connection, envelope, said, now)
    number = 0 if known else check_proposer(connection, tables, envelope, said, now)
    if known:
        return Proposer(0, 0, known)
    state = tables.accounts.state_of(connection, number, now, tables.versions.get(connection).rules)
    return Proposer(number, state.earned - state.withheld)


def _known(connection: sqlite3.Connection, envelope: Envelope, said: Proposal, now: int) -> int:
    if not papers.is_known(connection, envelope, said.nonce, said.valid_until, now):
        return 0
    return int(connection.execute("SELECT number FROM proposals WHERE digest = ?", (envelope.digest,)).fetchone()[0])


def check_proposer(connection: sqlite3.Connection, tables: Tables, envelope: Envelope, said: Proposal, now: int) -> int:
    """The account that proposes, if the roll has it."""
    number = owner_of(connection, tables, envelope.key, envelope.kind, now)
    check_free(connection, number, now)
    force = tables.versions.get(connection)
    rules = force.rules.votes
    [open_now] = connection.execute(
        "SELECT count(*) FROM proposals WHERE outcome = x'' AND account = ? AND digest <> ?", (number, envelope.digest)
    ).fetchone()
    if open_now >= rules.proposals:
        raise OverLimit(
            f"{open_now} proposals of account {number} are being voted on: at most {rules.proposals} by the rule"
            " votes.proposals"
        )
    if tables.accounts.state_of(connection, number, now, force.rules).earned < rules.standing:
        raise no_voice(number, rules)
    check_proposal(said, force.rules)
    return number


def no_voice(number: int, rules: VotesSection) -> NotAllowed:
    """What an account is told that has no voice."""
    return NotAllowed(
        f"account {number} was not paid {show_kudos(rules.standing)} kudos for serving within {rules.days} days"
        " (rules votes.standing, votes.days), so it has no voice now: serve some more, then propose"
    )


def propose(
    connection: sqlite3.Connection, tables: Tables, envelope: Envelope, said: Proposal, roll: Roll, now: int
) -> int:
    """See `Store.propose`."""
    if known := _known(connection, envelope, said, now):
        return known
    number = check_proposer(connection, tables, envelope, said, now)
    force = tables.versions.get(connection)
    rules = force.rules.votes
    if number not in roll.voices:
        raise no_voice(number, rules)
    papers.take(connection, envelope, said.nonce)
    cursor = connection.execute(
        "INSERT INTO proposals (digest, signer, nonce, account, rules, was, opened, until, size)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            envelope.digest,
            envelope.key,
            said.nonce,
            number,
            force.version,
            value_of(force.rules, said.key),
            now,
            now + rules.open * 1000,
            roll.size,
        ),
    )
    proposal = int(cursor.lastrowid or 0)
    connection.executemany(
        "INSERT INTO voices (proposal, account, earned) VALUES (?, ?, ?)",
        [(proposal, account, amount) for account, amount in sorted(roll.voices.items())],
    )
    return proposal


def vote(connection: sqlite3.Connection, tables: Tables, envelope: Envelope, said: Vote, now: int) -> None:
    """See `Store.vote`."""
    number = owner_of(connection, tables, envelope.key, envelope.kind, now)
    row = connection.execute(
        "SELECT number, until, outcome FROM proposals WHERE digest = ?", (said.proposal,)
    ).fetchone()
    if row is None:
        raise UnknownAct(f"no proposal {said.proposal[:6].hex()} is known here: `potluck proposals` shows them")
    proposal, until, outcome = row
    known = connection.execute(
        "SELECT version, signer, digest FROM voices WHERE proposal = ? AND account = ?", (proposal, number)
    ).fetchone()
    if known is not None and known[2] == envelope.digest:
        return
    check_free(connection, number, now)
    if outcome or now > until:
        raise OutOfTurn(f"the vote on proposal {proposal} has ended")
    if known is None:
        raise NotAllowed(
            f"account {number} has no voice on proposal {proposal}: when that began, it had not been paid enough for"
            " serving (rules votes.standing, votes.days)"
        )
    version, signer, digest = known
    if version == said.version and signer == envelope.key:
        raise papers.Conflict(envelope, digest)
    if said.version <= version:
        raise OutOfTurn(f"a vote of version {said.version}, and {version} was taken: raise its version")
    papers.take(connection, envelope, papers.vote_identity(said.proposal, said.version))
    if signer:
        papers.forget(connection, signer, Vote.KIND, papers.vote_identity(said.proposal, version))
    connection.execute(
        "UPDATE voices SET version = ?, signer = ?, digest = ?, yes = ? WHERE proposal = ? AND account = ?",
        (said.version, envelope.key, envelope.digest, int(said.yes), proposal, number),
    )


def end_votes(connection: sqlite3.Connection, tables: Tables, now: int) -> list[bytes]:
    """See `Store.end_votes`."""
    due = connection.execute(
        "SELECT number, digest, rules, opened, size, (SELECT count(*) FROM voices v WHERE v.proposal = p.number)"
        " FROM proposals p WHERE outcome = x'' AND until < ? ORDER BY number",
        (now,),
    ).fetchall()
    ended = []
    for number, digest, version, opened, size, voices_then in due:
        yes, no = _count(connection, number)
        outcome = Outcome(
            proposal=digest,
            yes=yes,
            no=no,
            accepted=is_accepted(yes, no, tables.versions.get(connection, version).rules.votes),
            ended=now,
            root=root_of([leaf_hash(raw) for raw in _ballots(connection, number)]),
            opened=opened,
            rules=version,
            size=size,
            voices=voices_then,
        )
        envelope = documents.sign(outcome, tables.key, tables.root)
        papers.take(connection, envelope, digest)
        connection.execute("UPDATE proposals SET outcome = ? WHERE number = ?", (envelope.raw, number))
        ended.append(envelope.raw)
    return ended


def _count(connection: sqlite3.Connection, proposal: int) -> tuple[int, int]:
    yes, cast = connection.execute(
        "SELECT coalesce(sum(yes), 0), count(*) FROM voices WHERE proposal = ? AND version > 0", (proposal,)
    ).fetchone()
    return yes, cast - yes


def _ballots(connection: sqlite3.Connection, proposal: int) -> list[bytes]:
    """The votes' envelopes in the order of their digests."""
    [digest] = connection.execute("SELECT digest FROM proposals WHERE number = ?", (proposal,)).fetchone()
    rows = connection.execute(
        "SELECT signer, version FROM voices WHERE proposal = ? AND version > 0 ORDER BY digest", (proposal,)
    ).fetchall()
    return [
        papers.find_by_identity(connection, signer, Vote.KIND, papers.vote_identity(digest, version))
        for signer, version in rows
    ]


def proof_of_vote(connection: sqlite3.Connection, envelope: Envelope) -> tuple[int, int, list[bytes]] | None:
    """Where a vote stands among those that were counted: its place, how many they were, and the proof; None if it was
    not counted."""
    said = documents.open_document(envelope, Vote)
    row = connection.execute(
        "SELECT p.number FROM proposals p JOIN voices v ON v.proposal = p.number WHERE p.digest = ?"
        " AND p.outcome <> x'' AND v.signer = ? AND v.digest = ?",
        (said.proposal, envelope.key, envelope.digest),
    ).fetchone()
    if row is None:  # strangers cost no more than this
        return None
    ballots = _ballots(connection, row[0])
    place = ballots.index(envelope.raw)
    return place, len(ballots), inclusion_proof([leaf_hash(raw) for raw in ballots], place)


def answer(connection: sqlite3.Connection, tables: Tables, envelope: Envelope, said: Answer, now: int) -> None:
    """See `Store.answer`."""
    if papers.is_known(connection, envelope, said.nonce, said.valid_until, now):
        return
    check_operator(envelope.key, tables.versions.get(connection).rules, tables.key.public, "an answer")
    row = connection.execute(f"{_PROPOSED} WHERE p.digest = ?", (said.proposal,)).fetchone()
    if row is None:
        raise UnknownAct(f"no proposal {said.proposal[:6].hex()} is known here: `potluck proposals` shows them")
    found = Proposed(*row)
    if not found.outcome:
        raise OutOfTurn(f"proposal {found.number} is being voted on: answer when the vote has ended")
    if said.rules:
        _check_applied(connection, tables, found, said.rules)
    papers.take(connection, envelope, said.nonce)
    connection.execute("UPDATE proposals SET answer = ? WHERE number = ?", (envelope.raw, found.number))


def _check_applied(connection: sqlite3.Connection, tables: Tables, found: Proposed, version: int) -> None:
    """Refuse to say that a version applies what it does not."""
    if not found.rules < version <= tables.versions.newest(connection):
        raise BadValue(f"version {version} of the rules: wanted one after {found.rules} that there is")
    said = documents.open_document(parse(found.document), Proposal)
    rules = tables.versions.get(connection, version).rules
    if with_value(rules, said.key, said.value) != rules:
        raise BadValue(
            f"version {version} has {said.key} = {value_of(rules, said.key)}, and {said.value} was proposed: change"
            " horde.toml, let the tracker read it (SIGHUP), and name that version"
        )


def proposals(connection: sqlite3.Connection, before: int, most: int) -> list[Proposed]:
    """See `Store.proposals`."""
    rows = connection.execute(f"{_PROPOSED} WHERE p.number < ? ORDER BY p.number DESC LIMIT ?", (before, most))
    return [Proposed(*row) for row in rows]
