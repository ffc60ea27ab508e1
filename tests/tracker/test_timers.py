"""What is due is run, in its order; what is forgotten is not, and keeps no memory."""

from functools import partial

from tracker.timers import SWEEP, Timers


def test_what_is_due_is_run_in_the_order_of_its_time():
    timers = Timers()
    run: list[object] = []
    for due in (30, 10, 20, 10):
        timers.at(due, partial(run.append, due))
    timers.run(9)
    assert run == []
    timers.run(20)
    assert run == [10, 10, 20]
    timers.run(40)
    assert run == [10, 10, 20, 30]
    assert len(timers) == 0


def test_an_action_may_set_the_next():
    timers = Timers()
    run: list[object] = []
    timers.at(1, lambda: timers.at(2, lambda: run.append(2)))
    timers.run(5)
    assert run == [2]


def test_what_is_forgotten_is_not_run():
    timers = Timers()
    run: list[object] = []
    timers.at(1, lambda: run.append("job"), b"job")
    timers.at(2, lambda: run.append("job again"), b"job")
    timers.at(3, lambda: run.append("other"), b"other")
    timers.forget(b"job")
    timers.forget(b"never heard of")
    timers.run(5)
    assert run == ["other"]


def test_what_was_forgotten_takes_no_room_though_its_time_is_far():
    timers = Timers()
    for number in range(5 * SWEEP):
        about = number.to_bytes(4, "big")
        timers.at(86_400_000 + number, lambda: None, about)
        timers.forget(about)
    assert len(timers) == 0
    assert len(timers._heap) <= SWEEP + 1
    assert not timers._about


def test_what_was_run_about_something_can_be_forgotten():
    timers = Timers()
    run: list[object] = []
    timers.at(1, lambda: run.append(1), b"job")
    timers.run(1)
    timers.forget(b"job")
    assert run == [1]
