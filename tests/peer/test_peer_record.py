"""Where a worker says it is reached, and the version of that."""

from pathlib import Path

import pytest

from peer.peer_record import Addresses, RecordKeeper, with_port
from tests.support.builders import NOW, a_digest

HERE = ("192.0.2.1:9000",)


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("worker.example", "worker.example:9000"),
        ("worker.example:443", "worker.example:443"),
        ("192.0.2.1", "192.0.2.1:9000"),
        ("2001:db8::1", "[2001:db8::1]:9000"),
        ("[2001:db8::1]", "[2001:db8::1]:9000"),
        ("[2001:db8::1]:443", "[2001:db8::1]:443"),
    ],
)
def test_an_address_gets_the_port_listened_on_unless_it_names_one(address: str, shown: str) -> None:
    assert with_port(address, 9000) == shown


@pytest.mark.parametrize(
    ("listening", "given", "local", "known"),
    [
        ("", ("worker.example", "192.0.2.7:1"), "192.0.2.1", ("worker.example:9000", "192.0.2.7:1")),
        ("", (), "192.0.2.1", HERE),
        ("0.0.0.0", (), "192.0.2.1", HERE),
        ("::", (), "2001:db8::1", ("[2001:db8::1]:9000",)),
        ("192.0.2.1", (), "198.51.100.1", HERE),
        ("", (), None, ()),
    ],
)
def test_what_was_given_comes_before_where_it_listens_and_that_before_how_it_reaches_the_tracker(
    listening: str, given: tuple[str, ...], local: str | None, known: tuple[str, ...]
) -> None:
    assert Addresses(listening, given).known(9000, local) == known


def test_the_same_again_keeps_its_version_and_anything_else_raises_it(tmp_path: Path) -> None:
    keeper = RecordKeeper(tmp_path / "worker" / "record_version", lambda: NOW)

    first = keeper.record(a_digest(1), HERE)

    assert first.version == NOW
    assert keeper.record(a_digest(1), HERE) == first
    assert keeper.record(a_digest(1), ()).version == NOW + 1
    assert keeper.record(a_digest(2), ()).version == NOW + 2


def test_the_version_rises_at_each_start_even_if_the_clock_went_back(tmp_path: Path) -> None:
    path = tmp_path / "record_version"
    before = RecordKeeper(path, lambda: NOW).record(a_digest(1), HERE)

    after = RecordKeeper(path, lambda: NOW - 1_000_000).record(a_digest(1), HERE)

    assert after.version == before.version + 1


def test_a_broken_file_counts_as_none(tmp_path: Path) -> None:
    path = tmp_path / "record_version"
    path.write_text("broken")

    assert RecordKeeper(path, lambda: NOW).record(a_digest(1), HERE).version == NOW
