"""What a worker decides: every state against every step, and each decision by example."""

from collections.abc import Sequence

import pytest

from peer.limits import ContentTable, Limits, PeopleTable, WorkTable, show_pseudonym
from peer.opening import Opened
from peer.spool import Attempt
from peer.worker_jobs import (
    LIVE,
    MOVES,
    Discard,
    Effect,
    Hand,
    Job,
    Jobs,
    Prepare,
    Start,
    State,
    Step,
    Stop,
    Tell,
)
from protocol import codec
from protocol.documents import Asker, Lease
from protocol.envelope import Envelope
from protocol.errors import (
    Busy,
    NotOffered,
    PrefixUnsupported,
    PrivatePartMismatch,
    PrivatePartMissing,
    Refusal,
    StreamGone,
    WrongLease,
)
from protocol.messages import Held, Offer, Refused, Withdrawn
from tests.support.builders import (
    IMAGE_MODEL,
    NOW,
    TEXT_MODEL,
    WORKER,
    a_handle,
    a_key,
    a_lease,
    a_nonce,
    a_private_part,
    a_public_part,
    a_receipt,
    a_request,
    a_text_work,
    an_image_work,
    but,
    signed,
)

IMAGES = Offer(kind="image", model=IMAGE_MODEL, engine="pictures 1", max_pixels=512 * 512, max_steps=50)
TEXTS = Offer(kind="text", model=TEXT_MODEL, engine="texts 1", max_tokens=100, max_context=4096)
ATTEMPT = Attempt(a_handle(), 1)


def some_jobs(*engines: Sequence[Offer], ahead: int = 1, anonymous: bool = True) -> Jobs:
    limits = Limits(people=PeopleTable(anonymous=anonymous))
    return Jobs(WORKER.public, engines or ((IMAGES,),), ahead, limits)


def image_lease(number: int = 0, attempt: int = 1, **changes: object) -> Lease:
    return but(a_lease(job=a_handle(number), attempt=attempt), **changes)


def text_lease(number: int = 0, **changes: object) -> Lease:
    request = a_request(a_public_part(a_text_work()))
    return but(a_lease(request, job=a_handle(number)), **changes)


def an_opened(lease: Lease, private: bytes | None = None, prefix: str = "") -> Opened:
    if private is None:
        private = codec.encode(a_private_part(lease.public.work))
    return Opened(Attempt(lease.job, lease.attempt), lease, signed(lease), private, prefix)


def told(effects: Sequence[Effect]) -> list[tuple[str, str]]:
    """What the tracker is told: state and reason."""
    return [(effect.progress.state, effect.progress.reason) for effect in effects if isinstance(effect, Tell)]


def jobs_in(state: State) -> tuple[Jobs, Envelope]:
    """One attempt that has come to `state`, and its receipt."""
    jobs = some_jobs()
    lease, receipt = image_lease(), signed(a_receipt(image_lease()))
    jobs.leased(signed(lease), NOW)
    if state is State.OPENED:
        jobs._busy.add(0)
    if state is not State.ACCEPTED:
        jobs.opened(an_opened(lease), NOW)
    if state is State.STOPPING:
        jobs.withdrawn(Withdrawn(job=ATTEMPT.job, attempt=1, reason="cancelled"))
    if state is State.FINISHED:
        jobs.finished(ATTEMPT, receipt)
        jobs.engine_free(0)
    assert jobs.jobs[ATTEMPT].state is state
    return jobs, receipt


def withdraw(jobs: Jobs, reason: str) -> list[Effect]:
    return jobs.withdrawn(Withdrawn(job=ATTEMPT.job, attempt=1, reason=reason))


STEPS = {
    Step.OPEN: lambda jobs, receipt: jobs.opened(an_opened(image_lease()), NOW),
    Step.START: lambda jobs, receipt: jobs.engine_free(0),
    Step.FINISH: lambda jobs, receipt: jobs.finished(ATTEMPT, receipt),
    Step.FAIL: lambda jobs, receipt: jobs.failed(ATTEMPT, "crashed", "it crashed"),
    Step.CANCEL: lambda jobs, receipt: withdraw(jobs, "cancelled"),
    Step.SETTLE: lambda jobs, receipt: jobs.settled(ATTEMPT),
    Step.DROP: lambda jobs, receipt: withdraw(jobs, "deadline"),
}
#: Steps that change nothing where the table has no move for them: the requester opens again, an engine is free.
REPEATED = {Step.OPEN, Step.START}


@pytest.mark.parametrize("state", [state for state in State if MOVES[state]])
@pytest.mark.parametrize("step", Step)
def test_each_step_in_each_state_does_what_the_table_says(state: State, step: Step) -> None:
    jobs, receipt = jobs_in(state)
    following = MOVES[state].get(step)
    job = jobs.jobs[ATTEMPT]

    if following is None and step not in REPEATED:
        with pytest.raises(RuntimeError, match=state.value):
            STEPS[step](jobs, receipt)
        return
    effects = STEPS[step](jobs, receipt)

    expected = state if following is None else following
    if (state, step) == (State.ACCEPTED, Step.OPEN):
        expected = State.RUNNING  # an engine is free, and takes it at once
    assert job.state is expected
    assert (ATTEMPT in jobs.jobs) == (job.state not in (State.SETTLED, State.DROPPED))
    assert any(isinstance(effect, Discard) for effect in effects) == (ATTEMPT not in jobs.jobs)


def test_settled_and_dropped_are_the_end() -> None:
    assert MOVES[State.SETTLED] == MOVES[State.DROPPED] == {}
    assert set(MOVES) == set(State)
    assert {State.FINISHED, State.SETTLED, State.DROPPED} == set(State) - LIVE


def test_the_usual_way_from_lease_to_settlement() -> None:
    jobs, lease = some_jobs(), image_lease()
    receipt = signed(a_receipt(lease))

    assert told(jobs.leased(signed(lease), NOW)) == [("accepted", "")]
    effects = jobs.opened(an_opened(lease), NOW)
    assert [type(effect) for effect in effects] == [Prepare, Tell, Start]
    assert told(effects) == [("opened", "")]
    assert effects[-1] == Start(ATTEMPT, 0)
    jobs.progressed(ATTEMPT, 7)
    assert jobs.holding() == [Held(kind="lease", job=ATTEMPT.job, attempt=1, digest=signed(lease).digest, progress=7)]
    assert jobs.finished(ATTEMPT, receipt) == [Hand(receipt)]
    assert jobs.engine_free(0) == []
    assert [held.kind for held in jobs.holding()] == ["receipt"]
    jobs.taken([receipt.digest])
    assert [held.kind for held in jobs.holding()] == ["receipt"]
    [discard] = jobs.settled(ATTEMPT)
    assert isinstance(discard, Discard)
    assert jobs.holding() == []


def test_the_private_part_is_forgotten_when_the_result_is_whole() -> None:
    jobs, _ = jobs_in(State.FINISHED)

    assert jobs.jobs[ATTEMPT].private is None


def test_a_lease_that_comes_again_is_answered_as_it_stands() -> None:
    for state, word in ((State.ACCEPTED, "accepted"), (State.OPENED, "opened"), (State.RUNNING, "opened")):
        jobs, _ = jobs_in(state)
        assert told(jobs.leased(signed(image_lease()), NOW)) == [(word, "")]
    assert jobs_in(State.FINISHED)[0].leased(signed(image_lease()), NOW) == []


@pytest.mark.parametrize(
    ("lease", "reason"),
    [
        (image_lease(worker=a_key(50).public), "wrong_lease"),
        (image_lease(model="other"), "bad_body"),
        (image_lease(public=a_public_part(n=2)), "bad_body"),
        (image_lease(model="other", public=a_public_part(models=("other",))), "not_offered"),
        (text_lease(), "not_offered"),
        (image_lease(public=a_public_part(an_image_work(1024, 1024))), "over_limit"),
        (image_lease(public=a_public_part(an_image_work(steps=51))), "over_limit"),
        (image_lease(public=a_public_part(but(an_image_work(), extras=("upscale",)))), "not_offered"),
        (image_lease(public=but(a_public_part(), share=True)), "not_offered"),
        (image_lease(deadline=NOW), "too_late"),
        (image_lease(asker=Asker(anonymous=True)), "not_offered"),
    ],
)
def test_what_was_not_announced_is_declined_with_a_reason(lease: Lease, reason: str) -> None:
    jobs = some_jobs(anonymous=False)

    assert told(jobs.leased(signed(lease), NOW)) == [("declined", reason)]
    assert jobs.jobs == {}


def test_text_beyond_the_offer_is_declined() -> None:
    jobs = some_jobs((TEXTS,))
    for work in (a_text_work(max_tokens=101), a_text_work(context_tokens=5000)):
        lease = text_lease(public=a_public_part(work))
        assert told(jobs.leased(signed(lease), NOW)) == [("declined", "over_limit")]


def test_leases_beyond_the_slots_and_those_ahead_are_declined() -> None:
    jobs = some_jobs((IMAGES,), (IMAGES,), ahead=1)

    answers = [told(jobs.leased(signed(image_lease(number)), NOW))[0] for number in range(4)]

    assert answers == [("accepted", "")] * 3 + [("declined", "busy")]


def test_a_finished_job_takes_no_slot() -> None:
    jobs, _ = jobs_in(State.FINISHED)

    assert told(jobs.leased(signed(image_lease(1)), NOW)) == [("accepted", "")]


def test_engines_take_opened_jobs_in_their_order_and_only_what_they_offer() -> None:
    jobs = some_jobs((IMAGES,), (TEXTS,), ahead=4)
    pictures = [image_lease(number) for number in range(3)]
    text = text_lease(3)
    for lease in (*pictures, text):
        jobs.leased(signed(lease), NOW)
    starts: list[Effect] = []
    for lease in (pictures[1], pictures[0], pictures[2], text):
        starts += jobs.opened(an_opened(lease), NOW)
    assert [effect for effect in starts if isinstance(effect, Start)] == [
        Start(Attempt(pictures[1].job, 1), 0),
        Start(Attempt(text.job, 1), 1),
    ]

    jobs.finished(Attempt(pictures[1].job, 1), signed(a_receipt(pictures[1])))

    assert jobs.engine_free(0) == [Start(Attempt(pictures[0].job, 1), 0)]
    assert jobs.engine_free(1) == []


def test_an_engine_takes_jobs_of_its_own_account_first_then_of_friends() -> None:
    jobs = some_jobs(ahead=4)
    friend, other = a_nonce(30), a_nonce(31)
    jobs.limits = Limits(people=PeopleTable(friends=(show_pseudonym(friend),)))
    askers = [Asker(pseudonym=other), Asker(pseudonym=other), Asker(pseudonym=friend), Asker(own=True)]
    leases = [image_lease(number, asker=asker) for number, asker in enumerate(askers)]
    order = []
    for lease in leases:
        jobs.leased(signed(lease), NOW)
        order += [effect.attempt for effect in jobs.opened(an_opened(lease), NOW) if isinstance(effect, Start)]
    for _ in leases[1:]:
        jobs.finished(order[-1], signed(a_receipt(leases[0])))
        order += [effect.attempt for effect in jobs.engine_free(0) if isinstance(effect, Start)]
    assert order == [Attempt(leases[number].job, 1) for number in (0, 3, 2, 1)]


def test_words_that_its_owner_does_not_serve_are_declined_when_they_are_seen_and_not_of_its_own_account() -> None:
    jobs, lease = some_jobs(), image_lease()
    jobs.limits = Limits(content=ContentTable(words=("circle",)))
    jobs.leased(signed(lease), NOW)
    effects = jobs.opened(an_opened(lease), NOW)
    assert told(effects) == [("declined", "unwanted_words")]
    assert not any(isinstance(effect, Prepare | Start) for effect in effects)
    assert refuses(jobs, an_opened(lease)) is StreamGone

    own = image_lease(1, asker=Asker(own=True))
    jobs.leased(signed(own), NOW)
    assert any(isinstance(effect, Start) for effect in jobs.opened(an_opened(own), NOW))


@pytest.mark.parametrize("code", ["unwanted_words", "content_refused"])
def test_what_is_declined_for_its_words_was_accepted_before_also_if_its_lease_comes_later(code: str) -> None:
    jobs, lease = some_jobs(), image_lease()
    if code == "unwanted_words":
        jobs.limits = Limits(content=ContentTable(words=("circle",)))
    else:
        jobs.refuses = lambda private, prefix: "minors"
    assert told(jobs.opened(an_opened(lease), NOW)) == [("accepted", ""), ("declined", code)]
    assert told(jobs.leased(signed(lease), NOW)) == [("failed", "gone")]


def test_limits_that_come_later_end_nothing_that_was_accepted() -> None:
    jobs, lease = some_jobs(), image_lease()
    jobs.leased(signed(lease), NOW)
    jobs.limits = Limits(work=WorkTable(serve=("another",)), paused=True)
    assert any(isinstance(effect, Start) for effect in jobs.opened(an_opened(lease), NOW))
    assert told(jobs.leased(signed(image_lease(1)), NOW)) == [("declined", "not_offered")], "a control"


def test_an_engine_counts_as_busy_until_it_has_let_go_of_a_discarded_job() -> None:
    jobs, _ = jobs_in(State.RUNNING)
    withdraw(jobs, "deadline")
    jobs.leased(signed(image_lease(1)), NOW)

    assert not any(isinstance(effect, Start) for effect in jobs.opened(an_opened(image_lease(1)), NOW))
    assert jobs.engine_free(0) == [Start(Attempt(a_handle(1), 1), 0)]


# Openings


def test_an_opening_before_the_lease_is_taken_for_it() -> None:
    jobs, lease = some_jobs(), image_lease()

    assert told(jobs.opened(an_opened(lease), NOW)) == [("opened", "")]
    assert told(jobs.leased(signed(lease), NOW)) == [("opened", "")]


def test_a_second_opening_resumes_and_changes_nothing() -> None:
    jobs, _ = jobs_in(State.RUNNING)

    assert jobs.opened(an_opened(image_lease(), private=b""), NOW) == []
    assert jobs.opened(an_opened(image_lease(), private=b"garbage", prefix="x"), NOW) == []


def refuses(jobs: Jobs, opened: Opened, now: int = NOW) -> type[Refusal]:
    before = dict(jobs.jobs)
    with pytest.raises(Refusal) as caught:
        jobs.opened(opened, now)
    assert jobs.jobs == before
    return caught.type


def test_openings_that_cannot_be_served_are_refused_and_change_nothing() -> None:
    lease = image_lease()
    accepted = some_jobs()
    accepted.leased(signed(lease), NOW)

    assert refuses(accepted, an_opened(lease, private=b"")) is PrivatePartMissing
    assert refuses(accepted, an_opened(lease, private=b"other")) is PrivatePartMismatch
    assert refuses(accepted, an_opened(lease, prefix="Once")) is PrefixUnsupported
    assert refuses(accepted, an_opened(lease), lease.deadline) is WrongLease
    assert refuses(some_jobs((TEXTS,)), an_opened(lease)) is NotOffered
    full = some_jobs(ahead=0)
    full.leased(signed(image_lease(1)), NOW)
    assert refuses(full, an_opened(lease)) is Busy
    assert told(accepted.opened(an_opened(lease), NOW)) == [("opened", "")]


def test_a_prefix_goes_to_an_engine_that_can_continue() -> None:
    continues = but(TEXTS, engine="texts 2", continues=True)
    jobs, lease = some_jobs((TEXTS,), (continues,)), text_lease()

    assert jobs.opened(an_opened(lease, prefix="Once"), NOW)[-1] == Start(Attempt(lease.job, 1), 1)
    assert refuses(some_jobs((TEXTS,)), an_opened(lease, prefix="Once")) is PrefixUnsupported


def test_an_attempt_that_ended_here_is_not_begun_anew_by_its_old_lease() -> None:
    jobs, _ = jobs_in(State.RUNNING)
    jobs.failed(ATTEMPT, "crashed", "it crashed")
    jobs.engine_free(0)

    assert refuses(jobs, an_opened(image_lease())) is StreamGone
    assert told(jobs.leased(signed(image_lease()), NOW)) == [("failed", "gone")]
    jobs.tick(image_lease().deadline)
    assert jobs.gone == {}


def test_a_lease_from_before_the_last_welcome_that_is_not_held_is_over() -> None:
    jobs, lease = some_jobs(), image_lease()
    jobs.welcomed = lease.issued + 1

    assert refuses(jobs, an_opened(lease)) is StreamGone


# The tracker


def test_a_cancel_stops_the_engine_once_and_what_there_is_gets_its_receipt() -> None:
    jobs, receipt = jobs_in(State.RUNNING)

    assert withdraw(jobs, "cancelled") == [Stop(ATTEMPT)]
    assert withdraw(jobs, "cancelled") == []
    assert jobs.finished(ATTEMPT, receipt) == [Hand(receipt)]


def test_a_cancel_before_an_engine_began_ends_the_attempt() -> None:
    for state in (State.ACCEPTED, State.OPENED):
        jobs, _ = jobs_in(state)
        [discard] = withdraw(jobs, "cancelled")
        assert isinstance(discard, Discard)
        assert discard.code == "cancelled"


@pytest.mark.parametrize("reason", ["settled", "deadline", "unreachable", "not_opened", "replaced", "ended"])
def test_whatever_else_takes_a_lease_back_drops_all_of_it(reason: str) -> None:
    for state in (*LIVE, State.FINISHED):
        jobs, _ = jobs_in(state)
        [discard] = withdraw(jobs, reason)
        assert isinstance(discard, Discard)
        assert discard.code == reason


def test_words_about_attempts_that_are_not_held_are_passed_over() -> None:
    jobs = some_jobs()

    assert withdraw(jobs, "deadline") == jobs.settled(ATTEMPT) == jobs.failed(ATTEMPT, "failed", "") == []
    assert jobs.finished(ATTEMPT, signed(a_receipt())) == []


def test_a_failure_is_told_to_tracker_and_readers() -> None:
    jobs, _ = jobs_in(State.RUNNING)

    effects = jobs.failed(ATTEMPT, "too_long", "the prompt does not fit")

    assert told(effects) == [("failed", "too_long")]
    assert effects[-1] == Discard(ATTEMPT, "too_long", "the prompt does not fit")


@pytest.mark.parametrize(("code", "ends"), [("over_lease", True), ("unknown_job", True), ("busy", False)])
def test_a_refused_receipt_ends_the_attempt_unless_the_tracker_is_only_busy(code: str, ends: bool) -> None:
    jobs, receipt = jobs_in(State.FINISHED)

    jobs.refused(Refused(code=code, text="no", about=receipt.digest))

    assert (ATTEMPT not in jobs.jobs) == ends


def test_a_fenced_receipt_is_kept_for_the_requester_until_the_deadline() -> None:
    jobs, receipt = jobs_in(State.FINISHED)
    jobs.refused(Refused(code="fenced", text="a newer lease", about=receipt.digest))

    assert jobs.tick(image_lease().deadline - 1) == []
    [discard] = jobs.tick(image_lease().deadline)
    assert isinstance(discard, Discard)


def test_a_refusal_of_something_else_changes_nothing() -> None:
    jobs, _ = jobs_in(State.FINISHED)

    assert jobs.refused(Refused(code="unknown_job", text="no", about=b"x" * 32)) == []
    assert ATTEMPT in jobs.jobs


def test_a_deadline_ends_what_is_not_finished_and_nothing_else() -> None:
    for state in (*LIVE, State.FINISHED):
        jobs, _ = jobs_in(state)
        assert jobs.tick(image_lease().deadline - 1) == []
        effects = jobs.tick(image_lease().deadline)
        assert [type(effect) for effect in effects] == ([Discard] if state in LIVE else [])


# A new connection


def test_after_a_loss_the_state_of_each_lease_is_said_again() -> None:
    for state, word in ((State.ACCEPTED, "accepted"), (State.OPENED, "opened"), (State.STOPPING, "opened")):
        jobs, _ = jobs_in(state)
        assert told(jobs.reconciled(jobs.holding())) == [(word, "")]


def test_leases_that_the_tracker_ended_meanwhile_are_dropped() -> None:
    jobs, _ = jobs_in(State.RUNNING)
    jobs.holding()

    [discard] = jobs.reconciled([])

    assert isinstance(discard, Discard)
    assert discard.code == "ended"


def test_an_attempt_that_came_after_the_holding_was_said_is_not_dropped() -> None:
    jobs = some_jobs()
    jobs.holding()
    jobs.opened(an_opened(image_lease()), NOW)

    assert told(jobs.reconciled([])) == [("opened", "")]


def test_receipts_that_the_tracker_lacks_are_handed_over_again() -> None:
    jobs, receipt = jobs_in(State.FINISHED)
    jobs.taken([receipt.digest])
    [held] = jobs.holding()

    assert jobs.reconciled([held]) == []
    assert jobs.reconciled([]) == [Hand(receipt)]
    assert [held.kind for held in jobs.holding()] == ["receipt"]


def test_a_whole_result_of_an_earlier_run_is_held_and_handed_over() -> None:
    jobs, lease = some_jobs(), image_lease()
    receipt = signed(a_receipt(lease, used=30))
    jobs.restored(signed(lease), receipt)

    assert [(held.kind, held.progress) for held in jobs.holding()] == [("receipt", 30)]
    assert jobs.reconciled([]) == [Hand(receipt)]
    assert jobs.opened(an_opened(lease, private=b""), lease.deadline + 1) == []


def test_a_job_knows_its_attempt() -> None:
    lease = image_lease(attempt=3)

    assert Job(signed(lease), lease, State.ACCEPTED).attempt == Attempt(lease.job, 3)


# Engines whose offers come and go


def test_an_engine_that_serves_nothing_for_now_takes_no_job_and_no_slot():
    jobs = some_jobs((IMAGES,), (TEXTS,))
    assert jobs.slots == 2

    jobs.reoffered(0, (), "gone")

    assert jobs.slots == 1
    assert told(jobs.leased(signed(image_lease()), NOW)) == [("declined", NotOffered.code)]
    assert told(jobs.leased(signed(text_lease(1)), NOW)) == [("accepted", "")]
    jobs.reoffered(0, (IMAGES,), "")
    assert told(jobs.leased(signed(image_lease()), NOW)) == [("accepted", "")]


@pytest.mark.parametrize("state", [State.ACCEPTED, State.OPENED])
def test_what_waits_for_an_engine_that_serves_it_no_more_goes_back_at_once(state):
    jobs, _ = jobs_in(state)

    effects = jobs.reoffered(0, (), "no answer")

    assert told(effects) == [("failed", "unavailable")]
    assert Discard(ATTEMPT, "unavailable", "no answer") in effects
    assert jobs.jobs == {}


def test_what_waits_is_made_by_another_engine_that_serves_it():
    jobs = some_jobs((IMAGES,), (IMAGES,))
    lease = image_lease()
    jobs.leased(signed(lease), NOW)

    assert jobs.reoffered(0, (), "no answer") == []
    assert Start(ATTEMPT, 1) in jobs.opened(an_opened(lease), NOW)


def test_what_is_being_made_is_left_to_its_engine():
    jobs, receipt = jobs_in(State.RUNNING)

    assert jobs.reoffered(0, (), "no answer") == []
    assert jobs.finished(ATTEMPT, receipt) == [Hand(receipt)]


def test_a_job_that_waits_is_begun_when_an_engine_comes_to_serve_it():
    jobs = some_jobs((IMAGES,), ())
    leases = [image_lease(), image_lease(1)]
    for lease in leases:
        jobs.leased(signed(lease), NOW)
        jobs.opened(an_opened(lease), NOW)

    assert jobs.reoffered(1, (IMAGES,), "") == [Start(Attempt(leases[1].job, 1), 1)]
