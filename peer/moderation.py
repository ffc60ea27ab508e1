"""What moderators did about our account, as far as their own signatures show it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from protocol.documents import open_document, parse_document
from protocol.envelope import check_document_context
from protocol.errors import Refusal
from protocol.governing import Act
from protocol.keys import show_key
from protocol.messages import ActEntry
from protocol.rules import Rules


@dataclass(frozen=True)
class Told:
    """One act, its signature checked. by: the key that signed it, as people see it; has_role: whether the rules in
    force name that key, or it is the serving key. appeals: ours that nobody has answered."""

    number: int
    digest: bytes
    act: Act
    state: Literal["proposed", "stands", "over"]
    by: str
    has_role: bool
    appeals: int

    def sentence(self) -> str:
        """The act for people."""
        until = ""
        if self.act.until:
            try:
                until = f" until {datetime.fromtimestamp(self.act.until / 1000, UTC):%Y-%m-%d %H:%M} UTC"
            except (ValueError, OverflowError, OSError):  # beyond what a calendar has
                until = ""
        waits = ", waits for a second moderator" if self.state == "proposed" else ""
        role = "" if self.has_role else "; signed by a key that has no role now"
        appeals = f"; {self.appeals} appeals wait" if self.appeals else ""
        return (
            f"act {self.number} ({self.digest.hex()[:12]}): {self.act.act}{until}, {self.state}{waits}:"
            f" {self.act.reason} (rule {self.act.rule}){appeals}{role}"
        )


def read(entries: Iterable[ActEntry], root: bytes, rules: Rules | None, serving: bytes | None) -> list[Told]:
    """The acts that a tracker tells of; raises a `Refusal` for one that nobody signed."""
    names = {*rules.roles.operators, *rules.roles.moderators} if rules else set()
    found = []
    for entry in entries:
        envelope = parse_document(entry.act, Act)
        check_document_context(envelope, root)
        envelope.verify()
        by = show_key(envelope.key)
        has_role = by in names or envelope.key == serving
        said = open_document(envelope, Act)
        found.append(Told(entry.number, envelope.digest, said, entry.state, by, has_role, entry.appeals))
    return found


def news(entries: Iterable[ActEntry], root: bytes, rules: Rules | None, serving: bytes | None) -> list[str]:
    """What a worker's owner is told of acts that came unasked."""
    try:
        return [one.sentence() for one in read(entries, root, rules, serving) if one.state != "over"]
    except Refusal as refusal:
        return [f"the tracker tells of an act that nobody signed: {refusal}"]
