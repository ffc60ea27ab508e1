"""No door for money: every field of the wire, of the rules and of what can be asked for has a reason to exist.

There is no field by which money could buy a place, a priority, an account or kudos, and none comes in unseen: one that
is not in fields.txt fails here until somebody has written down what it is for.
"""

import re

import msgspec
import pytest

from tests.support.fields import FILE, fields_of_protocol, reasons, within

TEXT = FILE.read_text("utf-8")

#: Beginnings of names by which a door for money would give itself away.
OF_MONEY = re.compile(
    r"(?:^|_)(?:bid|bill|bonus|card|charge|coin|crypto|currency|dollar|donat|eur|euro|fee|fiat|invoice|iban|memo|money"
    r"|order|pay|payment|premium|priority|purchase|queue_place|subscri|tip|usd|vip|voucher|wallet)"
)


def of_protocol(text: str) -> set[str]:
    """Paths in the file that belong to the protocol: no command, no setting of a process."""
    return {path for path in reasons(text) if not path.startswith(("potluck", "setting."))}


def doors(paths: set[str]) -> list[str]:
    """Paths whose last part sounds of money."""
    return sorted(path for path in paths if OF_MONEY.search(path.rpartition(".")[2].rpartition(" ")[2].strip("-")))


def test_no_door_for_money_every_field_of_the_protocol_and_the_rules_has_its_reason_and_no_other_stands_there() -> None:
    assert fields_of_protocol() ^ of_protocol(TEXT) == set()


def test_no_door_for_money_no_field_sounds_of_money() -> None:
    assert doors(set(reasons(TEXT))) == []


def test_the_fields_are_in_order() -> None:
    lines = [line for line in TEXT.splitlines() if line and not line.startswith("#")]

    assert lines == sorted(lines)


class Door(msgspec.Struct):
    pay_first: int


class Wall(msgspec.Struct):
    width: int
    doors: tuple[Door, ...]


def test_a_new_field_fails_until_it_is_added() -> None:
    grown = fields_of_protocol() | set(within("message.wall", Wall))

    assert grown ^ of_protocol(TEXT) == {"message.wall.width", "message.wall.doors", "message.wall.doors.pay_first"}
    assert doors(grown) == ["message.wall.doors.pay_first"]
    added = "\n".join(f"{path}: a reason" for path in within("message.wall", Wall))
    assert grown ^ of_protocol(f"{TEXT}\n{added}") == set()


def test_a_field_that_is_gone_fails_until_it_is_taken_out() -> None:
    assert fields_of_protocol() - {"message.position.ahead"} ^ of_protocol(TEXT) == {"message.position.ahead"}


@pytest.mark.parametrize(
    "text", ["message.wall.width", "message.wall.width:", "message.wall.width: x", "a.b: a reason\na.b: another"]
)
def test_a_path_without_a_reason_or_twice_is_found(text: str) -> None:
    with pytest.raises(ValueError, match="wanted"):
        reasons(text)
