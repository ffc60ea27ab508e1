"""Who may sign for a horde, as the root's delegation says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

from protocol.documents import Checkpoint, Document, Serving, Settlement, open_document, parse_document
from protocol.envelope import Envelope, check_delegation, check_document_context
from protocol.errors import BadDelegation, WrongSigner
from protocol.keys import show_key

D = TypeVar("D", bound=Document)


@dataclass(frozen=True)
class Horde:
    """root: the horde's id. former: keys that served before, each with the first entry that a restore has cut.
    expires: until when the serving key may sign, milliseconds, 0 for ever."""

    root: bytes
    delegation: bytes
    version: int
    serving: bytes
    epoch: int
    former: dict[bytes, int]
    expires: int = 0

    @classmethod
    def of(cls, delegation: bytes, root: bytes) -> Horde:
        """By a delegation, which the root has to have signed; raises `Refusal`."""
        envelope = parse_document(delegation, Serving)
        check_delegation(envelope, root)
        said = open_document(envelope, Serving)
        former = {one.key: one.entries for one in said.former}
        return cls(root, delegation, said.version, said.serving, said.epoch, former, said.expires)

    def open(self, raw: bytes, of: type[D]) -> tuple[Envelope, D]:
        """A document that a key of this horde signed while it might; raises `Refusal`."""
        envelope = parse_document(raw, of)
        check_document_context(envelope, self.root)
        envelope.verify()
        if envelope.key != self.serving and envelope.key not in self.former:
            raise WrongSigner(f"a {of.KIND} of key {show_key(envelope.key)[:8]}…, which never served this horde")
        said = open_document(envelope, of)
        if envelope.key == self.serving and self.has_ended(_signed_at(said)):
            raise BadDelegation(f"a {of.KIND} of after {self.expires}, when the root's delegation to its key ended")
        return envelope, said

    def has_ended(self, time: int) -> bool:
        """Whether the serving key may sign no more at this time."""
        return bool(self.expires) and time >= self.expires

    def is_cut(self, signer: bytes, entry: int) -> bool:
        """Whether a restore, for which the root has signed, cut this entry of that key."""
        return signer in self.former and entry >= self.former[signer]


def _signed_at(said: Document) -> int:
    """When a document says that it was signed, if it says so; else 0."""
    match said:
        case Checkpoint(time=time):
            return time
        case Settlement(settled=time):
            return time
    return 0
