"""A job's life: the table of docs/protocol.md row by row, and every event in every state."""

from dataclasses import replace
from typing import Any, get_args

import pytest

from protocol.errors import Fenced, OutOfTurn, OverLease, Refusal, TooLate
from protocol.prices import price
from protocol.rules import MatchingSection, Rules, TimesSection
from tests.support.builders import NOW, SECOND, TEXT_MODEL, a_text_work
from tests.support.jobs import a_job, a_received, an_attempt
from tracker.lifecycle import (
    LIVE,
    Accepted,
    Acknowledged,
    Attempt,
    Barred,
    Cancelled,
    CancelOver,
    CannotReach,
    Declined,
    Denied,
    Event,
    Expired,
    Job,
    NotAccepted,
    NotOpened,
    Opened,
    Outcome,
    Overdue,
    Silence,
    Stage,
    State,
    WorkerFailed,
    decide,
    expires,
)

RULES = Rules()
TIMES = RULES.times
#: Late enough for whatever has to be waited for.
LATER = NOW + TIMES.silence * SECOND
RECEIPT = a_received()


def leased(stage: Stage = Stage.OPENED, *, attempt: int = 1, **fields: Any) -> tuple[Job, Attempt]:
    return a_job(State.LEASED, attempt=attempt, **fields), an_attempt(attempt, stage)


def delivered() -> tuple[Job, Attempt]:
    return a_job(State.DELIVERED, attempt=1), an_attempt(receipt=RECEIPT.digest)


def ended(state: State, *, of: int = 1, **fields: Any) -> tuple[Job, Attempt]:
    return a_job(state, attempt=of, reason="why", **fields), an_attempt(1, Stage.ENDED)


#: Where a job can stand: the job, and the attempt that the event speaks of.
SITUATIONS: dict[str, tuple[Job, Attempt | None]] = {
    "waiting, new": (a_job(), None),
    "waiting": ended(State.WAITING),
    "leased, pushed": leased(Stage.PUSHED),
    "leased, accepted": leased(Stage.ACCEPTED),
    "leased, opened": leased(Stage.OPENED),
    "leased, called off": leased(cancelled=NOW),
    "delivered": delivered(),
    "settled": (a_job(State.SETTLED, attempt=1, settled=1), an_attempt(1, Stage.ENDED, receipt=RECEIPT.digest)),
    "refunded": ended(State.REFUNDED),
    "cancelled": ended(State.CANCELLED),
    "expired": ended(State.EXPIRED),
    "failed": ended(State.FAILED),
    # the event speaks of attempt 1, and 2 is the latest
    "waiting, older": ended(State.WAITING, of=2),
    "leased, older": ended(State.LEASED, of=2),
    "delivered, older": ended(State.DELIVERED, of=2),
    "settled, older": ended(State.SETTLED, of=2, settled=2),
}

EVENTS: dict[str, Event] = {
    "accepted": Accepted(),
    "declined": Declined("busy"),
    "not accepted": NotAccepted(),
    "opened": Opened(),
    "not opened": NotOpened(),
    "failed": WorkerFailed("engine"),
    "overdue": Overdue(),
    "unreachable": CannotReach("timeout"),
    "receipt": RECEIPT,
    "partial": a_received("partial", used=10, partial=True),
    "acknowledged": Acknowledged(b"a" * 32, RECEIPT),
    "denied": Denied(b"d" * 32, "digest_mismatch"),
    "silence": Silence(RECEIPT),
    "cancel": Cancelled(),
    "cancel over": CancelOver(),
    "expired": Expired(),
    "barred": Barred(),
}

# What each event brings about in each situation, in the order of `EVENTS`: a state to which the job goes, `same` for a
# change within its state, `-` for no change, or the code of the refusal.
TABLE = """
waiting, new      | out_of_turn out_of_turn out_of_turn out_of_turn out_of_turn out_of_turn out_of_turn out_of_turn
                  | out_of_turn out_of_turn out_of_turn out_of_turn out_of_turn cancelled - expired expired
waiting           | - - - - - - - -                delivered over_lease settled fenced - cancelled - expired expired
leased, pushed    | same waiting waiting same - waiting waiting waiting
                  |                                delivered over_lease settled refunded - same - - -
leased, accepted  | - waiting - same waiting waiting waiting waiting
                  |                                delivered over_lease settled refunded - same - - -
leased, opened    | - waiting - - - waiting waiting waiting
                  |                                delivered over_lease settled refunded - same - - -
leased, called off| - cancelled - - - cancelled cancelled cancelled
                  |                                settled settled settled refunded - - cancelled - -
delivered         | - - - - - - - -                - over_lease settled refunded settled - - - -
settled           | - - - - - - - -                - too_late - too_late - - - - -
refunded          | - - - - - - - -                too_late too_late too_late - - - - - -
cancelled         | - - - - - - - -                too_late too_late too_late too_late - - - - -
expired           | - - - - - - - -                too_late too_late too_late too_late - - - - -
failed            | - - - - - - - -                too_late too_late too_late too_late - - - - -
waiting, older    | - - - - - - - -                fenced fenced settled fenced -
leased, older     | - - - - - - - -                fenced fenced settled fenced -
delivered, older  | - - - - - - - -                fenced fenced fenced fenced -
settled, older    | - - - - - - - -                too_late too_late too_late too_late -
"""


def cells():
    expected: dict[str, list[str]] = {}
    name = ""
    for line in TABLE.strip().splitlines():
        head, outcomes = line.split("|")
        name = head.strip() or name
        expected.setdefault(name, []).extend(outcomes.split())
    assert expected.keys() == SITUATIONS.keys()
    for situation, outcomes_here in expected.items():
        # Events of the job as a whole do not speak of an older attempt.
        assert len(outcomes_here) == (13 if situation.endswith("older") else len(EVENTS)), situation
        for event, outcome in zip(EVENTS, outcomes_here, strict=False):
            yield pytest.param(situation, event, outcome, id=f"{situation}: {event}")


def what_happens(job: Job, attempt: Attempt | None, event: Event) -> str:
    try:
        outcome = decide(job, attempt, event, RULES, LATER)
    except Refusal as refusal:
        return refusal.code
    if not outcome.changed:
        assert (outcome.job, outcome.attempt) == (job, attempt), "an outcome without change changes nothing"
        assert (outcome.payment, outcome.release, outcome.withdraw, outcome.requeued) == (None, False, "", "")
        return "-"
    return "same" if outcome.job.state is job.state else outcome.job.state.value


@pytest.mark.parametrize(("situation", "event", "outcome"), list(cells()))
def test_every_event_in_every_situation(situation, event, outcome):
    assert what_happens(*SITUATIONS[situation], EVENTS[event]) == outcome


@pytest.mark.parametrize("situation", SITUATIONS)
@pytest.mark.parametrize("event", EVENTS)
def test_whatever_happens_money_goes_where_the_job_does(situation, event):
    job, attempt = SITUATIONS[situation]
    try:
        outcome = decide(job, attempt, EVENTS[event], RULES, LATER)
    except Refusal:
        return
    after = outcome.job
    assert after.attempt == job.attempt, "only a lease raises the attempt number"
    assert (outcome.payment is not None) == (outcome.changed and after.state is State.SETTLED)
    assert outcome.release == (outcome.changed and after.state not in LIVE), "a hold goes back when a job ends"
    assert bool(outcome.requeued) == (job.state is State.LEASED and after.state is State.WAITING)
    if job.state not in LIVE:
        assert not outcome.changed, "an end is an end"


# The table of DESIGN section 5, row by row


def lose(event: Event, stage: Stage = Stage.OPENED, now: int = LATER, **fields: Any) -> Outcome:
    return decide(*leased(stage, **fields), event, RULES, now)


def worker_of(outcome: Outcome) -> bytes:
    assert outcome.attempt is not None
    return outcome.attempt.worker


@pytest.mark.parametrize("event", [NotAccepted(), Declined("private_limit")], ids=["not accepted", "declined"])
def test_a_lease_that_nobody_took_is_not_counted_and_that_worker_does_not_get_it_again(event):
    outcome = lose(event, Stage.PUSHED)
    assert outcome.job.state is State.WAITING
    assert outcome.job.failed == 0
    assert outcome.job.excluded == {worker_of(outcome)}
    assert not outcome.fault
    assert outcome.attempt == an_attempt(1, Stage.ENDED)
    assert outcome.withdraw == "replaced"


def test_the_reason_of_a_decline_reaches_the_requester():
    assert lose(Declined("private_limit"), Stage.PUSHED).requeued == "private_limit"
    assert lose(NotAccepted(), Stage.PUSHED).requeued == "not_accepted"


def test_a_worker_that_declines_what_it_had_accepted_has_failed():
    outcome = lose(Declined("busy"), Stage.ACCEPTED)
    assert (outcome.job.failed, outcome.fault) == (1, True)


def test_a_worker_that_may_not_make_what_it_was_shown_has_not_failed_but_the_attempt_counts():
    outcome = lose(Declined("content_refused"), Stage.OPENED)
    assert (outcome.job.failed, outcome.fault, outcome.requeued) == (1, False, "content_refused")
    assert lose(Declined("content_refused"), Stage.PUSHED).job.failed == 0


def test_words_that_a_workers_owner_does_not_serve_cost_neither_side_anything():
    outcome = lose(Declined("unwanted_words"), Stage.ACCEPTED)
    assert (outcome.job.failed, outcome.fault, outcome.requeued) == (0, False, "unwanted_words")
    assert outcome.job.excluded, "it does not get the same job again"
    assert lose(Declined("unwanted_words"), Stage.OPENED).fault, "it had seen them when it opened the stream"


def test_a_stream_that_nobody_opened_is_no_fault_of_the_worker_which_may_get_the_job_again():
    outcome = lose(NotOpened(), Stage.ACCEPTED)
    assert outcome.job.state is State.WAITING
    assert (outcome.job.failed, outcome.fault) == (1, False)
    assert outcome.job.excluded == frozenset()
    assert (outcome.withdraw, outcome.requeued) == ("not_opened", "not_opened")


def test_the_opening_is_acceptance_enough():
    outcome = decide(*leased(Stage.PUSHED), Opened(), RULES, NOW)
    assert outcome.attempt is not None
    assert outcome.attempt.stage is Stage.OPENED


def test_an_acceptance_that_comes_after_the_opening_takes_nothing_back():
    outcome = decide(*leased(Stage.OPENED), Accepted(), RULES, NOW)
    assert not outcome.changed


def test_a_worker_that_cannot_be_reached_is_counted_against_both():
    outcome = lose(CannotReach("timeout"))
    assert outcome.job.state is State.WAITING
    assert (outcome.job.failed, outcome.fault) == (1, True)
    assert outcome.job.excluded == {worker_of(outcome)}
    assert (outcome.withdraw, outcome.requeued) == ("unreachable", "unreachable")


@pytest.mark.parametrize(
    ("event", "withdraw", "requeued"),
    [
        (WorkerFailed("gone"), "replaced", "gone"),
        (WorkerFailed("engine"), "replaced", "engine"),
        (Overdue(), "deadline", "deadline"),
    ],
    ids=["gone", "engine failed", "deadline"],
)
def test_a_worker_that_fails_is_counted_and_another_one_tries(event, withdraw, requeued):
    outcome = lose(event)
    assert outcome.job.state is State.WAITING
    assert (outcome.job.failed, outcome.fault) == (1, True)
    assert outcome.job.excluded == {worker_of(outcome)}
    assert (outcome.withdraw, outcome.requeued) == (withdraw, requeued)


def test_the_deadline_counts_only_when_it_has_passed():
    job, attempt = leased()
    assert not decide(job, attempt, Overdue(), RULES, attempt.deadline - 1).changed
    assert decide(job, attempt, Overdue(), RULES, attempt.deadline).changed


def test_a_worker_may_give_up_before_the_deadline_by_whatever_name():
    outcome = lose(WorkerFailed("deadline"), now=NOW)
    assert outcome.job.state is State.WAITING


def test_after_so_many_failures_the_job_fails_and_its_hold_goes_back():
    rules = Rules(matching=MatchingSection(failed_attempts=2))
    job, attempt = leased(failed=1, attempt=2)
    outcome = decide(job, attempt, WorkerFailed("engine"), rules, NOW)
    assert outcome.job.state is State.FAILED
    assert outcome.job.reason == "engine"
    assert outcome.release
    assert (outcome.requeued, outcome.withdraw, outcome.fault) == ("", "replaced", True)


def test_leases_that_nobody_took_never_make_a_job_fail():
    rules = Rules(matching=MatchingSection(failed_attempts=1))
    job, attempt = leased(Stage.PUSHED, attempt=40)
    assert decide(job, attempt, NotAccepted(), rules, NOW).job.state is State.WAITING


def test_a_receipt_delivers_and_binds_the_worker_to_its_digest():
    outcome = decide(*leased(), RECEIPT, RULES, NOW + 7)
    assert outcome.job.state is State.DELIVERED
    assert outcome.job.changed == NOW + 7
    assert outcome.attempt is not None
    assert outcome.attempt.receipt == RECEIPT.digest
    with pytest.raises(OverLease):
        decide(outcome.job, outcome.attempt, a_received("another"), RULES, NOW + 8)


def test_a_receipt_that_overtook_the_opening_counts_as_one():
    outcome = decide(*leased(Stage.PUSHED), RECEIPT, RULES, NOW)
    assert outcome.attempt is not None
    assert outcome.attempt.stage is Stage.OPENED


def test_a_receipt_of_the_last_attempt_is_taken_while_no_newer_lease_is_out():
    job, attempt = ended(State.WAITING, of=1, waited=100)
    outcome = decide(job, attempt, RECEIPT, RULES, NOW + 50)
    assert outcome.job.state is State.DELIVERED
    assert outcome.job.waited == 150


def test_a_late_receipt_of_an_old_attempt_is_fenced():
    with pytest.raises(Fenced):
        decide(*SITUATIONS["leased, older"], RECEIPT, RULES, NOW)


def test_a_receipt_and_its_acknowledgement_settle_an_old_attempt_and_withdraw_the_new_one_without_fault():
    outcome = decide(*SITUATIONS["leased, older"], Acknowledged(b"a" * 32, RECEIPT), RULES, NOW)
    assert (outcome.job.state, outcome.job.settled) == (State.SETTLED, 1)
    assert (outcome.withdraw, outcome.fault) == ("settled", False)
    assert outcome.payment is not None
    assert outcome.attempt is not None
    assert (outcome.attempt.attempt, outcome.attempt.receipt) == (1, RECEIPT.digest)


@pytest.mark.parametrize("situation", ["waiting", "leased, pushed", "leased, opened", "delivered"])
def test_an_acknowledgement_that_contains_the_receipt_settles(situation):
    outcome = decide(*SITUATIONS[situation], Acknowledged(b"a" * 32, RECEIPT), RULES, NOW)
    assert (outcome.job.state, outcome.job.settled) == (State.SETTLED, 1)
    assert outcome.withdraw == "", "its worker gets the settlement"


def test_an_acknowledgement_with_another_receipt_than_the_one_delivered_settles_nothing():
    with pytest.raises(OverLease):
        decide(*delivered(), Acknowledged(b"a" * 32, a_received("another")), RULES, NOW)


@pytest.mark.parametrize("situation", ["leased, accepted", "leased, opened", "delivered"])
def test_a_denial_refunds(situation):
    outcome = decide(*SITUATIONS[situation], Denied(b"d" * 32, "digest_mismatch"), RULES, NOW)
    assert outcome.job.state is State.REFUNDED
    assert outcome.job.reason == "digest_mismatch"
    assert (outcome.release, outcome.payment, outcome.fault) == (True, None, True)
    assert outcome.withdraw == "refunded"


def test_silence_settles_after_a_day_and_not_before():
    job, attempt = delivered()
    day = job.changed + TIMES.silence * SECOND
    assert not decide(job, attempt, Silence(RECEIPT), RULES, day - 1).changed
    outcome = decide(job, attempt, Silence(RECEIPT), RULES, day)
    assert outcome.job.state is State.SETTLED
    assert outcome.payment is not None


@pytest.mark.parametrize("situation", ["waiting, new", "waiting"])
def test_a_cancel_ends_a_waiting_job_and_its_hold_goes_back(situation):
    outcome = decide(*SITUATIONS[situation], Cancelled(), RULES, NOW)
    assert (outcome.job.state, outcome.release, outcome.payment) == (State.CANCELLED, True, None)


def test_a_cancel_of_a_leased_job_asks_its_worker_to_stop_once():
    first = decide(*leased(), Cancelled(), RULES, NOW + 3)
    assert (first.job.state, first.job.cancelled, first.withdraw) == (State.LEASED, NOW + 3, "cancelled")
    assert not first.release
    assert not decide(first.job, first.attempt, Cancelled(), RULES, NOW + 4).changed


def test_a_partial_receipt_after_a_cancel_is_paid_in_proportion_and_the_tax_is_whole():
    job, attempt = SITUATIONS["leased, called off"]
    outcome = decide(job, attempt, a_received(used=10, partial=True), RULES, NOW)
    assert outcome.job.state is State.SETTLED
    assert outcome.payment is not None
    assert (outcome.payment.paid, outcome.payment.tax) == (7_600 * 10 // 30, 3_000)
    assert outcome.payment.partial
    assert outcome.release, "the rest goes back"


def test_without_a_partial_receipt_a_cancelled_job_ends_unpaid():
    outcome = decide(*SITUATIONS["leased, called off"], CancelOver(), RULES, NOW)
    assert (outcome.job.state, outcome.release, outcome.payment) == (State.CANCELLED, True, None)
    assert outcome.withdraw == "ended"


@pytest.mark.parametrize("stage", [Stage.PUSHED, Stage.ACCEPTED, Stage.OPENED])
@pytest.mark.parametrize("event", [WorkerFailed("gone"), Declined("cancelled"), CannotReach("x"), Overdue()])
def test_a_lease_that_is_lost_after_a_cancel_ends_the_job(event, stage):
    outcome = decide(*leased(stage, cancelled=NOW), event, RULES, LATER)
    assert (outcome.job.state, outcome.release, outcome.fault) == (State.CANCELLED, True, False)


def test_a_cancel_does_not_touch_what_is_delivered():
    assert not decide(*delivered(), Cancelled(), RULES, NOW).changed


@pytest.mark.parametrize(
    "event", [a_received(used=10, partial=True), Acknowledged(b"a" * 32, a_received(partial=True))]
)
@pytest.mark.parametrize("situation", ["leased, opened", "waiting"])
def test_nothing_partial_is_paid_that_nobody_cancelled(event, situation):
    with pytest.raises(OverLease):
        decide(*SITUATIONS[situation], event, RULES, NOW)


def test_time_to_live_counts_only_while_a_job_waits():
    whole = TIMES.waiting * SECOND
    job = a_job(changed=NOW + 1_000, waited=whole - 400)
    assert expires(job, RULES) == NOW + 1_400
    assert not decide(job, None, Expired(), RULES, NOW + 1_399).changed
    outcome = decide(job, None, Expired(), RULES, NOW + 1_400)
    assert (outcome.job.state, outcome.release) == (State.EXPIRED, True)


def test_the_time_of_a_lease_does_not_bring_the_end_nearer():
    job, attempt = leased(waited=5_000)
    again = lose(WorkerFailed("gone"), now=NOW + 400 * SECOND, waited=5_000).job
    assert expires(again, RULES) == NOW + 400 * SECOND + TIMES.waiting * SECOND - 5_000
    assert not decide(job, attempt, Expired(), RULES, LATER).changed


# What a receipt may claim


@pytest.mark.parametrize(
    ("attempt", "receipt"),
    [
        (an_attempt(), a_received(used=31)),
        (an_attempt(work=a_text_work()), a_received(used=75)),
        (an_attempt(work=a_text_work()), a_received(used=74, context_used=2_049)),
    ],
    ids=["steps", "tokens", "context"],
)
def test_a_receipt_over_its_lease_is_refused_alone_and_within_an_acknowledgement(attempt, receipt):
    work = a_text_work() if attempt.model == TEXT_MODEL else None
    job = a_job(State.LEASED, attempt=1, work=work)
    for event in (receipt, Acknowledged(b"a" * 32, receipt)):
        with pytest.raises(OverLease):
            decide(job, attempt, event, RULES, NOW)


def test_what_the_lease_allows_may_be_claimed_whole():
    job = a_job(State.LEASED, attempt=1, work=a_text_work())
    whole = a_received(used=74, context_used=2_048)
    assert decide(job, an_attempt(work=a_text_work()), whole, RULES, NOW).job.state is State.DELIVERED


# What a settlement moves


def settle(attempt: Attempt, used: int = 30) -> Outcome:
    job = a_job(State.LEASED, attempt=1, work=a_text_work() if attempt.model == TEXT_MODEL else None)
    return decide(job, attempt, Acknowledged(b"a" * 32, a_received(used=used)), RULES, NOW)


@pytest.mark.parametrize(
    ("attempt", "used", "paid", "minted", "uncovered"),
    [
        (an_attempt(), 30, 7_600, 0, 0),
        (an_attempt(), 15, 3_800, 0, 0),
        (an_attempt(), 0, 0, 0, 0),
        (an_attempt(paid=1_000, uncovered=6_600, free=6_600), 30, 1_000, 6_600, 6_600),
        (an_attempt(paid=1_000, uncovered=6_600, free=3_300), 30, 1_000, 3_300, 6_600),
        (an_attempt(paid=1_000, uncovered=6_600, free=3_300), 15, 1_000, 1_400, 2_800),
        (an_attempt(paid=5_000, uncovered=2_600, free=2_600), 15, 3_800, 0, 0),
        (an_attempt(paid=0, uncovered=7_600, free=0), 30, 0, 0, 7_600),
        (an_attempt(price=0, paid=0, tax=0), 30, 0, 0, 0),
    ],
    ids=[
        "covered",
        "half of the steps",
        "no step",
        "partly free",
        "at half the mint's rate",
        "at half the rate, half of the steps",
        "use within the paid part",
        "nothing is minted",
        "own worker",
    ],
)
def test_a_settlement_pays_by_use_first_from_the_hold_then_from_the_mint(attempt, used, paid, minted, uncovered):
    payment = settle(attempt, used).payment
    assert payment is not None
    assert (payment.paid, payment.minted, payment.uncovered, payment.tax) == (paid, minted, uncovered, attempt.tax)


def test_a_text_costs_what_it_would_have_cost_with_as_many_tokens_as_were_used():
    whole = price(RULES, a_text_work(), TEXT_MODEL)
    attempt = an_attempt(work=a_text_work(), price=whole, paid=whole)
    payment = settle(attempt, used=10).payment
    assert payment is not None
    assert payment.paid == price(RULES, a_text_work(max_tokens=10), TEXT_MODEL) < whole


def test_use_never_raises_a_price_above_the_one_of_the_lease():
    attempt = an_attempt(work=a_text_work(), price=1_000, paid=1_000)
    payment = settle(attempt, used=74).payment
    assert payment is not None
    assert payment.paid == 1_000


# Again


def test_the_same_receipt_again_changes_nothing_whatever_has_become_of_the_job():
    job, attempt = delivered()
    for state in (State.DELIVERED, State.SETTLED, State.REFUNDED):
        assert not decide(replace(job, state=state), attempt, RECEIPT, RULES, LATER).changed


def test_events_about_an_attempt_need_one():
    with pytest.raises(OutOfTurn):
        decide(a_job(), None, Accepted(), RULES, NOW)


@pytest.mark.parametrize("state", [State.CANCELLED, State.EXPIRED, State.FAILED, State.REFUNDED])
def test_a_refusal_says_how_the_job_ended(state):
    job, attempt = ended(state)
    with pytest.raises(TooLate, match=f"{state} \\(why\\)"):
        decide(job, attempt, Acknowledged(b"a" * 32, RECEIPT), Rules(times=TimesSection()), NOW)


def test_every_event_is_in_the_table():
    kinds = {type(event) for event in EVENTS.values()}
    assert kinds == set(get_args(Event))
