"""A request becomes jobs with a hold each, and a job becomes the lease of a worker."""

from __future__ import annotations

import secrets
import sqlite3
from collections.abc import Sequence
from itertools import zip_longest

import msgspec

from protocol import codec, documents, postings, prices
from protocol.documents import Asker, Lease, Request
from protocol.envelope import Envelope
from protocol.errors import NotAllowed, WrongSigner
from protocol.postings import ANONYMOUS
from protocol.rules import MintSection
from protocol.work import ImageWork
from tracker.accounts import NOBODY, Acting, available, check_ask, check_user
from tracker.ledger import day_of
from tracker.lifecycle import NO_FACTS, Attempt, Facts, Job, Stage, State
from tracker.pricing import price
from tracker.store.base import Admitted, Choice, Leased, RulesInForce
from tracker.store.sqlite import papers
from tracker.store.sqlite.ledger import new_evidence
from tracker.store.sqlite.mint import Between
from tracker.store.sqlite.papers import job_identity
from tracker.store.sqlite.tables import Tables
from tracker.values import replace


def admit(
    connection: sqlite3.Connection,
    tables: Tables,
    envelope: Envelope,
    request: Request,
    *,
    payer: int,
    origin: str,
    choices: Sequence[Choice | None],
    models: Sequence[str],
    rules: RulesInForce,
    now: int,
    room: int | None = None,
    facts: Facts = NO_FACTS,
) -> Admitted:
    """A request that is new: its jobs, each with its hold, those with a choice leased at once."""
    acting = _check_asker(connection, tables, envelope, request, payer, now)
    _insert_request(connection, envelope, request, payer, origin, acting, facts)
    jobs: list[Job] = []
    leases: dict[int, Leased] = {}
    held = 0
    for number, choice in zip_longest(range(request.public.n), choices):
        job = _new_job(connection, tables, envelope, request, number, payer, origin, acting, facts, models, rules, now)
        held += job.held
        if choice is not None and not may_serve(connection, tables, choice, now):
            choice = None
        counts = choice is not None and job.carried and choice.owner != payer
        if choice is None or (counts and room == 0):
            tables.live.add_job(connection, job)
        else:
            leases[number] = lease(connection, tables, job, choice, rules, now, is_new=True)
            job = leases[number].job
            room = room - 1 if counts and room is not None else room
        jobs.append(job)
    return Admitted(jobs, held, leases)


def _check_asker(
    connection: sqlite3.Connection, tables: Tables, envelope: Envelope, request: Request, payer: int, now: int
) -> Acting:
    """By what right the signer asks for the payer; refused if it has none, or goes beyond it."""
    if payer == ANONYMOUS:
        check_user(request.user, is_service=False)
        return NOBODY
    acting = tables.people.acting(connection, envelope.key, now)
    if acting.account != payer:
        raise NotAllowed(f"this key acts for account {payer} no more: ask again, as whom it acts for now")
    check_ask(acting, request.public)
    if request.user:
        check_user(request.user, is_service=tables.people.face(connection, payer).service)
    return acting


def may_serve(connection: sqlite3.Connection, tables: Tables, choice: Choice, now: int) -> bool:
    """Whether the worker still works for the owner for whom it was chosen."""
    acting = tables.people.acting(connection, choice.worker, now)
    return acting.account == choice.owner and (acting.grant is None or acting.grant.terms.work)


def _insert_request(
    connection: sqlite3.Connection,
    envelope: Envelope,
    request: Request,
    payer: int,
    origin: str,
    acting: Acting,
    facts: Facts,
) -> None:
    try:
        connection.execute(
            "INSERT INTO requests (request, signer, nonce, job_key, payer, origin, public, private_digest, delegation,"
            " user, labels, service, give_back) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                envelope.digest,
                envelope.key,
                request.nonce,
                request.job_key,
                payer,
                origin,
                codec.encode(request.public),
                request.private_digest,
                acting.grant.digest if acting.grant else b"",
                request.user,
                " ".join(facts.labels),
                facts.service,
                facts.give_back,
            ),
        )
    except sqlite3.IntegrityError as error:
        raise WrongSigner("the job key of this request was used before: make a fresh one for each") from error


def _new_job(
    connection: sqlite3.Connection,
    tables: Tables,
    envelope: Envelope,
    request: Request,
    number: int,
    payer: int,
    origin: str,
    acting: Acting,
    facts: Facts,
    models: Sequence[str],
    rules: RulesInForce,
    now: int,
) -> Job:
    """One job, its hold entered: what the dearest model would cost, as far as the balance goes, and the delegation."""
    state = tables.accounts.state_of(connection, payer, now, rules.rules)
    dearest = max(price(rules.rules, request.public.work, model) for model in models)
    delegation = acting.grant.digest if acting.grant else b""
    used = tables.people.used(connection, delegation) if delegation else 0
    balance = 0 if payer == ANONYMOUS else available(acting, state.balance, used)
    share = postings.share(dearest, prices.tax(rules.rules, request.public.share), balance)
    held = share.held
    job = Job(
        handle=secrets.token_bytes(16),
        request=envelope.digest,
        number=number,
        public=request.public,
        private_digest=request.private_digest,
        job_key=request.job_key,
        signer=envelope.key,
        payer=payer,
        origin=origin,
        state=State.WAITING,
        attempt=0,
        failed=0,
        held=held,
        score=0 if payer == ANONYMOUS else balance - held - state.free_now,
        anonymous=payer == ANONYMOUS,
        admitted=now,
        changed=now,
        carried=share.free > 0,
        delegation=delegation,
        user=request.user,
        facts=facts,
    )
    tables.accounts.begin(connection, payer)
    if held:
        evidence = new_evidence(now, rules.version, job.handle, 0, (envelope.digest,))
        tables.ledger.append(connection, "hold", postings.hold(payer, held), evidence)
        tables.accounts.hold(connection, payer, held)
        tables.people.use(connection, delegation, held)
    return job


def lease(
    connection: sqlite3.Connection,
    tables: Tables,
    job: Job,
    choice: Choice,
    rules: RulesInForce,
    now: int,
    *,
    is_new: bool = False,
) -> Leased:
    """The next attempt: terms fixed, minted part set aside, lease signed and kept. is_new: the job is not written
    yet."""
    own = job.payer == choice.owner
    cost = 0 if own else price(rules.rules, job.work, choice.model)
    share = postings.share(cost, 0 if own else prices.tax(rules.rules, job.public.share), job.held)
    free = _minted(connection, tables, job, choice, share.free, rules.rules.mint, now)
    tables.mint.reserve(connection, day_of(now), free, Between(choice.owner, job.origin))
    waited = job.waited + now - job.changed
    job = replace(job, state=State.LEASED, attempt=job.attempt + 1, changed=now, waited=waited)
    said = _lease_of(connection, tables, job, choice, rules, now, price=cost, paid=share.paid, free=free)
    envelope = documents.sign(said, tables.key, tables.root)
    attempt = Attempt(
        attempt=job.attempt,
        worker=choice.worker,
        owner=choice.owner,
        model=choice.model,
        lease=envelope.digest,
        stage=Stage.PUSHED,
        issued=now,
        deadline=said.deadline,
        rules=rules.version,
        price=cost,
        paid=share.paid,
        free=free,
        uncovered=share.free,
        tax=share.tax_paid,
        reserved=free,
    )
    (tables.live.add_job if is_new else tables.live.write_job)(connection, job)
    tables.live.add_attempt(connection, job.handle, attempt)
    tables.accounts.begin(connection, choice.owner)
    papers.take(connection, envelope, job_identity(job.handle, job.attempt))
    return Leased(job, attempt, envelope.raw, tables.mint.used(connection, now))


def _minted(
    connection: sqlite3.Connection, tables: Tables, job: Job, choice: Choice, free: int, mint: MintSection, now: int
) -> int:
    """What of a free part is minted: nothing where too few owners could have served it, and to nobody most of it."""
    if not free or choice.owners < mint.owners:
        return 0
    within = tables.mint.within(connection, mint, now, Between(choice.owner, job.origin))
    return postings.minted(mint.steps, mint.daily, tables.mint.used(connection, now), free, within)


def _lease_of(
    connection: sqlite3.Connection,
    tables: Tables,
    job: Job,
    choice: Choice,
    rules: RulesInForce,
    now: int,
    *,
    price: int,
    paid: int,
    free: int,
) -> Lease:
    """What the lease says: one job's public part, and of its asker what the tracker vouches for."""
    times = rules.rules.times
    seconds = times.image_lease if isinstance(job.work, ImageWork) else times.text_lease
    return Lease(
        job=job.handle,
        attempt=job.attempt,
        worker=choice.worker,
        model=choice.model,
        public=msgspec.structs.replace(job.public, models=(choice.model,), n=1),
        index=job.number,
        private_digest=job.private_digest,
        job_key=job.job_key,
        asker=Asker(
            anonymous=job.anonymous,
            service=job.facts.service,
            give_back=job.facts.give_back,
            own=job.payer == choice.owner,
            pseudonym=b"" if job.anonymous else tables.pseudonyms.of(choice.worker, job.payer),
        ),
        issued=now,
        deadline=now + seconds * 1000,
        rules=rules.version,
        price=price,
        paid=paid,
        free=free,
        owners=choice.owners,
        labels=job.facts.labels,
    )
