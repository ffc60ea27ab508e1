"""How a horde governs itself: documents by which moderators act, and people answer.

A moderator's or operator's key signs `act`; an account's own key `appeal`, `proposal`, `vote`; an operator's `answer`;
the serving key `outcome`. All of them but appeals and votes are public.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from typing import Annotated, Literal

from msgspec import Meta

from protocol.documents import DIGEST_BYTES, MAX_AMOUNT, Count, Document
from protocol.work import Digest, Milliseconds, Nonce

MAX_RULE_CHARACTERS = 80
MAX_REASON_CHARACTERS = 300
MAX_APPEAL_CHARACTERS = 2000
MAX_PROPOSAL_CHARACTERS = 2000
MAX_VALUE_CHARACTERS = 4000
#: A block of addresses names no fewer than these bits leave open, so that the public log names a network, and nobody:
#: 256 households at least, to whom providers give an address, or at most a /48.
BLOCK_BITS = {4: 24, 6: 40}

ActKind = Literal["warn", "limit", "suspend", "ban", "pause", "trust", "return", "block", "lift", "agree", "uphold"]

#: What each act must say beside its rule and reason, and what it may say.
SAYS: Mapping[str, tuple[frozenset[str], frozenset[str]]] = {
    "warn": (frozenset({"account"}), frozenset()),
    "limit": (frozenset({"account", "open_jobs"}), frozenset({"until"})),
    "suspend": (frozenset({"account", "until"}), frozenset()),
    "ban": (frozenset({"account"}), frozenset()),
    "pause": (frozenset({"account"}), frozenset({"worker", "until"})),
    "trust": (frozenset({"account"}), frozenset()),
    "return": (frozenset({"account", "amount"}), frozenset({"to"})),
    "block": (frozenset({"block", "until"}), frozenset()),
    "lift": (frozenset({"about"}), frozenset()),
    "agree": (frozenset({"about"}), frozenset()),
    "uphold": (frozenset({"about"}), frozenset()),
}
_FIELDS = ("account", "until", "open_jobs", "worker", "to", "amount", "block", "about")


class Act(Document, frozen=True, kw_only=True):
    """A moderator acts, for everybody to read.

    act: `warn`; `limit` (at most `open_jobs` at once); `suspend` (neither asks nor serves until then); `ban` (the same
    for good); `pause` (an account's workers, or one, get no work); `trust` (what the account earns is its own at once);
    `return` (`amount` of the account goes to account `to`, or is burned); `block` (from this network nobody asks
    without an account or registers); `lift` (the act `about` is over); `agree` (the second signature under it);
    `uphold` (an appeal against it was read, and it stands). rule: which rule of the horde. reason: why. until: the last
    moment of it, milliseconds, 0 for no end. worker: SHA-256 of its key, which only those recognise who know the key;
    empty: all. amount: thousandths. block: a network such as 203.0.113.0/24. about: digest of another act.
    """

    KIND = "act"

    nonce: Nonce
    valid_until: Milliseconds
    act: ActKind
    rule: Annotated[str, Meta(min_length=1, max_length=MAX_RULE_CHARACTERS)]
    reason: Annotated[str, Meta(min_length=1, max_length=MAX_REASON_CHARACTERS)]
    account: Count = 0
    until: Milliseconds = 0
    open_jobs: Count = 0
    worker: Annotated[bytes, Meta(max_length=DIGEST_BYTES)] = b""
    to: Count = 0
    amount: Annotated[int, Meta(ge=0, le=MAX_AMOUNT)] = 0
    block: Annotated[str, Meta(max_length=60)] = ""
    about: Annotated[bytes, Meta(max_length=DIGEST_BYTES)] = b""

    def __post_init__(self) -> None:
        """Refuse an act that says too little or too much; to a decoder it is a body without the type wanted."""
        must, may = SAYS[self.act]
        for name in _FIELDS:
            said = bool(getattr(self, name))
            if name not in may and said != (name in must):
                raise ValueError(f"a {self.act} {'with' if said else 'without'} `{name}`")
        for name in ("worker", "about"):
            if len(getattr(self, name)) not in (0, DIGEST_BYTES):
                raise ValueError(f"`{name}` of {len(getattr(self, name))} bytes: wanted {DIGEST_BYTES}, or none")
        if self.block and (fault := fault_of_block(self.block)):
            raise ValueError(fault)
        if self.act == "return" and self.to == self.account:
            raise ValueError(f"a return from account {self.account} to itself")


class Appeal(Document, frozen=True, kw_only=True):
    """An account answers to an act against it; moderators read it, and nobody else. about: digest of the act."""

    KIND = "appeal"
    MAX_BYTES = 16 * 1024

    nonce: Nonce
    valid_until: Milliseconds
    about: Digest
    text: Annotated[str, Meta(min_length=1, max_length=MAX_APPEAL_CHARACTERS)]


class Proposal(Document, frozen=True, kw_only=True):
    """An account with standing proposes a change of one rule. key: as in docs/rules.md. value: JSON. text: why."""

    KIND = "proposal"
    MAX_BYTES = 32 * 1024

    nonce: Nonce
    valid_until: Milliseconds
    key: Annotated[str, Meta(min_length=3, max_length=200)]
    value: Annotated[str, Meta(min_length=1, max_length=MAX_VALUE_CHARACTERS)]
    text: Annotated[str, Meta(min_length=1, max_length=MAX_PROPOSAL_CHARACTERS)]


class Vote(Document, frozen=True, kw_only=True):
    """An account with standing votes. version: higher replaces. proposal: its digest. yes: for the change."""

    KIND = "vote"

    version: Annotated[int, Meta(ge=1)]
    proposal: Digest
    yes: bool


class Outcome(Document, frozen=True, kw_only=True):
    """The horde's word on how a vote ended. yes, no: accounts, one vote each. root: over the votes that were counted.

    opened: when the vote began; rules: the version by which it went; voices: how many accounts could vote, by the first
    `size` entries of the ledger.

    Hashes are those of the ledger's tree (RFC 9162): the leaves are the votes' envelopes in the order of their digests,
    so that whoever has a vote can be shown that it was counted.
    """

    KIND = "outcome"

    proposal: Digest
    yes: Count
    no: Count
    accepted: bool
    ended: Milliseconds
    root: Digest
    opened: Milliseconds
    rules: Count
    size: Count
    voices: Count


class Answer(Document, frozen=True, kw_only=True):
    """An operator says what became of an accepted proposal. rules: the version that applies it; 0: not applied.

    text: why, also where it is applied.
    """

    KIND = "answer"

    nonce: Nonce
    valid_until: Milliseconds
    proposal: Digest
    rules: Count = 0
    text: Annotated[str, Meta(min_length=1, max_length=MAX_PROPOSAL_CHARACTERS)]


def fault_of_block(text: str) -> str:
    """Why this is no network that can be blocked; empty if it is one."""
    try:
        network = ipaddress.ip_network(text)
    except ValueError as error:
        return f"`block` {text!r}: wanted a network such as 203.0.113.0/24 ({error})"
    most = BLOCK_BITS[network.version]
    if network.prefixlen > most:
        return f"`block` {text}: wanted at most /{most}, so that the public log names a network and no household"
    if str(network) != text:
        return f"`block` {text!r}: wanted it as {network}"
    return ""
