"""Whose key may do what: decided without a store."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import BadValue, NotAllowed
from protocol.work import PublicPart
from tests.support.builders import HOUR, NOW, a_delegation_to, a_digest, a_public_part, a_text_work, an_image_work, but
from tracker.accounts import (
    INVITE_GROUPS,
    INVITE_LETTERS,
    NOBODY,
    Acting,
    Grant,
    available,
    check_ask,
    check_own,
    check_user,
    check_work,
    invite_hash,
    new_invite,
)

OWNER = Acting(100)


def acting(**terms: object) -> Acting:
    return Acting(100, Grant(a_digest("delegation"), a_delegation_to(**terms)))  # type: ignore[arg-type]


PICTURE = a_public_part(an_image_work(width=512, height=512, steps=30), ("one",))
TEXT = a_public_part(a_text_work(max_tokens=74, context_tokens=2048), ("one",))


@pytest.mark.parametrize("public", [PICTURE, TEXT])
def test_an_accounts_own_key_and_an_unbounded_delegate_may_ask_for_anything(public: PublicPart) -> None:
    check_ask(OWNER, public)
    check_ask(NOBODY, public)
    check_ask(acting(ask=True), public)


@pytest.mark.parametrize(
    ("public", "name", "value"),
    [
        (PICTURE, "max_pixels", 512 * 512),
        (PICTURE, "max_steps", 30),
        (TEXT, "max_tokens", 74),
        (TEXT, "max_context", 2048),
    ],
)
def test_each_bound_is_kept_to_the_last_and_named_when_it_is_crossed(public: PublicPart, name: str, value: int) -> None:
    check_ask(acting(ask=True, **{name: value}), public)
    with pytest.raises(NotAllowed, match=rf"{value}: .*at most {value - 1}") as refused:
        check_ask(acting(ask=True, expires=NOW, **{name: value - 1}), public)
    assert "account 100" in refused.value.text
    assert "until 2026-01-01 00:00 UTC" in refused.value.text
    assert "its owner can make one" in refused.value.text


@pytest.mark.parametrize("name", ["max_pixels", "max_steps"])
def test_a_bound_of_pictures_does_not_bind_texts(name: str) -> None:
    check_ask(acting(ask=True, **{name: 1}), TEXT)


@pytest.mark.parametrize("models", [(), ("three",), ("one", "three")])
def test_models_beyond_the_delegation_are_refused_also_where_none_is_named(models: tuple[str, ...]) -> None:
    with pytest.raises(NotAllowed, match="only one, two"):
        check_ask(acting(ask=True, models=("one", "two")), a_public_part(models=models))
    check_ask(acting(ask=True, models=("one", "two")), a_public_part(models=("two", "one")))


def test_a_role_that_was_not_given_is_refused() -> None:
    with pytest.raises(NotAllowed, match="work and not ask"):
        check_ask(acting(work=True), PICTURE)
    with pytest.raises(NotAllowed, match="ask and not work"):
        check_work(acting(ask=True))
    check_work(acting(work=True))
    check_work(OWNER)


def test_what_the_owner_alone_may_do_no_delegate_may() -> None:
    check_own(OWNER, "transfer")
    with pytest.raises(NotAllowed, match="a transfer by a key that acts for account 100"):
        check_own(acting(work=True, ask=True), "transfer")


def test_a_pseudonym_is_for_services() -> None:
    check_user(bytes(16), is_service=True)
    check_user(b"", is_service=False)
    with pytest.raises(BadValue, match="service"):
        check_user(bytes(16), is_service=False)


def test_a_delegation_holds_to_its_last_moment_and_not_beyond() -> None:
    found = acting(ask=True, expires=NOW)
    assert found.at(NOW) is found
    assert found.at(NOW + 1) is NOBODY
    assert acting(ask=True).at(NOW + 1000 * HOUR).account == 100
    assert OWNER.at(NOW) is OWNER
    assert (found.expires, OWNER.expires) == (NOW, 0)


@given(st.integers(-(10**12), 10**12), st.integers(0, 10**12), st.none() | st.integers(0, 10**12))
def test_what_can_be_spent_is_within_the_balance_and_within_the_delegation(
    balance: int, used: int, kudos: int | None
) -> None:
    found = available(acting(ask=True, kudos=kudos), balance, used)
    assert found <= balance
    if kudos is None:
        assert found == balance
    else:
        assert found <= max(0, kudos - used)
        assert found in (balance, max(0, kudos - used))
    assert available(OWNER, balance, used) == balance


def test_an_end_that_no_calendar_has_is_left_out() -> None:
    terms = but(a_delegation_to(ask=True, max_steps=1), expires=2**62)
    with pytest.raises(NotAllowed) as refused:
        check_ask(Acting(100, Grant(b"", terms)), PICTURE)
    assert "until" not in refused.value.text


def test_invitations_differ_and_are_known_however_they_are_typed() -> None:
    codes = {new_invite() for _ in range(100)}
    assert len(codes) == 100
    for code in codes:
        assert set(code) <= {*INVITE_LETTERS, "-"}
        assert code.count("-") == INVITE_GROUPS - 1
        assert invite_hash(code) == invite_hash(f" {code.upper().replace('-', ' ')} ")
    assert len({invite_hash(code) for code in codes}) == 100
