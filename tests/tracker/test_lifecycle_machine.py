"""A job's life under random events: the real core over the real store, with peers that do anything at any time.

Kudos is conserved, an attempt is settled at most once, no job is lost, and every job ends; and every branch of the
table in docs/protocol.md is taken, which the run shows.
"""

import asyncio
import re
import shutil
from collections import Counter
from contextlib import contextmanager
from dataclasses import replace
from itertools import count, takewhile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from tests.support.life import AIMS, REQUESTERS, WORKERS, Life, begin
from tests.support.life_table import NOT_YET_BUILT, REFUSED, ROWS, missed, shown, unforeseen
from tests.support.tally import Tally
from tracker import lifecycle
from tracker.lifecycle import State, decide

STANDARD = Path(__file__).parents[2] / "docs" / "protocol.md"

#: The same examples each time: handles, and what a store's threads do between two steps, are all that differs.
STEADY = settings(
    max_examples=20,
    stateful_step_count=20,
    database=None,
    deadline=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)
#: Of so many examples there are so many rounds at most; they end when every branch was taken.
ROUNDS = 8

WORKER = st.sampled_from(WORKERS)
REQUESTER = st.sampled_from(REQUESTERS)
ANYBODY = st.sampled_from([*WORKERS, *REQUESTERS])
PICK = st.tuples(st.sampled_from(AIMS), st.sampled_from([0, 0, 0, 1, 2]))
#: Seconds: less than any time that the rules give, each of those times, and long after them.
PASSES = st.sampled_from([1, 1, 4, 5, 5, 10, 10, 11, 21, 600, 1_201, 86_400])
FORM = st.sampled_from(["whole", "whole", "whole", "whole", "partial", "partial", "too much", "other"])
CALLED_OFF = st.sampled_from(["deliver", "deliver", "acknowledge", "acknowledge", "deny", "cancel", "fail", "nothing"])
STAGE = st.sampled_from(["pushed", "accepted", "opened", "called off", "delivered"])
LOSSES = st.sampled_from(
    ["not opened", "unreachable", "deadline", "gone", "back without it", "declined", "declined at once", "failed"]
)
ACTIONS = ("accept", "open", "decline", "fail", "deliver", "acknowledge", "deny", "cancel", "unreachable", "repeat")
ACTION = st.tuples(st.sampled_from(ACTIONS), PICK)


#: Rules of which each example takes every one at least once, with what each of them wants.
SEVERAL: dict[str, dict[str, Any]] = {
    "denies": {"stage": STAGE, "form": st.sampled_from(["", "", "whole", "partial"]), "times": st.integers(1, 3)},
    "asks_when_nobody_serves": {"who": REQUESTER, "away": st.booleans(), "cancels": st.booleans()},
    "asks_for_more_than_it_has": {"acknowledges": st.booleans()},
    "a_worker_gets_no_further": {"state": STAGE, "seconds": PASSES},
    "two_leases_in_a_row_are_lost": {"who": REQUESTER, "how": LOSSES, "again": LOSSES},
    "a_lost_lease_is_spoken_of": {
        "how": LOSSES,
        "newer": st.sampled_from(["none", "leased", "delivered", "over"]),
        "says": st.sampled_from(["deliver", "acknowledge", "deny"]),
        "form": st.sampled_from(["whole", "whole", "whole", "partial", "too much"]),
    },
    "what_is_called_off_goes_on": {
        "what": st.lists(
            st.tuples(CALLED_OFF, st.sampled_from(["whole", "partial", "partial", "too much"])), min_size=2, max_size=3
        ),
        "seconds": st.sampled_from([1, 10]),
    },
    "claims": {
        "stage": st.one_of(STAGE, st.just("ended")),
        "form": FORM,
        "says": st.sampled_from(["deliver", "acknowledge"]),
    },
    "a_worker_loses_its_connection": {
        "who": WORKER,
        "accepts": st.booleans(),
        "holds": st.booleans(),
        "away": st.sampled_from([0, 0, 5, 10, 11]),
    },
    "the_tracker_is_restarted": {
        "stages": st.lists(STAGE, min_size=2, max_size=4, unique=True),
        "killed": st.booleans(),
        "actions": st.lists(ACTION, max_size=3),
        "back": st.lists(ANYBODY, unique=True),
        "holds": st.booleans(),
    },
    "meddles": {
        "pick": PICK,
        "what": st.sampled_from(["receipt", "acknowledgement", "denial", "cancel"]),
        "unknown": st.booleans(),
    },
    "a_worker_asks_itself": {"says": st.sampled_from(["deliver", "acknowledge", "acknowledge"])},
    "asks_wrongly": {
        "who": REQUESTER,
        "hows": st.lists(
            st.sampled_from(["too large", "forbidden", "late", "without private part"]), min_size=2, unique=True
        ),
    },
}

#: Those of them with so many branches that once is too little.
OFTEN = ("a_lost_lease_is_spoken_of", "a_lost_lease_is_spoken_of", "meddles", "meddles", "claims")


class Machine(RuleBasedStateMachine):
    """Rules are events; each ends when nothing is being carried out any more."""

    tally: Tally
    begun: Path
    numbers = count()

    def __init__(self):
        super().__init__()
        folder = self.begun.parent / f"life {next(self.numbers)}" / "life"
        folder.mkdir(parents=True)
        shutil.copy(self.begun, folder / "horde.db")
        self.tally.started = None
        self.runner = asyncio.Runner()
        self.life = Life(folder / "horde.db", self.tally)
        self.do(self.life.start())

    def do(self, *steps):
        """Take steps one after the other, without waiting for what comes of each, then wait."""

        async def take():
            for step in steps:
                await step
            await self.life.settle_down()

        with self.noted():
            self.runner.run(take())

    @contextmanager
    def noted(self):
        """What fails is kept in the tally too, since an example need not fail in the same way when it is replayed."""
        try:
            yield
        except AssertionError as error:
            self.tally.faults.append(str(error))
            raise

    def teardown(self):
        try:
            with self.noted():
                self.runner.run(self.life.end())
        finally:
            self.runner.run(self.life.stop())
            self.runner.close()
            shutil.rmtree(self.life.path.parents[1])

    @initialize(order=st.permutations([*SEVERAL, *OFTEN]), data=st.data())
    def everybody_comes_and_much_happens(self, order, data):
        self.do(*(self.life.come(number) for number in dict.fromkeys((*WORKERS, *REQUESTERS))))
        for name in order:
            wants = {what: data.draw(strategy) for what, strategy in SEVERAL[name].items()}
            getattr(self, name)(**wants)

    # Requests

    @rule(**SEVERAL["asks_for_more_than_it_has"])
    def asks_for_more_than_it_has(self, acknowledges):
        """On a new day, whose mint is fresh."""
        life = self.life
        self.do(life.later(86_400))
        self.do(life.come(REQUESTERS[0]), *(life.come(worker) for worker in WORKERS))
        self.do(*(life.announce(worker, 3) for worker in WORKERS), life.ask(REQUESTERS[0], n=4))
        for _ in range(4):
            self.do(life.acknowledge(("pushed", 0), "whole") if acknowledges else life.deliver(("pushed", 0), "whole"))

    @rule(who=REQUESTER, n=st.sampled_from([1, 1, 1, 2, 3]))
    def asks(self, who, n):
        self.do(self.life.come(who), self.life.ask(who, n=n))

    @rule(**SEVERAL["asks_wrongly"])
    def asks_wrongly(self, who, hows):
        self.do(*(self.life.ask(who, how=how) for how in hows))

    @rule(**SEVERAL["a_worker_asks_itself"])
    def a_worker_asks_itself(self, says):
        life, both = self.life, REQUESTERS[2]
        self.do(*(life.announce(worker, 3 if worker == both else 0) for worker in WORKERS))
        self.do(life.come(both), life.ask(both))
        self.do(getattr(life, says)(("pushed", 0), "whole"))

    @rule(pick=st.integers(0, 3), otherwise=st.booleans())
    def asks_again(self, pick, otherwise):
        self.do(self.life.ask_again(pick, otherwise=otherwise))

    @rule(**SEVERAL["asks_when_nobody_serves"])
    def asks_when_nobody_serves(self, who, away, cancels):
        """And is away when somebody does, if it is not a worker too; or has it cancelled before."""
        life = self.life
        self.do(*(life.announce(worker, 0) for worker in WORKERS))
        self.do(life.come(who), life.ask(who))
        if cancels:
            self.do(life.cancel_waiting())
        if away and who not in WORKERS:
            self.do(life.leave(who))
        self.do(*(life.announce(worker, 2) for worker in WORKERS))
        self.do(life.come(who))

    @rule(pick=PICK, whole=st.booleans())
    def cancels(self, pick, whole):
        self.do(self.life.cancel(pick, whole=whole))

    # Workers

    @rule(
        pick=PICK, states=st.sampled_from([["accepted"], ["opened"], ["accepted", "opened"], ["declined"], ["failed"]])
    )
    def reports(self, pick, states):
        self.do(*(self.life.report(pick, state) for state in states))

    @rule(**SEVERAL["a_worker_gets_no_further"])
    def a_worker_gets_no_further(self, state, seconds):
        self.do(self.life.have(state))
        self.do(self.life.later(seconds))

    @rule(pick=PICK, state=st.sampled_from(["declined", "failed"]))
    def accepts_and_fails(self, pick, state):
        self.do(self.life.report(pick, "accepted"), self.life.report(pick, state))

    @rule(pick=PICK, form=FORM)
    def delivers(self, pick, form):
        self.do(self.life.deliver(pick, form))

    @rule(who=WORKER, slots=st.sampled_from([0, 1, 2, 3]))
    def announces(self, who, slots):
        self.do(self.life.come(who), self.life.announce(who, slots))

    # Answers

    @rule(pick=PICK, form=FORM)
    def acknowledges(self, pick, form):
        self.do(self.life.acknowledge(pick, form))

    @rule(**SEVERAL["denies"])
    def denies(self, stage, form, times):
        self.do(self.life.have(stage))
        self.do(self.life.deny((stage, 0), form))
        for _ in range(1, times):
            self.do(self.life.repeat(0))

    @rule(pick=PICK, form=st.sampled_from(["", "whole"]))
    def denies_anything(self, pick, form):
        self.do(self.life.deny(pick, form))

    @rule(pick=PICK)
    def cannot_reach(self, pick):
        self.do(self.life.cannot_reach(pick))

    # Several events that seldom come together by themselves

    @rule(**SEVERAL["two_leases_in_a_row_are_lost"])
    def two_leases_in_a_row_are_lost(self, who, how, again):
        self.do(self.life.have("pushed", who))
        self.do(self.life.lose(how))
        self.do(self.life.lose(again))

    @rule(**SEVERAL["a_lost_lease_is_spoken_of"])
    def a_lost_lease_is_spoken_of(self, how, newer, says, form):
        """When nobody else serves, or another worker has it, or that one has delivered, or has lost it too."""
        life = self.life
        self.do(life.have("pushed"))
        if newer == "none":
            self.do(*(life.announce(worker, 0) for worker in WORKERS))
        self.do(life.lose(how))
        if newer == "delivered":
            self.do(life.deliver(("pushed", 0), "whole"))
        if newer == "over":
            self.do(*(life.announce(worker, 0) for worker in WORKERS), life.report(("pushed", 0), "declined"))
        about = {"none": "waiting", "delivered": "older than delivered"}.get(newer, "older")
        self.do(getattr(life, says)((about, 0), form))
        self.do(life.acknowledge_the_others())

    @rule(**SEVERAL["what_is_called_off_goes_on"])
    def what_is_called_off_goes_on(self, what, seconds):
        about = ("called off", 0)
        for then, form in what:
            self.do(self.life.have("called off"))
            match then:
                case "deliver" | "acknowledge":
                    self.do(getattr(self.life, then)(about, form))
                case "nothing":
                    self.do(self.life.later(seconds))
                case _:
                    self.do(self.action(then, about))

    # Trouble

    @rule(pick=st.integers(0, 30))
    def repeats(self, pick):
        self.do(self.life.repeat(pick))

    @rule(**SEVERAL["meddles"])
    def meddles(self, pick, what, unknown):
        self.do(self.life.meddle(pick, what, unknown=unknown))

    @rule(actions=st.lists(ACTION, min_size=2, max_size=4))
    def much_at_once(self, actions):
        self.do(*(self.action(*each) for each in actions))

    @rule(seconds=PASSES)
    def time_passes(self, seconds):
        self.do(self.life.later(seconds))

    @rule(who=ANYBODY)
    def is_cut_off(self, who):
        self.do(self.life.leave(who))

    @rule(who=ANYBODY, holds=st.sampled_from([True, True, False]))
    def comes_back(self, who, holds):
        self.do(self.life.come(who, holds=holds))

    @rule(**SEVERAL["a_worker_loses_its_connection"])
    def a_worker_loses_its_connection(self, who, accepts, holds, away):
        if accepts:
            self.do(self.life.report(("pushed", 0), "opened"))
        self.do(self.life.leave(who))
        self.do(self.life.later(away))
        self.do(self.life.come(who, holds=holds))

    @rule(**SEVERAL["claims"])
    def claims(self, stage, form, says):
        self.do(self.life.have(stage))
        self.do(getattr(self.life, says)((stage, 0), form))

    @rule(**SEVERAL["the_tracker_is_restarted"])
    def the_tracker_is_restarted(self, stages, killed, actions, back, holds):
        """In the midst of what was just said; some come back at once."""
        for stage in stages:
            self.do(self.life.have(stage))
        self.do(*(self.life.announce(worker, 0) for worker in WORKERS))
        self.do(self.life.come(REQUESTERS[1]), self.life.ask(REQUESTERS[1]))
        self.do(*(self.action(*each) for each in actions), self.life.restart(killed=killed))
        self.do(*(self.life.come(who, holds=holds) for who in back))

    def action(self, name, pick):
        life = self.life
        match name:
            case "accept" | "open" | "decline" | "fail":
                states = {"accept": "accepted", "open": "opened", "decline": "declined", "fail": "failed"}
                return life.report(pick, states[name])
            case "deliver":
                return life.deliver(pick, "whole")
            case "acknowledge":
                return life.acknowledge(pick, "whole")
            case "deny":
                return life.deny(pick, "")
            case "cancel":
                return life.cancel(pick, whole=False)
            case "unreachable":
                return life.cannot_reach(pick)
            case _:
                return life.repeat(pick[1])


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    """A horde to begin each example with."""
    path = tmp_path_factory.mktemp("begun") / "horde.db"
    asyncio.run(begin(path))
    return path


def live(begun, tally, number, decide=decide):
    """Run one round of the machine."""
    machine = seed(number)(type("Machine", (Machine,), {"tally": tally, "begun": begun}))
    with tally.listening(decide):
        run_state_machine_as_test(machine, settings=STEADY)


def test_every_branch_of_a_jobs_life_is_taken_and_the_books_stay_right(begun, record_property):
    tally = Tally()
    for number in range(ROUNDS):
        live(begun, tally, number)
        if not missed(tally.hits, ROWS) + missed(tally.hits, REFUSED):
            break
    record_property(
        "table",
        f"A job's life, and how often each branch was taken in {20 * (number + 1)} lives\n"
        + shown(tally.hits, ROWS, REFUSED),
    )
    assert not unforeseen(tally.hits, ROWS, REFUSED)
    assert not missed(tally.hits, ROWS) + missed(tally.hits, REFUSED)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("number", range(100, 110))
def test_the_books_stay_right_through_many_more_lives(begun, number):
    tally = Tally()
    live(begun, tally, number)
    assert not unforeseen(tally.hits, ROWS, REFUSED)


# The table


def table_of(title):
    """State, event and next state of each row of the standard's table that begins with `title`."""
    lines = STANDARD.read_text("utf-8").split("## 12. A job's life", 1)[1].splitlines()
    begin = next(number for number, line in enumerate(lines) if line.startswith(title))
    return [
        " | ".join(part.strip() for part in line.strip("|").split(" | ")[:2])
        for line in takewhile(lambda line: line.startswith("|"), lines[begin + 2 :])
    ]


def test_the_rows_are_those_of_the_standard():
    assert table_of("| state | event |") == list(ROWS)
    assert table_of("| message | when |") == list(REFUSED)


def test_what_needs_uploads_is_named_and_not_yet_built():
    assert NOT_YET_BUILT
    assert "disputed" not in set(State), "it is built: take its rows off the list, and give them branches"


def test_a_branch_that_is_never_taken_is_missed():
    rows = {"waiting | a miracle": {"it happens": ("waiting | miracle | settled",)}}
    assert missed(Counter({"waiting | cancel | cancelled": 3}), rows) == ["waiting | a miracle: it happens"]
    assert not missed(Counter({"waiting | miracle | settled": 1}), rows)


def test_a_turn_that_no_branch_names_is_noticed():
    hits = Counter({"waiting | cancel | cancelled": 3, "delivered | cancel | cancelled": 1})
    assert unforeseen(hits, ROWS, REFUSED) == ["delivered | cancel | cancelled"]


# Controls: a core that is wrong is caught


def pays_every_attempt(job, attempt, event, rules, now):
    """Settles an attempt of a job of which another one was paid."""
    paid = job.state is State.SETTLED and attempt is not None and job.settled != attempt.attempt
    if paid and isinstance(event, lifecycle.Acknowledged):
        job = replace(job, state=State.LEASED, attempt=attempt.attempt)
    return decide(job, attempt, event, rules, now)


def keeps_what_was_held(job, attempt, event, rules, now):
    """A job that is cancelled ends, and its hold does not go back."""
    outcome = decide(job, attempt, event, rules, now)
    return replace(outcome, release=outcome.release and not isinstance(event, lifecycle.Cancelled))


def waits_forever(job, attempt, event, rules, now):
    """A job that has waited for too long goes on waiting."""
    outcome = decide(job, attempt, event, rules, now)
    return replace(outcome, job=job, changed=False) if isinstance(event, lifecycle.Expired) else outcome


@pytest.mark.parametrize(
    ("wrong", "complaint"),
    [
        (pays_every_attempt, "no job is settled or refunded twice|there is one settlement for a job"),
        pytest.param(
            keeps_what_was_held,
            "an ended job holds nothing|what is held is held for live jobs",
            marks=pytest.mark.slow,
        ),
        (waits_forever, "every job ends"),
    ],
)
def test_a_core_that_is_wrong_is_caught(begun, wrong, complaint):
    tally = Tally()

    def rounds():
        for number in range(ROUNDS):
            live(begun, tally, number, wrong)

    with pytest.raises(Exception) as caught:
        rounds()
    assert re.search(complaint, "\n".join(tally.faults)), caught.value
