"""Asking a horde, from Python.

```python
async with Client(link) as horde:
    picture = await horde.picture("a red circle")
    async for event in horde.text("Why is the sky blue?"):
        if isinstance(event, TextPiece):
            print(event.text, end="", flush=True)
```

Leaving the iteration early, or cancelling what is awaited, cancels what is not done.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, TypeVar, Unpack

from peer.asking import Asking
from peer.askings import Askings
from peer.audit.shown import Shown
from peer.connection import CannotJoin, Connection
from peer.events import BadRequest, Event, JobCancelled, Picture, Unreachable
from peer.evidence import Evidence
from peer.follow import LeaseCame, SettlementCame, StatementRefused
from peer.home import Home
from peer.job import Desk
from peer.keeping import PASSING, Showing
from peer.keyring import pseudonym
from peer.left_over import LeftOver
from peer.measures import check_public, image_work, public_part, text_work, thousandths
from peer.paths.relay_end import RelayEnds, tracker_of
from peer.presenting import Presenting
from peer.questions import Questions
from peer.results import Answer, AnswerOptions, PictureOptions, answer_of, picture_of
from peer.stream_reader import BadRecord, StreamReader, Worker, worker_of
from peer.turns import text_private
from protocol import messages
from protocol.digests import new_salt
from protocol.documents import Document, Lease, PeerRecord, RulesDocument, Serving, Settlement, open_document, sign
from protocol.envelope import Envelope
from protocol.keys import SigningKey
from protocol.links import Link, parse_link
from protocol.messages import (
    Account,
    ActEntry,
    Acts,
    Appeals,
    AskAccount,
    AskActs,
    AskAppeals,
    AskDelegations,
    AskQuote,
    AskWhy,
    Delegations,
    Given,
    Held,
    Quote,
    Register,
    SessionMessage,
    Welcome,
    Why,
)
from protocol.rules import Rules
from protocol.work import (
    MAX_SEED,
    ImagePrivate,
    ImageWork,
    PrivatePart,
    PublicPart,
    TextWork,
)

#: How long to wait for a tracker's first answer.
CONNECT_SECONDS = 30.0
#: How long to wait at the end, for partial results of cancelled jobs and for settlements.
LEAVE_SECONDS = 15.0
#: Peer records kept: of the workers that we last had to do with.
MAX_WORKERS = 4096

#: A statement that was refused for a while is sent again, anywhere between these seconds later.
AGAIN_SECONDS = (1.0, 5.0)

log = logging.getLogger(__name__)

M = TypeVar("M", bound=SessionMessage)


def system_clock() -> int:
    """Milliseconds since 1970."""
    return time.time_ns() // 1_000_000


class Client:
    """One requester in one horde. Use it as an async context manager.

    link: the horde's, as text or parsed. key: whose account; without one the home's, and without a home a fresh one,
    which is anonymous. home: where proofs are kept. insecure: follow a link that leads over the internet without TLS.
    relays_only: reach workers through relays, so that they do not learn our address.
    """

    def __init__(
        self,
        link: Link | str,
        key: SigningKey | None = None,
        *,
        home: Home | None = None,
        insecure: bool = False,
        relays_only: bool = False,
        connect_seconds: float = CONNECT_SECONDS,
        leave_seconds: float = LEAVE_SECONDS,
        clock: Callable[[], int] = system_clock,
        random: random.Random | None = None,
    ) -> None:
        self.link = parse_link(link) if isinstance(link, str) else link
        self.key = key or (home.key() if home else SigningKey.generate())
        self._home = home
        self._insecure = insecure
        self._relays_only = relays_only
        self._connect_seconds = connect_seconds
        self._leave_seconds = leave_seconds
        self._clock = clock
        self._random = random or _system_random()
        self._evidence = Evidence(home.results_folder) if home else None
        self._shown = Shown(home.results_folder, self.link.root) if home else None
        # Only a session of the key that asked may send a statement again; a key given for once does not come back.
        self._resumable = home is not None and key is None
        self._showing = Showing(self._evidence.keeping(self.link.root)) if self._evidence and self._resumable else None
        self._workers: dict[bytes, Worker] = {}
        self._askings = Askings()
        self._left_over = LeftOver(self._evidence if self._resumable else None, self.link.root)
        self._questions = Questions()
        self._presenting = Presenting()
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Client:
        home, root = self._home, self.link.root
        self._connection = Connection(
            self.link,
            self.key,
            self,
            clock=self._clock,
            random=self._random,
            insecure=self._insecure,
            rules=home.rules(root) if home else None,
            delegation_seen=home.delegation(root) if home else 0,
        )
        await self._left_over.load()
        async with contextlib.AsyncExitStack() as stack:
            tracker = tracker_of(self.link)
            relays = await stack.enter_async_context(RelayEnds(tracker))
            streams = StreamReader(private_too=self.link.is_private, relays=relays)
            self._desk = Desk(
                self._connection,
                await stack.enter_async_context(streams),
                self._workers,
                self._evidence,
                self._resumable,
                self._spawn_for_job,
                tracker,
                self._relays_only,
            )
            self._running = asyncio.create_task(self._connection.run())
            self._running.add_done_callback(self._line_ended)
            stack.push_async_callback(self._stop)
            await self._until_ready()
            if home:
                home.keep_delegation(root, self._connection.delegation_version)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        try:
            await self._leave()
        finally:
            await self._stack.aclose()

    @property
    def rules(self) -> Rules:
        """The horde's rules in force."""
        assert self._connection.rules is not None  # noqa: S101 (known once the connection was ready)
        return self._connection.rules

    @property
    def serving(self) -> bytes | None:
        """The key that signs for the horde; None before the tracker has shown it."""
        return self._connection.serving

    @property
    def rules_document(self) -> Envelope:
        """The rules in force as they were signed, by a key that the horde's root vouches for."""
        assert self._connection.rules_document is not None  # noqa: S101 (known once the connection was ready)
        return self._connection.rules_document

    @property
    def rules_news(self) -> str:
        """Which version is in force, and what it changed of the rules that this peer's home had kept."""
        return self._connection.rules_news

    @property
    def account_number(self) -> int:
        """The number of our account, 0 for anonymous people."""
        return self._connection.account

    @property
    def has_ended(self) -> bool:
        """Whether the connection is gone for good, which only another client mends."""
        return self._running.done()

    async def ready(self) -> None:
        """Returns when a tracker has let us in, at once if it is so; raises `Unreachable` or `Refused`."""
        if not self._connection.is_ready:
            await self._until_ready()

    def image(
        self,
        prompt: str,
        *,
        models: Sequence[str] = (),
        width: int = 512,
        height: int = 512,
        steps: int = 30,
        guidance: float = 7.5,
        negative_prompt: str = "",
        seed: int | None = None,
        sampler: str = "",
        n: int = 1,
        max_price: float = 0,
        user: str = "",
        enough: asyncio.Event | None = None,
    ) -> AsyncGenerator[Event, None]:
        """Ask for n pictures; what happens to them, as it happens.

        seed: of the first picture, the next one gets the next; random if None. max_price: kudos that one picture may
        cost without tax, 0 for no bound. user: of a service account, whom it asks for; only a pseudonym leaves this
        machine. enough: once it is set, no further step is wanted, and pictures under way come as far as they are;
        whoever leaves the iteration instead gets none of them. Raises `BadRequest` at once, and `Refused` or a
        `JobError` in its course.
        """
        work = image_work(width, height, steps, guidance)
        private = ImagePrivate(
            prompt=prompt,
            negative_prompt=negative_prompt,
            seed=self._seed(seed, n),
            guidance=thousandths("guidance", guidance),
            sampler=sampler,
            salt=new_salt(),
        )
        return self._ask(public_part(work, models, n, max_price), private, user, enough)

    def text(
        self,
        prompt: str | Sequence[tuple[str, str]],
        *,
        system: str = "",
        raw: bool = False,
        models: Sequence[str] = (),
        max_tokens: int = 256,
        context: int = 2048,
        temperature: float = 0.8,
        top_p: float = 0.95,
        top_k: int = 40,
        min_p: float = 0.05,
        repeat_penalty: float = 1.0,
        stop: Sequence[str] = (),
        seed: int | None = None,
        n: int = 1,
        max_price: float = 0,
        user: str = "",
    ) -> AsyncGenerator[Event, None]:
        """Ask for n texts; what happens to them, as it happens.

        prompt: a question, or the turns of a conversation as pairs (role, content), roles being `system`, `user` and
        `assistant`; with `raw`, text to go on from without any template. Else as `image`.
        """
        private = text_private(
            prompt,
            system,
            raw=raw,
            stop=tuple(stop),
            seed=self._seed(seed, n),
            temperature=thousandths("temperature", temperature),
            top_p=thousandths("top_p", top_p),
            top_k=top_k,
            min_p=thousandths("min_p", min_p),
            repeat_penalty=thousandths("repeat_penalty", repeat_penalty),
            salt=new_salt(),
        )
        return self._ask(public_part(text_work(max_tokens, context), models, n, max_price), private, user)

    async def picture(self, prompt: str, **options: Unpack[PictureOptions]) -> Picture:
        """Ask for one picture and wait for it: what `image` takes, but for n. Raises what `image` and its events do."""
        return await picture_of(self.image(prompt, **options))

    async def answer(self, prompt: str | Sequence[tuple[str, str]], **options: Unpack[AnswerOptions]) -> Answer:
        """Ask for one text and wait until it is whole: what `text` takes, but for n. Raises what `text` does."""
        return await answer_of(self.text(prompt, **options))

    async def account(self, worker: bytes | None = None) -> Account:
        """How our account stands; its number is 0 if this key has none. worker: the key of one, by which pseudonym it
        knows our account."""
        return await self._exchange(AskAccount(worker=worker), Account)

    async def register(self, invite: str = "") -> Account:
        """Make our key an account of this horde; the account. Does no harm if it is one already.

        invite: the operator's code, where the horde wants one.
        """
        return await self._exchange(Register(invite=invite), Account)

    async def delegations(self) -> Sequence[Given]:
        """The delegations of our account that stand, the oldest first."""
        return (await self._exchange(AskDelegations(), Delegations)).entries

    async def acts(self) -> Sequence[ActEntry]:
        """The acts of moderators that concern our account, the newest first."""
        return (await self._exchange(AskActs(), Acts)).entries

    async def appeals(self) -> Appeals:
        """The appeals that nobody has answered, for a moderator. Raises `Refused` for others."""
        return await self._exchange(AskAppeals(), Appeals)

    def now(self) -> int:
        """The tracker's clock, by which documents are dated."""
        return self._connection.now()

    async def present(self, document: Document, key: SigningKey | None = None) -> Envelope:
        """Sign a document about an account, with `key` in place of our own if one is given, and hand it over; returns
        when it is durable. Raises `Refused`."""
        envelope = sign(document, key or self.key, self.link.root)
        await self.hand_over(envelope)
        return envelope

    async def hand_over(self, envelope: Envelope) -> None:
        """Hand over a document that is signed already; returns when it is durable. Raises `Refused`."""
        while True:
            await self._until_ready()
            answer = self._presenting.begin(envelope.digest)
            try:
                await self._connection.send_document(envelope)
                either: set[asyncio.Future[Any]] = {answer, self._running}
                await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            finally:
                self._presenting.end(envelope.digest)
            if answer.done() and answer.result():
                return

    async def quote(
        self, work: ImageWork | TextWork, *, models: Sequence[str] = (), n: int = 1, max_price: float = 0
    ) -> Quote:
        """What such a request would cost now, and how long it would wait. Asks for no work, and nothing is stored.

        work: see `peer.measures`. Raises `BadRequest`, and `Refused` where the request would be refused.
        """
        public = public_part(work, models, n, max_price)
        check_public(public)
        return await self._exchange(AskQuote(public=public), Quote)

    async def why(self, job: bytes | None = None) -> dict[str, int]:
        """Why a waiting job of ours waits: how many workers cannot take it, by reason. Without a job, why the worker of
        our key gets none: how many wait, by reason; raises `Refused` (`out_of_turn`) if no worker of it is here."""
        return dict((await self._exchange(AskWhy(job=job), Why)).reasons)

    async def saved(self, path: Path, sha256: bytes) -> None:
        """Remember that a result was saved as `path`, so that `verify` notices a change."""
        if self._evidence is not None:
            await asyncio.to_thread(self._evidence.saved, path, sha256)

    # Asking

    def _seed(self, seed: int | None, n: int) -> int:
        if seed is None:
            return self._random.randrange(MAX_SEED - max(n, 0) + 1)
        if not 0 <= seed <= MAX_SEED - n + 1:
            raise BadRequest(f"seed {seed}: wanted 0 to {MAX_SEED}, also for the last of {n} results")
        return seed

    def _ask(
        self, public: PublicPart, private: PrivatePart, user: str, enough: asyncio.Event | None = None
    ) -> AsyncGenerator[Event, None]:
        if not hasattr(self, "_desk"):
            raise RuntimeError("this client is not open: ask inside of `async with Client(link) as horde:`")
        # Made at once and not with the first event, so that a bad value is refused where it was given.
        named = self._pseudonym(user) if user else b""
        asking = Asking(public, private, self.key, self._desk, self._random, self._askings.finished, named)
        return self._events(asking, enough)

    def _pseudonym(self, user: str) -> bytes:
        if self._home is None:
            raise BadRequest("a user can be named only with a home, which keeps the key of pseudonyms")
        return pseudonym(self._home, user)

    async def _events(self, asking: Asking, enough: asyncio.Event | None) -> AsyncGenerator[Event, None]:
        self._askings.add(asking)
        stopping: asyncio.Task[None] | None = None
        try:
            if self._running.done():
                raise self._trouble()
            await asking.send()
            if enough is not None:
                stopping = self._spawn(asking.cancel_when(enough))
            async for event in asking.inbox.read():
                yield event
        finally:
            if stopping is not None:
                stopping.cancel()
            # Nothing to do if all of it has ended.
            if asking in self._askings:
                await asyncio.shield(self._spawn(asking.cancel()))

    async def _exchange(self, question: SessionMessage, answer: type[M]) -> M:
        """Ask the tracker something and wait for its answer, also across a lost connection."""
        while True:
            await self._until_ready()
            if (digest := await self._connection.say(question)) is None:
                continue
            with self._questions.asked(answer.KIND, digest) as future:
                await asyncio.wait({future, self._running}, return_when=asyncio.FIRST_COMPLETED)
            found: M | None = future.result() if future.done() else None
            if found is not None:
                return found

    # The connection's handler

    def holding(self) -> Sequence[Held]:
        """All requests and statements that have not ended."""
        return [*self._left_over.held(), *self._askings.held()]

    async def welcomed(self, welcome: Welcome) -> None:
        """Nothing to say before the holding."""

    async def reconciled(self, theirs: Sequence[Held]) -> None:
        """Send again what the tracker lacks."""
        if self._showing is not None and self._connection.delegation is not None:
            await self._showing.begin(self._connection, open_document(self._connection.delegation, Serving))
        requests = {held.job for held in theirs if held.kind == "request"}
        statements = {held.digest for held in theirs}
        for asking in self._askings:
            if asking.nonce not in requests and asking.cancelled is None:
                await asking.send()
            for statement in asking.statements():
                if statement.digest not in statements:
                    await self._connection.send_document(statement)
            if asking.nonce not in requests and asking.cancelled is not None and not asking.jobs:
                asking.fail(JobCancelled("cancelled", "cancelled before the horde had heard of it"))
        for _, statement in self._left_over.statements():
            if statement.digest not in statements:
                await self._connection.send_document(statement)

    async def received(self, message: SessionMessage) -> None:
        """Pass a message on to whom it concerns."""
        match message:
            case messages.Queued():
                self._askings.queued(message)
            case messages.Position() | messages.Requeued():
                self._askings.tell(message.job, message)
            case messages.Ended():
                await self._left_over.answered(message.job, b"", b"")
                self._askings.tell(message.job, message)
            case messages.Meet() | messages.Punch() | messages.Paths():
                self._askings.told(message)
            case messages.Refused():
                await self._refused(message)
            case Account() | Quote() | Why() | Delegations() | Acts() | Appeals():
                self._questions.answered(message)
            case messages.Taken():
                self._presenting.taken(message.documents)
                if self._showing is not None:
                    self._showing.taken(message.documents)
            case _:
                pass  # `taken` confirms what only a settlement ends; the rest is for workers

    async def received_document(self, envelope: Envelope) -> None:
        """Pass a document on to whom it concerns."""
        match envelope.kind:
            case Lease.KIND:
                lease = open_document(envelope, Lease)
                self._askings.tell(lease.job, LeaseCame(lease, envelope))
            case PeerRecord.KIND:
                self._learn(envelope)
            case Settlement.KIND:
                settlement = open_document(envelope, Settlement)
                if self._shown is not None:
                    await asyncio.to_thread(self._shown.of_settlement, envelope, self._clock())
                delegation = self._connection.delegation.raw if self._connection.delegation is not None else b""
                await self._left_over.answered(settlement.job, envelope.raw, delegation)
                self._askings.tell(settlement.job, SettlementCame(settlement, envelope))
            case "checkpoint" if self._shown is not None:
                await asyncio.to_thread(self._shown.came, envelope.raw, self._clock())
            case RulesDocument.KIND if self._home is not None:
                await asyncio.to_thread(self._home.keep_rules, self.link.root, envelope)
            case _:
                pass

    async def lost(self) -> None:
        """Questions are asked again; all else is said again by the holding."""
        self._questions.lost()
        self._presenting.lost()
        self._askings.stir()

    def _learn(self, envelope: Envelope) -> None:
        try:
            worker = worker_of(envelope, private_too=self.link.is_private)
        except BadRecord as error:
            log.warning("%s", error)
            return
        known = self._workers.pop(worker.key, None)
        self._workers[worker.key] = known if known and known.version > worker.version else worker
        if len(self._workers) > MAX_WORKERS:
            del self._workers[next(iter(self._workers))]

    async def _refused(self, refused: messages.Refused) -> None:
        if self._showing is not None and self._showing.refused(refused.about, refused.code):
            log.info("a settlement of before a restore was refused: %s: %s", refused.code, refused.text)
            return
        if self._presenting.refused(refused.about, refused.code, refused.text):
            return
        if self._askings.refused(refused):
            return
        if (stated := self._askings.stated(refused.about)) is not None:
            job, statement = stated
            if refused.code in PASSING:
                _ = self._spawn(self._send_later(statement))
            else:
                job.tell(StatementRefused(refused.code, refused.text))
            return
        if self._questions.refused(refused.about, refused.code, refused.text):
            return
        for unsettled, statement in self._left_over.statements():
            if statement.digest == refused.about and refused.code in PASSING:
                _ = self._spawn(self._send_later(statement))
            elif statement.digest == refused.about:
                await self._left_over.answered(unsettled.job, b"", b"")
        log.info("the tracker refused a message: %s: %s", refused.code, refused.text)

    async def _send_later(self, statement: Envelope) -> None:
        await asyncio.sleep(self._random.uniform(*AGAIN_SECONDS))
        await self._connection.send_document(statement)

    # Tasks

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _spawn_for_job(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = self._spawn(work)
        task.add_done_callback(self._fail_on_error)
        return task

    def _fail_on_error(self, task: asyncio.Task[None]) -> None:
        """A fault of ours, or a full disk, must not leave somebody waiting."""
        if not task.cancelled() and (error := task.exception()) is not None:
            self._askings.fail(error)

    def _line_ended(self, running: asyncio.Task[None]) -> None:
        """The connection is not made anew: whoever waits hears why."""
        if not running.cancelled():
            self._askings.fail(self._trouble())

    async def _until_ready(self) -> None:
        """Wait until the tracker has let us in; raises `Unreachable` or `Refused`."""
        ready = asyncio.create_task(self._connection.wait_ready())
        try:
            await asyncio.wait(
                {ready, self._running}, timeout=self._connect_seconds, return_when=asyncio.FIRST_COMPLETED
            )
            if not ready.done():
                raise self._trouble()
        finally:
            ready.cancel()

    def _trouble(self) -> BaseException:
        """Why there is no connection."""
        error = self._running.exception() if self._running.done() and not self._running.cancelled() else None
        if isinstance(error, CannotJoin):
            return Unreachable(str(error))
        if error is not None:
            return error
        why = self._connection.trouble or "no answer"
        return Unreachable(f"no tracker lets us in at {self.link.url}: {why}")

    async def _leave(self) -> None:
        """Cancel what is under way, and wait for what is being settled, as long as that is of use."""
        for asking in self._askings:
            await asking.cancel()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._leave_seconds):
                while self._askings and self._connection.is_ready:
                    await self._askings.changed()

    async def _stop(self) -> None:
        """End all tasks."""
        tasks = [self._running, *self._tasks]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._askings.close(Unreachable("the client was closed"))


def _system_random() -> random.Random:
    return random.SystemRandom()
