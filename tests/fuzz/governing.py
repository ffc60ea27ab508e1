"""Moderators, an operator and people with accounts as a target: truly signed acts, appeals, proposals, votes, answers
and awards that say anything at all, in any order."""

from __future__ import annotations

from typing import Any

from protocol import codec
from protocol.documents import Document
from protocol.envelope import Envelope, seal
from protocol.governing import SAYS
from protocol.keys import SigningKey, show_key
from protocol.messages import AskActs, AskAppeals, Register
from protocol.rules import ModerationSection, RolesSection, Rules, VotesSection
from tests.fuzz.script import MAX_STEPS, Script
from tests.fuzz.sessions import Caller
from tests.fuzz.target import Fault, LoopTarget
from tests.support.books import check_books
from tests.support.builders import (
    MINUTE,
    ROOT,
    a_key,
    a_leaving,
    a_proposal,
    a_rotation,
    a_transfer,
    a_vote,
    an_act,
    an_answer,
    an_appeal,
    an_award,
    some_bytes,
)
from tests.support.clerk import Clerk
from tests.support.peers import Desk
from tracker.audit import audit

ONE, OTHER, OPERATOR, ANN, BEN = (a_key(number) for number in range(9_101, 9_106))
KEYS = (ONE, OTHER, OPERATOR, ANN, BEN)
RULES = Rules(
    roles=RolesSection(
        moderators=(show_key(ONE.public), show_key(OTHER.public)), operators=(show_key(OPERATOR.public),)
    ),
    moderation=ModerationSection(return_alone=1000),
    votes=VotesSection(standing=1000, quorum=1, open=60, proposals=2),
)
#: So much time passes from one input to the next: what was open has ended.
STEP_S = 90
ACTS = sorted(SAYS)
KINDS = ("act", "appeal", "proposal", "vote", "answer", "award", "outcome")
CHANGES = (("limits.max_n", "30"), ("horde.name", '"x"'), ("limits.max_n", "20"), ("votes.quorum", "0"), ("x", "[["))


class Governing(LoopTarget):
    """Whatever they say: no fault of the tracker, books that are right, and an audit that finds nothing."""

    name = "governing"

    async def start(self) -> None:
        self._opening = Desk.open(self.folder / "horde.db", RULES)
        self.desk = await self._opening.__aenter__()
        self.count = 0
        clerk = await Clerk.at(self.desk.store)
        for key in (ANN, ONE):
            await clerk.earn(key, 2)
        await clerk.account(BEN)
        self.accounts = [await clerk.account(key) for key in (ANN, ONE, BEN)]

    async def take(self, raw: bytes) -> None:
        script = Script(raw)
        self.count += 1
        self.said = 0
        self.acts: list[bytes] = []
        self.proposals: list[bytes] = []
        self.callers: dict[SigningKey, Caller] = {}
        for _ in range(MAX_STEPS):
            if not script.more or any(caller.line.closed for caller in self.callers.values()):
                break
            await self._step(script)
        await self._hang_up()
        await self.desk.later(STEP_S)
        await self._lift_all()

    async def _caller(self, key: SigningKey) -> Caller:
        """Who speaks with this key, connected."""
        if key not in self.callers:
            self.callers[key] = Caller(self.desk, key, 10 * self.count + len(self.callers))
            await self.callers[key].greet()
        return self.callers[key]

    async def _hang_up(self) -> None:
        while self.callers:
            await self.callers.popitem()[1].finish()

    async def _step(self, script: Script) -> None:
        caller = await self._caller(KEYS[script.number(len(KEYS))])
        match script.number(8):
            case 0:
                kind = KINDS[script.number(len(KINDS))]
                await caller.send(seal(kind, script.piece(), caller.key, ROOT.public).raw)
            case 1 | 2:
                sent = await self._say(script, caller, self._an_act(script))
                self.acts.append(sent.digest)
            case 3:
                about = self.acts[script.number(len(self.acts))] if self.acts else b""
                await self._say(script, caller, an_appeal(about, **self._once()))
            case 4:
                key, value = CHANGES[script.number(len(CHANGES))]
                sent = await self._say(script, caller, a_proposal(key=key, value=value, **self._once()))
                self.proposals.append(sent.digest)
            case 5:
                proposal = self.proposals[script.number(len(self.proposals))] if self.proposals else b""
                vote = a_vote(proposal, yes=bool(script.number(2)), version=self.count * 256 + script.number(256) + 1)
                await self._say(script, caller, vote)
            case 6:
                await self._other(script, caller)
            case _:
                await caller.conversation.finish()
                await self.desk.later(script.number(STEP_S))

    def _an_act(self, script: Script) -> Document:
        """An act of some kind with what it must say, which may be no act that can be."""
        what = ACTS[script.number(len(ACTS))]
        account = self.accounts[script.number(len(self.accounts))]
        fields: dict[str, Any] = {
            "account": account,
            "until": self.desk.clock.now + MINUTE,
            "open_jobs": 1,
            "amount": 10 ** script.number(6),
            "to": self.accounts[script.number(len(self.accounts))],
            "block": "203.0.113.0/24",
            "about": self.acts[script.number(len(self.acts))] if self.acts else bytes(32),
        }
        must, may = SAYS[what]
        optional = {name for name in sorted(may) if name in fields and script.number(2)}
        said = {name: fields[name] for name in must | optional}
        if said.get("to") == account:
            del said["to"]
        return an_act(what, **said, **self._once())

    async def _other(self, script: Script, caller: Caller) -> None:
        account = self.accounts[script.number(len(self.accounts))]
        match script.number(7):
            case 0:
                await self._say(script, caller, an_award(account, **self._once()))
            case 1:
                about = self.proposals[script.number(len(self.proposals))] if self.proposals else b"\x01" * 32
                await self._say(script, caller, an_answer(proposal=about, **self._once()))
            case 2:
                await self._say(script, caller, a_transfer(account, 1, **self._once()))
            case 3:
                await caller.say(AskActs())
            case 4:
                await caller.say(AskAppeals())
            case 5:
                await caller.say(Register())
            case _:
                fresh = SigningKey(some_bytes(32, f"{self.count} {self.said}"))
                papers = (a_rotation(caller.key, fresh, **self._once()), a_leaving(**self._once()))
                await self._say(script, caller, papers[script.number(2)])

    def _once(self) -> dict[str, Any]:
        self.said += 1
        nonce = some_bytes(16, f"governing {self.count} {self.said}")
        return {"nonce": nonce, "valid_until": self.desk.clock.now + MINUTE}

    async def _say(self, script: Script, caller: Caller, document: Document) -> Envelope:
        body = script.changed(codec.encode(document))
        envelope = seal(document.KIND, body, caller.key, ROOT.public)
        await caller.send(envelope.raw)
        return envelope

    async def _lift_all(self) -> None:
        """Nothing stands when the next input comes, so that memory can be compared."""
        standing = await self.desk.store.sanctions(self.desk.clock.now)
        for one in standing:
            first, second = await self._caller(OPERATOR), await self._caller(OTHER)
            lifted = await self._say(Script(b""), first, an_act("lift", about=one.digest, **self._once()))
            await first.conversation.finish()
            if one.act.act == "ban":
                await self._say(Script(b""), second, an_act("agree", about=lifted.digest, **self._once()))
                await second.conversation.finish()
        await self._hang_up()
        if standing and (standing := await self.desk.store.sanctions(self.desk.clock.now)):
            raise Fault(f"an act that nobody can lift: {standing[0].act}")

    def check(self) -> None:
        check_books(self.desk.path)

    async def stop(self) -> None:
        await self.desk.quiet()
        self.check()
        await self._opening.__aexit__(None, None, None)
        report = audit(self.desk.path)
        if not report.ok:
            raise Fault("\n".join(str(finding) for finding in report.findings[:5]))
