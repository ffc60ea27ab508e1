"""Session messages: what is said within one connection and means nothing outside it.

Documents travel between them, bare. Each direction has its own kinds; a kind of the other direction is unknown.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from msgspec import Meta

from protocol.codec import Body
from protocol.documents import MAX_NAME_CHARACTERS
from protocol.errors import MAX_TEXT_CHARACTERS
from protocol.work import (
    MAX_PRIVATE_BYTES,
    PSEUDONYM_BYTES,
    Digest,
    Handle,
    Key,
    Milliseconds,
    ModelName,
    Nonce,
    Pseudonym,
    PublicPart,
    Topic,
)

Code = Annotated[str, Meta(min_length=1, max_length=40)]
Sentence = Annotated[str, Meta(max_length=MAX_TEXT_CHARACTERS)]
Count = Annotated[int, Meta(ge=0)]

Port = Annotated[int, Meta(ge=1, le=65_535)]

#: A peer that volunteers relays at most so many streams at once.
MAX_RELAY_STREAMS = 1024
#: So many relays are named for one attempt.
MAX_TICKETS = 3
#: So often two peers try to meet at most.
MAX_TRIES = 10
MAX_HOLDING_ENTRIES = 256
#: Of an attempt that a worker declines for words that its owner does not serve: no fault, for nobody else sees them.
UNWANTED_WORDS = "unwanted_words"
MAX_GIVEN_ENTRIES = 16
#: Acts that are told of one account, and appeals that are told at once.
MAX_ACT_ENTRIES = 32
MAX_APPEAL_ENTRIES = 16
#: Accounts or services that a worker names in each of its lists.
MAX_NAMED = 256

ServiceName = Annotated[str, Meta(min_length=1, max_length=60)]


class SessionMessage(Body, frozen=True, kw_only=True):
    """A body that travels in a session envelope."""

    KIND: ClassVar[str]
    MAX_BYTES: ClassVar[int] = 16 * 1024


# Both directions


class Held(Body, frozen=True, kw_only=True):
    """One thing that a side holds: a document by kind, digest, job and attempt; for a lease also steps or tokens done.

    For a request, `job` is its nonce and `attempt` is 0.
    """

    kind: Code
    job: Handle
    attempt: Count = 0
    digest: Digest
    progress: Count = 0


class Holding(SessionMessage, frozen=True, kw_only=True):
    """What this side holds that is not ended: first thing after the welcome, in parts, the last one marked."""

    KIND = "holding"
    MAX_BYTES = 64 * 1024

    entries: Annotated[tuple[Held, ...], Meta(max_length=MAX_HOLDING_ENTRIES)]
    last: bool


# From peer to tracker


class Hello(SessionMessage, frozen=True, kw_only=True):
    """Who is there. session: the peer's own session id. software: name and version. rules: digest of the rules held."""

    KIND = "hello"
    MAX_BYTES = 4096

    session: Nonce
    software: Annotated[str, Meta(max_length=100)]
    rules: bytes = b""


class Register(SessionMessage, frozen=True, kw_only=True):
    """This key wants to be an account. Signed for this very session, it cannot be made for another tracker.

    invite: a code of the operator, where the rules want one; it serves once.
    """

    KIND = "register"

    invite: Annotated[str, Meta(max_length=60)] = ""


class Offer(Body, frozen=True, kw_only=True):
    """One model that a worker serves.

    kind, model: what is asked for. engine: engine class, which says where seeds repeat. max_pixels, max_steps
    (images); max_tokens, max_context (texts): the largest job taken; continues: whether the engine can continue a
    given text.
    """

    kind: Literal["image", "text"]
    model: ModelName
    engine: Annotated[str, Meta(min_length=1, max_length=300)]
    max_pixels: Count = 0
    max_steps: Count = 0
    max_tokens: Count = 0
    max_context: Count = 0
    continues: bool = False


class Announce(SessionMessage, frozen=True, kw_only=True):
    """A worker says what it serves; the newest announce counts whole.

    offers: none stops new leases. slots: jobs that it makes at once, 1 to 64. ahead: leases that it takes beyond
    that, 0 to 64. anonymous: serves anonymous people. min_free_rate: serves uncovered jobs only while at least so
    many thousandths of a free part are minted. paused: serves its own account alone. declines: topics that it does not
    serve. services: serves service accounts; not_services: but for these, by name. min_give_back: serves accounts of
    this class and above, and with 1 to 3 no anonymous people. not_accounts, friends: accounts that it does not serve,
    and those that it serves before others, by their pseudonyms at this worker. For its own only the offers count.
    """

    KIND = "announce"
    MAX_BYTES = 64 * 1024

    offers: Annotated[tuple[Offer, ...], Meta(max_length=256)]
    slots: Annotated[int, Meta(ge=1, le=64)] = 1
    ahead: Annotated[int, Meta(ge=0, le=64)] = 1
    anonymous: bool = True
    min_free_rate: Annotated[int, Meta(ge=0, le=1000)] = 0
    paused: bool = False
    declines: Annotated[tuple[Topic, ...], Meta(max_length=16)] = ()
    services: bool = True
    not_services: Annotated[tuple[ServiceName, ...], Meta(max_length=MAX_NAMED)] = ()
    min_give_back: Annotated[int, Meta(ge=0, le=3)] = 0
    not_accounts: Annotated[tuple[Pseudonym, ...], Meta(max_length=MAX_NAMED)] = ()
    friends: Annotated[tuple[Pseudonym, ...], Meta(max_length=MAX_NAMED)] = ()


class Private(SessionMessage, frozen=True, kw_only=True):
    """A private part on its one visit, before the request that names its digest. Only the filter's verdict stays."""

    KIND = "private"
    MAX_BYTES = MAX_PRIVATE_BYTES + 1024

    private: Annotated[bytes, Meta(max_length=MAX_PRIVATE_BYTES)]


class Progress(Body, frozen=True, kw_only=True):
    """What became of one lease at the worker.

    state: `accepted`; `declined` (with reason: costs nothing if it comes before acceptance); `opened` (the requester
    opened the stream; counts as acceptance); `failed` (with reason: the attempt has ended).
    """

    job: Handle
    attempt: Annotated[int, Meta(ge=1)]
    state: Literal["accepted", "declined", "opened", "failed"]
    reason: Annotated[str, Meta(max_length=40)] = ""
    text: Sentence = ""


class Report(SessionMessage, frozen=True, kw_only=True):
    """What became of leases at the worker, several in one message where they fall together."""

    KIND = "report"
    MAX_BYTES = 64 * 1024

    leases: Annotated[tuple[Progress, ...], Meta(min_length=1, max_length=256)]


class Unreachable(SessionMessage, frozen=True, kw_only=True):
    """The requester cannot reach the worker of this attempt. reason: a code; text: what was tried."""

    KIND = "unreachable"

    job: Handle
    attempt: Annotated[int, Meta(ge=1)]
    reason: Code
    text: Sentence = ""


class AskPaths(SessionMessage, frozen=True, kw_only=True):
    """A requester has no direct path to the worker of this attempt, or wants none: it needs help to meet it.

    relays_only: it does not want the worker to learn its address, so no punching. reason: a code, for the counts.
    """

    KIND = "ask_paths"

    job: Handle
    attempt: Annotated[int, Meta(ge=1)]
    relays_only: bool = False
    reason: Code


class OfferRelay(SessionMessage, frozen=True, kw_only=True):
    """A peer volunteers to relay for others, at the address that its connection comes from; the newest offer counts.

    port: where its relay listens. certificate: SHA-256 of the certificate in DER that answers there. max_rate: bytes a
    second of one stream, 0 for no bound of its own. streams: how many it relays at once; 0 ends the offer.
    """

    KIND = "offer_relay"

    port: Port
    certificate: Digest
    max_rate: Count = 0
    streams: Annotated[int, Meta(ge=0, le=MAX_RELAY_STREAMS)]


class Kept(SessionMessage, frozen=True, kw_only=True):
    """A peer shows a settlement by a former serving key whose entry a restore has cut, and what lies behind it.

    settlement, lease, receipt: envelopes. request: its envelope too, from the requester who signed it; a worker has
    none.
    """

    KIND = "kept"
    MAX_BYTES = 64 * 1024

    settlement: bytes
    lease: bytes
    receipt: bytes
    request: bytes = b""


class AskAccount(SessionMessage, frozen=True, kw_only=True):
    """How does my account stand? worker: also by which pseudonym does the worker of this key know it."""

    KIND = "ask_account"

    worker: Key | None = None


class AskDelegations(SessionMessage, frozen=True, kw_only=True):
    """Which keys act for my account?"""

    KIND = "ask_delegations"


class AskQuote(SessionMessage, frozen=True, kw_only=True):
    """What would such a request cost, and how long would it wait? Nothing is stored. public: as in a request."""

    KIND = "ask_quote"

    public: PublicPart


class AskWhy(SessionMessage, frozen=True, kw_only=True):
    """Why does nothing come? job: of a waiting job of this requester; without it, of this worker."""

    KIND = "ask_why"

    job: Handle | None = None


class AskActs(SessionMessage, frozen=True, kw_only=True):
    """Which acts of moderators concern my account?"""

    KIND = "ask_acts"


class AskAppeals(SessionMessage, frozen=True, kw_only=True):
    """A moderator asks for the appeals that nobody has answered."""

    KIND = "ask_appeals"


# From tracker to peer


class Welcome(SessionMessage, frozen=True, kw_only=True):
    """The peer is in. clock: the tracker's time. rules: digest of those in force. account: its number, 0 if none."""

    KIND = "welcome"

    clock: Milliseconds
    rules: Digest
    rules_version: Annotated[int, Meta(ge=1)]
    account: Count = 0


class Refused(SessionMessage, frozen=True, kw_only=True):
    """A message was refused. code: stable; text: for people. about: digest of what was refused. final: hangs up."""

    KIND = "refused"

    code: Code
    text: Sentence
    about: bytes = b""
    final: bool = False


class Queued(SessionMessage, frozen=True, kw_only=True):
    """A request was taken in. request: its digest. jobs: one handle for each result, in order. held: kudos held."""

    KIND = "queued"

    request: Digest
    jobs: tuple[Handle, ...]
    held: Count


class Position(SessionMessage, frozen=True, kw_only=True):
    """How many waiting jobs go before this one, and how many workers could serve it.

    wait: expected seconds until a worker takes it, from measured speeds; 0 if unknown.
    """

    KIND = "position"

    job: Handle
    ahead: Count
    workers: Count
    wait: Count = 0


class Taken(SessionMessage, frozen=True, kw_only=True):
    """These documents are durably stored. documents: their digests."""

    KIND = "taken"

    documents: Annotated[tuple[Digest, ...], Meta(min_length=1, max_length=256)]


class Withdrawn(SessionMessage, frozen=True, kw_only=True):
    """To a worker: this lease ended. reason: `cancelled` (a partial receipt within 10 s is paid), `settled`,
    `deadline`, `unreachable`, `not_opened`, `replaced`, `refunded`, `ended`."""

    KIND = "withdrawn"

    job: Handle
    attempt: Annotated[int, Meta(ge=1)]
    reason: Code
    text: Sentence = ""


class Requeued(SessionMessage, frozen=True, kw_only=True):
    """To a requester: this attempt ended without result and the job waits for another worker."""

    KIND = "requeued"

    job: Handle
    attempt: Annotated[int, Meta(ge=1)]
    reason: Code
    text: Sentence = ""


class Ended(SessionMessage, frozen=True, kw_only=True):
    """To a requester: a job ended without settlement. attempt: the last one, 0 if there was none. released: kudos
    that went back."""

    KIND = "ended"

    job: Handle
    attempt: Count = 0
    state: Literal["refunded", "cancelled", "expired", "failed"]
    reason: Annotated[str, Meta(max_length=40)] = ""
    text: Sentence = ""
    released: Count = 0


class Look(SessionMessage, frozen=True, kw_only=True):
    """To a peer that others may connect to: open `/meet` with this token by this version of IP, if you have it, so that
    the tracker sees and tests that address of yours too.

    token: serves once, for this peer. family: the version by which its connection does not come.
    """

    KIND = "look"

    token: Nonce
    family: Literal[4, 6]


class Reached(SessionMessage, frozen=True, kw_only=True):
    """Whether this peer was reached at an address that it comes from, and the port that it named; one for each address.

    address: `host:port` as it was tried, IPv6 hosts in brackets; empty if none could be. reason: a code, empty if it
    was reached.
    """

    KIND = "reached"

    address: Annotated[str, Meta(max_length=260)]
    reachable: bool
    reason: Annotated[str, Meta(max_length=40)] = ""
    text: Sentence = ""


class Meet(SessionMessage, frozen=True, kw_only=True):
    """The other side of this attempt is to be met by hole punching: open `/meet` with this token within its time.

    token: serves once, for this peer. tries: how many tries there will be at most. family: by which version of IP to
    come, so that both come by the same one; 0 for any.
    """

    KIND = "meet"

    job: Handle
    attempt: Annotated[int, Meta(ge=1)]
    token: Nonce
    tries: Annotated[int, Meta(ge=1, le=MAX_TRIES)]
    family: Literal[0, 4, 6] = 0


class Punch(SessionMessage, frozen=True, kw_only=True):
    """Connect to this address from the local port of the connection to `/meet`: the other side does the same now.

    number: which try this is, from 1. address: `host:port`, as the tracker sees the other side. delay: milliseconds to
    wait after reading this, so that both start together.
    """

    KIND = "punch"

    job: Handle
    attempt: Annotated[int, Meta(ge=1)]
    number: Annotated[int, Meta(ge=1, le=MAX_TRIES)]
    address: Annotated[str, Meta(min_length=3, max_length=260)]
    delay: Annotated[int, Meta(ge=0, le=10_000)] = 0


class Paths(SessionMessage, frozen=True, kw_only=True):
    """To both sides of an attempt: the relays at which they can meet.

    tickets: envelopes, best first. reason: a code that says why there is none; empty if there are.
    """

    KIND = "paths"

    job: Handle
    attempt: Annotated[int, Meta(ge=1)]
    tickets: Annotated[tuple[bytes, ...], Meta(max_length=MAX_TICKETS)] = ()
    reason: Annotated[str, Meta(max_length=40)] = ""


class Account(SessionMessage, frozen=True, kw_only=True):
    """An account as its owner sees it: kudos in thousandths; `number` 0 for a key without one.

    balance: what can be spent. held: for jobs under way. earned, spent, taken_free: since the beginning, where spent
    counts price and tax, and taken_free the part of prices that others carried. notice: what everybody should know.
    name: without the number behind it; empty if none was chosen. public, service: as in its profile. withheld: earned,
    and not to be spent until the account is trusted. trust_jobs, trust_days: what is missing to that. faults: those
    within the rules' days, which have to pass first. pseudonym: where a worker was named, by which it knows
    the account.
    """

    KIND = "account"

    number: Count
    balance: int = 0
    held: Count = 0
    earned: Count = 0
    spent: Count = 0
    taken_free: Count = 0
    jobs_done: Count = 0
    jobs_received: Count = 0
    notice: Sentence = ""
    name: Annotated[str, Meta(max_length=MAX_NAME_CHARACTERS)] = ""
    public: bool = False
    service: bool = False
    withheld: Count = 0
    trust_jobs: Count = 0
    trust_days: Count = 0
    faults: Count = 0
    pseudonym: Annotated[bytes, Meta(max_length=PSEUDONYM_BYTES)] = b""


class Given(Body, frozen=True, kw_only=True):
    """One delegation that stands. delegation: its envelope. used: thousandths held or spent through it."""

    delegation: bytes
    used: Count = 0


class Delegations(SessionMessage, frozen=True, kw_only=True):
    """The delegations of the account that stand, the oldest first, in parts; the last one is marked."""

    KIND = "delegations"
    MAX_BYTES = 300 * 1024

    entries: Annotated[tuple[Given, ...], Meta(max_length=MAX_GIVEN_ENTRIES)]
    last: bool


class Quote(SessionMessage, frozen=True, kw_only=True):
    """What a request would cost now; a promise of nothing. Kudos are thousandths.

    price, tax: of one job, by the dearest model that can serve it within `max_price`. held, free: of all n jobs, what
    would be set aside and what of the prices would not be covered. workers: that could serve it now. ahead: waiting
    jobs that would go before the first. wait: expected seconds until a worker takes the first, 0 if unknown.
    """

    KIND = "quote"

    price: Count
    tax: Count
    held: Count
    free: Count
    workers: Count
    ahead: Count
    wait: Count = 0


class ActEntry(Body, frozen=True, kw_only=True):
    """One act of the public log. number: its place there. act: its envelope. state: `proposed` waits for a second
    signature and has no effect; `over` has none any more. appeals: the receiver's own that nobody has answered."""

    number: Annotated[int, Meta(ge=1)]
    act: bytes
    state: Literal["proposed", "stands", "over"]
    appeals: Count = 0


class Acts(SessionMessage, frozen=True, kw_only=True):
    """Acts of moderators that concern this account, the newest first; unasked whenever one comes or changes."""

    KIND = "acts"
    MAX_BYTES = 256 * 1024

    entries: Annotated[tuple[ActEntry, ...], Meta(max_length=MAX_ACT_ENTRIES)]


class AppealEntry(Body, frozen=True, kw_only=True):
    """One appeal. account: whose. appeal: its envelope. entry: the act that it is about."""

    account: Count
    appeal: bytes
    entry: ActEntry


class Appeals(SessionMessage, frozen=True, kw_only=True):
    """To a moderator: the appeals that nobody has answered, the oldest first; as many as fit. more: how many do not."""

    KIND = "appeals"
    MAX_BYTES = 512 * 1024

    entries: Annotated[tuple[AppealEntry, ...], Meta(max_length=MAX_APPEAL_ENTRIES)]
    more: Count = 0


class Why(SessionMessage, frozen=True, kw_only=True):
    """Counts by reason why nothing comes: for a worker of waiting jobs, for a job of workers. job: as asked."""

    KIND = "why"

    job: Handle | None = None
    reasons: tuple[tuple[Code, Count], ...]


FROM_PEER: dict[str, type[SessionMessage]] = {
    kind.KIND: kind
    for kind in (
        Hello,
        Holding,
        Register,
        Announce,
        Private,
        Report,
        Unreachable,
        AskPaths,
        OfferRelay,
        Kept,
        AskAccount,
        AskDelegations,
        AskQuote,
        AskWhy,
        AskActs,
        AskAppeals,
    )
}
FROM_TRACKER: dict[str, type[SessionMessage]] = {
    kind.KIND: kind
    for kind in (
        Welcome,
        Holding,
        Refused,
        Queued,
        Position,
        Taken,
        Withdrawn,
        Requeued,
        Ended,
        Look,
        Reached,
        Meet,
        Punch,
        Paths,
        Account,
        Delegations,
        Quote,
        Why,
        Acts,
        Appeals,
    )
}

#: Documents that a peer may send to the tracker, and the tracker to a peer.
DOCUMENTS_FROM_PEER = frozenset(
    {
        "request",
        "cancel",
        "peer_record",
        "receipt",
        "acknowledgement",
        "denial",
        "profile",
        "delegation",
        "revocation",
        "recovery",
        "rotation",
        "leaving",
        "transfer",
        "award",
        "act",
        "appeal",
        "proposal",
        "vote",
        "answer",
    }
)
DOCUMENTS_FROM_TRACKER = frozenset({"rules", "lease", "peer_record", "settlement", "checkpoint"})
