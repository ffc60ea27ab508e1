"""What stands against whom, decided without a store; who may act, and when a second signature is needed."""

from typing import Any

import pytest

from protocol.errors import NotAllowed, OverLimit, Suspended, WrongSigner
from protocol.keys import show_key
from protocol.rules import ModerationSection, RolesSection, Rules
from tests.support.builders import DAY, NOW, SERVING, a_digest, a_key, an_act
from tracker.sanctions import Sanction, Sanctions, check_operator, check_role, needs_second, state_of

MODERATOR, OPERATOR, WORKER, OTHER = a_key(501), a_key(502), a_key(503), a_key(504)
RULES = Rules(
    roles=RolesSection(moderators=(show_key(MODERATOR.public),), operators=(show_key(OPERATOR.public),)),
    moderation=ModerationSection(return_alone=1_000),
)


def standing(*acts: tuple[str, dict[str, Any]]) -> Sanctions:
    return Sanctions(Sanction(a_digest(f"act {n}"), an_act(act, **fields)) for n, (act, fields) in enumerate(acts))


def test_a_suspended_account_neither_asks_nor_serves_until_its_last_moment_and_hears_why() -> None:
    found = standing(("suspend", {"until": NOW + DAY}))
    with pytest.raises(Suspended, match=r"prompts that name a neighbour \(rule filter\.hate; act .*potluck appeal"):
        found.check_ask(100, 0, 1, NOW + DAY)
    assert found.keeps_from_work(100, WORKER.public, NOW) is not None
    found.check_ask(100, 0, 1, NOW + DAY + 1)
    assert found.keeps_from_work(100, WORKER.public, NOW + DAY + 1) is None
    found.check_ask(101, 0, 1, NOW)
    assert (found.next_end(NOW), found.next_end(NOW + DAY + 1)) == (NOW + DAY, 0)


def test_a_limit_bounds_jobs_under_way_and_the_least_of_several_counts() -> None:
    found = standing(("limit", {"open_jobs": 5}), ("limit", {"open_jobs": 2, "until": NOW + DAY}))
    found.check_ask(100, 1, 1, NOW)
    with pytest.raises(OverLimit, match="at most 2 at once by an act of moderators"):
        found.check_ask(100, 1, 2, NOW)
    found.check_ask(100, 1, 2, NOW + 2 * DAY)
    assert found.keeps_from_work(100, WORKER.public, NOW) is None


def test_one_worker_is_paused_by_a_hash_of_its_key_or_all_of_an_account() -> None:
    from hashlib import sha256

    one = standing(("pause", {"worker": sha256(WORKER.public).digest()}))
    assert one.keeps_from_work(100, WORKER.public, NOW) is not None
    assert one.keeps_from_work(100, OTHER.public, NOW) is None
    assert one.keeps_from_work(101, WORKER.public, NOW) is None
    assert standing(("pause", {})).keeps_from_work(100, OTHER.public, NOW) is not None
    one.check_ask(100, 0, 1, NOW)


@pytest.mark.parametrize(
    "block, blocked",
    [
        ("192.0.2.0/24", True),
        ("192.0.3.0/24", False),
        ("2001:db8:7::/48", True),
        ("2001:db9::/48", False),
        ("unknown", False),
    ],
)
def test_people_without_an_account_are_blocked_by_their_network(block: str, blocked: bool) -> None:
    found = standing(
        ("block", {"block": "192.0.2.0/24", "until": NOW + DAY}), ("block", {"block": "2001:db8::/32", "until": NOW})
    )
    if blocked:
        with pytest.raises(Suspended, match="who has an account is served"):
            found.check_block(block, NOW)
    else:
        found.check_block(block, NOW)
    found.check_block(block, NOW + DAY + 1)


def test_who_may_act_stands_in_the_rules_and_the_serving_key_is_an_operators() -> None:
    for key in (MODERATOR, OPERATOR, SERVING):
        check_role(key.public, RULES, SERVING.public)
    with pytest.raises(NotAllowed):
        check_role(OTHER.public, RULES, SERVING.public)
    for key in (OPERATOR, SERVING):
        check_operator(key.public, RULES, SERVING.public, "an award")
    with pytest.raises(WrongSigner):
        check_operator(MODERATOR.public, RULES, SERVING.public, "an award")


def test_what_cannot_be_undone_needs_a_second_signature_unless_the_rules_say_that_one_is_enough() -> None:
    acts = {
        "ban": an_act("ban"),
        "much": an_act("return", amount=1_001),
        "little": an_act("return", amount=1_000),
        "suspend": an_act("suspend", until=NOW),
    }
    assert {name for name, act in acts.items() if needs_second(act, RULES)} == {"ban", "much"}
    alone = Rules(moderation=ModerationSection(signers=1))
    assert not any(needs_second(act, alone) for act in acts.values())


def test_what_becomes_of_an_act() -> None:
    assert state_of(0, 0, 0, NOW) == "proposed"
    assert state_of(NOW, 0, 0, NOW) == "stands"
    assert state_of(NOW, 0, NOW, NOW) == "stands"
    assert state_of(NOW, 0, NOW, NOW + 1) == "over"
    assert state_of(NOW, NOW, 0, NOW) == "over"
