"""Two histories of one ledger: found by comparing what was shown with what is shown, and kept as evidence.

The evidence is complete in itself. It holds what the horde's own keys have signed and what cannot both be true, so that
anybody who knows the horde's id can check it without asking anybody.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import msgspec

from peer.audit.horde import Horde
from peer.audit.source import Source
from peer.events import Refused
from protocol import merkle
from protocol.documents import Checkpoint, Settlement, open_document, parse_document
from protocol.envelope import Envelope
from protocol.errors import Refusal
from protocol.keys import parse_key, show_key
from protocol.public import Consistency, Inclusion

How = Literal["tree", "tail", "entry", "gap"]

#: An honest ledger covers every settlement about a second later; this machine's clock may be wrong.
COVERED_MS = 3_600_000


class NotShown(Exception):
    """A file that does not show what it says; the text says why."""


@dataclass(frozen=True)
class Signed:
    """A checkpoint that a key of the horde signed."""

    envelope: Envelope
    said: Checkpoint


class Contradiction(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="two_histories"):
    """Two things that the horde signed and of which one is not true. JSON; bytes in base64, hashes in hex.

    horde: its id. delegation: the root's, which names the keys. second: a checkpoint. What it contradicts is `how`:
    `tree`: the checkpoint `first` has another root than `root`, which by `proof` the second one's tree had at its size.
    `tail`: the checkpoint `first` is older and covers more. `entry`: the settlement `first` names another leaf than
    `root`, which by `proof` is the second one's entry of that number. `gap`: the settlement `first` names an entry that
    the second one does not cover, and a checkpoint of before that entry, which is smaller still.
    """

    how: How
    horde: str
    delegation: bytes
    first: bytes
    second: bytes
    root: str = ""
    proof: tuple[str, ...] = ()


def check_contradiction(found: Contradiction) -> str:
    """What this shows, in a sentence; raises `NotShown`, also for what a restore has cut openly."""
    try:
        horde = Horde.of(found.delegation, parse_key(found.horde))
        second = Signed(*horde.open(found.second, Checkpoint))
        root, proof = bytes.fromhex(found.root), [bytes.fromhex(node) for node in found.proof]
        of_settlement = found.how in ("entry", "gap")
        said = _settled(horde, found.first) if of_settlement else _signed(horde, found.first)
    except (Refusal, ValueError) as error:
        raise NotShown(f"a document in it is not what it should be: {error}") from error
    _check_not_cut(horde, second)
    if isinstance(said, Signed):
        _check_not_cut(horde, said)
        return _two_checkpoints(found.how, said, second, root, proof)
    envelope, settlement = said
    if horde.is_cut(envelope.key, settlement.entry):
        raise NotShown("the root has signed that a restore cut this entry")
    if found.how == "gap":
        return _left_out(horde, envelope, settlement, second)
    if settlement.leaf == root or not merkle.verify_inclusion(
        root, settlement.entry, second.said.size, proof, second.said.root
    ):
        raise NotShown("the proof does not lead to another leaf")
    return (
        f"horde {show_key(horde.root)} signed a settlement for entry {settlement.entry}, and a ledger of"
        f" {second.said.size} entries in which that entry is another one"
    )


def _left_out(horde: Horde, envelope: Envelope, settlement: Settlement, second: Signed) -> str:
    try:
        leaves_out = does_leave_out(settlement, second.said)
    except Refusal as error:
        raise NotShown(f"the checkpoint in the settlement is not what it should be: {error}") from error
    if not leaves_out or envelope.key != second.envelope.key:
        raise NotShown("the checkpoint is not a later one of the same key that leaves the entry out")
    return (
        f"horde {show_key(horde.root)} signed a settlement for entry {settlement.entry}, and later a ledger that ends"
        f" at {second.said.size} entries"
    )


def does_leave_out(settlement: Settlement, later: Checkpoint) -> bool:
    """Whether a checkpoint leaves out an entry although it came after the one that was the newest before that entry:
    every checkpoint covers all that was entered before it. Raises `Refusal`."""
    before = open_document(parse_document(settlement.checkpoint, Checkpoint), Checkpoint)
    return before.size < later.size <= settlement.entry


def _two_checkpoints(how: str, first: Signed, second: Signed, root: bytes, proof: list[bytes]) -> str:
    one, other = first.said, second.said
    both = f"a ledger of {one.size} entries with the root {one.root.hex()[:16]}…, and one of {other.size} entries"
    if how == "tail":
        if one.size > other.size and one.time < other.time and first.envelope.key == second.envelope.key:
            return f"one key of the horde signed {both} later: entries are gone"
        raise NotShown("the second checkpoint is not a later one of the same key that covers less")
    if one.root != root and merkle.verify_consistency(one.size, root, other.size, other.root, proof):
        return f"the horde signed {both} that does not continue it"
    raise NotShown("the proof does not lead to another root")


def _signed(horde: Horde, raw: bytes) -> Signed:
    return Signed(*horde.open(raw, Checkpoint))


def _settled(horde: Horde, raw: bytes) -> tuple[Envelope, Settlement]:
    return horde.open(raw, Settlement)


def _check_not_cut(horde: Horde, checkpoint: Signed) -> None:
    if is_cut(horde, checkpoint):
        raise NotShown("the root has signed that a restore cut what a checkpoint in it covers")


def is_cut(horde: Horde, checkpoint: Signed) -> bool:
    """Whether a restore, in the open, cut entries that this checkpoint covers."""
    return bool(checkpoint.said.size) and horde.is_cut(checkpoint.envelope.key, checkpoint.said.size - 1)


@dataclass(frozen=True)
class Broken:
    """Why what was shown is not in the ledger. proof: what shows it to anybody; None if only this peer can tell.
    is_silent: the source gives no proof, of either."""

    text: str
    proof: Contradiction | None = None
    entry: int | None = None
    is_silent: bool = False


class Comparison:
    """Compares what was shown with one checkpoint of one source, by proofs that the source gives."""

    def __init__(self, source: Source, horde: Horde, target: Signed, now: int) -> None:
        self._source = source
        self._horde = horde
        self._target = target
        self._now = now

    async def checkpoint(self, shown: Signed) -> Broken | None:
        """Whether the ledger continues that of `shown`, which no restore has cut. None: it does."""
        one, now = shown.said, self._target.said
        if one.size > now.size:
            return self._tail(shown)
        if not one.size or (one.size == now.size and one.root == now.root):
            return None
        if one.size == now.size:
            return self._other_root(shown, now.root, ())
        text = f"it does not show that it continues the {one.size:,} entries that were signed before"
        try:
            answer = await self._source.consistency(one.size, now.size)
            root, proof = _hashes(answer)
        except (Refused, ValueError) as error:
            return Broken(f"{text} ({error})", is_silent=True)
        if merkle.verify_consistency(one.size, one.root, now.size, now.root, proof):
            return None
        if merkle.verify_consistency(one.size, root, now.size, now.root, proof):
            return self._other_root(shown, root, tuple(answer.proof))
        return Broken(f"{text} (the proof that it gives is none)", is_silent=True)

    def _other_root(self, shown: Signed, root: bytes, proof: tuple[str, ...]) -> Broken:
        one = shown.said
        text = f"its first {one.size:,} entries are not those that were signed before: another past"
        return Broken(text, self._against(shown.envelope.raw, "tree", root.hex(), proof))

    def _tail(self, shown: Signed) -> Broken | None:
        one, now = shown.said, self._target.said
        if not self._source.is_live and one.time >= now.time:
            return None  # an export of before
        text = f"it ends at {now.size:,} entries, and {one.size:,} were signed before: its tail was cut"
        later = one.time < now.time and shown.envelope.key == self._target.envelope.key
        return Broken(text, self._against(shown.envelope.raw, "tail", "", ()) if later else None)

    async def settlement(self, envelope: Envelope, said: Settlement) -> Broken | bool:
        """Whether what a settlement names is in the ledger; False: not covered yet."""
        now, entry = self._target.said, said.entry
        if entry >= now.size:
            return self._not_covered(envelope, said)
        text = "it does not show the entry that this peer was paid by, or paid"
        try:
            answer = await self._source.inclusion(entry, now.size)
            leaf, proof = _hashes(answer)
        except (Refused, ValueError) as error:
            return Broken(f"{text} ({error})", entry=entry, is_silent=True)
        if not merkle.verify_inclusion(leaf, entry, now.size, proof, now.root):
            return Broken(f"{text} (the proof that it gives is none)", entry=entry, is_silent=True)
        if leaf == said.leaf:
            return True
        shown = self._against(envelope.raw, "entry", leaf.hex(), tuple(answer.proof))
        return Broken("another entry stands where this peer's settlement was", shown, entry)

    def _not_covered(self, envelope: Envelope, said: Settlement) -> Broken | bool:
        """What it means that the ledger ends before an entry that was settled."""
        now = self._target.said
        try:
            leaves_out = does_leave_out(said, now)
        except Refusal:
            leaves_out = False  # no checkpoint is in it, which is found elsewhere
        if leaves_out:
            same_key = envelope.key == self._target.envelope.key
            shown = self._against(envelope.raw, "gap", "", ()) if same_key else None
            return Broken(f"entry {said.entry} was settled, and the ledger ends at {now.size:,}", shown, said.entry)
        # Whoever wants to leave something out could also sign no more.
        if not self._source.is_live or self._now < said.settled + COVERED_MS:
            return False
        text = "it was settled more than an hour ago, by this machine's clock, and no checkpoint covers it"
        return Broken(text, entry=said.entry, is_silent=True)

    def _against(self, first: bytes, how: How, root: str, proof: tuple[str, ...]) -> Contradiction:
        return Contradiction(
            how=how,
            horde=show_key(self._horde.root),
            delegation=self._horde.delegation,
            first=first,
            second=self._target.envelope.raw,
            root=root,
            proof=proof,
        )


def _hashes(answer: Consistency | Inclusion) -> tuple[bytes, list[bytes]]:
    shown = answer.root if isinstance(answer, Consistency) else answer.leaf
    return bytes.fromhex(shown), [bytes.fromhex(node) for node in answer.proof]
