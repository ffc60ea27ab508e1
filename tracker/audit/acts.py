"""Acts of moderators along the ledger: each signed by who had the role, in force when enough had signed, and logged."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from protocol import postings
from protocol.documents import MAX_VALIDITY_MS, Award
from protocol.errors import Refusal
from protocol.governing import Act, Appeal
from protocol.postings import Postings
from protocol.rules import Rules
from tracker.audit.books import Books
from tracker.audit.entry import Entry
from tracker.audit.papers import Paper, Papers, Version, version_at
from tracker.audit.people import People
from tracker.audit.report import Findings
from tracker.sanctions import LIFTED, State, can_be_spoken_of, check_role, needs_second, state_of


@dataclass
class _Row:
    """What the table must say of an act."""

    signer: bytes
    nonce: bytes
    act: str
    account: int
    until: int
    about: bytes
    time: int
    since: int
    entry: int
    agreed: bytes = b""
    ended: int = 0
    ended_by: bytes = b""
    said: Act | None = None

    def state(self, now: int) -> State:
        return state_of(self.since, self.ended, self.until, now)

    def columns(self) -> tuple[object, ...]:
        return (
            self.signer,
            self.nonce,
            self.act,
            self.account,
            self.until,
            self.about,
            self.time,
            self.since,
            self.entry,
            self.agreed,
            self.ended,
            self.ended_by,
        )


class Acts:
    """Goes along with the walk; the balances are those before the entry that is judged."""

    def __init__(
        self,
        connection: sqlite3.Connection,
        versions: dict[int, Version],
        books: Books,
        people: People,
        findings: Findings,
    ) -> None:
        self._connection = connection
        self._versions = versions
        self._books = books
        self._people = people
        self._findings = findings
        self._papers = Papers(connection, findings)
        self._rows: dict[bytes, _Row] = {}

    def acted(self, event: str, entry: Entry, serving: bytes) -> None:
        """A moderator acted, or agreed to what another one had proposed."""
        said = self._document(entry)
        version = self._versions.get(entry.evidence.rules)
        if said is None or version is None:
            return
        key, body, time = said.envelope.key, said.body, entry.evidence.time
        self._check_may(entry, key, version.rules, serving)
        if not body.valid_until - MAX_VALIDITY_MS <= time <= body.valid_until:
            self._add(entry, "the time", time, f"within the hour before {body.valid_until}")
        about = self._rows.get(body.about)
        if body.about and about is None:
            self._add(entry, "the act that it speaks of", body.about, "one before it in the ledger")
            return
        account = about.account if about else body.account
        effect, lifted = self._what_happens(body, about)
        standing = lifted.said if lifted and lifted.state(time) == "stands" else None
        waits = body.act != "agree" and needs_second(body, version.rules, standing)
        self._check_own(entry, [key, *([about.signer] if about and body.act == "agree" else ())], effect, lifted)
        if about is not None:
            self._speaks_of(entry, said, about, version.rules, serving)
        if lifted is not None and not waits:
            self._lifted(entry, lifted, said.envelope.digest if body.act == "lift" else body.about)
        right = ("act", ()) if waits else self._brought_about(entry, effect, lifted)
        self._findings.expect("the event of an act", event, right[0], entry.index)
        self._findings.expect("the postings of an act", entry.moved, right[1], entry.index)
        self._rows[said.envelope.digest] = _Row(
            signer=key,
            nonce=body.nonce,
            act=body.act,
            account=account,
            until=body.until,
            about=body.about,
            time=time,
            since=0 if waits else time,
            entry=entry.index,
            said=body,
        )

    def awarded(self, entry: Entry) -> None:
        """An award stands in the log too, since there is one."""
        for digest in entry.evidence.documents:
            row = self._connection.execute("SELECT 1 FROM acts WHERE digest = ?", (digest,)).fetchone()
            paper = self._papers.find(digest, Award, entry.index) if row else None
            if paper is not None:
                said, time = paper.body, entry.evidence.time
                self._rows[digest] = _Row(
                    paper.envelope.key, said.nonce, Award.KIND, said.account, 0, b"", time, time, entry.index
                )

    def _document(self, entry: Entry) -> Paper[Act] | None:
        named = entry.evidence.documents
        if len(named) != 1:
            self._add(entry, "the evidence's documents", len(named), "one act")
            return None
        if named[0] in self._rows:
            self._add(entry, "an act", "entered for the second time", "once")
        right = version_at(self._versions, entry.evidence.time)
        self._findings.expect("the evidence's rules", entry.evidence.rules, right, entry.index)
        return self._papers.find(named[0], Act, entry.index)

    def _check_may(self, entry: Entry, key: bytes, rules: Rules, serving: bytes) -> None:
        try:
            check_role(key, rules, serving)
        except Refusal as refusal:
            self._add(entry, "the act's signer", refusal, "a key with a role in the rules of then")

    def _what_happens(self, body: Act, about: _Row | None) -> tuple[Act, _Row | None]:
        """The act that comes into force, or would, and the one that it lifts."""
        if about is None or body.act == "uphold" or about.said is None:
            return body, None
        if body.act == "lift":
            return body, about
        return about.said, self._rows.get(about.said.about) if about.act == "lift" else None

    def _speaks_of(self, entry: Entry, said: Paper[Act], about: _Row, rules: Rules, serving: bytes) -> None:
        """What becomes of the act that another one agrees to; and whether it can be spoken of so."""
        body, time = said.body, entry.evidence.time
        state = about.state(time)
        if not can_be_spoken_of(about.act, state, body.act):
            self._add(entry, "what is spoken of", f"a {about.act} that {state}", "an act")
        if body.act != "agree":
            return
        self._findings.expect("what is agreed to", state, "proposed", entry.index)
        self._check_may(entry, about.signer, rules, serving)
        if about.signer == said.envelope.key:
            self._add(entry, "the second signature", "by the first key", "by another")
        both = self._people.surely_known_as(said.envelope.key, time) & self._people.surely_known_as(about.signer, time)
        if both:
            self._add(entry, "the second signature", f"by another key of account {min(both)}", "somebody else's")
        about.since, about.agreed = time, said.envelope.digest

    def _lifted(self, entry: Entry, lifted: _Row, by: bytes) -> None:
        """An act is over by a word of the digest `by`."""
        state = lifted.state(entry.evidence.time)
        if state == "over" or (state == "stands" and lifted.act not in LIFTED):
            self._add(entry, "what is lifted", f"a {lifted.act} that {state}", "one that can be")
        lifted.ended, lifted.ended_by = entry.evidence.time, by

    def _check_own(self, entry: Entry, signers: Sequence[bytes], effect: Act, lifted: _Row | None) -> None:
        gains = {"trust": effect.account, "return": effect.to, "lift": lifted.account if lifted else 0}
        gain = gains.get(effect.act, 0)
        for key in signers if gain else ():
            if gain in self._people.surely_known_as(key, entry.evidence.time):
                self._add(entry, "an act for its signer's own account", f"account {gain}", "another moderator's")

    def _brought_about(self, entry: Entry, effect: Act, lifted: _Row | None) -> tuple[str, Postings]:
        """Event and postings of what comes into force."""
        match effect.act:
            case "return":
                sums = self._books.of(effect.account)
                if effect.amount > sums.balance:
                    self._add(entry, "what is returned", effect.amount, f"at most {sums.balance}")
                return "return", postings.give_back(effect.account, effect.to, effect.amount)
            case "trust":
                sums = self._books.of(effect.account)
                moved = postings.vest(effect.account, sums.withheld)
                sums.withheld, sums.trusted = 0, entry.evidence.time
                return "trust", moved
            case "lift" if lifted is not None and lifted.act == "trust":
                self._books.of(lifted.account).trusted = 0
                return "trust", ()
            case _:
                return "act", ()

    def _add(self, entry: Entry, what: str, found: object, wanted: object) -> None:
        self._findings.add(what, found, wanted, entry.index)

    # At the end

    def end(self) -> None:
        """The last entry was seen: compare the log, and look for what was left out."""
        kept: dict[bytes, tuple[object, ...]] = {}
        for place, row in enumerate(
            self._connection.execute(
                "SELECT digest, number, signer, nonce, act, account, until, about, time, since, entry, agreed, ended,"
                " ended_by FROM acts ORDER BY entry, number"
            ),
            1,
        ):
            kept[row[0]] = tuple(row[2:])
            self._findings.expect("an act's number in the log", row[1], place, row[10])
        for digest in sorted(kept.keys() | self._rows.keys()):
            right = self._rows[digest].columns() if digest in self._rows else None
            self._findings.expect(f"act {digest[:6].hex()} in the log", kept.get(digest), right)
        for (digest,) in self._connection.execute("SELECT digest FROM papers WHERE kind = 'act'").fetchall():
            if digest not in self._rows:
                self._findings.add(f"act {digest[:6].hex()}, which was taken", "in no entry", "in the ledger")
        self._check_appeals()

    def _check_appeals(self) -> None:
        rows = self._connection.execute("SELECT digest, account, about, time, answered FROM appeals").fetchall()
        for digest, account, about, time, answered in rows:
            what = f"appeal {digest[:6].hex()}"
            with suppress(Refusal):
                paper = self._papers.find(digest, Appeal, 0)
                if paper is not None:
                    self._findings.expect(f"{what}: what it is about", about, paper.body.about)
                    self._findings.expect(
                        f"{what}: whose it is", self._people.account(paper.envelope.key, time, account), account
                    )
            spoken_of = self._rows.get(about)
            self._findings.expect(f"{what}: whom its act concerns", spoken_of and spoken_of.account, account)
            if answered:
                word = self._rows.get(answered)
                fits = word is not None and word.act in ("lift", "uphold") and word.about == about
                self._findings.expect(f"{what}: answered by a word on its act", fits, True)
