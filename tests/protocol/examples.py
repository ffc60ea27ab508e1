"""An example of every body: once with as little as is allowed, once with every field away from its default."""

from __future__ import annotations

from collections.abc import Mapping

from protocol import messages as m
from protocol.documents import Asker, Award, Document, Evidence, Former, Leaf, Serving, Shown
from protocol.postings import settle
from protocol.work import ChatMessage, ImagePrivate, ImageWork, PublicPart, TextPrivate, TextWork
from tests.support import builders as b

LEAST_MESSAGES: tuple[m.SessionMessage, ...] = (
    m.Hello(session=b.a_nonce(4), software=""),
    m.Welcome(clock=b.NOW, rules=b.a_digest("rules"), rules_version=1),
    m.Holding(entries=(), last=True),
    m.Register(),
    m.Announce(offers=()),
    m.Private(private=b""),
    m.Report(leases=(m.Progress(job=b.a_handle(), attempt=1, state="accepted"),)),
    m.Unreachable(job=b.a_handle(), attempt=1, reason="timeout"),
    m.AskPaths(job=b.a_handle(), attempt=1, reason="timeout"),
    m.OfferRelay(port=8443, certificate=b.a_digest("certificate"), streams=0),
    m.Kept(settlement=b"", lease=b"", receipt=b""),
    m.AskAccount(),
    m.AskDelegations(),
    m.AskQuote(public=PublicPart(work=ImageWork())),
    m.AskWhy(),
    m.Refused(code="busy", text=""),
    m.Queued(request=b.a_digest("request"), jobs=(), held=0),
    m.Position(job=b.a_handle(), ahead=0, workers=0),
    m.Taken(documents=(b.a_digest("receipt"),)),
    m.Withdrawn(job=b.a_handle(), attempt=1, reason="deadline"),
    m.Requeued(job=b.a_handle(), attempt=1, reason="worker_gone"),
    m.Ended(job=b.a_handle(), state="expired"),
    m.Look(token=b.a_nonce(22), family=4),
    m.Reached(address="", reachable=False),
    m.Meet(job=b.a_handle(), attempt=1, token=b.a_nonce(21), tries=1),
    m.Punch(job=b.a_handle(), attempt=1, number=1, address="192.0.2.7:50123"),
    m.Paths(job=b.a_handle(), attempt=1),
    m.Account(number=0),
    m.Delegations(entries=(), last=True),
    m.Quote(price=0, tax=0, held=0, free=0, workers=0, ahead=0),
    m.Why(reasons=()),
    m.AskActs(),
    m.AskAppeals(),
    m.Acts(entries=()),
    m.Appeals(entries=()),
)

A_TICKET = b.a_relay_ticket(
    relay=b.a_key(12), url="wss://192.0.2.9:7346", also="wss://[2001:db8::9]:7346", certificate=b.a_digest("relay")
)

FULL_MESSAGES: tuple[m.SessionMessage, ...] = (
    m.Hello(session=b.a_nonce(4), software="potluck 0.1.0", rules=b.a_digest("rules")),
    m.Welcome(clock=b.NOW, rules=b.a_digest("rules"), rules_version=3, account=101),
    m.Holding(
        entries=(
            m.Held(kind="lease", job=b.a_handle(), attempt=2, digest=b.a_digest("lease"), progress=12),
            m.Held(kind="request", job=b.a_nonce(2), digest=b.a_digest("request")),
        ),
        last=False,
    ),
    m.Register(invite="a3f5k2m7p9q4"),
    m.Announce(
        offers=(
            m.Offer(
                kind="image",
                model=b.IMAGE_MODEL,
                engine="diffusers 0.42; torch 2.13; cpu",
                max_pixels=65_536,
                max_steps=50,
            ),
            m.Offer(
                kind="text",
                model=b.TEXT_MODEL,
                engine="xllamacpp; cpu",
                max_tokens=512,
                max_context=4096,
                continues=True,
            ),
        ),
        slots=2,
        ahead=0,
        anonymous=False,
        min_free_rate=250,
        paused=True,
        declines=("adult", "hate"),
        services=False,
        not_services=("a service#105",),
        min_give_back=1,
        not_accounts=(b.a_nonce(20),),
        friends=(b.a_nonce(21), b.a_nonce(22)),
    ),
    m.Private(private=b"\x80"),
    m.Report(
        leases=(
            m.Progress(job=b.a_handle(), attempt=1, state="opened"),
            m.Progress(job=b.a_handle(1), attempt=2, state="declined", reason="not_offered", text="no such model here"),
        )
    ),
    m.Unreachable(job=b.a_handle(), attempt=1, reason="timeout", text="127.0.0.1:8443: no answer"),
    m.AskPaths(job=b.a_handle(), attempt=1, relays_only=True, reason="relays_only"),
    m.OfferRelay(port=8443, certificate=b.a_digest("certificate"), max_rate=1_000_000, streams=16),
    m.Kept(
        settlement=b.signed(b.a_settlement()).raw,
        lease=b.signed(b.a_lease()).raw,
        receipt=b.signed(b.a_receipt()).raw,
        request=b.signed(b.a_request()).raw,
    ),
    m.AskAccount(worker=b.WORKER.public),
    m.AskDelegations(),
    m.AskQuote(public=PublicPart(work=b.a_text_work(), models=(b.TEXT_MODEL,), n=2, share=True, max_price=9_000)),
    m.AskWhy(job=b.a_handle()),
    m.Refused(code="late", text="valid until 1, and it is 2", about=b.a_digest("request"), final=True),
    m.Queued(request=b.a_digest("request"), jobs=(b.a_handle(), b.a_handle(1)), held=10_600),
    m.Position(job=b.a_handle(), ahead=3, workers=2, wait=90),
    m.Taken(documents=(b.a_digest("receipt"), b.a_digest("denial"))),
    m.Withdrawn(job=b.a_handle(), attempt=1, reason="cancelled", text="the requester wants it no more"),
    m.Requeued(job=b.a_handle(), attempt=1, reason="worker_gone", text="its connection is lost"),
    m.Ended(job=b.a_handle(), attempt=3, state="failed", reason="attempts", text="three failed", released=10_600),
    m.Look(token=b.a_nonce(22), family=6),
    m.Reached(address="192.0.2.7:8443", reachable=False, reason="timeout", text="no answer within 5 s"),
    m.Meet(job=b.a_handle(), attempt=1, token=b.a_nonce(21), tries=3, family=6),
    m.Punch(job=b.a_handle(), attempt=1, number=2, address="[2001:db8::7]:50123", delay=35),
    m.Paths(
        job=b.a_handle(),
        attempt=1,
        tickets=(b.signed(A_TICKET).raw, b.signed(b.a_relay_ticket()).raw),
        reason="relay_full",
    ),
    m.Account(
        number=101,
        balance=-5,
        held=10_600,
        earned=7_600,
        spent=21_200,
        taken_free=100,
        jobs_done=1,
        jobs_received=2,
        notice="The horde can always be used for free.",
        name="Ada Løve",
        public=True,
        service=True,
        withheld=3_800,
        trust_jobs=19,
        trust_days=3,
        faults=1,
        pseudonym=b.a_nonce(20),
    ),
    m.Delegations(
        entries=(m.Given(delegation=b.signed(b.a_delegation_to(ask=True)).raw, used=4_000), m.Given(delegation=b"")),
        last=False,
    ),
    m.Quote(price=5_370, tax=1_000, held=6_370, free=5_370, workers=2, ahead=3, wait=90),
    m.Why(job=b.a_handle(), reasons=(("no_such_model", 3), ("too_large", 1))),
    m.AskActs(),
    m.AskAppeals(),
    m.Acts(entries=(m.ActEntry(number=3, act=b.signed(b.an_act()).raw, state="stands", appeals=1),)),
    m.Appeals(
        entries=(
            m.AppealEntry(
                account=100,
                appeal=b.signed(b.an_appeal()).raw,
                entry=m.ActEntry(number=3, act=b.signed(b.an_act()).raw, state="proposed"),
            ),
        ),
        more=2,
    ),
)

LEAST_DOCUMENTS: tuple[Document, ...] = (
    b.a_delegation().open(Serving),
    b.a_word_for(b.a_digest("certificate")).open(Shown),
    b.an_epoch(),
    b.a_request(),
    b.a_cancel(),
    b.a_lease(),
    b.a_peer_record(addresses=()),
    b.an_opening(),
    b.a_receipt(),
    b.an_acknowledgement(),
    b.a_denial(),
    b.a_settlement(),
    b.a_checkpoint(),
    b.a_balances(),
    b.a_rules_document(),
    b.a_profile(),
    b.a_delegation_to(),
    b.a_revocation(),
    b.a_recovery(),
    b.a_rotation(),
    b.a_leaving(),
    b.a_transfer(),
    b.an_award(),
    b.a_relay_ticket(),
    b.a_relay_entry(),
    b.a_reach_proof(),
    b.an_act(),
    b.an_appeal(),
    b.a_proposal(),
    b.a_vote(),
    b.an_outcome(),
    b.an_answer(),
)

TEXT_REQUEST = b.but(
    b.a_request(
        PublicPart(
            work=b.a_text_work(), models=(b.TEXT_MODEL, "another"), n=3, share=True, flags=("adult",), max_price=9_000
        )
    ),
    user=b.a_nonce(5),
)
TEXT_LEASE = b.but(
    b.a_lease(
        TEXT_REQUEST,
        attempt=2,
        index=1,
        asker=Asker(anonymous=True, service="a service#105", give_back=2, own=True, pseudonym=b.a_nonce(20)),
        price=5_370,
        paid=1_000,
    ),
    owners=2,
    labels=("adult", "violence"),
)

FULL_DOCUMENTS: tuple[Document, ...] = (
    b.but(
        b.a_delegation(version=2, expires=b.NOW + 365 * b.DAY).open(Serving),
        epoch=1,
        former=(Former(key=b.a_key(9).public, entries=7),),
    ),
    b.a_word_for(b.a_digest("another certificate")).open(Shown),
    b.an_epoch(2, size=7, root=b.a_digest("root")),
    TEXT_REQUEST,
    b.a_cancel(job=b.a_handle()),
    TEXT_LEASE,
    b.a_peer_record(addresses=("192.0.2.7:8443", "[2001:db8::7]:8443"), version=4),
    b.an_opening(b.signed(TEXT_LEASE)),
    b.a_receipt(TEXT_LEASE, used=12, partial=True),
    b.an_acknowledgement(b.signed(b.a_receipt(TEXT_LEASE))),
    b.a_denial(b.signed(b.a_receipt(TEXT_LEASE)), TEXT_LEASE),
    b.but(b.a_settlement(TEXT_LEASE), withheld=2_685, partial=True),
    b.a_checkpoint(size=2, root=b.a_digest("root"), epoch=1),
    b.but(b.a_balances(2, 7, 12, b.a_digest("the one before")), epoch=1),
    b.a_rules_document(version=2, previous=b.a_digest("rules")),
    b.a_profile("空 of the 123456789 characters", version=2, public=True, service=True),
    b.a_delegation_to(
        expires=b.NOW + 30 * b.DAY,
        work=True,
        ask=True,
        kudos=50_000,
        max_pixels=262_144,
        max_steps=30,
        max_tokens=256,
        max_context=4096,
        models=(b.IMAGE_MODEL, b.TEXT_MODEL),
        label="the machine in the attic",
    ),
    b.a_revocation(b.a_digest("another delegation")),
    b.a_recovery(version=2),
    b.a_rotation(key=b.a_key(11)),
    b.a_leaving(),
    b.a_transfer(to=2**31, amount=10**12),
    Award(nonce=b.a_nonce(6), valid_until=b.NOW + b.HOUR, account=100, amount=10**12, reason="x" * 200),
    A_TICKET,
    b.a_relay_entry(b.signed(A_TICKET)),
    b.a_reach_proof(),
    b.an_act("limit", open_jobs=2, until=b.NOW + b.DAY),
    b.an_act("pause", worker=b.a_digest("a worker"), until=b.NOW + b.DAY),
    b.an_act("return", amount=5_000, to=101),
    b.an_act("block", block="2001:db8::/40", until=b.NOW + b.DAY),
    b.an_act("agree", about=b.a_digest("an act")),
    b.an_appeal(text="x" * 2000),
    b.a_proposal(key='models."a name".price', value="500"),
    b.a_vote(yes=False, version=2),
    b.an_outcome(accepted=False),
    b.an_answer(rules=7),
)

WORKS = {
    "image, least": ImageWork(),
    "image, full": ImageWork(width=1024, height=768, steps=12, guidance_passes=1, extras=("upscale",)),
    "text, least": TextWork(),
    "text, full": TextWork(max_tokens=74, context_tokens=4096),
}

PRIVATE_PARTS: Mapping[str, ImagePrivate | TextPrivate] = {
    "image, least": ImagePrivate(prompt="", salt=b.a_salt(1)),
    "image, full": ImagePrivate(
        prompt="a small red circle on blue",
        negative_prompt="green",
        seed=2**53 - 1,
        guidance=1_000,
        sampler="ddim",
        salt=b.a_salt(1),
    ),
    "text, raw prompt": TextPrivate(prompt="Once upon a time", salt=b.a_salt(1)),
    "text, full": TextPrivate(
        messages=(
            ChatMessage(role="system", content="Be brief."),
            ChatMessage(role="user", content="Why is the sky blue? 空はなぜ青い?"),
            ChatMessage(role="assistant", content="Because"),
        ),
        stop=("\n\n", "User:"),
        seed=1,
        temperature=0,
        top_p=1_000,
        top_k=0,
        min_p=0,
        repeat_penalty=1_100,
        salt=b.a_salt(1),
    ),
}

LEAF = Leaf(
    event="settle",
    day=b.NOW // b.DAY,
    postings=settle(101, paid=1_000, minted=4_370, burned=0),
    hold=b.a_digest("hold"),
    evidence=b.a_digest("evidence"),
)
EVIDENCE = Evidence(
    time=b.NOW,
    rules=1,
    salt=b.a_salt(3),
    job=b.a_handle(),
    attempt=1,
    received=b.NOW,
    documents=(b.a_digest("lease"), b.a_digest("receipt"), b.a_digest("acknowledgement")),
)
