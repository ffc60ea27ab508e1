"""Who may sign for a horde, as the root's delegation says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

from protocol.documents import Document, Serving, open_document, parse_document
from protocol.envelope import Envelope, check_delegation, check_document_context
from protocol.errors import WrongSigner
from protocol.keys import show_key

D = TypeVar("D", bound=Document)


@dataclass(frozen=True)
class Horde:
    """root: the horde's id. former: keys that served before, each with the first entry that a restore has cut."""

    root: bytes
    delegation: bytes
    version: int
    serving: bytes
    epoch: int
    former: dict[bytes, int]

    @classmethod
    def of(cls, delegation: bytes, root: bytes) -> Horde:
        """By a delegation, which the root has to have signed; raises `Refusal`."""
        envelope = parse_document(delegation, Serving)
        check_delegation(envelope, root)
        said = open_document(envelope, Serving)
        former = {one.key: one.entries for one in said.former}
        return cls(root, delegation, said.version, said.serving, said.epoch, former)

    def open(self, raw: bytes, of: type[D]) -> tuple[Envelope, D]:
        """A document that a key of this horde signed; raises `Refusal`."""
        envelope = parse_document(raw, of)
        check_document_context(envelope, self.root)
        envelope.verify()
        if envelope.key != self.serving and envelope.key not in self.former:
            raise WrongSigner(f"a {of.KIND} of key {show_key(envelope.key)[:8]}…, which never served this horde")
        return envelope, open_document(envelope, of)

    def is_cut(self, signer: bytes, entry: int) -> bool:
        """Whether a restore, for which the root has signed, cut this entry of that key."""
        return signer in self.former and entry >= self.former[signer]
