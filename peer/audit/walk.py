"""The public entries, one after the other: tree and balances grown from them, the acts of root and operator checked."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from peer.audit.horde import Horde
from peer.audit.report import Findings
from protocol import booking, codec, merkle
from protocol.digests import commitment
from protocol.documents import Award, Epoch, Evidence, Leaf, open_document, parse_document
from protocol.envelope import Envelope, check_document_context
from protocol.errors import Refusal, WrongSigner
from protocol.keys import show_key
from protocol.merkle import Frontier
from protocol.postings import ANONYMOUS, BURN, FIRST_PERSON, HELD, MINT, Postings
from protocol.public import Row, is_open


@dataclass
class Walk:
    """Goes along the entries from the first on. events: how many of each. charged: accounts that may be below zero,
    since a restore made them pay again what they had spent. epoch: the newest whose entry was seen."""

    horde: Horde
    findings: Findings
    tree: Frontier = field(default_factory=Frontier)
    balances: Counter[int] = field(default_factory=Counter)
    events: Counter[str] = field(default_factory=Counter)
    charged: set[int] = field(default_factory=set)
    epoch: int = 0
    _wrong: set[int] = field(default_factory=set)

    def enter(self, row: Row) -> None:
        """The next entry."""
        index, before = self.tree.size, self.tree
        self.tree = before.append(merkle.leaf_hash(row.leaf))
        try:
            leaf = codec.decode(row.leaf, Leaf)
        except Refusal as refusal:
            self.findings.add("leaf", f"cannot be read: {refusal}", index)
            return
        self.events[leaf.event] += 1
        if fault := booking.fault_of(leaf.event, leaf.postings):
            self.findings.add("postings", fault, index)
        self._post(index, leaf)
        if is_open(leaf):
            try:
                self._act(index, leaf, row, before)
            except (Refusal, _Wrong) as error:
                self.findings.add("document", f"the {leaf.event}: {error}", index)

    @property
    def people(self) -> int:
        """Accounts that the entries name."""
        return sum(account >= FIRST_PERSON for account in self.balances)

    @property
    def in_debt(self) -> int:
        """People below zero."""
        return sum(account >= FIRST_PERSON and amount < 0 for account, amount in self.balances.items())

    def _post(self, index: int, leaf: Leaf) -> None:
        for account, amount in leaf.postings:
            self.balances[account] += amount
            if leaf.event == "charged" and account >= FIRST_PERSON:
                self.charged.add(account)
        for account, _ in leaf.postings:
            if account not in self._wrong and (wanted := self._wanted(account)):
                self._wrong.add(account)  # it would be said of every later entry
                text = f"account {account} stands at {self.balances[account]}: wanted {wanted}"
                self.findings.add("balance", text, index)

    def _wanted(self, account: int) -> str:
        """What this account's balance should be and is not."""
        balance = self.balances[account]
        if account == ANONYMOUS:  # who has no account neither has nor owes
            return "0" if balance else ""
        if account == MINT:
            return "at most 0" if balance > 0 else ""
        if account == HELD and self.events["recovered"]:
            return ""  # of what was paid anew, payers who have not come back owe their part
        if balance >= 0 or account in self.charged:
            return ""
        return "at least 0"

    @property
    def minted(self) -> int:
        """All kudos ever made."""
        return -self.balances[MINT]

    @property
    def burned(self) -> int:
        """All kudos ever destroyed."""
        return self.balances[BURN]

    # Acts of the root and of the operator

    def _act(self, index: int, leaf: Leaf, row: Row, before: Frontier) -> None:
        evidence = codec.decode(row.evidence, Evidence)
        if leaf.evidence != commitment(evidence.salt, row.evidence) or leaf.hold != commitment(evidence.salt, b""):
            raise _Wrong("what is published beside it is not what the leaf commits to")
        kind = Epoch if leaf.event == "epoch" else Award
        envelope = parse_document(row.document, kind)
        check_document_context(envelope, self.horde.root)
        envelope.verify()
        if evidence.documents != (envelope.digest,):
            raise _Wrong("the document is not the one that its evidence names")
        if kind is Epoch:
            self._epoch(index, envelope, before)
        else:
            self._award(leaf.postings, envelope)

    def _epoch(self, index: int, envelope: Envelope, before: Frontier) -> None:
        if envelope.key != self.horde.root:
            raise WrongSigner(f"signed by {show_key(envelope.key)[:8]}…, and only the root may")
        said = open_document(envelope, Epoch)
        if (said.size, said.root) != (index, before.root()):
            raise _Wrong(f"the root speaks of {said.size} entries and another tree")
        if self.horde.former.get(said.former, index + 1) > index:
            raise _Wrong("the delegation does not name the key that served before, as cut here")
        if said.number <= self.epoch:
            raise _Wrong(f"number {said.number} behind {self.epoch}")
        self.epoch = said.number

    def _award(self, moved: Postings, envelope: Envelope) -> None:
        if envelope.key != self.horde.serving and envelope.key not in self.horde.former:
            raise WrongSigner(f"signed by {show_key(envelope.key)[:8]}…, which never served this horde")
        said = open_document(envelope, Award)
        if moved != ((MINT, -said.amount), (said.account, said.amount)):
            raise _Wrong(f"the document gives {said.amount} to account {said.account}")


class _Wrong(Exception):
    """Something beside an entry that is not right; the text says what."""
