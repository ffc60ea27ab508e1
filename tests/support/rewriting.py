"""A tracker's operator who rewrites its ledger with the serving key at hand: so well that the tracker serves it on."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import msgspec

from protocol import codec, documents, merkle
from protocol.digests import commitment
from protocol.documents import Checkpoint, Evidence, Leaf, open_document
from protocol.envelope import parse
from protocol.governing import Act
from protocol.keys import SigningKey
from protocol.merkle import Frontier
from tests.support.builders import NOW
from tracker.ledger import make_entry
from tracker.store.sqlite.ledger import new_evidence


def dearer(leaf: Leaf) -> Leaf:
    """The same event, of which each amount is one thousandth larger for people and smaller for the system, in pairs."""
    (first, taken), (second, given), *rest = leaf.postings
    return Leaf(
        event=leaf.event,
        day=leaf.day,
        postings=((first, taken - 1), (second, given + 1), *rest),
        hold=leaf.hold,
        evidence=leaf.evidence,
    )


def same(leaf: Leaf) -> Leaf:
    """Nothing changes: the control."""
    return leaf


def rewrite(path: Path, key: SigningKey, entry: int, change: Callable[[Leaf], Leaf]) -> None:
    """Change one entry, make the hashes fit, and sign every checkpoint anew whose root is another one now."""
    with closing(sqlite3.connect(path)) as connection, connection:
        [raw] = connection.execute("SELECT leaf FROM entries WHERE entry = ?", (entry,)).fetchone()
        leaf = codec.encode(change(codec.decode(raw, Leaf)))
        connection.execute(
            "UPDATE entries SET leaf = ?, hash = ? WHERE entry = ?", (leaf, merkle.leaf_hash(leaf), entry)
        )
        _sign_anew(connection, key)


def sign_act_anew(path: Path, key: SigningKey, by: SigningKey) -> int:
    """Have the first act of moderators signed by somebody else, everywhere; its entry. key: the serving key."""
    with closing(sqlite3.connect(path)) as connection, connection:
        entry, digest = connection.execute("SELECT entry, digest FROM acts WHERE act <> 'award' LIMIT 1").fetchone()
        [raw] = connection.execute("SELECT raw FROM documents WHERE digest = ?", (digest,)).fetchone()
        envelope = parse(raw)
        forged = documents.sign(open_document(envelope, Act), by, envelope.context)
        leaf, evidence = connection.execute("SELECT leaf, evidence FROM entries WHERE entry = ?", (entry,)).fetchone()
        said = msgspec.structs.replace(codec.decode(evidence, Evidence), documents=(forged.digest,))
        evidence = codec.encode(said)
        again = msgspec.structs.replace(codec.decode(leaf, Leaf), evidence=commitment(said.salt, evidence))
        leaf = codec.encode(again)
        connection.execute(
            "UPDATE entries SET leaf = ?, hash = ?, evidence = ? WHERE entry = ?",
            (leaf, merkle.leaf_hash(leaf), evidence, entry),
        )
        connection.execute(
            "UPDATE documents SET digest = ?, signer = ?, raw = ? WHERE digest = ?",
            (forged.digest, by.public, forged.raw, digest),
        )
        connection.execute(
            "UPDATE acts SET digest = ?, signer = ? WHERE digest = ?", (forged.digest, by.public, digest)
        )
        connection.execute("UPDATE acts SET about = ? WHERE about = ?", (forged.digest, digest))
        _sign_anew(connection, key)
    return int(entry)


def fill(path: Path, count: int) -> None:
    """Entries that move nothing, for a tracker that is not running."""
    with closing(sqlite3.connect(path)) as connection, connection:
        [size] = connection.execute("SELECT count(*) FROM entries").fetchone()
        for number in range(size, size + count):
            made = make_entry("hold", (), new_evidence(NOW, 1))
            row = number, made.leaf, made.hash, made.evidence
            connection.execute("INSERT INTO entries (entry, leaf, hash, evidence) VALUES (?, ?, ?, ?)", row)


def cut(path: Path, key: SigningKey, entries: int) -> None:
    """Take the last entries away, with the checkpoints that covered them, and sign a later one over the rest."""
    with closing(sqlite3.connect(path)) as connection, connection:
        newest = connection.execute("SELECT document FROM checkpoints ORDER BY size DESC LIMIT 1").fetchone()[0]
        size = connection.execute("SELECT max(entry) + 1 FROM entries").fetchone()[0] - entries
        connection.execute("DELETE FROM entries WHERE entry >= ?", (size,))
        connection.execute("DELETE FROM checkpoints WHERE size >= ?", (size,))
        hashes = [hashed for (hashed,) in connection.execute("SELECT hash FROM entries ORDER BY entry")]
        envelope = parse(newest)
        said = open_document(envelope, Checkpoint)
        later = Checkpoint(size=size, root=merkle.root_of(hashes), time=said.time + 100_000, epoch=said.epoch)
        raw = documents.sign(later, key, envelope.context).raw
        connection.execute("INSERT INTO checkpoints (size, document) VALUES (?, ?)", (size, raw))


def _sign_anew(connection: sqlite3.Connection, key: SigningKey) -> None:
    tree, roots = Frontier(), {0: merkle.EMPTY_ROOT}
    for (hashed,) in connection.execute("SELECT hash FROM entries ORDER BY entry"):
        tree = tree.append(hashed)
        roots[tree.size] = tree.root()
    for size, raw in connection.execute("SELECT size, document FROM checkpoints").fetchall():
        envelope = parse(raw)
        said = open_document(envelope, Checkpoint)
        if said.root != roots[size]:
            again = Checkpoint(size=size, root=roots[size], time=said.time, epoch=said.epoch)
            signed = documents.sign(again, key, envelope.context).raw
            connection.execute("UPDATE checkpoints SET document = ? WHERE size = ?", (signed, size))
