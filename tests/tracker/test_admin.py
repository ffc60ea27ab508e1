"""Acting from anywhere: whom `potluck-tracker admin` believes, with which key it speaks, and what it makes of words."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from protocol.documents import Serving, open_document
from protocol.errors import BadDelegation, WrongCertificate, WrongHorde
from protocol.governing import Appeal
from protocol.keyfiles import create_key
from protocol.links import Link
from protocol.messages import ActEntry, AppealEntry, Appeals
from tests.support.builders import (
    DAY,
    HOUR,
    NOW,
    ROOT,
    SERVING,
    a_delegation,
    a_digest,
    a_key,
    a_word_for,
    an_act,
    an_appeal,
    signed,
)
from tracker.commands import admin_act
from tracker.commands.admin_act import appeals, read_until
from tracker.commands.exits import CommandError
from tracker.commands.place import Place, find_place, remember
from tracker.commands.talk import check_serving, check_shown

CERTIFICATE = a_digest("certificate")


def a_place(version: int = 0, root: bytes = ROOT.public) -> Place:
    return Place("ws://127.0.0.1:1", root, a_key(701), CERTIFICATE, version, is_linked=True)


def test_a_delegation_that_has_ended_is_not_believed() -> None:
    ending = a_delegation(expires=NOW).raw
    assert check_serving(ending, a_place(), NOW - 1).serving == SERVING.public
    with pytest.raises(BadDelegation, match="ended"):
        check_serving(ending, a_place(), NOW)


def test_a_delegation_older_than_one_seen_before_is_not_believed() -> None:
    for version in (2, 3):
        check_serving(a_delegation(version=version).raw, a_place(2), NOW)
    with pytest.raises(BadDelegation, match="2 was seen before"):
        check_serving(a_delegation(version=1).raw, a_place(2), NOW)


def test_a_delegation_by_another_root_is_not_believed() -> None:
    with pytest.raises(WrongHorde):
        check_serving(a_delegation(root=a_key(9)).raw, a_place(), NOW)


def test_a_certificate_of_a_link_is_believed_if_the_serving_key_vouches_for_it() -> None:
    check_shown(a_word_for(CERTIFICATE).raw, a_place(), SERVING.public)
    for word in (a_word_for(a_digest("another")), a_word_for(CERTIFICATE, serving=a_key(9))):
        with pytest.raises(WrongCertificate):
            check_shown(word.raw, a_place(), SERVING.public)


def a_link(root: bytes = ROOT.public) -> str:
    return str(Link(url="ws://127.0.0.1:1", root=root, name="here"))


def test_what_was_seen_of_a_horde_is_remembered_beside_the_key_for_each_horde(tmp_path: Path) -> None:
    key = tmp_path / "key"
    create_key(key)
    version = open_document(a_delegation(version=3), Serving).version
    remember(find_place(a_link(), key), version)
    remember(find_place(a_link(), key), 2)
    assert find_place(a_link(), key).version == 3
    assert find_place(a_link(a_key(9).public), key).version == 0
    (tmp_path / "key.seen").write_text("spoilt")
    assert find_place(a_link(), key).version == 0


@pytest.mark.skipif(os.name != "posix", reason="signals and file modes of POSIX")
def test_a_key_that_others_can_read_signs_nothing(tmp_path: Path) -> None:
    key = tmp_path / "key"
    create_key(key)
    key.chmod(0o640)
    with pytest.raises(CommandError, match="chmod 600"):
        find_place(a_link(), key)


def test_a_link_needs_a_key_and_nothing_is_said_in_the_clear(tmp_path: Path) -> None:
    key = tmp_path / "key"
    create_key(key)
    with pytest.raises(CommandError, match="--key"):
        find_place(a_link())
    with pytest.raises(CommandError, match="in the clear"):
        find_place(str(Link(url="ws://horde.example:1", root=ROOT.public, name="there")), key)
    with pytest.raises(CommandError, match="nowhere"):
        find_place(a_link(), tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("text", "until"),
    [("90m", NOW + 90 * 60_000), ("12h", NOW + 12 * HOUR), ("7d", NOW + 7 * DAY), ("1970-01-02", DAY)],
)
def test_until_is_a_span_or_a_day(text: str, until: int) -> None:
    assert read_until(text, NOW) == until


@pytest.mark.parametrize("text", ["", "0d", "-1d", "tomorrow", "7", "1e3d", "99999999999d", "2030-13-01"])
def test_what_is_neither_is_refused_in_words(text: str) -> None:
    with pytest.raises(CommandError, match="wanted a span"):
        read_until(text, NOW)


def test_an_appeal_that_nobody_has_signed_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    act = signed(an_act(), a_key(701))
    entry = ActEntry(number=1, act=act.raw, state="stands", appeals=1)
    said = signed(an_appeal(act.digest, text="a cat"), a_key(5))
    told = Appeals(entries=(AppealEntry(account=100, appeal=said.raw, entry=entry),), more=0)

    async def ask(_place: Place) -> Appeals:
        return told

    monkeypatch.setattr(admin_act, "ask_appeals", ask)
    assert [row["text"] for row in appeals(a_place())] == ["a cat"]
    with pytest.raises(CommandError, match="nobody has signed"):
        appeals(a_place(root=a_key(9).public))
    assert said.open(Appeal).about == act.digest
