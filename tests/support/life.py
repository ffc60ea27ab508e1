"""A whole horde's life for a state machine: peers that do anything at any time, a tracker that ends and starts again.

The tracker is the real coordinator over the real store; nothing here decides what is right except `check`.
"""

from __future__ import annotations

import logging
import shutil
import sqlite3
from contextlib import AsyncExitStack, closing
from pathlib import Path
from typing import Any, cast

from protocol import codec
from protocol.documents import Document, Lease, Settlement, sign
from protocol.envelope import Envelope
from protocol.filter.verdict import Verdict
from protocol.keys import SigningKey
from protocol.messages import (
    Announce,
    Ended,
    Private,
    Progress,
    Queued,
    Refused,
    Report,
    SessionMessage,
    Taken,
    Unreachable,
)
from protocol.prices import price, tax
from protocol.rules import FilterSection, LimitsSection, MatchingSection, MintSection, Rules
from protocol.work import PrivatePart, PublicPart, texts_of
from tests.support.books import check_books, minted_by_day
from tests.support.builders import (
    DAY,
    HOUR,
    IMAGE_MODEL,
    ROOT,
    SECOND,
    a_cancel,
    a_denial,
    a_digest,
    a_handle,
    a_key,
    a_public_part,
    a_receipt,
    an_acknowledgement,
    an_image_private,
    an_image_work,
    some_bytes,
)
from tests.support.peers import AN_OFFER, Asked, Desk, FakeClock, Peer
from tests.support.tally import Counting, Tally
from tracker.audit import audit
from tracker.content_filter import ContentFilter
from tracker.lifecycle import LIVE
from tracker.store.sqlite import SqliteStore

PUBLIC = a_public_part()
PRICE = price(Rules(), PUBLIC.work, IMAGE_MODEL)
COST = PRICE + tax(Rules())
RULES = Rules(
    # so little that some attempts find nothing left to be minted
    mint=MintSection(daily=PRICE * 2 + 7, steps=((400, 1_000), (900, 300))),
    matching=MatchingSection(failed_attempts=2),
    limits=LimitsSection(max_pixels=256 * 256),
    filter=FilterSection(strikes=1_000_000),
)
WORKERS = range(3)
#: The first has earned a little, the second has no account, the third is also a worker.
REQUESTERS = (100, 101, 0)
FORBIDDEN = "what no filter lets through"
#: All is read and computed again after so many steps, at each restart and at the end: what is wrong once stays so.
CHECKED_EACH = 10
#: Refusals that the tally hears where they are made, and the tracker's good-bye.
HEARD_OTHERWISE = frozenset({"fenced", "too_late", "over_lease", "stopping"})
#: So many rounds of days bring every job to its end: each round at the least one attempt is over.
PATIENCE = 60


#: Where the lease stands that is to be spoken of, and how far from the newest of those it is.
Pick = tuple[str, int]
AIMS = ("pushed", "accepted", "opened", "called off", "delivered", "waiting", "older", "older than delivered", "ended")


def _standing(state: str, latest: int, number: int, stage: str, cancelled: int) -> str:
    """A lease as `AIMS` name it."""
    if state not in LIVE:
        return "ended"
    if number != latest:
        return "older than delivered" if state == "delivered" else "older"
    if state == "leased":
        return "called off" if cancelled else stage
    return state


class OnePrompt(ContentFilter):
    """Refuses one prompt."""

    def look(self, private: PrivatePart, rules: FilterSection) -> Verdict:
        del rules
        return Verdict("other" if FORBIDDEN in texts_of(private) else "")


class Faults(logging.Handler):
    """Whatever the tracker's log calls an error."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep it."""
        text = record.getMessage()
        self.lines.append(f"{text}\n{record.exc_info[1]!r}" if record.exc_info else text)


async def begin(path: Path) -> None:
    """Make a horde in which the first requester has earned enough for a few jobs, and a bit of another one."""
    async with Desk.open(path, Rules(), clock=FakeClock(FakeClock().now - 2 * DAY)) as desk:
        await desk.rich(REQUESTERS[0], jobs=5)
        await desk.coordinator.publish(RULES)


class Life:
    """One horde, and what was ever said in it."""

    def __init__(self, path: Path, tally: Tally) -> None:
        self.path = path
        self.tally = tally
        self.clock = FakeClock()
        self.desk = cast("Desk", None)
        self.peers: dict[int, Peer] = {}
        self.here: set[int] = set()
        self.slots = dict.fromkeys(WORKERS, 2)
        self.leases: list[tuple[int, Lease]] = []
        self.asked: dict[bytes, tuple[int, Asked]] = {}  # by job handle, in the order of asking
        self.requests: list[tuple[int, Asked]] = []
        self.sent: dict[bytes, str] = {}
        self.letters: list[tuple[int, Envelope]] = []
        self.receipts: dict[tuple[bytes, int, str], Envelope] = {}
        self.settlements: dict[bytes, bytes] = {}
        self.taken: set[bytes] = set()
        self.ended: dict[bytes, tuple[object, ...]] = {}
        self.standing: dict[tuple[bytes, int], str] = {}
        self.heard: dict[int, int] = {}
        self.restarts = 0
        self._stack = AsyncExitStack()
        self._faults = Faults()
        self._looks = 0
        self._spoken_of: Lease | None = None

    # The tracker

    async def start(self, how: str = "") -> None:
        """Start the tracker. how: its last end."""
        logging.getLogger("tracker").addHandler(self._faults)
        self._stack = AsyncExitStack()

        def wrap(store: SqliteStore) -> Any:
            # Crashes are copies of the files, not losses of power; and disks are slow.
            store._writer._connection.execute("PRAGMA synchronous = OFF")
            return Counting.around(store, self.tally, how)

        self.desk = await self._stack.enter_async_context(
            Desk.open(self.path, RULES, clock=self.clock, content_filter=OnePrompt(), seed=self.restarts, wrap=wrap)
        )
        if how:
            self.tally.started = self.clock.now

    async def stop(self) -> None:
        """The tracker says good-bye."""
        await self._stack.aclose()
        self.here.clear()
        logging.getLogger("tracker").removeHandler(self._faults)

    async def restart(self, *, killed: bool) -> None:
        """End the tracker, well or badly, and start it again; nobody has come back yet."""
        self.restarts += 1
        if killed:
            left = self._crash()
            await self.stop()
            shutil.rmtree(self.path.parent)
            self.path = left
        else:
            self._gather()
            await self.stop()
        self._gather()
        await self.start("killed" if killed else "stopped")
        self.check()

    def _crash(self) -> Path:
        """Nobody hears anything from here on; what is in the files now is what is left."""
        for number in self.here:
            self.peers[number].line.is_cut = True
        self._gather()
        folder = self.path.parent.with_name(f"life-{self.restarts}")
        folder.mkdir()
        for suffix in ("", "-wal"):  # in this order: a log that is too long is harmless
            source = Path(f"{self.path}{suffix}")
            if source.exists():
                shutil.copy(source, Path(f"{folder / self.path.name}{suffix}"))
        return folder / self.path.name

    # Coming and going

    async def come(self, number: int, *, holds: bool = True) -> None:
        """A peer connects, if it is not there, and lists what it holds, or nothing."""
        if number in self.here:
            return
        back = number in self.peers
        peer = self.peers.setdefault(number, Peer(self.desk, a_key(2_000 + number)))
        peer.desk = self.desk
        peer.forget()
        self.heard[number] = len(peer.heard)
        held = []
        if holds:
            held += [peer.held_lease(lease) for who, lease in self.leases[-100:] if who == number]
            held += [peer.held_request(asked) for who, asked in self.requests[-100:] if who == number]
        worker = number in WORKERS
        self.tally.cause = ("a worker is back" if worker else "a requester is back") if back else ""
        self.here.add(number)
        await peer.connect(*held)
        await self.quiet()
        if worker:
            if not back:
                await peer.register()
            await peer.show_record()
            await self._announce(peer, self.slots[number])
            await self.quiet()
        self.tally.cause = ""

    async def leave(self, number: int) -> None:
        """A peer is cut off."""
        if number in self.here:
            self._gather()
            self.peers[number].hang_up()
            self.here.discard(number)

    async def announce(self, number: int, slots: int) -> None:
        """A worker changes how much it takes at once; 0 takes nothing."""
        self.slots[number] = slots
        if number in self.here:
            self.tally.cause = "a worker announces"
            await self._announce(self.peers[number], slots)
            await self.quiet()
            self.tally.cause = ""

    async def _announce(self, peer: Peer, slots: int) -> None:
        await peer.say(Announce(offers=(AN_OFFER,) if slots else (), slots=max(1, slots), ahead=0))

    async def later(self, seconds: int) -> None:
        """Time passes."""
        await self.desk.later(seconds)

    async def quiet(self) -> None:
        """Until nothing is being carried out."""
        await self.desk.quiet()
        self._gather()

    # Saying things. None of these waits for what comes of it.

    async def ask(self, number: int, *, n: int = 1, how: str = "") -> None:
        """A requester asks; `how` it goes wrong, if it does."""
        if number not in self.here:
            return
        peer = self.peers[number]
        public: PublicPart = a_public_part(n=n)
        prompt = FORBIDDEN if how == "forbidden" else "a small red circle on blue"
        if how == "too large":
            public = a_public_part(an_image_work(512, 512))
        late: dict[str, object] = {"valid_until": self.clock.now - SECOND} if how == "late" else {}
        asked = peer.prepare(public, an_image_private(prompt), **late)
        if not how:
            self.requests.append((number, asked))
        await self._ask(peer, asked, private=how != "without private part")

    async def ask_again(self, pick: int, *, otherwise: bool) -> None:
        """A requester sends a request a second time, or another one under the same nonce."""
        if not self.requests:
            return
        number, asked = self.requests[-1 - pick % len(self.requests)]
        if number not in self.here:
            return
        peer = self.peers[number]
        if otherwise:
            nonce = asked.request.nonce
            asked = peer.prepare(nonce=nonce)
        await self._ask(peer, asked)

    async def _ask(self, peer: Peer, asked: Asked, *, private: bool = True) -> None:
        if private:
            await self._say(peer, Private(private=asked.private))
        self.sent[asked.envelope.digest] = "request"
        await peer.send(asked.envelope)

    async def report(self, pick: Pick, state: Any) -> None:
        """A worker says what became of a lease."""
        if self.leases:
            number, lease = self._lease(pick)
            if number in self.here:
                progress = Progress(job=lease.job, attempt=lease.attempt, state=state, reason="")
                await self._say(self.peers[number], Report(leases=(progress,)))

    async def have(self, stage: str, who: int = REQUESTERS[1]) -> None:
        """See to it that there is a lease that has come so far."""
        if stage not in self.standing.values():
            for worker in WORKERS:
                await self.come(worker)
                await self.announce(worker, 3)
            await self.come(who)
            await self.ask(who)
            await self.settle_down()
        for state in {"pushed": (), "accepted": ("accepted",)}.get(stage, ("opened",)):
            await self.report(("pushed", 0), state)
        if stage == "called off":
            await self.settle_down()
            await self.cancel(("opened", 0), whole=False)
        if stage == "delivered":
            await self.settle_down()
            await self.deliver(("opened", 0), "whole")
        await self.settle_down()

    async def settle_down(self) -> None:
        """Until nothing is being carried out; now and then, that all is well."""
        await self.quiet()
        self._look()
        self._looks += 1
        if self._looks % CHECKED_EACH == 0:
            self.check()

    async def lose(self, how: str) -> None:
        """The newest lease is accepted, and comes to nothing; or is not even accepted."""
        if how == "declined at once":
            await self.report(("pushed", 0), "declined")
            return
        await self.report(("pushed", 0), "accepted")
        await self.settle_down()
        number = self._lease(("accepted", 0))[0] if self.leases else 0
        match how:
            case "not opened":
                await self.later(RULES.times.open)
            case "unreachable":
                await self.cannot_reach(("accepted", 0))
            case "deadline":
                await self.report(("accepted", 0), "opened")
                await self.later(RULES.times.image_lease)
            case "gone":
                await self.report(("accepted", 0), "opened")
                await self.quiet()
                await self.leave(number)
                await self.later(RULES.times.worker_grace)
                await self.come(number)
            case "back without it":
                await self.leave(number)
                await self.come(number, holds=False)
            case _:
                await self.report(("accepted", 0), how)

    async def cannot_reach(self, pick: Pick) -> None:
        """A requester cannot reach a worker."""
        if self.leases:
            _, lease = self._lease(pick)
            number, _ = self.asked[lease.job]
            if number in self.here:
                said = Unreachable(job=lease.job, attempt=lease.attempt, reason="timeout")
                await self._say(self.peers[number], said)

    async def deliver(self, pick: Pick, form: str) -> None:
        """A worker sends a receipt: a `whole` one, or one of other `form`."""
        if self.leases:
            number, lease = self._lease(pick)
            await self._send(number, self._receipt(number, lease, form))

    async def acknowledge(self, pick: Pick, form: str) -> None:
        """A requester acknowledges what its worker signed, whether or not the tracker has heard of it."""
        if self.leases:
            worker, lease = self._lease(pick)
            number, asked = self.asked[lease.job]
            receipt = self._receipt(worker, lease, form)
            await self._present(number, an_acknowledgement(receipt), asked.key)

    async def acknowledge_the_others(self) -> None:
        """And whatever the other workers of the job that was spoken of last have made of it."""
        spoken = self._spoken_of
        for worker, lease in self.leases if spoken else ():
            if spoken and lease.job == spoken.job and lease.attempt != spoken.attempt:
                number, asked = self.asked[lease.job]
                receipt = self._receipt(worker, lease, "whole")
                await self._present(number, an_acknowledgement(receipt), asked.key)

    async def deny(self, pick: Pick, form: str) -> None:
        """A requester denies, with a receipt or without one."""
        if self.leases:
            worker, lease = self._lease(pick)
            number, asked = self.asked[lease.job]
            receipt = self._receipt(worker, lease, form) if form else None
            await self._present(number, a_denial(receipt, lease), asked.key)

    async def cancel(self, pick: Pick, *, whole: bool) -> None:
        """A requester cancels one job, or all of the request."""
        if self.leases:
            _, lease = self._lease(pick)
            handle = lease.job
            number, asked = self.asked[handle]
            await self._present(number, self._cancel(None if whole else handle), asked.key)

    async def cancel_waiting(self) -> None:
        """A requester cancels what it asked for last."""
        if self.asked:
            handle = next(reversed(self.asked))
            number, asked = self.asked[handle]
            await self._present(number, self._cancel(handle), asked.key)

    def _cancel(self, handle: bytes | None) -> Document:
        nonce = some_bytes(16, f"cancel {len(self.sent)}")
        return a_cancel(handle, nonce, valid_until=self.clock.now + HOUR // 2)

    async def meddle(self, pick: Pick, what: str, *, unknown: bool) -> None:
        """A stranger speaks of somebody's job, or anybody of one that is not there."""
        if not self.leases:
            return
        worker, lease = self._lease(pick)
        owner, asked = self.asked[lease.job]
        if unknown:
            nowhere = a_handle(900_000 + len(self.sent))
            lease = Lease(**{name: getattr(lease, name) for name in lease.__struct_fields__} | {"job": nowhere})
        stranger = next((one for one in sorted(self.here) if one not in (worker, owner)), None)
        sender = (worker if what == "receipt" else owner) if unknown else stranger
        if sender is None or sender not in self.here:
            return
        key = self.peers[sender].key
        receipt = sign(a_receipt(lease, finished=self.clock.now), key, ROOT.public)
        said: dict[str, Document] = {
            "receipt": a_receipt(lease, finished=self.clock.now),
            "acknowledgement": an_acknowledgement(receipt),
            "denial": a_denial(None, lease),
            "cancel": self._cancel(lease.job),
        }
        await self._present(sender, said[what], key if what == "receipt" else asked.key)

    async def repeat(self, pick: int) -> None:
        """Somebody sends again what it sent once."""
        if self.letters:
            number, envelope = self.letters[-1 - pick % len(self.letters)]
            await self._send(number, envelope)

    def _lease(self, pick: Pick) -> tuple[int, Lease]:
        """One of the newest leases that stand as the pick wants it, or of all if there is none."""
        aim, number = pick
        aimed = [one for one in self.leases if self.standing.get((one[1].job, one[1].attempt)) == aim]
        found = aimed or self.leases
        chosen = found[-1 - number % len(found)]
        self._spoken_of = chosen[1]
        return chosen

    def _receipt(self, worker: int, lease: Lease, form: str) -> Envelope:
        """What the worker signs, the same to the byte each time."""
        name = lease.job, lease.attempt, form
        if name not in self.receipts:
            body = a_receipt(
                lease,
                used={"partial": 12, "too much": 31}.get(form),
                partial=form == "partial",
                output=a_digest("something else") if form == "other" else None,
                finished=self.clock.now,
            )
            self.receipts[name] = sign(body, self.peers[worker].key, ROOT.public)
        return self.receipts[name]

    async def _present(self, number: int, document: Document, key: SigningKey) -> None:
        await self._send(number, sign(document, key, ROOT.public))

    async def _send(self, number: int, envelope: Envelope) -> None:
        if number in self.here:
            self.sent[envelope.digest] = envelope.kind
            self.letters.append((number, envelope))
            await self.peers[number].send(envelope)

    async def _say(self, peer: Peer, message: SessionMessage) -> None:
        envelope = peer._outbound.seal(message.KIND, codec.encode(message))
        self.sent[envelope.digest] = message.KIND
        await peer.conversation.receive(envelope.raw)

    # Hearing

    def _gather(self) -> None:
        """Take note of what the tracker has said."""
        for number in sorted(self.peers):
            peer = self.peers[number]
            for body in peer.heard[self.heard[number] :]:
                self._hear(number, peer, body)
            self.heard[number] = len(peer.heard)

    def _hear(self, number: int, peer: Peer, body: SessionMessage | Document) -> None:
        match body:
            case Lease() if body.worker == peer.key.public:
                self._hear_lease(number, body)
            case Queued():
                asked = next(one for one in peer.asked if one.envelope.digest == body.request)
                for handle in body.jobs:
                    self.asked.setdefault(handle, (number, asked))
            case Settlement():
                raw = peer.envelope_of(body).raw
                known = self.settlements.setdefault(body.job, raw)
                assert known == raw, "there is one settlement for a job, and it is sent byte for byte"
            case Taken():
                self.taken.update(body.documents)
            case Refused() if body.code not in HEARD_OTHERWISE:
                self.tally.hit("refused", self.sent.get(body.about, "?"), body.code)
            case Ended():
                assert body.job not in self.settlements, "a job that was paid did not end otherwise"

    def _hear_lease(self, number: int, lease: Lease) -> None:
        if (number, lease) not in self.leases:
            self.leases.append((number, lease))
        elif self.tally.started is not None and lease.issued < self.tally.started:
            self.tally.hit("restart", "a lease was pushed again")

    # What must hold

    def check(self) -> None:
        """At moments at which nothing is being carried out."""
        check_books(self.path)
        today = FakeClock().now // DAY  # before that other rules were in force
        assert all(used <= RULES.mint.daily for day, used in minted_by_day(self.path).items() if day >= today)
        assert not self._faults.lines, self._faults.lines
        assert not self.tally.faults, self.tally.faults
        with closing(sqlite3.connect(self.path)) as connection:
            jobs = {
                row[0]: row[1:]
                for row in connection.execute("SELECT job, state, reason, attempt, settled, changed FROM jobs")
            }
            stored = {row[0] for row in connection.execute("SELECT digest FROM documents")}
            settlements = {row[0] for row in connection.execute("SELECT raw FROM documents WHERE kind = 'settlement'")}
        assert self.asked.keys() <= jobs.keys(), "no job is lost that somebody was told of"
        assert self.taken <= stored, "no document is lost that was said to be taken"
        assert settlements.issuperset(self.settlements.values()), "no settlement is lost that somebody has"
        ended = {job: row for job, row in jobs.items() if row[0] not in LIVE}
        assert ended.items() >= self.ended.items(), "an end is an end"
        self.ended = ended

    def _look(self) -> None:
        """Note where every lease stands."""
        with closing(sqlite3.connect(self.path)) as connection:
            self.standing = {
                (job, number): _standing(state, attempt, number, stage, cancelled)
                for job, state, attempt, cancelled, number, stage in connection.execute(
                    "SELECT j.job, j.state, j.attempt, j.cancelled, a.attempt, a.stage FROM jobs j JOIN attempts a"
                    " ON a.job = j.job"
                )
            }

    async def end(self) -> None:
        """Let time pass until every job has ended, then audit all of it."""
        for _ in range(PATIENCE):
            if not self._live():
                break
            await self.later(DAY // SECOND)
        await self.quiet()
        self.check()
        assert not self._live(), "every job ends"
        await self.stop()
        report = audit(self.path, root=ROOT.public)
        assert report.ok, report.findings

    def _live(self) -> int:
        with closing(sqlite3.connect(self.path)) as connection:
            live = ", ".join(f"'{state.value}'" for state in sorted(LIVE))
            count: int = connection.execute(f"SELECT count(*) FROM jobs WHERE state IN ({live})").fetchone()[0]
            return count
