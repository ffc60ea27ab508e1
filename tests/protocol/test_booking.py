"""The tables of postings: what each event may move, and that anything else is found."""

import pytest

from protocol import postings
from protocol.booking import TABLES, fault_of
from protocol.postings import ANONYMOUS, BURN, HELD, MINT, WITHHELD, Postings

ANN, BEN = 100, 101

RIGHT: list[tuple[str, Postings]] = [
    ("hold", postings.hold(ANN, 5)),
    ("hold", ()),
    ("charged", postings.hold(ANN, 5)),
    ("release", postings.release(ANN, 5)),
    ("refund", postings.release(ANN, 5)),
    ("settle", postings.settle(BEN, paid=4, minted=3, burned=1, withheld=2)),
    ("settle", postings.settle(BEN, paid=0, minted=3, burned=0)),
    ("settle", postings.settle(BEN, paid=4, minted=0, burned=0, withheld=4)),
    ("settle", ()),
    ("recovered", postings.settle(BEN, paid=4, minted=3, burned=1)),
    ("award", postings.award(ANN, 7)),
    ("transfer", postings.transfer(ANN, BEN, 7)),
    ("transfer", postings.transfer(ANN, ANN, 7)),
    ("vest", postings.vest(ANN, 7)),
    ("leave", postings.leave(ANN, 7, 2)),
    ("leave", postings.leave(ANN, -7, 2)),
    ("leave", postings.leave(ANN, 0, 0)),
    ("epoch", ()),
    ("act", ()),
    ("return", postings.give_back(ANN, BEN, 7)),
    ("return", postings.give_back(ANN, 0, 7)),
    ("trust", postings.vest(ANN, 7)),
    ("trust", ()),
]

WRONG: list[tuple[str, Postings]] = [
    ("gift", ()),
    ("hold", ((ANN, -5), (HELD, 6))),
    ("hold", ((HELD, 5), (ANN, -5))),
    ("hold", ((ANN, 5), (HELD, -5))),
    ("release", ((MINT, -5), (ANN, 5))),
    ("settle", ((HELD, -5), (ANN, 2), (BEN, 3))),
    ("settle", ((ANN, -5), (BEN, 5))),
    ("settle", ((HELD, -5), (BURN, 5), (ANN, 0))),
    ("award", ()),
    ("award", ((BURN, -5), (ANN, 5))),
    ("transfer", ((ANN, -5), (ANN, 2), (BEN, 3))),
    ("vest", ((WITHHELD, 5), (ANN, -5))),
    ("leave", ((ANN, -5), (BEN, 5))),
    ("epoch", ((MINT, -5), (ANONYMOUS, 5))),
    ("act", ((ANN, -5), (BEN, 5))),
    ("return", ()),
    ("return", ((MINT, -5), (ANN, 5))),
    ("trust", ((WITHHELD, 5), (ANN, -5))),
]


@pytest.mark.parametrize(("event", "moved"), RIGHT)
def test_what_the_programs_enter_is_in_the_tables(event: str, moved: Postings) -> None:
    assert fault_of(event, moved) == ""


@pytest.mark.parametrize(("event", "moved"), WRONG)
def test_what_no_event_moves_is_found(event: str, moved: Postings) -> None:
    assert fault_of(event, moved)


def test_every_event_of_the_tables_is_tried() -> None:
    assert {event for event, _ in RIGHT} == set(TABLES)
