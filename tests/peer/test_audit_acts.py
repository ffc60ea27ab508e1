"""Acts of moderators in a public ledger, made up by a tracker that would like others to have signed them."""

from __future__ import annotations

from typing import Any

from peer.audit.acts import Acts
from peer.audit.horde import Horde
from peer.audit.report import Findings
from peer.audit.walk import Walk
from protocol import postings
from protocol.documents import Document
from protocol.envelope import Envelope
from protocol.keys import SigningKey, show_key
from protocol.postings import Postings
from protocol.public import Row
from protocol.rules import ModerationSection, RolesSection, Rules
from tests.support.builders import NOW, ROOT, SERVING, a_delegation, a_key, a_nonce, an_act, an_award, signed
from tracker.ledger import make_entry
from tracker.store.sqlite.ledger import new_evidence

ONE, OTHER, OPERATOR, NOBODY = (a_key(number) for number in range(601, 605))
RULES = Rules(
    roles=RolesSection(
        moderators=(show_key(ONE.public), show_key(OTHER.public)), operators=(show_key(OPERATOR.public),)
    ),
    moderation=ModerationSection(return_alone=1000),
)
WITHOUT = Rules(moderation=ModerationSection(return_alone=1000))
ANN, BEN = 100, 101
MUCH = 9000


class Book:
    """Public entries as a tracker could publish them. Version 1 of the rules gives roles, version 2 takes them away."""

    def __init__(self) -> None:
        self.findings = Findings()
        horde = Horde.of(a_delegation().raw, ROOT.public)
        self.walk = Walk(Acts(horde, {1: RULES, 2: WITHOUT}, {1: NOW, 2: NOW + 1000}), self.findings)
        self.count = 0
        self.add(an_award(account=ANN, amount=50_000), SERVING, "award", postings.award(ANN, 50_000))

    def add(
        self, said: Document, key: SigningKey, event: str = "act", moved: Postings = (), time: int = NOW, rules: int = 1
    ) -> Envelope:
        envelope = signed(said, key)
        made = make_entry(event, moved, new_evidence(time, rules, proofs=(envelope.digest,)))
        self.walk.enter(Row(leaf=made.leaf, evidence=made.evidence, document=envelope.raw))
        return envelope

    def act(self, what: str, key: SigningKey, event: str = "act", moved: Postings = (), **fields: Any) -> Envelope:
        self.count += 1
        at = {name: fields.pop(name) for name in ("time", "rules") if name in fields}
        return self.add(an_act(what, nonce=a_nonce(self.count), **fields), key, event, moved, **at)

    def agree(self, about: Envelope, key: SigningKey, **more: Any) -> Envelope:
        return self.act("agree", key, "return", postings.give_back(ANN, BEN, MUCH), about=about.digest, **more)

    def propose(self, key: SigningKey = ONE) -> Envelope:
        return self.act("return", key, account=ANN, amount=MUCH, to=BEN)

    @property
    def texts(self) -> list[str]:
        return [finding.text for finding in self.findings.kept]


def test_what_two_moderators_return_is_right() -> None:
    book = Book()
    book.agree(book.propose(), OTHER)
    assert book.texts == []
    assert book.walk.balances[BEN] == MUCH


def test_an_act_by_a_key_without_the_role_is_found() -> None:
    book = Book()
    book.act("warn", NOBODY, account=ANN)
    book.add(an_award(account=ANN, amount=5, nonce=a_nonce(77)), ONE, "award", postings.award(ANN, 5))
    assert len(book.texts) == 2
    assert all("no such role" in text for text in book.texts)


def test_a_second_agreement_returns_nothing_a_second_time() -> None:
    book = Book()
    proposed = book.propose()
    book.agree(proposed, OTHER)
    book.agree(proposed, OPERATOR)
    assert len(book.texts) == 1
    assert "no longer waited" in book.texts[0]


def test_an_agreement_to_what_was_done_or_taken_back_is_found() -> None:
    book = Book()
    done = book.act("return", ONE, "return", postings.give_back(ANN, BEN, 900), account=ANN, amount=900, to=BEN)
    book.act("agree", OTHER, "return", postings.give_back(ANN, BEN, 900), about=done.digest)
    proposed = book.propose()
    book.act("lift", OTHER, about=proposed.digest)
    book.agree(proposed, OPERATOR)
    assert len(book.texts) == 2
    assert all("no longer waited" in text for text in book.texts)


def test_the_first_signature_counts_only_while_its_key_has_the_role() -> None:
    book = Book()
    book.agree(book.propose(), SERVING, time=NOW + 2000, rules=2)
    assert len(book.texts) == 1
    assert "no such role" in book.texts[0]


def test_the_rules_of_then_are_those_in_force_then() -> None:
    book = Book()
    book.act("warn", ONE, account=ANN, time=NOW + 999)
    assert book.texts == []
    book.act("warn", ONE, account=ANN, time=NOW + 1000)
    assert len(book.texts) == 1
    assert "version 2 was in force" in book.texts[0]


def test_one_key_is_not_two_and_much_is_not_returned_by_one() -> None:
    book = Book()
    proposed = book.propose()
    book.agree(proposed, ONE)
    book.act("return", ONE, "return", postings.give_back(ANN, BEN, MUCH), account=ANN, amount=MUCH, to=BEN)
    assert len(book.texts) == 2
    assert "twice" in book.texts[0]
    assert "two keys" in book.texts[1]
