"""The public entries, one after the other: tree and balances grown from them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from peer.audit.acts import Acts, Wrong
from peer.audit.opening import Opening
from peer.audit.report import Findings
from peer.audit.votes import Rolls
from protocol import booking, codec, merkle
from protocol.documents import Leaf
from protocol.errors import Refusal
from protocol.merkle import Frontier
from protocol.postings import ANONYMOUS, BURN, FIRST_PERSON, HELD, MINT
from protocol.public import Row, is_open

#: Events by which people are paid for serving, and by which they pay for jobs.
EARNING = frozenset({"settle", "recovered", "vest", "trust"})
COSTING = frozenset({"hold", "charged", "release", "refund"})


@dataclass
class Walk:
    """Goes along the entries from the first on, or from where tree and balances stand. events: how many of each.
    charged: accounts that may be below zero, since a restore made them pay again what they had spent. gave, took: what
    people earned by serving, and what their own jobs cost them, as far as it was entered here."""

    acts: Acts
    findings: Findings
    rolls: Rolls = field(default_factory=Rolls)
    tree: Frontier = field(default_factory=Frontier)
    balances: Counter[int] = field(default_factory=Counter)
    events: Counter[str] = field(default_factory=Counter)
    charged: set[int] = field(default_factory=set)
    gave: Counter[int] = field(default_factory=Counter)
    took: Counter[int] = field(default_factory=Counter)
    _wrong: set[int] = field(default_factory=set)

    def begin(self, opening: Opening) -> None:
        """Begin where an archive ends. Who is below zero there has been charged before."""
        self.tree, self.balances = opening.tree, Counter(dict(opening.balances))
        self.acts.epoch, self.acts.begins = opening.epoch, opening.tree.size
        self.charged = {account for account, balance in opening.balances if balance < 0 and account >= FIRST_PERSON}
        if opening.epoch and self.balances[HELD] < 0:
            self.charged.add(HELD)
        self.rolls.begin(opening.day)

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
        self.rolls.enter(index, leaf)
        if is_open(leaf):
            try:
                self.acts.enter(index, leaf, row, before)
            except (Refusal, Wrong) as error:
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
            if account >= FIRST_PERSON and leaf.event in EARNING:
                self.gave[account] += amount
            elif account >= FIRST_PERSON and leaf.event in COSTING:
                self.took[account] -= amount
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
