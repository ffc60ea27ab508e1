"""No door for money: what really travels between peers and a tracker has its reason in `tests/protocol/fields.txt`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from protocol.envelope import Envelope, parse
from protocol.errors import Refusal
from protocol.kinds import DOCUMENTS
from tests.protocol.test_fields import OF_MONEY
from tests.support.fields import FILE, reasons
from tests.support.horde import Horde
from tests.support.tap import tapped

pytestmark = pytest.mark.ci_slow

KNOWN = set(reasons(FILE.read_text("utf-8")))
#: The last part of each path: what lies within other fields is known by that alone.
NAMES = {path.rpartition(".")[2] for path in KNOWN}


def names_within(value: Any) -> Iterator[str]:
    """The names of all fields in what a field holds."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield name
            yield from names_within(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from names_within(inner)


def without_reason(envelope: Envelope) -> set[str]:
    """Fields of what was said that the file does not know."""
    kind = f"{'document' if envelope.kind in DOCUMENTS else 'message'}.{envelope.kind}"
    body = msgspec.msgpack.decode(envelope.body)
    unknown = {f"{kind}.{name}" for name in body} - KNOWN
    return unknown | {f"{kind}: {name}" for value in body.values() for name in names_within(value) if name not in NAMES}


async def test_no_door_for_money_every_field_that_travels_has_its_reason(tmp_path: Path) -> None:
    async with Horde.open(tmp_path, 'transfers.mode = "on"') as horde:
        assert horde.link is not None
        async with tapped(horde.link) as tap:
            horde.link = tap.link
            await horde.worker("ann", "--dry-run", "image")
            home = str(horde.join("bob").folder)
            picture = ("peer", "image", "x", "--width", "64", "--height", "64", "--home", home)
            await horde.run("peer", "account", "--register", "--home", home)
            await horde.run("peer", "account", "name", "Bob", "--home", home)
            await horde.run(*picture, "--dry-run")
            await horde.run(*picture, "-o", str(tmp_path / "x.png"))
            await horde.run("peer", "transfer", "100", "0.001", "--home", home, code=4)
            said = [parse(raw) for raw in [*tap.to_tracker, *tap.from_tracker] if is_signed(raw)]
    kinds = {envelope.kind for envelope in said}
    assert {"hello", "register", "profile", "ask_quote", "quote", "request", "lease", "settlement", "transfer"} <= kinds
    assert set().union(*map(without_reason, said)) == set()
    assert not [name for name in NAMES if OF_MONEY.search(name)]


def is_signed(raw: bytes) -> bool:
    """All but the challenge, which begins a connection."""
    try:
        parse(raw)
    except Refusal:
        return False
    return True


async def test_no_door_for_money_a_field_without_a_reason_would_be_seen() -> None:
    body = msgspec.msgpack.encode({"balance": 1, "pay_first": 1, "holds": [{"bid": 1}]})
    said = Envelope(kind="account", key=bytes(32), context=b"", body=body, signature=bytes(64), raw=b"")
    assert without_reason(said) == {"message.account.pay_first", "message.account.holds", "message.account: bid"}
