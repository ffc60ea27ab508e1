"""The store's promises. Each method is one business step in one transaction; when it returns, what it did is durable.

Steps take the time from their caller and raise the refusals of `protocol.errors`, in which case nothing has changed
(an equivocation is kept as proof all the same). Steps are carried out in the order in which they were called.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence, Set
from dataclasses import dataclass

from protocol.documents import (
    Acknowledgement,
    Award,
    Cancel,
    Delegation,
    Denial,
    Lease,
    Leaving,
    Profile,
    Receipt,
    Recovery,
    Request,
    Revocation,
    Rotation,
    Settlement,
    Transfer,
)
from protocol.envelope import Envelope
from protocol.governing import Act, Answer, Appeal, Proposal, Vote
from protocol.rules import FilterSection, Rules
from tracker.accounts import Acting
from tracker.earning import NOTHING_MISSING, Missing
from tracker.lifecycle import NO_FACTS, Attempt, Event, Facts, Job, Outcome
from tracker.proposals import Proposed
from tracker.pseudonyms import Pseudonyms
from tracker.sanctions import Sanction, State
from tracker.strikes import Strikes

#: So many awards can be read by anybody; older ones are in the ledger alone.
SHOWN_AWARDS = 100


class StoreError(Exception):
    """The database cannot be used as it is; the text says what to do."""


class StoreFull(StoreError):
    """The step could not be stored for want of room; nothing has changed."""


@dataclass(frozen=True)
class RulesInForce:
    """One version of the rules. digest, document: of the signed document."""

    version: int
    rules: Rules
    digest: bytes
    document: bytes


@dataclass(frozen=True, slots=True)
class Face:
    """How an account is shown. version, digest, signer: of its newest profile; nothing if it has none."""

    version: int = 0
    digest: bytes = b""
    signer: bytes = b""
    name: str = ""
    public: bool = False
    service: bool = False


@dataclass(frozen=True)
class Granted:
    """A delegation that stands. used: thousandths held or spent through it. document: its envelope's bytes."""

    digest: bytes
    terms: Delegation
    used: int
    document: bytes


@dataclass(frozen=True)
class Page:
    """An account as others may see it."""

    face: Face
    state: AccountState


@dataclass(frozen=True)
class AccountState:
    """An account as it stands; kudos in thousandths. free_now: free work taken, decayed to now. since: when it was
    opened. withheld: earned, and not its own until it is trusted; missing: what it needs for that. faults: refunds
    against its workers that still count; asked for by `Store.account` only."""

    number: int
    balance: int = 0
    held: int = 0
    earned: int = 0
    spent: int = 0
    taken_free: int = 0
    free_now: int = 0
    jobs_done: int = 0
    jobs_received: int = 0
    since: int = 0
    withheld: int = 0
    missing: Missing = NOTHING_MISSING
    faults: int = 0


@dataclass(frozen=True)
class Choice:
    """Whom a job is to be leased to, with which model. owners: of all workers that could serve it, this one's among
    them."""

    worker: bytes
    owner: int
    model: str
    owners: int = 1


@dataclass(frozen=True)
class Leased:
    """A lease that is durable. document: its envelope's bytes. budget_used: of today's mint, in thousandths."""

    job: Job
    attempt: Attempt
    document: bytes
    budget_used: int


@dataclass(frozen=True)
class Admitted:
    """A request that is durable. held: by all its jobs. leases: of those that were matched at once, by number.
    again: it had been taken in before, and nothing has changed."""

    jobs: Sequence[Job]
    held: int
    leases: dict[int, Leased]
    again: bool = False


@dataclass(frozen=True)
class Happened:
    """What became of a job. before: as it stood. settlement: bytes of the settlement, also of an earlier one.
    released: what went back to the payer. lost: the newest attempt, where it ended for another one's sake.
    budget_used: of today's mint, where an attempt ended."""

    before: Job
    outcome: Outcome
    settlement: bytes = b""
    released: int = 0
    lost: Attempt | None = None
    budget_used: int | None = None


@dataclass(frozen=True)
class Standing:
    """Where a job stands, for a peer that returns. lease, settlement: bytes, empty where there is none."""

    job: Job
    attempt: Attempt | None
    lease: bytes = b""
    settlement: bytes = b""


@dataclass(frozen=True)
class Shown:
    """A settlement of a former serving key, and what lies behind it; all checked in itself (`tracker.recovery`).

    request: from the requester who signed it, None from a worker.
    """

    settlement: tuple[Envelope, Settlement]
    lease: tuple[Envelope, Lease]
    receipt: tuple[Envelope, Receipt]
    request: tuple[Envelope, Request] | None


@dataclass(frozen=True)
class Recovered:
    """What became of a settlement that was shown. entered: whether it is in the ledger by this. happened: to its job,
    if that had not ended."""

    entered: bool = False
    happened: Happened | None = None


@dataclass(frozen=True)
class Gifts:
    """What contributors leave unspent, and what it has carried so far. unspent: balances of all people. jobs: that
    were served to people without enough kudos; kudos: what of their prices nobody paid."""

    unspent: int = 0
    jobs: int = 0
    kudos: int = 0


@dataclass(frozen=True)
class Awarded:
    """Kudos that the operator made for an account, on a day, and for what."""

    account: int
    amount: int
    day: int
    reason: str


@dataclass(frozen=True)
class Acted:
    """An act that is durable. number: in the log. account: whom it concerns, 0 for nobody in particular."""

    number: int
    account: int


@dataclass(frozen=True)
class Logged:
    """One act of the public log. kind: as in the document, or `award`. time: when it was taken. agreed, ended_by:
    digests of the acts that agreed to it and that lifted it, if there are any. appeals: that nobody has answered."""

    number: int
    digest: bytes
    kind: str
    account: int
    time: int
    until: int
    state: State
    document: bytes
    agreed: bytes = b""
    ended_by: bytes = b""
    appeals: int = 0


@dataclass(frozen=True)
class Appealed:
    """An appeal that nobody has answered."""

    account: int
    document: bytes
    about: Logged


@dataclass(frozen=True)
class LedgerHead:
    """How large the ledger is, and its newest checkpoint."""

    size: int
    checkpoint: bytes


class Store(ABC):
    """Everything that must last."""

    # The horde

    @abstractmethod
    async def rules_in_force(self) -> RulesInForce:
        """The newest version of the rules."""

    @abstractmethod
    async def rules(self, version: int) -> RulesInForce:
        """A version of the rules that there is."""

    @abstractmethod
    async def publish_rules(self, rules: Rules, now: int) -> RulesInForce:
        """Sign and keep these rules as the next version; the version in force if they are the same."""

    @abstractmethod
    async def seal(self, now: int) -> bytes | None:
        """Sign a checkpoint over all entries; None if there are none since the last one."""

    @abstractmethod
    async def ledger_head(self) -> LedgerHead:
        """The ledger's size and newest checkpoint."""

    # Accounts

    @abstractmethod
    async def register(self, key: bytes, now: int, invite: str | None = None) -> int:
        """The number of the account that is, or for which acts, `key`; opened now if there was none.

        invite: the code that a new account needs, where it needs one; raises `BadInvite`, and uses it up otherwise.
        """

    @abstractmethod
    async def account_of(self, key: bytes) -> int:
        """The number of the account of `key`, 0 if it has none."""

    @abstractmethod
    async def acting(self, key: bytes, now: int) -> Acting:
        """For which account a key acts."""

    @abstractmethod
    async def add_invites(self, hashes: Sequence[bytes], now: int) -> None:
        """Let each of these codes (`accounts.invite_hash`) make one account."""

    # Documents about an account. The same again changes nothing, and is answered as the first time. Raise
    # `NotRegistered` (by a key without an account), `NotAllowed` (by a delegate).

    @abstractmethod
    async def profile(self, envelope: Envelope, said: Profile, now: int) -> None:
        """How an account is shown. Raises `OutOfTurn` for a version below the last one."""

    @abstractmethod
    async def delegate(self, envelope: Envelope, said: Delegation, now: int) -> None:
        """Another key acts for an account. Raises `NotAllowed` if it is or acts for one, `OverLimit` for too many."""

    @abstractmethod
    async def revoke(self, envelope: Envelope, said: Revocation, now: int) -> bytes:
        """A delegation ends; the key that acted by it. Raises `UnknownAccount` for none of this account."""

    @abstractmethod
    async def name_recovery(self, envelope: Envelope, said: Recovery, now: int) -> None:
        """A key that may sign a rotation. Raises `OutOfTurn` for a version below the last one."""

    @abstractmethod
    async def rotate(self, envelope: Envelope, said: Rotation, *, sender: bytes, now: int) -> bytes:
        """An account gets the key `sender`; the key that it had. Raises `WrongSigner` by whom it may not be signed."""

    @abstractmethod
    async def leave(self, envelope: Envelope, said: Leaving, now: int) -> Sequence[bytes]:
        """An account ends; the keys that were or acted for it. Raises `JobsUnderWay`."""

    @abstractmethod
    async def used(self, delegation: bytes) -> int:
        """Thousandths that are held or spent through a delegation."""

    @abstractmethod
    async def granted(self, number: int, now: int) -> Sequence[Granted]:
        """The delegations of an account that stand, the oldest first."""

    @abstractmethod
    async def face(self, number: int) -> Face:
        """How an account is shown."""

    @abstractmethod
    async def page(self, number: int, now: int) -> Page | None:
        """An account that anybody may look at; None for all others, be there one or not."""

    @abstractmethod
    async def public(self, numbers: Sequence[int]) -> Set[int]:
        """Which of these accounts anybody may look at."""

    @abstractmethod
    async def services(self, now: int, after: int, most: int) -> Sequence[Page]:
        """Service accounts with a number above `after`, the lowest first."""

    @abstractmethod
    async def account(self, number: int, now: int) -> AccountState:
        """How an account stands."""

    @abstractmethod
    async def facts(self, number: int, now: int) -> Facts:
        """What leases say of requests of this account: whether it is a service, and its give-back class."""

    @property
    @abstractmethod
    def pseudonyms(self) -> Pseudonyms:
        """The names by which workers know accounts."""

    @abstractmethod
    async def vest(self, number: int, now: int) -> int:
        """What was withheld of an owner's earnings becomes its own, if it is trusted now; so much that was."""

    @abstractmethod
    async def vest_all(self, now: int) -> int:
        """The same for everybody; of how many owners."""

    @abstractmethod
    async def transfer(self, envelope: Envelope, said: Transfer, now: int) -> None:
        """The account of the signer's key gives kudos away by the rules in force; the same again moves nothing.

        Raises `NotRegistered` (no account's key), `UnknownAccount`, `NoKudos`, `NotAllowed`, `BadValue`.
        """

    @abstractmethod
    async def award(self, envelope: Envelope, said: Award, now: int) -> None:
        """The operator makes kudos for an account; the same document again makes none. Raises `UnknownAccount`."""

    # Moderation. Who may is a matter of the rules in force.

    @abstractmethod
    async def act(self, envelope: Envelope, said: Act, now: int) -> Acted:
        """A moderator acts, by an entry of the ledger; the same again changes nothing.

        Raises `NotAllowed` (no role, or for its own account), `UnknownAccount`, `UnknownAct`, `NoKudos`, `BadValue`.
        """

    @abstractmethod
    async def appeal(self, envelope: Envelope, said: Appeal, now: int) -> Acted:
        """An account answers to an act against it. Raises `UnknownAct`, `OverLimit`."""

    @abstractmethod
    async def sanctions(self, now: int) -> Sequence[Sanction]:
        """All acts that keep somebody from something now."""

    @abstractmethod
    async def acts(self, now: int, before: int, most: int) -> Sequence[Logged]:
        """The public log below a number, the newest first."""

    @abstractmethod
    async def acts_of(self, account: int, now: int, most: int) -> Sequence[Logged]:
        """The newest of those that concern an account, the newest first."""

    @abstractmethod
    async def appeals(self, now: int, most: int) -> tuple[Sequence[Appealed], int]:
        """The appeals that nobody has answered, the oldest first; and how many more there are."""

    # Having a say

    @abstractmethod
    async def propose(self, envelope: Envelope, said: Proposal, now: int) -> int:
        """A vote begins on a change of one rule; its number. The same again changes nothing.

        Raises `NotAllowed` (no voice), `OverLimit`, `BadValue`.
        """

    @abstractmethod
    async def vote(self, envelope: Envelope, said: Vote, now: int) -> None:
        """An account votes; a higher version replaces. Raises `NotAllowed` (no voice), `OutOfTurn`, `UnknownAct`."""

    @abstractmethod
    async def end_votes(self, now: int) -> Sequence[bytes]:
        """Count what has come to its end; the outcomes, signed."""

    @abstractmethod
    async def answer(self, envelope: Envelope, said: Answer, now: int) -> None:
        """An operator says what became of a proposal. Raises `WrongSigner`, `OutOfTurn`, `BadValue`."""

    @abstractmethod
    async def proposals(self, before: int, most: int) -> Sequence[Proposed]:
        """Proposals with a number below that, the newest first."""

    @abstractmethod
    async def proof_of_vote(self, envelope: Envelope) -> tuple[int, int, Sequence[bytes]] | None:
        """A vote's place among those that were counted, how many these were, and the proof; None if it was not."""

    @abstractmethod
    async def awards(self) -> Sequence[Awarded]:
        """The newest `SHOWN_AWARDS` of them, the newest first."""

    @abstractmethod
    async def strike(self, payer: int, origin: str, user: bytes, rules: FilterSection, now: int) -> Strikes:
        """A prompt of this account, or of this user of a service, was refused: how that stands now.

        Raises `TimedOut` during a time-out, as `admit` does, and counts nothing: so a prompt that is refused and one
        that is not are told apart by nobody from whom nothing is taken. Raises `BadValue` for a user of an account that
        is no service.
        """

    @abstractmethod
    async def tidy(self, now: int) -> None:
        """Drop what was counted for limits that have passed, and what nothing will ask for again.

        The ledger and its evidence stay whole, and every answer is the same as before.
        """

    @abstractmethod
    async def gifts(self) -> Gifts:
        """What is left unspent, and whom that carried."""

    # Jobs

    @abstractmethod
    async def admit(
        self,
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
        """Take a request in: its document, its n jobs, their holds; lease at once the jobs that have a choice.

        models: those that can serve it, the dearest of which sets the hold. A request that was taken in before is
        answered as then; nothing of `choices` is used. room: of the jobs whose price the payer's kudos do not cover, so
        many may be leased at once, the others wait whatever their choice; None for any number. facts: what leases say
        of it and its asker. Raises `Equivocation`, `TimedOut`, `OverLimit`, `WrongSigner` (the job key was used
        before).
        """

    @abstractmethod
    async def lease(self, handle: bytes, attempt: int, choice: Choice, rules: RulesInForce, now: int) -> Leased | None:
        """Lease a waiting job whose latest attempt is `attempt`; None if it does not stand so any more.

        Raises `NotAllowed` if the worker does not work for that owner any more.
        """

    @abstractmethod
    async def happen(self, handle: bytes, attempt: int, event: Event, rules: Rules, now: int) -> Happened:
        """Carry out what `lifecycle.decide` makes of an event that no document proves. attempt 0: the latest."""

    @abstractmethod
    async def receive(self, envelope: Envelope, receipt: Receipt, rules: Rules, now: int) -> Happened:
        """A worker's receipt, its signature checked."""

    @abstractmethod
    async def acknowledge(
        self,
        envelope: Envelope,
        said: Acknowledgement,
        receipt: tuple[Envelope, Receipt],
        *,
        sender: bytes,
        rules: Rules,
        now: int,
    ) -> Happened:
        """A requester's acknowledgement and the receipt in it, the signatures of both checked.

        sender: the key of the session in which it came; it must have signed the request (so for `deny`, `cancel`).
        """

    @abstractmethod
    async def deny(
        self,
        envelope: Envelope,
        said: Denial,
        receipt: tuple[Envelope, Receipt] | None,
        *,
        sender: bytes,
        rules: Rules,
        now: int,
    ) -> Happened:
        """A requester's denial, and the receipt in it if there is one, the signatures of both checked."""

    @abstractmethod
    async def cancel(
        self, envelope: Envelope, said: Cancel, *, sender: bytes, rules: Rules, now: int
    ) -> Sequence[Happened]:
        """A requester wants a job, or all jobs of its job key, no more."""

    @abstractmethod
    async def silence(self, handle: bytes, rules: Rules, now: int) -> Happened:
        """A delivered job that nobody answered for is paid by its receipt."""

    @abstractmethod
    async def recover(self, shown: Shown, now: int) -> Recovered:
        """Enter a settlement again that a restore has cut, and charge its payer if the requester showed it; each once.

        Raises `WrongSigner` (by no former serving key), `Equivocation` (an entry that was never in this ledger, though
        it should be), `OverLimit` (more than the budget of its day ever was).
        """

    # What a peer, or a tracker, that returns must know

    @abstractmethod
    async def live(self) -> Sequence[Standing]:
        """Every job that has not ended."""

    @abstractmethod
    async def standing_of_request(self, signer: bytes, nonce: bytes) -> tuple[bytes, Sequence[Standing]] | None:
        """A request's digest and where its jobs stand; None if it is not known."""

    @abstractmethod
    async def standing(self, handle: bytes, attempt: int) -> Standing | None:
        """Where a job stands, seen from one of its attempts; None if there is no such job or attempt."""

    @abstractmethod
    async def open_requests(self, signer: bytes) -> Sequence[tuple[bytes, bytes]]:
        """Nonce and digest of each request of `signer` that has a job under way."""
