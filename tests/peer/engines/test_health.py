"""When something that may cease to work is offered, and when it is looked at again."""

from __future__ import annotations

from peer.engines.health import FAILURES, FIRST_REST_S, LAST_LOOK_S, LAST_REST_S, LOOK_S, TRIAL_S, Health


def well() -> Health:
    health = Health()
    health.looked(0)
    return health


def test_it_is_offered_from_the_first_look_on_and_looked_at_now_and_then():
    assert not Health().up
    assert (well().up, well().due) == (True, LOOK_S)


def test_what_is_gone_is_looked_at_soon_and_then_more_and_more_seldom_until_it_is_back():
    health, now, waits = well(), 0.0, []
    for _ in range(8):
        health.looked(now, "no answer")
        assert (health.up, health.text) == (False, "no answer")
        waits.append(health.due - now)
        now = health.due
    assert waits == [1, 2, 4, 8, 16, LAST_LOOK_S, LAST_LOOK_S, LAST_LOOK_S]

    health.looked(now)
    assert (health.up, health.text, health.due) == (True, "", now + LOOK_S)
    health.looked(now, "no answer")
    assert health.due == now + 1


def test_a_failed_job_has_it_tried_out_at_once_and_it_stays_offered_meanwhile():
    health = well()
    health.failed(100, "broke off", at_once=False, counts=True)
    assert (health.up, health.wants_trial, health.due) == (True, True, 100)

    health.looked(100)
    assert (health.up, health.wants_trial) == (True, False)


def test_trials_are_apart_whoever_makes_jobs_fail():
    health = well()
    for now in (100, 101, 102):
        health.failed(now, "refused", at_once=False, counts=False)
        if health.due <= now:
            health.looked(now)
    assert health.up
    assert health.due == 100 + TRIAL_S


def test_what_is_clearly_of_no_use_is_not_offered_until_a_trial_succeeds():
    health = well()
    health.failed(100, "no such model", at_once=True, counts=False)
    assert (health.up, health.text, health.wants_trial) == (False, "no such model", True)

    health.looked(100, "no such model")
    assert not health.up
    health.looked(101)
    assert health.up


def test_jobs_that_fail_one_after_the_other_make_it_rest_longer_each_time_until_one_is_made():
    health, now, rests = well(), 0.0, []
    for _ in range(FAILURES - 1):
        health.failed(now, "failed", at_once=False, counts=True)
        health.looked(now)
        assert health.up
    for _ in range(5):
        health.failed(now, "failed", at_once=False, counts=True)
        assert not health.up
        rests.append(health.due - now)
        health.looked(now)
        assert not health.up, "a trial alone does not end a rest"
        now = health.due
        health.looked(now)
        assert health.up
    assert rests == [FIRST_REST_S, 2 * FIRST_REST_S, 4 * FIRST_REST_S, LAST_REST_S, LAST_REST_S]

    health.worked()
    health.failed(now, "failed", at_once=False, counts=True)
    assert health.up


def test_jobs_that_are_refused_do_not_count():
    health = well()
    for now in range(100):
        health.failed(now, "refused", at_once=False, counts=False)
    assert health.up


def test_a_job_that_fails_within_a_rest_leaves_it_to_be_looked_at_when_the_rest_is_over():
    health = well()
    for _ in range(FAILURES):
        health.failed(0, "failed", at_once=False, counts=True)
    health.failed(1, "no such model", at_once=True, counts=False)  # it was under way already
    health.looked(health.due)
    assert (health.up, health.wants_trial, health.due) == (False, True, FIRST_REST_S)

    health.looked(health.due)
    assert (health.up, health.wants_trial) == (True, False)
