"""Which postings each event of the ledger may have, as far as the leaf alone shows it: the tables of
docs/protocol.md, read by whoever audits what is public."""

from __future__ import annotations

from dataclasses import dataclass

from protocol.postings import ANONYMOUS, BURN, FIRST_PERSON, HELD, MINT, WITHHELD, Postings

#: Stands for the one account of a person, or of everybody without an account.
_PERSON = 0


@dataclass(frozen=True)
class Table:
    """The accounts that an event may move, in their order, each with the directions allowed: -1, 1 or 0 for both.

    persons: how many of them are people's, at least and at most.
    """

    moves: tuple[tuple[int, int], ...]
    persons: tuple[int, int] = (0, 1)


_HOLD = Table(((_PERSON, -1), (HELD, 1)))
_RELEASE = Table(((HELD, -1), (_PERSON, 1)))
_SETTLE = Table(((HELD, -1), (MINT, -1), (_PERSON, 1), (WITHHELD, 1), (BURN, 1)))

TABLES: dict[str, Table] = {
    "hold": _HOLD,
    "charged": _HOLD,
    "release": _RELEASE,
    "refund": _RELEASE,
    "settle": _SETTLE,
    "recovered": _SETTLE,
    "award": Table(((MINT, -1), (_PERSON, 1)), (1, 1)),
    "transfer": Table(((_PERSON, -1), (_PERSON, 1)), (0, 2)),
    "vest": Table(((WITHHELD, -1), (_PERSON, 1)), (0, 1)),
    "leave": Table(((_PERSON, 0), (WITHHELD, -1), (MINT, -1), (BURN, 1))),
    "epoch": Table((), (0, 0)),
    "act": Table((), (0, 0)),
    "return": Table(((_PERSON, -1), (_PERSON, 1), (BURN, 1)), (1, 2)),
    "trust": Table(((WITHHELD, -1), (_PERSON, 1)), (0, 1)),
}


def fault_of(event: str, moved: Postings) -> str:
    """What is wrong with an event that moves this; empty if nothing is."""
    table = TABLES.get(event)
    if table is None:
        return f"event {event[:40]!r}: wanted one of {', '.join(TABLES)}"
    if total := sum(amount for _, amount in moved):
        return f"postings that sum to {total}: wanted 0"
    rest = list(table.moves)
    persons = 0
    for account, amount in moved:
        kind = _PERSON if account >= FIRST_PERSON or account == ANONYMOUS else account
        persons += kind == _PERSON
        while rest and not _fits(rest[0], kind, amount):
            rest.pop(0)
        if not rest:
            return f"a {event} that moves account {account} by {amount}: wanted what docs/protocol.md says of it"
        rest.pop(0)
    least, most = table.persons
    if not least <= persons <= most:
        return f"a {event} of {persons} people's accounts: wanted {least} to {most}"
    return ""


def _fits(move: tuple[int, int], kind: int, amount: int) -> bool:
    account, direction = move
    return account == kind and amount != 0 and (not direction or direction * amount > 0)
