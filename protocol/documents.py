"""Documents: the signed statements that are evidence, stored before they are first sent, re-sent byte for byte.

Who signs what: the root key `serving`, `epoch`; the serving key `shown`, `lease`, `settlement`, `checkpoint`,
`balances`, `rules`, `award`, `relay_ticket`; the requester's key `request`; its job key `cancel`, `opening`,
`acknowledgement`, `denial`; the worker's key `peer_record`, `receipt`; job key or worker's key `relay_entry`; the key
of any peer that is tested `reach_proof`; an account's key `profile`, `delegation`, `revocation`, `recovery`,
`leaving`, `transfer`, and `rotation`, which its recovery key may sign too. `job` is always the random 16-byte handle.
Times are milliseconds since 1970 (UTC), kudos are thousandths.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, ClassVar, TypeVar

from msgspec import Meta

from protocol import codec
from protocol.codec import Body
from protocol.envelope import Envelope, parse, seal
from protocol.errors import Late, TooFarAhead, UnknownKind
from protocol.keys import SigningKey
from protocol.work import (
    MAX_MODELS,
    PSEUDONYM_BYTES,
    Digest,
    Handle,
    Key,
    Milliseconds,
    ModelName,
    Nonce,
    PublicPart,
    Salt,
    Thousandths,
    Topic,
)

#: `valid_until` lies at most so far ahead.
MAX_VALIDITY_MS = 3_600_000

#: Former serving keys that a delegation can name; with all of them it still fits into a challenge.
MAX_FORMER = 32

#: A transfer or an award moves at most a thousand million kudos, so that sums of many stay within 64 bits.
MAX_AMOUNT = 10**12

MAX_NAME_CHARACTERS = 30
MAX_URL_CHARACTERS = 300
DIGEST_BYTES = 32
#: Random bytes that a relay sends first, and those of a test of reachability.
RELAY_CHALLENGE_BYTES = 16
REACH_CHALLENGE_BYTES = 32

EngineClass = Annotated[str, Meta(min_length=1, max_length=300)]
Reason = Annotated[str, Meta(min_length=1, max_length=40)]
Count = Annotated[int, Meta(ge=0)]
Attempt = Annotated[int, Meta(ge=1)]
Amount = Annotated[int, Meta(ge=1, le=MAX_AMOUNT)]


class Document(Body, frozen=True, kw_only=True):
    """A body that travels in a document envelope."""

    KIND: ClassVar[str]
    MAX_BYTES: ClassVar[int] = 4096


class Former(Body, frozen=True, kw_only=True):
    """A key that served before, and how much of what it entered is still in the ledger.

    entries: those numbered below this are there as that key signed for them; from this one on a restore cut them.
    """

    key: Key
    entries: Count


class Serving(Document, frozen=True, kw_only=True):
    """The root key's delegation to the serving key.

    serving: the key that signs for the horde. version: higher replaces. expires: milliseconds, 0 for never. epoch:
    how often the ledger was restored. former: keys that served before; documents that they signed still count.
    """

    KIND = "serving"

    serving: Key
    version: Annotated[int, Meta(ge=1)]
    expires: Milliseconds = 0
    epoch: Count = 0
    former: Annotated[tuple[Former, ...], Meta(max_length=MAX_FORMER)] = ()


class Shown(Document, frozen=True, kw_only=True):
    """The serving key's word that the tracker shows this TLS certificate, for which no authority vouches.

    digest: SHA-256 of the certificate in DER. It stands in the challenge, and the link names the same digest.
    """

    KIND = "shown"

    digest: Digest


class Epoch(Document, frozen=True, kw_only=True):
    """The root key's word that the ledger was restored from a copy, and from where it goes on.

    number: as in every checkpoint from here on. size, root: of the tree of the copy. former: the key that served when
    the copy was made; the one that the newest delegation names serves now. time: milliseconds.
    """

    KIND = "epoch"

    number: Annotated[int, Meta(ge=1)]
    size: Count
    root: Digest
    former: Key
    time: Milliseconds


class Request(Document, frozen=True, kw_only=True):
    """A requester asks for n results.

    nonce: 16 random bytes; with the signer it is the request's identity. valid_until: the last moment at which the
    tracker takes it in, at most an hour ahead. public: the public part. private_digest: of the private part. job_key:
    a fresh public key that signs opening, acknowledgement, denial and cancel of all n jobs. user: from a service
    account, 16 bytes that stand for one of its users and say nothing about who that is; else empty.
    """

    KIND = "request"
    MAX_BYTES = 16 * 1024

    nonce: Nonce
    valid_until: Milliseconds
    public: PublicPart
    private_digest: Digest
    job_key: Key
    user: bytes = b""

    def __post_init__(self) -> None:
        """Refuse a pseudonym of another length; to a decoder it is a body without the type wanted."""
        if len(self.user) not in (0, PSEUDONYM_BYTES):
            raise ValueError(f"`user` of {len(self.user)} bytes: wanted {PSEUDONYM_BYTES}, or none")


class Cancel(Document, frozen=True, kw_only=True):
    """The requester wants one job (or, without `job`, all jobs of its job key) no more."""

    KIND = "cancel"

    nonce: Nonce
    valid_until: Milliseconds
    job: Handle | None = None


class Asker(Body, frozen=True, kw_only=True):
    """What the tracker vouches for about who asks, without saying who it is.

    anonymous: no account. service: the name of a service account, empty for persons. give_back: 0 takes and has not
    given yet, 1 gives some of what it takes, 2 gives about as much, 3 gives more. own: it is the account for which this
    worker works. pseudonym: by which this worker, and no other, knows the account; empty for people without one.
    """

    anonymous: bool = False
    service: Annotated[str, Meta(max_length=60)] = ""
    give_back: Annotated[int, Meta(ge=0, le=3)] = 0
    own: bool = False
    pseudonym: Annotated[bytes, Meta(max_length=PSEUDONYM_BYTES)] = b""


class Lease(Document, frozen=True, kw_only=True):
    """The tracker's word that this worker serves this job until a deadline.

    attempt: from 1, rising by one with every lease of the job. worker: its key. model: the one that is to serve.
    public: this one job's public part (one model, n = 1). index: which of the request's n jobs it is; the seed rises
    by it. private_digest, job_key: as in the request. issued, deadline: milliseconds. rules: version that prices it.
    price: what the worker earns at most; paid: the part that the requester's hold covers; free: the part that is
    minted. Unminted remainders of a free part are not paid. owners: how many different owners' workers could have
    served it, 0 for a friend of this one; below the rules' `mint.owners` nothing is minted. labels: topics that the
    prompt filter found.
    """

    KIND = "lease"
    MAX_BYTES = 16 * 1024

    job: Handle
    attempt: Attempt
    worker: Key
    model: ModelName
    public: PublicPart
    index: Count
    private_digest: Digest
    job_key: Key
    asker: Asker
    issued: Milliseconds
    deadline: Milliseconds
    rules: Annotated[int, Meta(ge=1)]
    price: Count
    paid: Count
    free: Count
    owners: Count = 0
    labels: Annotated[tuple[Topic, ...], Meta(max_length=16)] = ()


class PeerRecord(Document, frozen=True, kw_only=True):
    """Where a worker is reached, and the certificate that answers there.

    version: higher replaces. certificate: SHA-256 of the certificate in DER. addresses: `host:port`, best first, IPv6
    hosts in brackets.
    """

    KIND = "peer_record"

    version: Annotated[int, Meta(ge=1)]
    certificate: Digest
    addresses: Annotated[tuple[Annotated[str, Meta(min_length=3, max_length=260)], ...], Meta(max_length=16)]


class Opening(Document, frozen=True, kw_only=True):
    """The requester opens (or resumes) the stream of one attempt; goes to the worker, never to the tracker.

    certificate: SHA-256 of the certificate that it saw, so that nobody in between can pass the opening on. lease: the
    lease's envelope.
    """

    KIND = "opening"
    MAX_BYTES = 32 * 1024

    job: Handle
    attempt: Attempt
    certificate: Digest
    lease: bytes


class Receipt(Document, frozen=True, kw_only=True):
    """The worker's statement of what it made.

    output_digest: salted, over all artifacts. used: denoising steps or generated tokens, at most those of the lease.
    context_used: tokens of prompt and answer together (text). partial: made until a cancel and not to the end.
    engine: engine class, within which seeds repeat. finished: milliseconds.
    """

    KIND = "receipt"

    job: Handle
    attempt: Attempt
    output_digest: Digest
    used: Count
    context_used: Count = 0
    partial: bool = False
    engine: EngineClass
    finished: Milliseconds


class Acknowledgement(Document, frozen=True, kw_only=True):
    """The requester got what the receipt says. receipt: its envelope. output_digest: computed from what came."""

    KIND = "acknowledgement"
    MAX_BYTES = 8192

    job: Handle
    attempt: Attempt
    output_digest: Digest
    receipt: bytes


class Denial(Document, frozen=True, kw_only=True):
    """The requester did not get it, or got something else. receipt: its envelope, if one came. reason: a code."""

    KIND = "denial"
    MAX_BYTES = 8192

    job: Handle
    attempt: Attempt
    reason: Reason
    receipt: bytes = b""


class Settlement(Document, frozen=True, kw_only=True):
    """What was paid for an attempt.

    paid: from the requester's hold to the worker. minted: the free part, to the worker. burned: the tax. withheld:
    what of paid + minted waits until the worker's owner is trusted. partial: of a cancelled job. number: how many
    settlements the ledger holds with this one. entry: index of the settle leaf in the ledger; leaf: its hash.
    checkpoint: the newest checkpoint's envelope (made before this entry). settled: milliseconds.
    """

    KIND = "settlement"

    job: Handle
    attempt: Attempt
    paid: Count
    minted: Count
    burned: Count
    withheld: Count = 0
    partial: bool = False
    number: Annotated[int, Meta(ge=1)]
    entry: Count
    leaf: Digest
    checkpoint: bytes
    settled: Milliseconds


class Checkpoint(Document, frozen=True, kw_only=True):
    """The ledger's tree at one moment. size: entries. root: RFC 9162 root hash. epoch: raised by each restore."""

    KIND = "checkpoint"

    size: Count
    root: Digest
    time: Milliseconds
    epoch: Count = 0


class Balances(Document, frozen=True, kw_only=True):
    """The serving key's word on where an archive ends: from here on the ledger can be audited without what is in it.

    number: of the archive, from 1. size: entries up to its end; start: up to the end of the one before. root, epoch,
    time: of the checkpoint of that size. balances: SHA-256 of msgpack `[[account, balance], ...]`, all that are not
    zero, in the order of the accounts. books: SHA-256 of what else an audit goes on from, with a salt in it. file:
    SHA-256 of the archive. previous: digest of the word on the archive before, or empty.
    """

    KIND = "balances"

    number: Annotated[int, Meta(ge=1)]
    start: Count
    size: Annotated[int, Meta(ge=1)]
    root: Digest
    epoch: Count = 0
    time: Milliseconds
    balances: Digest
    books: Digest
    file: Digest
    previous: bytes = b""


class RulesDocument(Document, frozen=True, kw_only=True):
    """One version of the horde's rules. rules: JSON text. previous: digest of the one before, or empty."""

    KIND = "rules"
    MAX_BYTES = 256 * 1024

    version: Annotated[int, Meta(ge=1)]
    issued: Milliseconds
    rules: str
    previous: bytes = b""


class Profile(Document, frozen=True, kw_only=True):
    """An account's key says how the account is shown.

    version: higher replaces. name: 1 to 30 printable characters; people see it with the account's number behind it.
    public: anybody may read the account's page. service: it asks for users of its own, and what it gave and took is
    public.
    """

    KIND = "profile"

    version: Annotated[int, Meta(ge=1)]
    name: Annotated[str, Meta(min_length=1, max_length=MAX_NAME_CHARACTERS)]
    public: bool = False
    service: bool = False

    def __post_init__(self) -> None:
        """Refuse a name that cannot be shown as it is; to a decoder it is a body without the type wanted."""
        if fault := fault_of_name(self.name):
            raise ValueError(fault)


class Delegation(Document, frozen=True, kw_only=True):
    """An account's key lets another key act for the account, within bounds.

    delegate: that key. expires: the last moment at which it may act, milliseconds, 0 for never. work, ask: what it may
    do. kudos: thousandths that may be spent through it in all; None for no bound of its own. max_pixels, max_steps,
    max_tokens, max_context: the largest job that it may ask for; 0 leaves the horde's. models: the only ones that it
    may ask for; empty for any. label: for the owner, up to 60 characters.
    """

    KIND = "delegation"
    MAX_BYTES = 16 * 1024

    nonce: Nonce
    valid_until: Milliseconds
    delegate: Key
    expires: Milliseconds = 0
    work: bool = False
    ask: bool = False
    kudos: Count | None = None
    max_pixels: Count = 0
    max_steps: Count = 0
    max_tokens: Count = 0
    max_context: Count = 0
    models: Annotated[tuple[ModelName, ...], Meta(max_length=MAX_MODELS)] = ()
    label: Annotated[str, Meta(max_length=60)] = ""


class Revocation(Document, frozen=True, kw_only=True):
    """An account's key takes a delegation back, at once. delegation: its digest."""

    KIND = "revocation"

    nonce: Nonce
    valid_until: Milliseconds
    delegation: Digest


class Recovery(Document, frozen=True, kw_only=True):
    """An account's key names a key, kept apart, that may sign a rotation too. version: higher replaces."""

    KIND = "recovery"

    version: Annotated[int, Meta(ge=1)]
    recovery: Key


class Rotation(Document, frozen=True, kw_only=True):
    """An account gets another key; by the former key or the recovery key, in a session of the new one."""

    KIND = "rotation"

    nonce: Nonce
    valid_until: Milliseconds
    former: Key
    key: Key


class Leaving(Document, frozen=True, kw_only=True):
    """An account's key ends the account: its keys, its delegations, its name; what it has left is burned."""

    KIND = "leaving"

    nonce: Nonce
    valid_until: Milliseconds


class Transfer(Document, frozen=True, kw_only=True):
    """An account's key gives kudos away. to: number of an account. amount: thousandths. No memo, and no price."""

    KIND = "transfer"

    nonce: Nonce
    valid_until: Milliseconds
    to: Annotated[int, Meta(ge=1)]
    amount: Amount


class Award(Document, frozen=True, kw_only=True):
    """The operator makes kudos for an account. amount: thousandths. reason: public, 1 to 200 characters."""

    KIND = "award"

    nonce: Nonce
    valid_until: Milliseconds
    account: Annotated[int, Meta(ge=1)]
    amount: Amount
    reason: Annotated[str, Meta(min_length=1, max_length=200)]


class RelayTicket(Document, frozen=True, kw_only=True):
    """The tracker's word that these two may meet at this relay, for one attempt and within bounds.

    relay: key of the peer that relays; the serving key where the tracker does it itself. url: `ws://` or `wss://`,
    host, port and perhaps a path; the relay answers at `<url>/relay`. also: the same relay's address of the other
    version of IP, if it has one; each side takes whichever it reaches. certificate: SHA-256 of the certificate in DER
    that answers there; empty: checked as the tracker's is. requester: the job key. worker: its key. max_bytes: both
    directions together, however often one comes back with this ticket or another one of the attempt. max_rate: bytes a
    second. valid_until: the last moment at which anything is relayed.
    """

    KIND = "relay_ticket"

    job: Handle
    attempt: Attempt
    relay: Key
    url: Annotated[str, Meta(min_length=6, max_length=MAX_URL_CHARACTERS)]
    also: Annotated[str, Meta(max_length=MAX_URL_CHARACTERS)] = ""
    certificate: bytes = b""
    requester: Key
    worker: Key
    max_bytes: Annotated[int, Meta(ge=1)]
    max_rate: Annotated[int, Meta(ge=1)]
    valid_until: Milliseconds

    def __post_init__(self) -> None:
        """Refuse a digest of another length; to a decoder it is a body without the type wanted."""
        if len(self.certificate) not in (0, DIGEST_BYTES):
            raise ValueError(f"`certificate` of {len(self.certificate)} bytes: wanted {DIGEST_BYTES}, or none")


class RelayEntry(Document, frozen=True, kw_only=True):
    """One of the two that a ticket names comes to the relay; made anew each time, goes to the relay alone.

    ticket: the ticket's envelope. challenge: the bytes that the relay sent first, so that neither a ticket alone nor an
    entry that was overheard opens anything.
    """

    KIND = "relay_entry"
    MAX_BYTES = 8192

    ticket: bytes
    challenge: Nonce


class ReachProof(Document, frozen=True, kw_only=True):
    """The peer that is tested answers at this address; goes back on the connection by which it was asked.

    challenge: 32 bytes of the tracker. certificate: SHA-256 of the certificate in DER that answers there.
    """

    KIND = "reach_proof"

    challenge: Salt
    certificate: Digest


class Leaf(Body, frozen=True, kw_only=True):
    """The public bytes of one ledger entry.

    event: hold, release, settle, refund, award, epoch, recovered, charged, vest, transfer, leave, act, return or trust.
    day: days since
    1970. postings: account and thousandths, in the order of docs/protocol.md, sum zero. hold, evidence: commitments,
    salted by 32 bytes kept in the evidence.
    """

    event: str
    day: int
    postings: tuple[tuple[int, Thousandths], ...]
    hold: Digest
    evidence: Digest


class Evidence(Body, frozen=True, kw_only=True):
    """What lies beside a leaf and opens its commitments: exact time, rules, job, and the digests of documents.

    received: when the receipt came, where its requester's silence made the settlement; else 0.
    """

    time: Milliseconds
    rules: Annotated[int, Meta(ge=1)]
    salt: Salt
    job: Handle | None = None
    attempt: int = 0
    received: Milliseconds = 0
    documents: tuple[Digest, ...] = ()


D = TypeVar("D", bound=Document)


def fault_of_name(name: str) -> str:
    """Why an account cannot have this name; empty if it can."""
    if not 1 <= len(name) <= MAX_NAME_CHARACTERS:
        return f"a name of {len(name)} characters: wanted 1 to {MAX_NAME_CHARACTERS}"
    if "#" in name or not name.isprintable() or name != name.strip():
        return f"name {name!r}: wanted printable characters without '#', and no space at either end"
    return ""


def shown_name(name: str, account: int) -> str:
    """How people see an account: no two accounts look alike, since the number is part of it."""
    return f"{name}#{account}"


def is_among(shown: str, names: Iterable[str]) -> bool:
    """Whether an account is one of these, all as `shown_name` has them: by its number, whatever it calls itself now."""
    number = shown[shown.rfind("#") :]
    return number.startswith("#") and any(name.endswith(number) for name in names)


def sign(document: Document, key: SigningKey, root: bytes) -> Envelope:
    """The document's envelope, signed for this horde."""
    return seal(document.KIND, codec.encode(document), key, root)


def open_document(envelope: Envelope, of: type[D]) -> D:
    """The document's typed body; raises `UnknownKind` for another kind. Check the signature first."""
    if envelope.kind != of.KIND:
        raise UnknownKind(f"a {envelope.kind} where a {of.KIND} was wanted")
    return envelope.open(of)


def parse_document(raw: bytes, of: type[D]) -> Envelope:
    """The envelope in `raw`, its size checked for the kind that is wanted; neither context nor signature."""
    envelope = parse(raw, limit=of.MAX_BYTES)
    if envelope.kind != of.KIND:
        raise UnknownKind(f"a {envelope.kind[:40]} where a {of.KIND} was wanted")
    return envelope


def check_validity(valid_until: int, now: int) -> None:
    """Refuse a document that is past its `valid_until`, or claims more than an hour."""
    if valid_until < now:
        raise Late(f"valid until {valid_until}, and it is {now}: check this machine's clock, then sign anew")
    if valid_until > now + MAX_VALIDITY_MS:
        raise TooFarAhead(f"valid until {valid_until}, more than an hour after {now}: check this machine's clock")
