"""Conversations as targets: a stranger at the real coordinator, a peer that signs whatever it is told to, and a tracker
that does the same to a peer."""

from __future__ import annotations

from contextlib import suppress

from peer.session import HangUp, Session, Welcomed
from protocol import codec
from protocol.documents import Document, Lease, open_document
from protocol.envelope import Challenge, Envelope, Inbound, Outbound, decode_challenge, encode_challenge, parse, seal
from protocol.errors import Refusal
from protocol.keys import SigningKey
from protocol.messages import (
    DOCUMENTS_FROM_PEER,
    DOCUMENTS_FROM_TRACKER,
    FROM_PEER,
    FROM_TRACKER,
    Announce,
    Hello,
    Holding,
    Private,
    Progress,
    Refused,
    Register,
    Report,
    SessionMessage,
    Welcome,
)
from protocol.rules import LimitsSection, Rules, TimesSection
from tests.fuzz.script import MAX_STEPS, Script
from tests.fuzz.target import Fault, LoopTarget, Target
from tests.protocol.examples import FULL_DOCUMENTS, FULL_MESSAGES
from tests.support.books import check_books
from tests.support.builders import (
    HOUR,
    NOW,
    ROOT,
    SERVING,
    a_cancel,
    a_delegation,
    a_denial,
    a_digest,
    a_key,
    a_nonce,
    a_peer_record,
    a_private_part,
    a_public_part,
    a_receipt,
    a_request,
    a_rules_document,
    an_acknowledgement,
    signed,
    some_bytes,
)
from tests.support.database import tables
from tests.support.peers import A_TEXT_OFFER, AN_OFFER, Desk

#: So few jobs may be under way, and for so short a time, that a run of any length has about the same number of them.
RULES = Rules(
    limits=LimitsSection(open_jobs=20, anonymous_open_jobs=20),
    times=TimesSection(waiting=60, image_lease=60, text_lease=60, silence=120),
)
#: So much time passes from one input to the next.
STEP_S = 90

MESSAGES = [message for message in FULL_MESSAGES if type(message).KIND in FROM_PEER]
TOLD = [message for message in FULL_MESSAGES if type(message).KIND in FROM_TRACKER]
PAPERS = [document for document in FULL_DOCUMENTS if type(document).KIND in DOCUMENTS_FROM_TRACKER]
WORKER, REQUESTER, STRANGER, JOB_KEY = (a_key(number) for number in (9_001, 9_002, 9_003, 9_004))


class Line:
    """The tracker's end of a connection: keeps what is said until it is looked at."""

    def __init__(self) -> None:
        self.said: list[bytes] = []
        self.closed = False

    def send(self, raw: bytes) -> None:
        self.said.append(raw)

    def close(self, reason: str) -> None:
        self.closed = True


class Caller:
    """One connection of one key: says what a script wants, and looks for faults in what it hears."""

    def __init__(self, desk: Desk, key: SigningKey, number: int) -> None:
        self.key = key
        self.desk = desk
        self.leases: list[Lease] = []
        self.receipts: list[tuple[Lease, Envelope]] = []
        self.line = Line()
        self._session = some_bytes(16, f"fuzz {number}")
        self.conversation = desk.coordinator.open(self.line, "203.0.113.0/24")
        self.conversation.start()
        challenge = decode_challenge(self.line.said.pop())
        self._inbound = Inbound(ROOT.public, self._session)
        self.outbound = Outbound(ROOT.public, challenge.session, key)

    async def greet(self) -> None:
        """Say hello and that nothing is held."""
        await self.say(Hello(session=self._session, software="fuzz", rules=self.desk.coordinator.rules.digest))
        await self.say(Holding(entries=(), last=True))

    async def say(self, message: SessionMessage) -> None:
        """A message as it should be."""
        await self.send(self.outbound.seal(message.KIND, codec.encode(message)).raw)

    async def send(self, raw: bytes) -> None:
        """Any bytes."""
        await self.conversation.receive(raw)
        self.listen()

    async def finish(self) -> None:
        """Hang up when all has been carried out."""
        await self.conversation.finish()
        self.listen()
        self.conversation.closed()

    def listen(self) -> None:
        """Take in what the tracker said."""
        said, self.line.said = self.line.said, []
        for raw in said:
            envelope = parse(raw)
            if not envelope.is_document:
                self._inbound.check(envelope, SERVING.public)
            if envelope.kind == Refused.KIND and envelope.open(Refused).code == "internal":
                raise Fault(f"a fault of the tracker: {envelope.open(Refused).text}")
            if envelope.kind == Lease.KIND:
                self.leases.append(open_document(envelope, Lease))


class Stranger(LoopTarget):
    """Bytes that nobody signed, and true messages with bytes changed, at each stage: nothing changes by them."""

    name = "session"

    async def start(self) -> None:
        self._opening = Desk.open(self.folder / "horde.db", RULES)
        self.desk = await self._opening.__aenter__()
        self.count = 0
        worker = Caller(self.desk, WORKER, -1)
        await worker.greet()
        await worker.say(Register())
        await worker.finish()
        self.before = tables(self.desk.path)

    async def take(self, raw: bytes) -> None:
        script = Script(raw)
        self.count += 1
        caller = Caller(self.desk, WORKER if script.number(2) else STRANGER, self.count)
        if script.number(3):
            await caller.greet()
        for _ in range(MAX_STEPS):
            if not script.more or caller.line.closed:
                break
            await caller.send(self._message(script, caller))
        await caller.finish()

    def _message(self, script: Script, caller: Caller) -> bytes:
        match script.number(3):
            case 0:
                return script.piece()
            case 1:
                message = MESSAGES[script.number(len(MESSAGES))]
                whole = caller.outbound.seal(message.KIND, codec.encode(message)).raw
            case _:
                whole = sign_with(a_peer_record(), caller.key).raw
        changed = script.changed(whole)
        return changed if changed != whole else whole[:-1]

    def check(self) -> None:
        if tables(self.desk.path) != self.before:
            raise Fault("what nobody signed has changed the database")

    async def stop(self) -> None:
        await self._opening.__aexit__(None, None, None)


class Conversing(LoopTarget):
    """A peer whose every word is truly signed and numbered, and whose words are anything at all."""

    name = "conversation"

    async def start(self) -> None:
        self._opening = Desk.open(self.folder / "horde.db", RULES)
        self.desk = await self._opening.__aenter__()
        self.count = 0

    async def take(self, raw: bytes) -> None:
        script = Script(raw)
        self.count += 1
        self.job_keys: dict[bytes, SigningKey] = {}
        worker, requester = (Caller(self.desk, key, 2 * self.count + n) for n, key in enumerate((WORKER, REQUESTER)))
        for caller in (worker, requester):
            await caller.greet()
            if script.number(4):
                await caller.say(Register())
        if script.number(4):
            await worker.send(sign_with(a_peer_record(version=self.count), WORKER).raw)
            await worker.say(Announce(offers=(AN_OFFER, A_TEXT_OFFER), slots=2, ahead=2))
        for _ in range(MAX_STEPS):
            if not script.more or worker.line.closed or requester.line.closed:
                break
            await self._step(script, worker, requester)
        await worker.finish()
        await requester.finish()
        await self.desk.later(STEP_S)

    async def _step(self, script: Script, worker: Caller, requester: Caller) -> None:
        match script.number(12):
            case 0:
                caller = worker if script.number(2) else requester
                kind = sorted(FROM_PEER)[script.number(len(FROM_PEER))]
                await caller.send(caller.outbound.seal(kind, script.piece()).raw)
            case 1:
                caller = worker if script.number(2) else requester
                message = MESSAGES[script.number(len(MESSAGES))]
                body = script.changed(codec.encode(message))
                await caller.send(caller.outbound.seal(message.KIND, body).raw)
            case 2:
                kind = sorted(DOCUMENTS_FROM_PEER)[script.number(len(DOCUMENTS_FROM_PEER))]
                key = (WORKER, REQUESTER, *self.job_keys.values())[script.number(2 + len(self.job_keys))]
                await requester.send(seal(kind, script.piece(), key, ROOT.public).raw)
            case 3 | 4:
                await self._ask(script, requester)
            case 5:
                await self._answer(script, worker)
            case 6:
                await self._acknowledge(script, worker, requester)
            case 7:
                await self._report(script, worker)
            case 8:
                await self._deny(script, worker, requester)
            case 9:
                await self._cancel(script, worker, requester)
            case 10:
                await self.desk.later(script.number(STEP_S))
            case _:
                await worker.conversation.finish()
                await requester.conversation.finish()

    async def _ask(self, script: Script, requester: Caller) -> None:
        private = codec.encode(a_private_part())
        job_key = SigningKey(some_bytes(32, f"{self.count} {script.number(256)}"))
        self.job_keys[job_key.public] = job_key
        request = a_request(
            a_public_part(n=1 + script.number(3)),
            nonce=some_bytes(16, job_key.public),
            job_key=job_key,
            valid_until=self.desk.clock.now + HOUR // 2,
        )
        await requester.say(Private(private=script.changed(private)))
        await requester.send(seal("request", script.changed(codec.encode(request)), requester.key, ROOT.public).raw)
        await requester.conversation.finish()

    async def _answer(self, script: Script, worker: Caller) -> None:
        worker.listen()
        for lease in worker.leases:
            receipt = seal("receipt", script.changed(codec.encode(a_receipt(lease))), worker.key, ROOT.public)
            await worker.send(receipt.raw)
            worker.receipts.append((lease, receipt))

    async def _acknowledge(self, script: Script, worker: Caller, requester: Caller) -> None:
        for lease, receipt in worker.receipts:
            with suppress(Refusal):  # its body may be no receipt any more
                body = script.changed(codec.encode(an_acknowledgement(receipt)))
                await requester.send(self._by_job_key("acknowledgement", body, lease))

    async def _report(self, script: Script, worker: Caller) -> None:
        worker.listen()
        states = ("accepted", "declined", "opened", "failed")
        for lease in worker.leases:
            progress = Progress(job=lease.job, attempt=lease.attempt, state=states[script.number(4)])  # type: ignore[arg-type]
            body = script.changed(codec.encode(Report(leases=(progress,))))
            await worker.send(worker.outbound.seal("report", body).raw)

    async def _deny(self, script: Script, worker: Caller, requester: Caller) -> None:
        for lease, receipt in worker.receipts:
            denial = a_denial(receipt if script.number(2) else None, lease)
            body = script.changed(codec.encode(denial))
            await requester.send(self._by_job_key("denial", body, lease))

    async def _cancel(self, script: Script, worker: Caller, requester: Caller) -> None:
        worker.listen()
        for lease in worker.leases:
            nonce = some_bytes(16, f"{self.count} {script.number(4)}")
            body = script.changed(codec.encode(a_cancel(lease.job, nonce, self.desk.clock.now + HOUR // 2)))
            await requester.send(self._by_job_key("cancel", body, lease))

    def _by_job_key(self, kind: str, body: bytes, lease: Lease) -> bytes:
        return seal(kind, body, self.job_keys.get(lease.job_key, JOB_KEY), ROOT.public).raw

    def check(self) -> None:
        check_books(self.desk.path)

    async def stop(self) -> None:
        await self.desk.quiet()
        self.check()
        await self._opening.__aexit__(None, None, None)


class AtPeer(Target):
    """A tracker that says anything at all to a peer, signed or not: effects come of it, and no exception."""

    name = "peer-session"

    def feed(self, raw: bytes) -> None:
        script = Script(raw)
        rules = signed(a_rules_document()) if script.number(2) else None
        session = Session(ROOT.public, a_key(1), "fuzz", a_nonce(3), rules, script.number(3))
        outbound = Outbound(ROOT.public, a_nonce(3), SERVING)
        challenge = codec.encode(
            Challenge(root=ROOT.public, delegation=a_delegation().raw, session=bytes(16), clock=NOW)
        )
        if script.number(4):
            self._take(session, encode_challenge(codec.decode(challenge, Challenge)))
        else:
            self._take(session, codec.encode([1, "challenge", script.changed(challenge)]))
        if script.number(4):
            welcome = Welcome(clock=NOW, rules=a_digest("rules"), rules_version=1)
            self._take(session, outbound.seal(welcome.KIND, codec.encode(welcome)).raw)
        for _ in range(MAX_STEPS):
            if not script.more:
                break
            self._take(session, self._message(script, outbound))

    def _message(self, script: Script, outbound: Outbound) -> bytes:
        match script.number(5):
            case 0:
                return script.piece()
            case 1:
                kind = sorted(FROM_TRACKER)[script.number(len(FROM_TRACKER))]
                return outbound.seal(kind, script.piece()).raw
            case 2:
                told = TOLD[script.number(len(TOLD))]
                return outbound.seal(told.KIND, script.changed(codec.encode(told))).raw
            case 3:
                kind = sorted(DOCUMENTS_FROM_TRACKER)[script.number(len(DOCUMENTS_FROM_TRACKER))]
                return seal(kind, script.piece(), SERVING, ROOT.public).raw
            case _:
                paper = PAPERS[script.number(len(PAPERS))]
                return seal(paper.KIND, script.changed(codec.encode(paper)), SERVING, ROOT.public).raw

    def _take(self, session: Session, raw: bytes) -> None:
        for effect in session.receive(raw, NOW):
            if isinstance(effect, Welcomed):
                session.hold(())
            if isinstance(effect, HangUp) and session.can_speak:
                raise Fault("it can speak after the end")


def sign_with(document: Document, key: SigningKey) -> Envelope:
    """The document, signed by this key."""
    return seal(document.KIND, codec.encode(document), key, ROOT.public)
