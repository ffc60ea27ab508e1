"""Which path a worker and a requester are to find to each other, by how each is connected.

Direct where anybody reaches the worker; punched wherever both sides allow, which `test_homes` finds out with plain
sockets, pair by pair; relayed else.
"""

from __future__ import annotations

from collections.abc import Mapping

from tests.nat.kinds import Kind

DIRECT, PUNCHED, RELAYED = "direct", "punched", "relayed"

_LETTERS = {"d": DIRECT, "p": PUNCHED, "r": RELAYED}

#: A row for each kind of worker; requesters in the same order.
_ROWS = """
    d d d d d d
    d d d d d r
    p p p r p r
    p p r r r r
    p p p r p r
    p r r r r p
"""

EXPECTED: Mapping[tuple[Kind, Kind], str] = {
    (worker, requester): _LETTERS[letter]
    for worker, row in zip(Kind, _ROWS.split("\n")[1:-1], strict=True)
    for requester, letter in zip(Kind, row.split(), strict=True)
}


def table(found: Mapping[tuple[Kind, Kind], str]) -> str:
    """The paths as docs/ show them: a row for each kind of worker, a column for each kind of requester. A dash stands
    where nothing is known."""
    rows = [["worker \\ requester", *(kind.value for kind in Kind)]]
    rows += [[worker.value, *(found.get((worker, requester), "-") for requester in Kind)] for worker in Kind]
    rows.insert(1, ["---"] * len(rows[0]))
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)
