"""Which path a worker and a requester are to find to each other, by how each is connected.

Direct where anybody reaches the worker; punched wherever both sides allow, which `test_homes` finds out with plain
sockets, pair by pair; relayed else. `python -m tests.nat.paths` writes the table into docs/nat.md.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from tests.nat.kinds import Kind

DOCS = Path(__file__).parents[2] / "docs" / "nat.md"

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

#: The pairs that stand for all: each path and kind, both families, and each thing that can go wrong when two meet: a
#: requester of both families, and a port that the tracker did not foresee.
CHOICE = frozenset(
    {
        (Kind.PUBLIC, Kind.IPV6_ONLY),
        (Kind.FULL_CONE, Kind.BLOCKED),
        (Kind.PORT_RESTRICTED, Kind.PORT_RESTRICTED),
        (Kind.PORT_RESTRICTED, Kind.SYMMETRIC),
        (Kind.SYMMETRIC, Kind.PUBLIC),
        (Kind.IPV6_ONLY, Kind.PUBLIC),
    }
)

_TABLE = re.compile(r"(?m)^\| worker \\ requester .*\n(?:\|.*\n)+")


def table(found: Mapping[tuple[Kind, Kind], str]) -> str:
    """The paths as docs/ show them: a row for each kind of worker, a column for each kind of requester. A dash stands
    where nothing is known."""
    rows = [["worker \\ requester", *(kind.value for kind in Kind)]]
    rows += [[worker.value, *(found.get((worker, requester), "-") for requester in Kind)] for worker in Kind]
    rows.insert(1, ["---"] * len(rows[0]))
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def in_docs(text: str) -> Mapping[tuple[Kind, Kind], str]:
    """The paths that a page shows in its table."""
    kinds = {kind.value: kind for kind in Kind}
    [found] = _TABLE.findall(text)
    head, _, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in found.splitlines()]
    return {
        (kinds[worker], kinds[requester]): path
        for worker, *paths in rows
        for requester, path in zip(head[1:], paths, strict=True)
    }


if __name__ == "__main__":
    written = DOCS.read_text("utf-8")
    assert len(_TABLE.findall(written)) == 1, "docs/nat.md is to have one table of paths"
    DOCS.write_text(_TABLE.sub(lambda _: table(EXPECTED) + "\n", written), "utf-8")
