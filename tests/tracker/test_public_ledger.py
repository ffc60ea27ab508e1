"""What a ledger shows of itself, read from the database of a history."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest
from msgspec.structs import replace

from protocol import codec, merkle
from protocol.booking import fault_of
from protocol.digests import commitment
from protocol.documents import Award, Checkpoint, Evidence, Leaf, Profile, Settlement, open_document
from protocol.envelope import parse
from protocol.errors import BadValue, NotAllowed
from protocol.public import AskDisclosure, Opened, Part
from protocol.rules import LedgerSection, Rules
from tests.support.builders import DAY, a_key, signed
from tests.support.history import ANN, BEN, History, live_through_everything
from tests.support.rules import plain
from tracker.public.reader import PublicLedger

#: Entries can be read without waiting for the day to be over.
AT_ONCE = plain(Rules(ledger=LedgerSection(delay_days=0)))


@pytest.fixture
async def lived(tmp_path: Path) -> AsyncIterator[tuple[History, PublicLedger]]:
    async with History.open(tmp_path / "horde.db", AT_ONCE) as history:
        await live_through_everything(history)
        await history.award(history.accounts[BEN.public], 5000)
        await history.store.seal(history.tick())
        yield history, PublicLedger(tmp_path / "horde.db")


def leaves(part: Part) -> list[Leaf]:
    return [codec.decode(row.leaf, Leaf) for row in part.rows]


async def test_entries_are_the_leaves_of_the_newest_checkpoint_and_show_no_evidence_but_of_the_operators_acts(
    lived: tuple[History, PublicLedger],
) -> None:
    history, ledger = lived

    head = ledger.head(history.now)
    part, lasting = ledger.part(0, history.now)

    newest = open_document(parse(head.checkpoint), Checkpoint)
    assert head.public == head.checkpoint
    assert not lasting
    assert merkle.root_of([merkle.leaf_hash(row.leaf) for row in part.rows]) == newest.root
    assert [fault_of(leaf.event, leaf.postings) for leaf in leaves(part) if fault_of(leaf.event, leaf.postings)] == []
    [award] = [row for row in part.rows if row.evidence]
    evidence = codec.decode(award.evidence, Evidence)
    assert codec.decode(award.leaf, Leaf).evidence == commitment(evidence.salt, award.evidence)
    assert open_document(parse(award.document), Award).amount == 5000


async def test_entries_of_a_day_can_be_read_when_the_day_is_over(lived: tuple[History, PublicLedger]) -> None:
    history, ledger = lived
    [days] = [{leaf.day for leaf in leaves(ledger.part(0, history.now)[0])}]
    assert len(days) > 1

    async def wait(days: int) -> None:
        await history.store.publish_rules(replace(AT_ONCE, ledger=LedgerSection(delay_days=days)), history.now)

    def read(now: int) -> set[int]:
        return {leaf.day for leaf in leaves(ledger.part(0, now)[0])}

    first, last = min(days), max(days)
    await wait(2)
    assert read(history.now + DAY) < days
    await wait(1)
    assert read(history.now - history.now % DAY - 1) < days
    assert read(history.now + DAY) == days
    assert read((first + 1) * DAY) == {first}
    assert read(first * DAY) == set()
    assert last not in read(last * DAY + DAY - 1)


async def test_proofs_hold_for_every_entry_and_for_every_former_size(lived: tuple[History, PublicLedger]) -> None:
    history, ledger = lived
    newest = open_document(parse(ledger.head(history.now).checkpoint), Checkpoint)

    for entry in range(newest.size):
        found = ledger.inclusion(entry, newest.size)
        proof = [bytes.fromhex(node) for node in found.proof]
        assert merkle.verify_inclusion(bytes.fromhex(found.leaf), entry, newest.size, proof, newest.root)
    for earlier in range(1, newest.size + 1):
        consistent = ledger.consistency(earlier, newest.size)
        proof = [bytes.fromhex(node) for node in consistent.proof]
        root = bytes.fromhex(consistent.root)
        assert merkle.verify_consistency(earlier, root, newest.size, newest.root, proof)


@pytest.mark.parametrize("wrong", [(0, 10_000), (-1, 1), (3, 3), (0, 0)])
async def test_what_no_checkpoint_covers_is_not_proved(
    lived: tuple[History, PublicLedger], wrong: tuple[int, int]
) -> None:
    _, ledger = lived

    with pytest.raises(BadValue):
        ledger.inclusion(*wrong)


async def test_a_part_begins_at_a_multiple_and_not_behind_what_can_be_read(
    lived: tuple[History, PublicLedger],
) -> None:
    history, ledger = lived

    for first in (1, 1000):
        with pytest.raises(BadValue):
            ledger.part(first, history.now)


# The disclosure of jobs


def events(opened: Opened) -> Sequence[str]:
    return [codec.decode(entry.leaf, Leaf).event for entry in opened.entries]


async def served(history: History) -> tuple[bytes, bytes]:
    """A job of Ann's that took less than was held: its request and settlement."""
    asked = await history.ask(ANN, served_by=BEN)
    receipt = await history.receipt(asked.admitted.leases[0].document, BEN, used=3)
    await history.deliver(receipt)
    settlement = await history.acknowledge(asked, receipt)
    await history.store.seal(history.tick())
    return asked.request.raw, settlement


async def test_the_worker_opens_the_settlement_and_the_requester_the_hold_too(
    lived: tuple[History, PublicLedger],
) -> None:
    history, ledger = lived
    await history.award(history.accounts[ANN.public], 50_000)
    request, settlement = await served(history)

    theirs = ledger.opened(AskDisclosure(settlement=settlement))
    mine = ledger.opened(AskDisclosure(settlement=settlement, request=request))

    assert events(theirs) == ["settle"]
    assert events(mine)[:2] == ["hold", "settle"]
    job = open_document(parse(settlement), Settlement).job
    newest = open_document(parse(mine.checkpoint), Checkpoint)
    for entry in mine.entries:
        evidence, leaf = codec.decode(entry.evidence, Evidence), codec.decode(entry.leaf, Leaf)
        assert leaf.hold == commitment(evidence.salt, job)
        assert leaf.evidence == commitment(evidence.salt, entry.evidence)
        hashed = merkle.leaf_hash(entry.leaf)
        assert merkle.verify_inclusion(hashed, entry.entry, newest.size, entry.proof, newest.root)


async def test_nobody_opens_by_a_settlement_of_its_own_or_by_the_request_of_another(
    lived: tuple[History, PublicLedger],
) -> None:
    history, ledger = lived
    await history.award(history.accounts[ANN.public], 50_000)
    request, settlement = await served(history)
    other, _ = await served(history)
    forged = signed(open_document(parse(settlement), Settlement), a_key(77)).raw

    with pytest.raises(NotAllowed):
        ledger.opened(AskDisclosure(settlement=forged))
    with pytest.raises(NotAllowed):
        ledger.opened(AskDisclosure(settlement=settlement, request=other))
    assert events(ledger.opened(AskDisclosure(settlement=settlement, request=request)))


async def test_the_index_for_public_documents_is_used(tmp_path: Path) -> None:
    async with History.open(tmp_path / "horde.db"):
        connection = sqlite3.connect(tmp_path / "horde.db")
        plan = connection.execute(
            "EXPLAIN QUERY PLAN SELECT raw FROM documents WHERE digest = x'00' AND kind IN ('act', 'award', 'epoch')"
        ).fetchall()
        connection.close()

    assert "documents_public" in str(plan)


async def test_services_are_listed_in_parts(lived: tuple[History, PublicLedger]) -> None:
    history, ledger = lived
    for key in (ANN, BEN):
        profile = Profile(version=1, name="Ink", service=True)
        await history.store.profile(signed(profile, key), profile, history.tick())
    both = sorted(history.accounts[key.public] for key in (ANN, BEN))

    first = ledger.services(0, most=1)
    last = ledger.services(first.after or 0)

    assert [one.account for one in (*first.services, *last.services)] == both
    assert first.after == both[0]
    assert last.after is None
