"""The audit of what moves kudos beside jobs: pay that waits, trust, transfers, awards, shares of the mint, plug-ins."""

import asyncio
import shutil
from pathlib import Path

import pytest

from protocol import postings, prices
from protocol.documents import Transfer, sign
from protocol.errors import NotAllowed
from protocol.postings import WITHHELD
from protocol.rules import EarningSection, MintSection, PricesSection, Rules, TransfersSection
from tests.support.books import check_books
from tests.support.builders import DAY, ROOT, a_key, a_public_part, a_text_work, an_award, but
from tests.support.history import ANN, BEN, CARL, NOBODY, History
from tests.tracker.test_audit import damage, entries_of, look, told
from tracker import earning, pricing
from tracker.audit import audit
from tracker.ledger import make_entry
from tracker.store.sqlite import admission, giving, probation, settling

RULES = Rules(
    mint=MintSection(owners=3),
    earning=EarningSection(withheld=400, trust_jobs=3, trust_days=1, fault_days=2),
    transfers=TransfersSection(mode="limited", daily=5_000, age_days=1),
)
ANNS, BENS, CARLS = 100, 101, 102


async def live(history):
    """One owner is trusted by a settlement, one by the day; kudos is given, awarded, and for one job not made."""
    history.owners = 3
    for _ in range(2):
        await history.serve(NOBODY, ANN)
        await history.serve(CARL, BEN)
    denied = await history.ask(NOBODY, served_by=BEN)
    await history.deny(denied, denied.admitted.leases[0].document)
    history.tick(DAY)
    await history.serve(NOBODY, ANN)
    await history.award(CARLS, 50_000)
    await history.serve(CARL, BEN)
    await history.transfer(ANN, CARLS, 3_000)
    history.owners = 1
    await history.serve(NOBODY, ANN)
    history.owners = 3
    history.tick(2 * DAY)
    assert await history.store.vest(BENS, history.tick()) > 0
    await history.transfer(BEN, ANNS, 1_000)
    await history.serve(NOBODY, BEN)
    await history.ask(NOBODY, served_by=ANN)
    await history.store.seal(history.tick())


@pytest.fixture(scope="module")
def lived(tmp_path_factory):
    path = tmp_path_factory.mktemp("economy") / "horde.db"

    async def begin():
        async with History.open(path, RULES) as history:
            await live(history)

    asyncio.run(begin())
    return path


@pytest.fixture
def database(lived, tmp_path):
    return Path(shutil.copy(lived, tmp_path / "horde.db"))


def test_a_true_ledger_passes(database):
    report = audit(database, root=ROOT.public)

    assert report.ok, told(report)
    check_books(database)
    assert report.withheld == 0
    assert report.by_plugin == 0


def test_the_history_has_all_of_it(database):
    assert {event: len(entries_of(database, event)) for event in ("vest", "award", "transfer", "refund")} == {
        "vest": 2,
        "award": 1,
        "transfer": 2,
        "refund": 1,
    }
    settled = [leaf.postings for _, leaf, _ in entries_of(database, "settle")]
    assert any(account == WITHHELD for moved in settled for account, _ in moved)
    assert () in settled, "a free job for which nothing was minted"
    [(balance,)] = look(database, "SELECT balance FROM accounts WHERE account = ?", WITHHELD)
    assert balance == 0


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ("UPDATE accounts SET withheld = 5 WHERE account = 100", "account 100: stored withheld"),
        ("UPDATE accounts SET trusted = 0 WHERE account = 100", "account 100: stored trusted"),
        ("UPDATE accounts SET trusted = trusted + 1 WHERE account = 101", "account 101: stored trusted"),
        ("UPDATE accounts SET fault = 0 WHERE account = 101", "account 101: stored fault"),
        ("UPDATE accounts SET jobs_free = 0 WHERE account = 102", "account 102: stored jobs_free"),
        ("UPDATE accounts SET since = since + 86400000 WHERE account = 100", "the postings: found"),
        ("DELETE FROM faults", "account 101: a fault at"),
        ("INSERT INTO faults VALUES (100, 5, 1)", "account 100: a fault at 5"),
        ("UPDATE accounts SET given = 0 WHERE account = 100", "account 100: stored given"),
        ("UPDATE accounts SET given_today = 1 WHERE account = 100", "account 100: stored given_today"),
        ("UPDATE accounts SET given_day = given_day - 1 WHERE account = 100", "account 100: stored given_day"),
        ("DELETE FROM awards", "the row of an award: found nothing"),
        ("UPDATE awards SET reason = 'for money'", "the row of an award"),
        ("INSERT INTO awards VALUES (0, 100, 5, 0, 'invented')", "the row of an award"),
        ("UPDATE mint_shares SET minted = minted + 1 WHERE whose = 'owner 100'", "owner 100: stored mint"),
        ("UPDATE mint_shares SET reserved = reserved + 1 WHERE whose LIKE 'asker %'", ": stored mint set aside"),
        ("DELETE FROM mint_shares WHERE whose = 'asker 102'", "asker 102: stored mint"),
        ("DELETE FROM documents WHERE kind = 'transfer'", "the transfer of the evidence: found nothing"),
        ("DELETE FROM documents WHERE kind = 'award'", "the award of the evidence: found nothing"),
        ("UPDATE documents SET identity = x'00' WHERE kind = 'award'", "identity"),
        ("UPDATE documents SET identity = x'00' WHERE kind = 'transfer'", "identity"),
        ("UPDATE keys SET since = since + 864000000 WHERE account = 100", "the transfer's signer"),
        ("UPDATE jobs SET state = 'failed', reason = 'x' WHERE state = 'refunded'", "the event: found refund"),
    ],
)  # fmt: skip
def test_an_edited_table_is_found_and_named(database, change, found):
    damage(database, change)

    report = audit(database)

    assert not report.ok
    assert found in told(report)


@pytest.mark.parametrize("kind", ["transfer", "award"])
def test_a_flipped_byte_of_a_document_is_found_and_the_entry_named(database, kind):
    [(raw, digest)] = look(database, f"SELECT raw, digest FROM documents WHERE kind = '{kind}' LIMIT 1")
    flipped = raw[:-1] + bytes([raw[-1] ^ 1])
    damage(database, ("UPDATE documents SET raw = ? WHERE digest = ?", (flipped, digest)))

    report = audit(database)

    assert f"({kind})" in told(report)
    resting = [entry for entry, _, evidence in entries_of(database, kind) if digest in evidence.documents]
    assert {finding.entry for finding in report.findings} & set(resting)


@pytest.mark.parametrize(
    ("event", "forge", "found"),
    [
        ("vest", lambda moved: tuple((account, amount * 2) for account, amount in moved), "the postings of a vest"),
        ("vest", lambda moved: ((WITHHELD, moved[0][1]), (CARLS, moved[1][1])), "the account that vests"),
        ("transfer", lambda moved: tuple((account, amount * 2) for account, amount in moved), "postings of a transfer"),
        ("transfer", lambda moved: (moved[0], (BENS, moved[1][1])), "the postings of a transfer"),
        ("transfer", lambda moved: ((CARLS, moved[0][1]), moved[1]), "the postings of a transfer"),
        ("award", lambda moved: tuple((account, amount * 2) for account, amount in moved), "the postings of an award"),
        ("award", lambda moved: (moved[0], (ANNS, moved[1][1])), "the postings of an award"),
    ],
)  # fmt: skip
def test_changed_postings_are_found_and_the_entry_named(database, event, forge, found):
    entry, leaf, evidence = entries_of(database, event)[0]
    forged = make_entry(event, forge(leaf.postings), evidence)
    damage(database, ("UPDATE entries SET leaf = ?, hash = ? WHERE entry = ?", (forged.leaf, forged.hash, entry)))

    report = audit(database)

    assert any(finding.entry == entry and found in str(finding) for finding in report.findings), told(report)


@pytest.mark.parametrize("event", ["vest", "transfer", "award"])
def test_an_event_that_is_entered_twice_is_found(database, event):
    _, leaf, evidence = entries_of(database, event)[0]
    size = audit(database).entries
    again = make_entry(event, leaf.postings, but(evidence, salt=bytes(32)))
    insert = "INSERT INTO entries (entry, leaf, hash, evidence) VALUES (?, ?, ?, ?)"
    damage(database, (insert, (size, again.leaf, again.hash, again.evidence)))

    assert any(finding.entry == size for finding in audit(database).findings)


def test_an_award_by_another_key_is_found(database):
    [(digest,)] = look(database, "SELECT digest FROM documents WHERE kind = 'award'")
    forged = sign(an_award(CARLS, 50_000), a_key(99), ROOT.public)
    damage(
        database,
        (
            "UPDATE documents SET raw = ?, signer = ?, identity = ? WHERE digest = ?",
            (forged.raw, forged.key, an_award().nonce, digest),
        ),
    )

    assert "the award's signer: found" in told(audit(database))


def test_a_transfer_that_was_taken_and_never_entered_is_found(database):
    said = Transfer(nonce=bytes(16), valid_until=1, to=BENS, amount=5)
    envelope = sign(said, ANN, ROOT.public)
    insert = "INSERT INTO documents (digest, signer, kind, identity, raw) VALUES (?, ?, ?, ?, ?)"
    damage(database, (insert, (envelope.digest, envelope.key, "transfer", said.nonce, envelope.raw)))

    assert "which was taken: found in no entry" in told(audit(database))


# A tracker that does as it likes


async def lived_by(tmp_path, rules=RULES):
    path = tmp_path / "horde.db"
    return path, History.open(path, rules)


@pytest.mark.parametrize(
    "withhold",
    [lambda record, rules, pay, now: 0, lambda record, rules, pay, now: pay],
)
async def test_a_tracker_that_withholds_too_little_or_too_much_is_found_out(tmp_path, monkeypatch, withhold):
    path, opened = await lived_by(tmp_path)
    async with opened as history:
        history.owners = 3
        await history.serve(NOBODY, ANN)
        monkeypatch.setattr(earning, "withheld", withhold)
        await history.serve(NOBODY, ANN)
        monkeypatch.undo()

    assert "the postings: found" in told(audit(path))
    assert "the settlement's withheld" in told(audit(path))


async def test_a_tracker_that_trusts_too_early_is_found_out(tmp_path, monkeypatch):
    path, opened = await lived_by(tmp_path)
    async with opened as history:
        history.owners = 3
        await history.serve(NOBODY, ANN)
        monkeypatch.setattr(earning, "is_trusted", lambda record, rules, now: True)
        await history.store.vest(ANNS, history.tick())
        monkeypatch.undo()

    assert "what is withheld vests: found 2 jobs, 1 days are missing" in told(audit(path))


async def test_a_tracker_that_keeps_what_has_vested_is_found_out(tmp_path, monkeypatch):
    path, opened = await lived_by(tmp_path)
    async with opened as history:
        history.owners = 3
        for _ in range(2):
            await history.serve(NOBODY, ANN)
        history.tick(DAY)
        monkeypatch.setattr(probation, "settled", lambda *_: None)
        await history.serve(NOBODY, ANN)
        await history.serve(NOBODY, ANN)
        monkeypatch.undo()

    assert "what is withheld of account 100, which is trusted: found not vested" in told(audit(path))


async def test_a_tracker_that_forgets_a_fault_is_found_out(tmp_path, monkeypatch):
    path, opened = await lived_by(tmp_path)
    async with opened as history:
        history.owners = 3
        for _ in range(2):
            await history.serve(NOBODY, ANN)
        history.tick(DAY)
        denied = await history.ask(NOBODY, served_by=ANN)
        monkeypatch.setattr(settling, "_blame", lambda *_: None)
        await history.deny(denied, denied.admitted.leases[0].document)
        monkeypatch.undo()
        await history.serve(NOBODY, ANN)

    report = told(audit(path))
    assert "account 100: a fault at" in report
    assert "what is withheld vests" in report


async def test_a_tracker_that_lets_people_give_more_than_the_rules_do_is_found_out(tmp_path, monkeypatch):
    path, opened = await lived_by(tmp_path)
    async with opened as history:
        history.owners = 3
        await history.award(ANNS, 50_000)
        with pytest.raises(NotAllowed):
            await history.transfer(ANN, CARLS, 1_000)
        assert audit(path).ok
        monkeypatch.setattr(giving, "check_transfer", lambda *_: None)
        await history.transfer(ANN, CARLS, 1_000)
        await history.transfer(CARL, CARLS, 1_000)
        monkeypatch.undo()

    assert "a transfer: found an account can give from its day 1 on" in told(audit(path))
    assert "cannot give to itself" in told(audit(path))


async def test_a_tracker_that_mints_though_too_few_could_have_served_is_found_out(tmp_path, monkeypatch):
    path, opened = await lived_by(tmp_path)
    async with opened as history:
        monkeypatch.setattr(admission, "_minted", lambda c, t, job, choice, free, mint, now: free)
        await history.serve(NOBODY, ANN)
        monkeypatch.undo()

    assert "though 1 owners could have served it, wanted 0 below 3" in told(audit(path))


@pytest.mark.parametrize(("by", "whose"), [(NOBODY, "owner 100"), (CARL, "asker 102")])
async def test_a_tracker_that_mints_more_for_one_than_its_share_is_found_out(tmp_path, monkeypatch, by, whose):
    mint = MintSection(owners=1, daily=40_000, owner_share=300, asker_share=1_000)
    if by is CARL:
        mint = but(mint, owner_share=1_000, asker_share=300)
    path, opened = await lived_by(tmp_path, Rules(mint=mint, earning=EarningSection(withheld=0)))
    async with opened as history:
        for _ in range(8):
            await history.serve(by, ANN)
        within = await history.store.account(ANNS, history.tick())
        assert within.earned == 12_000, "no more than a share of the day"
        assert audit(path).ok, told(audit(path))
        monkeypatch.setattr(postings, "room", lambda daily, share, used: daily)
        monkeypatch.setattr(postings, "owner_room", lambda daily, *rest: daily)
        await history.serve(by, ANN)
        monkeypatch.undo()

    assert f"for {whose}: found" in told(audit(path))


# Prices of the operator's own


@pytest.fixture
def doubled(monkeypatch):
    """A plug-in that doubles the usual prices."""

    def double(rules, work, model):
        return 2 * prices.price(rules, work, model)

    monkeypatch.setattr(pricing, "plugin", lambda name: double)


async def test_the_audit_says_where_a_price_was_only_checked_against_the_highest_one_offered(tmp_path, doubled):
    plugged = Rules(prices=PricesSection(plugin="double"), mint=MintSection(owners=1))
    path, opened = await lived_by(tmp_path, but(plugged, earning=EarningSection(withheld=0)))
    async with opened as history:
        await history.serve(NOBODY, ANN)
        await history.serve(ANN, BEN)
        await history.serve(ANN, ANN)
        await history.serve(BEN, ANN, but(a_public_part(a_text_work()), max_price=20_000))

    report = audit(path)
    assert report.ok, told(report)
    assert report.by_plugin == 3
    assert "only checked against max_price" in "\n".join(report.lines())


async def test_a_price_of_a_plugin_beyond_the_highest_one_offered_is_found(tmp_path, doubled):
    plugged = Rules(prices=PricesSection(plugin="double"), mint=MintSection(owners=1))
    path, opened = await lived_by(tmp_path, plugged)
    async with opened as history:
        await history.serve(NOBODY, ANN, but(a_public_part(), max_price=1_000))

    assert "the lease's price: found" in told(audit(path))


async def test_a_shared_result_is_taxed_less_and_the_audit_knows(tmp_path):
    path, opened = await lived_by(tmp_path, Rules())
    async with opened as history:
        for _ in range(3):
            await history.serve(NOBODY, ANN)
        before = await history.store.account(ANNS, history.tick())
        await history.serve(ANN, BEN, but(a_public_part(), share=True))
        after = await history.store.account(ANNS, history.tick())

    paid = [dict(leaf.postings) for _, leaf, _ in entries_of(path, "settle")][-1]
    assert paid[postings.BURN] == 1_000
    assert before.balance - after.balance == paid[BENS] + 1_000
    assert audit(path).ok


# New rules


async def test_what_is_given_while_new_rules_are_being_stored_goes_by_them_and_is_sound(tmp_path):
    path, opened = await lived_by(tmp_path, Rules(transfers=TransfersSection(mode="on"), mint=MintSection(owners=1)))
    async with opened as history:
        await history.award(ANNS, 50_000)
        switched_off = but(history.rules.rules, transfers=TransfersSection(mode="off"))
        stored = asyncio.create_task(history.store.publish_rules(switched_off, history.tick()))
        given = asyncio.create_task(history.transfer(ANN, BENS, 1_000))
        await stored
        with pytest.raises(NotAllowed, match="switched off"):
            await given
        await history.store.publish_rules(history.rules.rules, history.tick())
        await history.transfer(ANN, BENS, 1_000)

    assert audit(path).ok, told(audit(path))
