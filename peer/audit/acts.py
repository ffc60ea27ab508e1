"""The acts of root, operators and moderators along the public entries: each behind its entry, signed by who may."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from peer.audit.horde import Horde
from protocol import codec, postings
from protocol.digests import commitment
from protocol.documents import Award, Document, Epoch, Evidence, Leaf, open_document, parse_document
from protocol.envelope import Envelope, check_document_context
from protocol.errors import WrongSigner
from protocol.governing import Act
from protocol.keys import show_key
from protocol.merkle import Frontier
from protocol.public import Row
from protocol.rules import Rules

D = TypeVar("D", bound=Document)


class Wrong(Exception):
    """Something behind an entry that is not right; the text says what."""


@dataclass(frozen=True)
class _Acted:
    signer: bytes
    said: Act
    event: str


@dataclass
class Acts:
    """Goes along with the walk. rules: versions by their number; issued: since when each was in force. epoch: the
    newest whose entry was seen. begins: the first entry that is read; unknown: acts that speak of one before that, so
    that what they bring about cannot be checked."""

    horde: Horde
    rules: Mapping[int, Rules]
    issued: Mapping[int, int] = field(default_factory=dict)
    epoch: int = 0
    begins: int = 0
    unknown: int = 0
    _acts: dict[bytes, _Acted] = field(default_factory=dict)
    _done: set[bytes] = field(default_factory=set)

    def enter(self, index: int, leaf: Leaf, row: Row, before: Frontier) -> None:
        """An entry whose evidence is public; raises `Wrong` or `Refusal`. before: the tree in front of it."""
        evidence = codec.decode(row.evidence, Evidence)
        if leaf.evidence != commitment(evidence.salt, row.evidence) or leaf.hold != commitment(evidence.salt, b""):
            raise Wrong("what is published beside it is not what the leaf commits to")
        match leaf.event:
            case "epoch":
                self._epoch(index, *self._document(row, evidence, Epoch), before)
            case "award":
                self._award(leaf, evidence, *self._document(row, evidence, Award))
            case _:
                self._act(leaf, evidence, *self._document(row, evidence, Act))

    def _document(self, row: Row, evidence: Evidence, of: type[D]) -> tuple[Envelope, D]:
        envelope = parse_document(row.document, of)
        check_document_context(envelope, self.horde.root)
        envelope.verify()
        if evidence.documents != (envelope.digest,):
            raise Wrong("the document is not the one that its evidence names")
        return envelope, open_document(envelope, of)

    def _epoch(self, index: int, envelope: Envelope, said: Epoch, before: Frontier) -> None:
        if envelope.key != self.horde.root:
            raise WrongSigner(f"signed by {show_key(envelope.key)[:8]}…, and only the root may")
        if (said.size, said.root) != (index, before.root()):
            raise Wrong(f"the root speaks of {said.size} entries and another tree")
        if self.horde.former.get(said.former, index + 1) > index:
            raise Wrong("the delegation does not name the key that served before, as cut here")
        if said.number <= self.epoch:
            raise Wrong(f"number {said.number} behind {self.epoch}")
        self.epoch = said.number

    def _award(self, leaf: Leaf, evidence: Evidence, envelope: Envelope, said: Award) -> None:
        self._check_may(envelope.key, evidence, moderators=False)
        if leaf.postings != postings.award(said.account, said.amount):
            raise Wrong(f"the document gives {said.amount} to account {said.account}")

    def _act(self, leaf: Leaf, evidence: Evidence, envelope: Envelope, said: Act) -> None:
        self._check_may(envelope.key, evidence, moderators=True)
        if envelope.digest in self._acts:
            raise Wrong("the same act for the second time")
        self._acts[envelope.digest] = _Acted(envelope.key, said, leaf.event)
        about = self._acts.get(said.about)
        if said.about and about is None and self.begins:
            self.unknown += 1
            return
        if said.about and about is None:
            raise Wrong("it speaks of an act that is not before it in the ledger")
        effect = about.said if about is not None and said.act == "agree" else said
        if said.act == "agree" and about is not None:
            self._agree(said.about, about, envelope.key, evidence)
        if said.act in ("agree", "lift"):
            self._done.add(said.about)
        if leaf.event == "return":
            self._return(leaf, evidence, effect, agreed=said.act == "agree")
        elif leaf.event == "trust":
            whose = about.said.account if about is not None and said.act == "lift" else effect.account
            if any(account == whose for account, _ in leaf.postings) != bool(leaf.postings):
                raise Wrong(f"the act trusts account {whose}")

    def _agree(self, named: bytes, about: _Acted, key: bytes, evidence: Evidence) -> None:
        if about.signer == key:
            raise Wrong("one key has signed twice where two have to")
        if named in self._done or about.event != "act":
            raise Wrong("it agrees to what no longer waited for it")
        self._check_may(about.signer, evidence, moderators=True)

    def _return(self, leaf: Leaf, evidence: Evidence, effect: Act, *, agreed: bool) -> None:
        moderation = self.rules[evidence.rules].moderation
        if effect.act != "return" or leaf.postings != postings.give_back(effect.account, effect.to, effect.amount):
            raise Wrong("the act returns something else")
        if moderation.signers > 1 and effect.amount > moderation.return_alone and not agreed:
            raise Wrong("so much takes two keys, and one has signed")

    def _check_may(self, key: bytes, evidence: Evidence, *, moderators: bool) -> None:
        """Whether a key had the role by the rules of then."""
        version = evidence.rules
        rules = self.rules.get(version)
        if rules is None:
            raise Wrong(f"rules version {version} is not published")
        in_force = max((one for one, issued in self.issued.items() if issued <= evidence.time), default=version)
        if version != in_force:
            raise Wrong(f"it goes by version {version} of the rules, and version {in_force} was in force")
        named = (*rules.roles.operators, *(rules.roles.moderators if moderators else ()))
        if key != self.horde.serving and key not in self.horde.former and show_key(key) not in named:
            raise WrongSigner(f"signed by {show_key(key)[:8]}…, to whom the rules of then give no such role")
