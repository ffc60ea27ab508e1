"""Refusals: what one side answers when the other asks for something that it may not have.

Every refusal has a stable code, which programs may rely on, and a sentence for people that says what was found, what
was wanted and what to do. The tree follows the order in which a message is checked: size, shape, context, key,
signature, body; then what the body asks for.

    Refusal
    ├── TooLarge, Malformed, UnknownVersion, UnknownKind, UnknownCriticalField, BadBody        its form
    ├── WrongHorde, WrongSession, OutOfSequence, BadKey, BadSignature, WrongSigner, BadDelegation   who says it
    ├── OutOfTurn, TooSlow, Busy, NotRegistered, BadInvite, Stopping, Internal                  the conversation
    ├── Late, TooFarAhead, Equivocation, UnknownJob, Fenced, TooLate, OverLease, ReceiptMismatch  documents
    ├── BadValue, OverLimit, OverMaxPrice, NotOffered, PrivatePartMissing, PrivatePartMismatch,
    │   ContentRefused, TimedOut                                                                requests
    ├── NotAllowed, UnknownAccount, NoKudos, JobsUnderWay                                       accounts
    ├── WrongCertificate, DigestMismatch, WrongLease, StreamGone, PrefixUnsupported             the direct stream
    └── BadToken, BadTicket, RelayFull, OverTicket, NoPath                                      paths
"""

from __future__ import annotations

from typing import ClassVar

#: So long is a sentence that travels; a refusal may quote what it was sent, and that can be long.
MAX_TEXT_CHARACTERS = 2000


class Refusal(Exception):
    """The other side asked for something it may not have; `code` and the text travel to it."""

    code: ClassVar[str] = "refused"

    @property
    def text(self) -> str:
        """The sentence for people, short enough to travel."""
        return str(self)[:MAX_TEXT_CHARACTERS]


class TooLarge(Refusal):
    """More bytes than this kind of message may have."""

    code = "too_large"


class Malformed(Refusal):
    """Not the msgpack that the standard allows."""

    code = "malformed"


class UnknownVersion(Refusal):
    """An envelope of another protocol version."""

    code = "unknown_version"


class UnknownKind(Refusal):
    """A message kind that the receiver does not know, or not in this direction."""

    code = "unknown_kind"


class UnknownCriticalField(Refusal):
    """A field whose name begins with `!` and that the receiver does not understand."""

    code = "unknown_critical_field"


class BadBody(Refusal):
    """A body without the fields and types of its kind."""

    code = "bad_body"


class WrongHorde(Refusal):
    """A message made for another horde's root key."""

    code = "wrong_horde"


class WrongSession(Refusal):
    """A message made for another session."""

    code = "wrong_session"


class OutOfSequence(Refusal):
    """A session message whose number is not exactly the next."""

    code = "out_of_sequence"


class BadKey(Refusal):
    """Not an Ed25519 public key that may be used."""

    code = "bad_key"


class BadSignature(Refusal):
    """The signature does not belong to these bytes and this key."""

    code = "bad_signature"


class WrongSigner(Refusal):
    """A true signature, by a key that has no say in this."""

    code = "wrong_signer"


class BadDelegation(Refusal):
    """The root key did not appoint this serving key."""

    code = "bad_delegation"


class OutOfTurn(Refusal):
    """A message that this state of the conversation does not allow."""

    code = "out_of_turn"


class TooSlow(Refusal):
    """The conversation did not get on within the time allowed."""

    code = "too_slow"


class Busy(Refusal):
    """More at once than the receiver takes on."""

    code = "busy"


class NotRegistered(Refusal):
    """Only a registered key may do this."""

    code = "not_registered"


class BadInvite(Refusal):
    """No invitation, or one that is unknown or used, where an account needs one."""

    code = "bad_invite"


class Stopping(Refusal):
    """The receiver is shutting down."""

    code = "stopping"


class Internal(Refusal):
    """A fault of the receiver; the text holds a reference number of its log."""

    code = "internal"


class Late(Refusal):
    """A document whose `valid_until` has passed."""

    code = "late"


class TooFarAhead(Refusal):
    """A document whose `valid_until` lies more than an hour ahead."""

    code = "too_far_ahead"


class Equivocation(Refusal):
    """A different document under an identity that is already taken; both are kept."""

    code = "equivocation"


class UnknownJob(Refusal):
    """No such job, or none that this key has a part in."""

    code = "unknown_job"


class Fenced(Refusal):
    """An attempt that a newer lease has replaced."""

    code = "fenced"


class TooLate(Refusal):
    """The job has already ended otherwise."""

    code = "too_late"


class OverLease(Refusal):
    """A receipt that claims more than its lease allows."""

    code = "over_lease"


class ReceiptMismatch(Refusal):
    """An acknowledgement or denial that does not fit the receipt it contains."""

    code = "receipt_mismatch"


class BadValue(Refusal):
    """A value outside the range that the standard gives."""

    code = "bad_value"


class OverLimit(Refusal):
    """More than this horde's rules allow."""

    code = "over_limit"


class OverMaxPrice(Refusal):
    """No named model costs as little as the request's `max_price`."""

    code = "over_max_price"


class NotOffered(Refusal):
    """Something that this horde does not offer."""

    code = "not_offered"


class PrivatePartMissing(Refusal):
    """A request whose private part did not come before it in this session."""

    code = "private_part_missing"


class PrivatePartMismatch(Refusal):
    """A private part that does not fit its digest or its public part."""

    code = "private_part_mismatch"


class ContentRefused(Refusal):
    """Content that the rules do not allow."""

    code = "content_refused"


class TimedOut(Refusal):
    """Nothing is taken from somebody for a while, after prompts that were refused."""

    code = "timed_out"


class NotAllowed(Refusal):
    """Something that a rule, or the delegation under which this key acts, forbids; the text says which."""

    code = "not_allowed"


class Suspended(Refusal):
    """A moderator's act stands against this; the text names it, until when, and how to answer."""

    code = "suspended"


class UnknownAct(Refusal):
    """No act of that digest, or one that is over or to which this does not apply."""

    code = "unknown_act"


class UnknownAccount(Refusal):
    """No account of that number, or one that has left."""

    code = "unknown_account"


class NoKudos(Refusal):
    """A transfer of more than its account can give. Work is never refused for this."""

    code = "no_kudos"


class JobsUnderWay(Refusal):
    """Something that has to wait until this account's jobs have ended."""

    code = "jobs_under_way"


class WrongCertificate(Refusal):
    """The other end is not the one that the peer record, or the link to the horde, names."""

    code = "wrong_certificate"


class DigestMismatch(Refusal):
    """What came is not what was signed for."""

    code = "digest_mismatch"


class WrongLease(Refusal):
    """An opening whose lease is not for this worker, job key, attempt or time."""

    code = "wrong_lease"


class StreamGone(Refusal):
    """A stream that the worker does not hold any more, or never had."""

    code = "stream_gone"


class PrefixUnsupported(Refusal):
    """An engine that cannot continue from a given text."""

    code = "prefix_unsupported"


class BadToken(Refusal):
    """A token for `/meet` that is unknown, used, or too old."""

    code = "bad_token"


class BadTicket(Refusal):
    """A ticket, or the entry that shows it, with which nothing is relayed here."""

    code = "bad_ticket"


class RelayFull(Refusal):
    """A relay that has as many streams as it takes on."""

    code = "relay_full"


class OverTicket(Refusal):
    """The bytes or the time of a ticket are used up."""

    code = "over_ticket"


class NoPath(Refusal):
    """Two peers that nothing brings together."""

    code = "no_path"


def _all(of: type[Refusal]) -> list[type[Refusal]]:
    return [of, *(found for child in of.__subclasses__() for found in _all(child))]


#: Every refusal by its code.
REFUSALS: dict[str, type[Refusal]] = {kind.code: kind for kind in _all(Refusal)}


def refusal(code: str, text: str) -> Refusal:
    """The refusal that travelled as `code` and `text`; a code of a newer peer becomes a plain `Refusal`."""
    return REFUSALS.get(code, Refusal)(text)
