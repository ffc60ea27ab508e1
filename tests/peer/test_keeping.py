"""What a peer keeps of its settlements, and when it shows them."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from peer.keeping import DAY_MS, KEEP_DAYS, Keeping, Showing
from protocol.documents import Former, Serving
from protocol.envelope import parse
from protocol.messages import Kept, SessionMessage
from tests.support.builders import NOW, ROOT, SERVING, a_key, a_settlement, but, signed

AFTER = a_key(70)


def a_kept(entry: int = 5, settled: int = NOW) -> Kept:
    settlement = signed(but(a_settlement(entry=entry), settled=settled))
    return Kept(settlement=settlement.raw, lease=b"lease", receipt=b"receipt")


def a_delegation(version: int = 2, entries: int = 0) -> Serving:
    former = (Former(key=SERVING.public, entries=entries),)
    return Serving(serving=AFTER.public, version=version, epoch=1, former=former)


class Line:
    """A connection that notes what is said; `says` of it, then it is lost."""

    def __init__(self, says: int = 1000) -> None:
        self.said: list[SessionMessage] = []
        self._says = says

    async def say(self, message: SessionMessage) -> bytes | None:
        if len(self.said) == self._says:
            return None
        self.said.append(message)
        return b"message %d" % len(self.said)


@pytest.fixture
def keeping(tmp_path: Path) -> Keeping:
    return Keeping(tmp_path, ROOT.public)


def digest(kept: Kept) -> bytes:
    return parse(kept.settlement).digest


def test_only_what_a_former_key_signed_and_a_restore_cut_is_to_be_shown(keeping: Keeping) -> None:
    below, at, above = (a_kept(entry) for entry in (4, 5, 6))
    for kept in (below, at, above):
        keeping.keep(kept)

    assert list(keeping.to_show(a_delegation(entries=5)).values()) == [at, above]
    assert keeping.to_show(Serving(serving=SERVING.public, version=1)) == {}
    assert keeping.to_show(msgspec.structs.replace(a_delegation(), former=(Former(key=AFTER.public, entries=0),))) == {}


def test_settlements_are_kept_for_some_days(keeping: Keeping) -> None:
    old, young = a_kept(1, NOW), a_kept(2, NOW + (KEEP_DAYS + 1) * DAY_MS)
    keeping.keep(old)
    keeping.keep(young)

    assert list(keeping.to_show(a_delegation()).values()) == [young]


def test_a_file_that_was_broken_off_is_read_up_to_there(keeping: Keeping, tmp_path: Path) -> None:
    keeping.keep(a_kept(1))
    keeping.keep(a_kept(2))
    [path] = (found for found in tmp_path.rglob("*") if found.is_file())
    path.write_bytes(path.read_bytes()[:-7])

    assert list(keeping.to_show(a_delegation()).values()) == [a_kept(1)]


def test_files_are_for_their_owner_alone(keeping: Keeping, tmp_path: Path) -> None:
    keeping.keep(a_kept())
    [path] = (found for found in tmp_path.rglob("*") if found.is_file())

    assert path.stat().st_mode & 0o077 == 0


async def test_what_is_kept_is_shown_until_all_of_it_was_answered(keeping: Keeping) -> None:
    first, second = a_kept(1), a_kept(2)
    keeping.keep(first)
    keeping.keep(second)
    showing, line = Showing(keeping), Line()
    await showing.begin(line, a_delegation())
    assert line.said == [first, second]
    showing.taken((digest(first),))

    again = Line()
    await showing.begin(again, a_delegation())
    assert again.said == [first, second]
    showing.taken((digest(first), bytes(32)))
    assert showing.refused(b"message 2", "too_late")
    assert not showing.refused(b"message 7", "too_late")
    assert keeping.to_show(a_delegation()) == {}
    assert len(keeping.to_show(a_delegation(version=3))) == 2


async def test_a_refusal_that_passes_is_no_answer(keeping: Keeping) -> None:
    keeping.keep(a_kept())
    showing = Showing(keeping)
    await showing.begin(Line(), a_delegation())

    assert showing.refused(b"message 1", "busy")
    assert len(keeping.to_show(a_delegation())) == 1


async def test_a_connection_that_is_lost_meanwhile_ends_the_showing(keeping: Keeping) -> None:
    first, second = a_kept(1), a_kept(2)
    keeping.keep(first)
    keeping.keep(second)
    showing = Showing(keeping)
    await showing.begin(Line(says=1), a_delegation())
    showing.taken((digest(first),))

    assert len(keeping.to_show(a_delegation())) == 2
