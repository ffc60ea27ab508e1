"""Which way is tried when, and which is taken: the race without sockets, its time an argument."""

from __future__ import annotations

import random

import pytest

from peer.paths.choice import TIMING, Ask, Choice, Drop, Effect, GiveUp, Path, Try, Use, Way

DIRECT, SECOND = Way(Path.DIRECT), Way(Path.DIRECT, 1)
PUNCHED = Way(Path.PUNCHED)
RELAYED, OTHER = Way(Path.RELAYED), Way(Path.RELAYED, 1)


def ways(effects: list[Effect], of: type[Try | Drop | Use]) -> list[Way]:
    return [effect.way for effect in effects if isinstance(effect, of)]


def asked(effects: list[Effect]) -> list[str]:
    return [effect.reason for effect in effects if isinstance(effect, Ask)]


def gave_up(effects: list[Effect]) -> GiveUp | None:
    return next((effect for effect in effects if isinstance(effect, GiveUp)), None)


def test_a_direct_address_that_answers_is_taken_and_nobody_is_asked() -> None:
    choice = Choice(["a:1"])

    assert ways(choice.begin(0), Try) == [DIRECT]
    assert ways(choice.stands(DIRECT, 20), Use) == [DIRECT]
    assert choice.is_over
    assert choice.wake is None
    assert choice.tick(10_000) == []


def test_the_next_address_begins_a_little_later_and_at_once_where_one_fails() -> None:
    choice = Choice(["a:1", "b:1", "c:1"])
    choice.begin(0)

    assert choice.wake == TIMING.stagger
    assert ways(choice.tick(TIMING.stagger), Try) == [SECOND]
    assert ways(choice.failed(SECOND, "no_connection", "refused", TIMING.stagger + 1), Try) == [Way(Path.DIRECT, 2)]


def test_help_is_asked_for_after_a_short_while_without_an_answer() -> None:
    choice = Choice(["a:1"])
    choice.begin(0)

    assert asked(choice.tick(TIMING.ask_after - 1)) == []
    assert asked(choice.tick(TIMING.ask_after)) == ["no_answer"]
    assert asked(choice.tick(TIMING.ask_after + 1)) == []


@pytest.mark.parametrize(
    "choice, reason",
    [
        (Choice([], "private_address"), "private_address"),
        (Choice(["a:1"], relays_only=True), "relays_only"),
    ],
)
def test_help_is_asked_for_at_once_where_nothing_else_can_be_tried(choice: Choice, reason: str) -> None:
    effects = choice.begin(0)

    assert asked(effects) == [reason]
    assert ways(effects, Try) == []


def test_help_is_asked_for_as_soon_as_every_address_has_failed() -> None:
    choice = Choice(["a:1"])
    choice.begin(0)

    assert asked(choice.failed(DIRECT, "no_connection", "refused", 5)) == ["no_connection"]


def test_a_punched_path_has_a_head_start_before_relays() -> None:
    choice = Choice([])
    choice.begin(0)

    assert ways(choice.meeting(10), Try) == [PUNCHED]
    assert ways(choice.relays(["r:1", "s:1"], "", 20), Try) == []
    assert ways(choice.tick(20 + TIMING.head_start - 1), Try) == []
    assert ways(choice.tick(20 + TIMING.head_start), Try) == [RELAYED, OTHER]


def test_relays_begin_at_once_where_there_is_no_punching_or_it_has_failed() -> None:
    without, failing = Choice([]), Choice([])
    for choice in (without, failing):
        choice.begin(0)
    failing.meeting(1)
    failing.relays(["r:1"], "", 2)

    assert ways(without.relays(["r:1"], "", 2), Try) == [RELAYED]
    assert ways(failing.failed(PUNCHED, "no_meeting", "no answer", 3), Try) == [RELAYED]


def test_the_first_relay_that_stands_is_taken_and_the_others_are_dropped() -> None:
    choice = Choice([])
    choice.begin(0)
    choice.relays(["r:1", "s:1"], "", 1)

    effects = choice.stands(OTHER, 5)

    assert ways(effects, Use) == [OTHER]
    assert ways(effects, Drop) == [RELAYED]
    assert choice.is_over


def test_a_better_path_takes_over_and_a_worse_one_does_not() -> None:
    choice = Choice(["a:1"])
    choice.begin(0)
    choice.tick(TIMING.ask_after)
    choice.meeting(310)
    choice.relays(["r:1"], "", 310)
    choice.tick(310 + TIMING.head_start)

    assert ways(choice.stands(RELAYED, 1400), Use) == [RELAYED]
    assert choice.wake is not None
    assert ways(choice.stands(PUNCHED, 1500), Use) == [PUNCHED]
    [use] = [effect for effect in choice.stands(DIRECT, 1600) if isinstance(effect, Use)]
    assert (use.way, "took over from the punched path" in use.reason) == (DIRECT, True)
    assert choice.is_over
    assert ways(choice.stands(PUNCHED, 1700), Drop) == [PUNCHED]


def test_a_direct_path_that_stands_ends_the_punching() -> None:
    choice = Choice(["a:1"])
    choice.begin(0)
    choice.tick(TIMING.ask_after)
    choice.meeting(400)

    effects = choice.stands(DIRECT, 500)

    assert ways(effects, Use) == [DIRECT]
    assert ways(effects, Drop) == [PUNCHED]
    assert choice.meeting(600) == []
    assert choice.relays(["r:1"], "", 600) == []


def test_who_wants_relays_only_is_neither_met_nor_dialled() -> None:
    choice = Choice(["a:1"], relays_only=True)
    choice.begin(0)

    assert choice.meeting(1) == []
    assert ways(choice.relays(["r:1"], "", 2), Try) == [RELAYED]


def test_where_the_path_taken_ends_before_the_answer_other_addresses_and_the_tracker_are_asked_again() -> None:
    choice = Choice(["a:1", "b:1"])
    choice.begin(0)
    choice.stands(DIRECT, 10)

    effects = choice.broke("no_connection", "it ended", 20)

    assert (ways(effects, Try), asked(effects)) == ([SECOND], ["broken"])
    assert ways(choice.relays(["r:1"], "", 30), Try) == [RELAYED]
    given = gave_up(choice.failed(SECOND, "no_connection", "refused", 40) + choice.failed(RELAYED, "cut", "cut", 50))
    assert given is not None
    assert given.text.startswith("direct a:1: it ended; ")


def test_where_a_relayed_path_ends_before_the_answer_it_can_be_met_and_relayed_anew() -> None:
    choice = Choice([])
    choice.begin(0)
    choice.meeting(10)
    choice.relays(["r:1"], "", 20)
    choice.failed(PUNCHED, "no_meeting", "no answer", 30)
    choice.stands(RELAYED, 40)

    assert asked(choice.broke("timeout", "no answer", 50)) == ["broken"]
    assert ways(choice.meeting(60), Try) == [PUNCHED]


def test_who_wants_relays_only_is_not_shown_either_where_a_relay_ends() -> None:
    choice = Choice(["a:1"], relays_only=True)
    choice.begin(0)
    choice.relays(["r:1", "s:1"], "", 10)
    choice.stands(RELAYED, 20)

    effects = choice.broke("timeout", "no answer", 30)

    assert (ways(effects, Try), asked(effects)) == ([], ["broken"])
    assert choice.meeting(40) == []


def test_a_path_that_ends_when_time_is_up_is_the_end() -> None:
    choice = Choice(["a:1", "b:1"])
    choice.begin(0)
    choice.stands(DIRECT, 10)

    assert gave_up(choice.broke("timeout", "no answer", TIMING.race)) is not None
    assert choice.is_over


def test_relays_that_are_not_wanted_when_they_are_named_keep_their_numbers() -> None:
    choice = Choice(["a:1"])
    choice.begin(0)
    choice.tick(TIMING.ask_after)
    choice.stands(DIRECT, 400)
    assert choice.relays(["r:1"], "", 410) == []
    choice.broke("no_connection", "it ended", 420)

    assert ways(choice.relays(["s:1"], "", 430), Try) == [OTHER]


def test_relays_in_doubt_are_tried_where_the_others_have_failed() -> None:
    choice = Choice([])
    choice.begin(0)

    assert ways(choice.relays(["r:1", "s:1"], "", 10, doubted=1), Try) == [RELAYED]
    assert ways(choice.failed(RELAYED, "timeout", "no answer", 20), Try) == [OTHER]
    assert ways(choice.stands(OTHER, 30), Use) == [OTHER]


def test_relays_in_doubt_are_tried_at_once_where_there_are_no_others() -> None:
    choice = Choice([])
    choice.begin(0)

    assert ways(choice.relays(["r:1", "s:1"], "", 10, doubted=2), Try) == [RELAYED, OTHER]


def test_a_race_lasts_as_long_as_the_tracker_waits_for_the_opening_but_for_a_rest() -> None:
    assert TIMING.within(10_000) == TIMING
    assert TIMING.within(30_000).race == 28_000
    assert TIMING.within(1_000).race == 2_000


def test_giving_up_says_what_was_tried_on_each_path() -> None:
    choice = Choice(["a:1"])
    choice.begin(0)
    choice.failed(DIRECT, "timeout", "no answer", 100)
    choice.meeting(110)
    choice.relays(["r:1"], "", 110)
    choice.failed(PUNCHED, "no_meeting", "no answer (try 3)", 200)
    given = gave_up(choice.failed(RELAYED, "relay_full", "full", 300))

    assert given is not None
    assert given.reason == "timeout"
    for part in ("direct a:1: no answer", "punched through both routers: no answer (try 3)", "relayed r:1: full"):
        assert part in given.text
    assert choice.is_over


def test_without_help_only_addresses_count() -> None:
    choice = Choice(["a:1"], helped=False)
    choice.begin(0)

    assert asked(choice.tick(TIMING.ask_after)) == []
    assert gave_up(choice.failed(DIRECT, "no_connection", "refused", 400)) is not None


def test_nothing_to_try_and_nobody_to_ask_is_said_at_once() -> None:
    assert gave_up(Choice([], helped=False).begin(0)) is not None


def test_a_tracker_that_cannot_be_asked_or_says_nothing_is_not_waited_for() -> None:
    refused, silent = Choice([]), Choice([])
    for choice in (refused, silent):
        choice.begin(0)

    assert gave_up(refused.not_asked("no_path", "not connected")) is not None
    assert silent.wake == TIMING.answer
    assert gave_up(silent.tick(TIMING.answer)) is not None


def test_whatever_has_not_come_when_time_is_up_is_dropped() -> None:
    choice = Choice(["a:1"])
    choice.begin(0)
    choice.tick(TIMING.ask_after)
    choice.relays(["r:1"], "", 400)
    choice.stands(RELAYED, 500)
    assert choice.wake == TIMING.race

    assert ways(choice.tick(TIMING.race), Drop) == [DIRECT]
    assert choice.is_over
    assert ways(choice.stands(DIRECT, TIMING.race + 1), Drop) == [DIRECT]


@pytest.mark.parametrize("seed", range(200))
def test_however_it_goes_the_race_ends_and_the_best_that_stood_is_used(seed: int) -> None:
    chance = random.Random(seed)
    choice = Choice(
        [f"{n}:1" for n in range(chance.randrange(4))],
        helped=chance.random() < 0.8,
        relays_only=chance.random() < 0.2,
    )
    begun: set[Way] = set()
    stood: list[Way] = []
    used: list[Way] = []
    given: list[GiveUp] = []

    def carry_out(effects: list[Effect]) -> None:
        for effect in effects:
            match effect:
                case Try(way):
                    begun.add(way)
                case Drop(way):
                    begun.discard(way)
                case Use(way):
                    used.append(way)
                case GiveUp():
                    given.append(effect)
                case Ask():
                    pass

    now = 0
    carry_out(choice.begin(now))
    while not choice.is_over or (used and chance.random() < 0.3 and now < TIMING.race):
        act = chance.randrange(6)
        if (choice.used is not None and chance.random() < 0.1) or choice.is_over:
            used.clear()
            stood.clear()
            carry_out(choice.broke("cut", "it ended", now))
            continue
        if act == 0 and begun:
            way = chance.choice(sorted(begun, key=lambda way: (way.path, way.number)))
            begun.discard(way)
            stood.append(way)
            carry_out(choice.stands(way, now))
        elif act == 1 and begun:
            way = chance.choice(sorted(begun, key=lambda way: (way.path, way.number)))
            begun.discard(way)
            carry_out(choice.failed(way, "no_connection", "refused", now))
        elif act == 2 and chance.random() < 0.3:
            carry_out(choice.meeting(now))
        elif act == 3 and chance.random() < 0.3:
            names = ["r:1"] * chance.randrange(3)
            carry_out(choice.relays(names, "", now, chance.randrange(len(names) + 1)))
        else:
            assert choice.wake is not None
            now = max(now + 1, choice.wake)
            carry_out(choice.tick(now))

    assert now <= TIMING.race
    assert begun == set(), "nothing is left running"
    assert [way.path for way in used] == sorted({way.path for way in used}, reverse=True), "each better than the last"
    assert (used == []) == (len(given) == 1)
    assert not used or used[-1].path == min(way.path for way in stood)
