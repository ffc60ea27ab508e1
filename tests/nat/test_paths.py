"""The table of paths: whole, shown in docs/ as it is tested, and the choice for CI has some of everything."""

from __future__ import annotations

from tests.nat.kinds import Kind
from tests.nat.paths import CHOICE, DIRECT, DOCS, EXPECTED, PUNCHED, RELAYED, in_docs, table


def test_docs_show_every_cell_as_it_is_tested() -> None:
    assert in_docs(DOCS.read_text("utf-8")) == EXPECTED


def test_a_cell_that_differs_would_be_found() -> None:
    shown = table(EXPECTED).replace(RELAYED, DIRECT, 1)

    assert in_docs(f"before\n\n{shown}\n\nafter\n") != EXPECTED
    assert in_docs(f"before\n\n{table(EXPECTED)}\n\nafter\n") == EXPECTED


def test_every_kind_meets_every_kind() -> None:
    assert EXPECTED.keys() == {(worker, requester) for worker in Kind for requester in Kind}


def test_the_choice_has_each_path_and_each_kind() -> None:
    assert {EXPECTED[pair] for pair in CHOICE} == {DIRECT, PUNCHED, RELAYED}
    assert {kind for pair in CHOICE for kind in pair} == set(Kind)
