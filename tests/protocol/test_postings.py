"""Double entry: every event sums to zero, and no chain of events makes or loses kudos unseen."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from protocol.postings import (
    BURN,
    FIRST_PERSON,
    HELD,
    MINT,
    WITHHELD,
    Postings,
    award,
    hold,
    leave,
    minted,
    release,
    room,
    settle,
    share,
    transfer,
    vest,
    withheld,
)

amounts = st.integers(0, 10**9)
persons = st.integers(FIRST_PERSON, FIRST_PERSON + 5)


def balanced(entry: Postings) -> bool:
    return sum(amount for _, amount in entry) == 0


@given(account=persons, amount=amounts, paid=amounts, minted=amounts, burned=amounts)
def test_the_postings_of_every_event_sum_to_zero(
    account: int, amount: int, paid: int, minted: int, burned: int
) -> None:
    entries = [
        hold(account, amount),
        release(account, amount),
        award(account, amount),
        settle(account, paid=paid, minted=minted, burned=burned),
        settle(account, paid=paid, minted=minted, burned=burned, withheld=(paid + minted) // 2),
        vest(account, amount),
        transfer(account, account + 1, amount),
        leave(account, amount, paid),
        leave(account, -amount, paid),
    ]

    assert all(balanced(entry) for entry in entries)
    assert all(amount for entry in entries for _, amount in entry)
    assert all(len({account for account, _ in entry}) == len(entry) for entry in entries)


@given(payer=persons, worker=persons, amount=amounts)
def test_no_entry_names_both_payer_and_worker(payer: int, worker: int, amount: int) -> None:
    for entry in (hold(payer, amount), release(payer, amount), settle(worker, paid=amount, minted=1, burned=2)):
        assert len([account for account, _ in entry if account >= FIRST_PERSON]) <= 1


@given(price=amounts, tax=amounts, available=st.integers(-(10**9), 10**9))
def test_a_hold_covers_the_price_first_and_then_the_tax(price: int, tax: int, available: int) -> None:
    parts = share(price, tax, available)

    assert parts.paid + parts.free == price
    assert min(parts.paid, parts.free, parts.tax_paid) >= 0
    assert parts.held <= max(0, available)
    assert parts.tax_paid <= tax
    if parts.free:
        assert parts.tax_paid == 0
    if available >= price + tax:
        assert (parts.paid, parts.free, parts.tax_paid) == (price, 0, tax)


def test_shares_by_example() -> None:
    assert [
        (parts.paid, parts.free, parts.tax_paid)
        for parts in (share(7_600, 3_000, available) for available in (20_000, 10_600, 9_000, 7_600, 5_000, 0, -1))
    ] == [
        (7_600, 0, 3_000),
        (7_600, 0, 3_000),
        (7_600, 0, 1_400),
        (7_600, 0, 0),
        (5_000, 2_600, 0),
        (0, 7_600, 0),
        (0, 7_600, 0),
    ]


@given(price=amounts, tax=amounts, available=amounts, used=amounts, data=st.data())
def test_a_job_from_hold_to_settlement_leaves_nothing_held(
    price: int, tax: int, available: int, used: int, data: st.DataObject
) -> None:
    """What the tracker does: hold, then pay what was used, burn the tax that was covered, give the rest back."""
    payer, worker = FIRST_PERSON, FIRST_PERSON + 1
    parts = share(price, tax, available)
    paid = min(parts.paid, used)
    minted = data.draw(st.integers(0, parts.free))
    balances: Counter[int] = Counter()
    for entry in (
        award(payer, available),
        hold(payer, parts.held),
        settle(worker, paid=paid, minted=minted, burned=parts.tax_paid),
        release(payer, parts.paid - paid),
    ):
        for account, amount in entry:
            balances[account] += amount

    assert balances[HELD] == 0
    assert balances[payer] == available - paid - parts.tax_paid
    assert balances[worker] == paid + minted
    assert balances[BURN] == parts.tax_paid
    assert balances[MINT] == -(available + minted)
    assert sum(balances.values()) == 0


@given(earned=st.lists(st.tuples(amounts, amounts), max_size=8), permille=st.integers(0, 1000))
def test_what_is_withheld_is_kept_whole_until_it_vests(earned: list[tuple[int, int]], permille: int) -> None:
    worker = FIRST_PERSON
    balances: Counter[int] = Counter()

    def enter(entry: Postings) -> None:
        for account, amount in entry:
            balances[account] += amount

    for paid, made in earned:
        enter(settle(worker, paid=paid, minted=made, burned=0, withheld=withheld(permille, paid + made)))
    pay = sum(paid + made for paid, made in earned)
    assert balances[worker] + balances[WITHHELD] == pay
    assert 0 <= balances[WITHHELD] * 1000 <= pay * permille

    enter(vest(worker, balances[WITHHELD]))
    assert (balances[worker], balances[WITHHELD]) == (pay, 0)


@given(giver=persons, to=persons, amount=amounts)
def test_a_transfer_makes_and_destroys_nothing(giver: int, to: int, amount: int) -> None:
    assert {account for account, _ in transfer(giver, to, amount)} <= {giver, to}
    assert transfer(giver, giver, amount) == ()


@given(balance=st.integers(-(10**9), 10**9), kept=amounts)
def test_who_leaves_has_nothing_and_owes_nothing_afterwards(balance: int, kept: int) -> None:
    moved = dict(leave(FIRST_PERSON, balance, kept))

    assert balance + moved.get(FIRST_PERSON, 0) == 0
    assert kept + moved.get(WITHHELD, 0) == 0
    assert moved.get(BURN, 0) == max(0, balance + kept)
    assert moved.get(MINT, 0) == min(0, balance + kept)


@given(daily=amounts, share_of_it=st.integers(0, 1000), used=amounts, free=amounts)
def test_nobody_gets_more_than_a_share_of_the_days_budget(daily: int, share_of_it: int, used: int, free: int) -> None:
    got = minted(((1000, 1000),), daily, used, free, room(daily, share_of_it, used))

    assert 0 <= got <= max(0, daily * share_of_it // 1000 - used)
