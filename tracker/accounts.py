"""Who may act for an account, and for what: decided without any storage.

An account has one key. Other keys act for it by delegations, each within its bounds; the account's own key has none.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from protocol.documents import Delegation
from protocol.errors import BadValue, NotAllowed
from protocol.work import ImageWork, PublicPart

#: Delegations of one account that stand at once.
MAX_DELEGATIONS = 256

#: An invitation: four groups of five letters, 99 bits, so that nobody guesses one.
INVITE_LETTERS = "abcdefghjkmnpqrstuvwxyz23456789"
INVITE_GROUPS = 4
INVITE_GROUP = 5


@dataclass(frozen=True, slots=True)
class Grant:
    """A delegation that stands. digest: of the document; terms: what it says."""

    digest: bytes
    terms: Delegation


@dataclass(frozen=True, slots=True)
class Acting:
    """For which account a key acts, 0 for none. grant: the delegation by which it does; None for the account's own
    key."""

    account: int = 0
    grant: Grant | None = None

    def at(self, now: int) -> Acting:
        """The same, or nobody, if the delegation has expired by then."""
        return NOBODY if self.grant is not None and has_expired(self.grant.terms, now) else self

    @property
    def expires(self) -> int:
        """The last moment at which this holds by itself; 0 for no end."""
        return self.grant.terms.expires if self.grant is not None else 0


NOBODY = Acting()


def has_expired(terms: Delegation, now: int) -> bool:
    """Whether the last moment of a delegation has passed."""
    return 0 < terms.expires < now


def check_ask(acting: Acting, public: PublicPart) -> None:
    """Refuse a request beyond the delegation by which its signer acts; the text names the bound, until when it holds,
    and what lifts it. Kudos are no reason to refuse: see `available`."""
    if acting.grant is None:
        return
    terms = acting.grant.terms
    if not terms.ask:
        raise NotAllowed(
            f"the delegation by which this key acts for account {acting.account} lets it work and not ask"
            f"{until(terms)}: {_lift('with `ask`')}, or ask without an account"
        )
    for name, found, most in _bounds(public, terms):
        if most and found > most:
            raise NotAllowed(
                f"{name} {found}: the delegation by which this key acts for account {acting.account} allows at most"
                f" {most}{until(terms)}; {_lift('with a higher bound')}"
            )
    if terms.models and not public.models:
        raise NotAllowed(f"no model is named: {_models(acting.account, terms)}")
    for model in public.models:
        if terms.models and model not in terms.models:
            raise NotAllowed(f"model {model!r}: {_models(acting.account, terms)}")


def _bounds(public: PublicPart, terms: Delegation) -> Iterator[tuple[str, int, int]]:
    """What a request asks for, and what its delegation allows of it."""
    work = public.work
    if isinstance(work, ImageWork):
        yield "pixels", work.width * work.height, terms.max_pixels
        yield "steps", work.steps, terms.max_steps
    else:
        yield "tokens", work.max_tokens, terms.max_tokens
        yield "context", work.context_tokens, terms.max_context


def _models(account: int, terms: Delegation) -> str:
    return (
        f"the delegation by which this key acts for account {account} allows only {', '.join(terms.models)}"
        f"{until(terms)}; {_lift('with more models')}"
    )


def _lift(how: str) -> str:
    return f"its owner can make one {how}"


def until(terms: Delegation) -> str:
    """When a delegation ends, as part of a sentence; nothing if it does not."""
    if not terms.expires:
        return ""
    try:
        return f", until {datetime.fromtimestamp(terms.expires / 1000, UTC):%Y-%m-%d %H:%M} UTC"
    except (ValueError, OverflowError, OSError):  # beyond what a calendar has
        return ""


def check_work(acting: Acting) -> None:
    """Refuse a worker whose delegation does not let it work."""
    if acting.grant is not None and not acting.grant.terms.work:
        raise NotAllowed(
            f"the delegation by which this key acts for account {acting.account} lets it ask and not work"
            f"{until(acting.grant.terms)}: {_lift('with `work`')}"
        )


def check_own(acting: Acting, what: str) -> None:
    """Refuse what the account's own key alone may do."""
    if acting.grant is not None:
        raise NotAllowed(
            f"a {what} by a key that acts for account {acting.account} by a delegation: only the account's own key may"
        )


def check_user(user: bytes, *, is_service: bool) -> None:
    """Refuse a pseudonym from somebody who asks for no users."""
    if user and not is_service:
        raise BadValue("`user` is for service accounts: leave it out, or say in the profile that this is one")


def available(acting: Acting, balance: int, used: int) -> int:
    """What of the balance can be set aside for this key. used: thousandths held or spent through its delegation.

    What lies beyond the bound is asked for as by an account without kudos.
    """
    if acting.grant is None or acting.grant.terms.kudos is None:
        return balance
    return min(balance, max(0, acting.grant.terms.kudos - used))


def new_invite() -> str:
    """A fresh code, as people type it."""
    letters = [secrets.choice(INVITE_LETTERS) for _ in range(INVITE_GROUPS * INVITE_GROUP)]
    groups = ["".join(letters[at : at + INVITE_GROUP]) for at in range(0, len(letters), INVITE_GROUP)]
    return "-".join(groups)


def invite_hash(code: str) -> bytes:
    """By what the tracker knows a code; spaces, hyphens and case do not matter."""
    plain = "".join(letter for letter in code.lower() if letter.isalnum())
    return hashlib.sha256(f"potluck invite {plain}".encode()).digest()
