"""What an audit goes on from where an archive ends: all sums at that moment, as bytes that a signed document binds."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import astuple, dataclass
from itertools import islice
from typing import Any

import msgspec

from protocol.codec import Body
from protocol.digests import new_salt
from protocol.work import Salt
from tracker.audit.books import COLUMNS, Books, Sums
from tracker.audit.report import Findings

_NOTHING = astuple(Sums())


@dataclass(frozen=True)
class Cut:
    """Where an archive shall end. size, time: of the checkpoint there. since: the first day of which shares of the
    mint are asked for in what comes behind it."""

    size: int
    time: int
    since: int


class Opening(Body, frozen=True, kw_only=True):
    """The books at one moment, each list in order and without what is zero.

    salt: makes the digest unguessable, since not all of it is public. accounts: number and sums, as `COLUMNS` has them.
    holds: by job. minted: by day. shares, again: by day and whose, from the day `since` on. used: by delegation.
    """

    salt: Salt
    accounts: tuple[tuple[int, tuple[int, ...]], ...]
    holds: tuple[tuple[bytes, int], ...]
    minted: tuple[tuple[int, int], ...]
    since: int
    shares: tuple[tuple[int, str, int], ...]
    again: tuple[tuple[int, str, int], ...]
    used: tuple[tuple[bytes, int], ...]

    @property
    def balances(self) -> list[tuple[int, int]]:
        """What anybody may know of it."""
        at = COLUMNS.index("balance")
        return [(account, sums[at]) for account, sums in self.accounts if sums[at]]


def opening_of(books: Books, used: Counter[bytes], since: int, salt: bytes = b"") -> Opening:
    """The books as they stand. since: the first day of which shares of the mint are still asked for."""
    return Opening(
        salt=salt or new_salt(),
        accounts=tuple(
            (account, astuple(sums)) for account, sums in sorted(books.accounts.items()) if astuple(sums) != _NOTHING
        ),
        holds=tuple(sorted((job, amount) for job, amount in books.holds.items() if amount)),
        minted=_flat(books.minted),
        since=since,
        shares=_named(books.shares, since),
        again=_named(books.again, since),
        used=tuple(sorted((digest, amount) for digest, amount in used.items() if amount)),
    )


def begin(books: Books, used: Counter[bytes], opening: Opening) -> None:
    """Let the books stand as they did then."""
    books.accounts = {account: Sums(*sums) for account, sums in opening.accounts}
    books.holds = dict(opening.holds)
    books.minted = Counter(dict(opening.minted))
    books.shares = Counter({(day, whose): amount for day, whose, amount in opening.shares})
    books.again = Counter({(day, whose): amount for day, whose, amount in opening.again})
    used.clear()
    used.update(dict(opening.used))


def compare(found: Opening, wanted: Opening, what: str, findings: Findings) -> None:
    """Note what of the books is another thing than what was signed for."""
    for name in Opening.__struct_fields__:
        here, there = getattr(found, name), getattr(wanted, name)
        if here == there:
            continue
        if isinstance(here, tuple):
            here, there = _without(here, there), _without(there, here)
        findings.add(f"{what}: {name}", here, there)


def _without(these: tuple[Any, ...], those: tuple[Any, ...]) -> tuple[Any, ...]:
    """The first few of these that are not among those."""
    known = set(those)
    return tuple(islice((one for one in these if one not in known), 3))


def digest_of(raw: bytes) -> bytes:
    """By which a document binds these bytes."""
    return hashlib.sha256(raw).digest()


def balances_digest(balances: list[tuple[int, int]]) -> bytes:
    """The digest that `balances` names: SHA-256 of msgpack `[[account, balance], ...]`."""
    return digest_of(msgspec.msgpack.encode(balances))


def _flat(counter: Counter[int]) -> tuple[tuple[int, int], ...]:
    return tuple(sorted((key, amount) for key, amount in counter.items() if amount))


def _named(counter: Counter[tuple[int, str]], since: int) -> tuple[tuple[int, str, int], ...]:
    return tuple(sorted((day, whose, amount) for (day, whose), amount in counter.items() if amount and day >= since))
