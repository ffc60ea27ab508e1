"""Workers decide: peer.toml, its errors, what the tracker is told of it and what the worker looks at."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from peer.__main__ import main
from peer.commands.reasons import JOB, WORKER, idle_lines, waiting_text
from peer.home import Home
from peer.limits import (
    TABLES,
    UNLIMITED,
    ContentTable,
    Limits,
    PeopleTable,
    WorkTable,
    limits_lines,
    load,
    parse_limits,
    read_pseudonym,
    show_pseudonym,
    shown_asker,
)
from peer.limits_watch import LimitsWatch, limits_file, pause, pause_file
from protocol.documents import Asker
from protocol.messages import Announce, Offer
from protocol.toml_file import ConfigError
from tests.support.builders import (
    IMAGE_MODEL,
    TEXT_MODEL,
    a_lease,
    a_nonce,
    a_private_part,
    a_text_work,
    but,
)
from tracker.fitting import Reason

FILE = Path("peer.toml")
IMAGES = Offer(kind="image", model=IMAGE_MODEL, engine="pictures 1", max_pixels=512 * 512, max_steps=50)
TEXTS = Offer(kind="text", model=TEXT_MODEL, engine="texts 1", max_tokens=100, max_context=4096, continues=True)
SOMEBODY, OTHER = a_nonce(30), a_nonce(31)
FULL = f"""
[work]
serve = ["{TEXT_MODEL}"]
max_tokens = 64
max_context = 1_000_000

[people]
anonymous = false
services = true
not_services = ["a service#105"]
min_give_back = 1
min_free_rate = 250
not_accounts = ["{show_pseudonym(SOMEBODY)}"]
friends = ["{show_pseudonym(OTHER)}"]

[content]
decline = ["adult", "hate"]
words = ["casino*", "slot machine"]
"""


def parsed(text: str) -> Limits:
    return parse_limits(text, FILE)


# The file


def test_every_limit_reaches_the_tracker_as_far_as_it_can_apply_it() -> None:
    announce = parsed(FULL).announce([IMAGES, TEXTS], slots=2, ahead=3)
    assert announce == Announce(
        offers=(but(TEXTS, max_tokens=64),),
        slots=2,
        ahead=3,
        anonymous=False,
        min_free_rate=250,
        declines=("adult", "hate"),
        not_services=("a service#105",),
        min_give_back=1,
        not_accounts=(SOMEBODY,),
        friends=(OTHER,),
    )
    assert replace(UNLIMITED, paused=True).announce([], slots=1, ahead=0).paused


def test_a_file_that_is_empty_or_not_there_limits_nothing(tmp_path: Path) -> None:
    assert parsed("") == load(tmp_path / "peer.toml") == UNLIMITED
    assert UNLIMITED.announce([IMAGES, TEXTS], slots=1, ahead=1) == Announce(offers=(IMAGES, TEXTS))
    assert limits_lines(UNLIMITED) == ["no limits: everything that the engines can make is served, for everybody"]


def test_the_limits_are_told_to_people_key_by_key() -> None:
    lines = limits_lines(replace(parsed(FULL), paused=True))
    assert lines[0].startswith("paused")
    assert "people.min_give_back = 1" in lines
    assert "content.words = casino*, slot machine" in lines
    assert len(lines) == 1 + 3 + 6 + 2, "and nothing that is as it comes"


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (
            "[people]\nnot_services = ['Ada']",
            "peer.toml:2: people.not_services: wanted names as `potluck worker` shows them (Ada#107), found 'Ada'",
        ),
        ("[wrk]\n", "peer.toml:1: wrk: unknown table (did you mean work?); known are work, people, content"),
        ("[people]\n\nanonymus = true\n", "peer.toml:3: people.anonymus: unknown key (did you mean anonymous?)"),
        ("[content]\nanonymous = true\n", "content.anonymous: unknown key (did you mean people.anonymous?)"),
        ("[people]\nanonymous = 1\n", "peer.toml:2: people.anonymous: wanted true or false, found 1"),
        ("[people]\nmin_give_back = 4\n", "peer.toml:2: people.min_give_back: wanted an integer of 0 to 3, found 4"),
        ("[work]\nmax_pixels = -1\n", "peer.toml:2: work.max_pixels: wanted an integer of at least 0, found -1"),
        ("[work]\nserve = 'sdxl'\n", "peer.toml:2: work.serve: wanted"),
        ("[content]\ndecline = ['ads']\n", "peer.toml:2: content.decline: wanted 0 to 5 of 'adult' or 'hate'"),
        ("[content]\nwords = ['**']\n", "peer.toml:2: content.words: word 1, '**': "),
        (
            "[content]\nwords = ['fine', 'a # b']\n",
            "peer.toml:2: content.words: word 2, 'a # b': wanted words with",
        ),
        ("[people]\nfriends = ['" + "1" * 26 + "']\n", "peer.toml:2: people.friends: wanted pseudonyms as"),
        ("[people\n", "peer.toml:1: not TOML"),
    ],
)
def test_a_mistake_is_told_with_file_line_key_what_was_found_and_what_is_wanted(text: str, fault: str) -> None:
    with pytest.raises(ConfigError) as error:
        parsed(text)
    assert fault in str(error.value)
    assert len(error.value.faults) == 1


def test_all_mistakes_are_told_together() -> None:
    with pytest.raises(ConfigError) as error:
        parsed("[people]\nanonymous = 1\nservices = 2\n")
    assert len(error.value.faults) == 2


def test_every_table_and_key_is_explained_where_people_read_it() -> None:
    page = (Path(__file__).parents[2] / "docs" / "workers.md").read_text("utf-8")
    missing = [
        f"{name}.{key}" for name, of in TABLES.items() for key in of.__struct_fields__ if f"| `{key}` |" not in page
    ]
    assert missing == []


def test_a_pseudonym_is_read_as_it_is_shown_and_nothing_else_is() -> None:
    assert read_pseudonym(show_pseudonym(SOMEBODY)) == SOMEBODY
    for wrong in ("", "a" * 25, "a" * 27, "!" * 26, "b" * 26, show_pseudonym(SOMEBODY).upper()):
        with pytest.raises(ValueError, match="no pseudonym"):
            read_pseudonym(wrong)


# What the worker looks at


def a_lease_for(asker: Asker, *labels: str, flags: tuple[str, ...] = ()):
    lease = but(a_lease(), asker=asker, labels=labels)
    return but(lease, public=but(lease.public, flags=flags))


PERSON = Asker(give_back=3, pseudonym=SOMEBODY)


@pytest.mark.parametrize(
    ("limits", "lease", "why"),
    [
        (Limits(paused=True), a_lease_for(PERSON), "paused"),
        (Limits(people=PeopleTable(anonymous=False)), a_lease_for(Asker(anonymous=True)), "without an account"),
        (Limits(people=PeopleTable(services=False)), a_lease_for(Asker(service="Ada#7")), "services"),
        (Limits(people=PeopleTable(not_services=("Ada#7",))), a_lease_for(Asker(service="Ada#7")), "this service"),
        (Limits(people=PeopleTable(not_services=("Ada#7",))), a_lease_for(Asker(service="Eva#7")), "this service"),
        (Limits(people=PeopleTable(min_give_back=2)), a_lease_for(but(PERSON, give_back=1)), "class 2"),
        (Limits(people=PeopleTable(min_give_back=1)), a_lease_for(Asker(anonymous=True)), "class 1"),
        (Limits(people=PeopleTable(not_accounts=(show_pseudonym(SOMEBODY),))), a_lease_for(PERSON), "this account"),
        (Limits(content=ContentTable(decline=("hate",))), a_lease_for(PERSON, "hate"), "'hate'"),
        (Limits(content=ContentTable(decline=("adult",))), a_lease_for(PERSON, flags=("adult",)), "'adult'"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_lease_against_a_limit_is_declined_unless_the_own_account_asks(limits: Limits, lease, why: str) -> None:
    assert why in limits.why_not(lease)
    assert UNLIMITED.why_not(lease) == "", "a control"
    assert limits.why_not(but(lease, asker=but(lease.asker, own=True))) == ""


def test_words_that_the_owner_does_not_want_are_found_however_they_are_spelled() -> None:
    limits = Limits(content=ContentTable(words=("casino*", "slot machine")))
    for said in ("c.a.s.i.n.o by night", "a SLOT\u200b Machine", "cásinos"):
        assert limits.has_unwanted_words(but(a_private_part(), prompt=said), ""), said
        assert not UNLIMITED.has_unwanted_words(but(a_private_part(), prompt=said), "")
    assert not limits.has_unwanted_words(but(a_private_part(), prompt="a red machine"), "")
    assert limits.has_unwanted_words(a_private_part(a_text_work()), "and then the casino"), (
        "also in the text already shown"
    )


def test_who_asks_is_told_as_far_as_it_is_known() -> None:
    assert shown_asker(Asker(anonymous=True)) == "asked by somebody without an account"
    assert shown_asker(Asker(own=True, pseudonym=SOMEBODY)) == "asked by your own account"
    assert shown_asker(PERSON) == f"asked by {show_pseudonym(SOMEBODY)}, give-back class 3"
    assert "the service Ada#7" in shown_asker(but(PERSON, service="Ada#7"))


def test_a_bound_never_makes_an_offer_larger() -> None:
    limits = Limits(work=WorkTable(max_pixels=10**9, max_steps=20))
    assert limits.narrowed([IMAGES]) == [but(IMAGES, max_steps=20)]


# As it changes


def test_a_change_of_the_file_or_a_pause_is_seen_once(tmp_path: Path) -> None:
    home = Home(tmp_path)
    watch = LimitsWatch(home, anonymous=False)
    first = watch.look()
    assert first is not None
    assert not first.people.anonymous, "the command line goes before the file"
    assert watch.look() is None
    limits_file(home).write_text("[people]\nmin_give_back = 2\nanonymous = true\n")
    assert watch.look() is None, "somebody may still be writing it"
    changed = watch.look()
    assert changed is not None
    assert (changed.people.min_give_back, changed.people.anonymous, changed.paused) == (2, False, False)
    assert pause(home, on=True)
    assert not pause(home, on=True), "it is paused already"
    paused = watch.look()
    assert paused is not None
    assert paused.paused
    assert pause(home, on=False)
    assert not pause_file(home).exists()
    resumed = watch.look()
    assert resumed == changed


def test_a_file_with_a_mistake_is_complained_of_once_and_read_again_when_it_is_mended(tmp_path: Path) -> None:
    home = Home(tmp_path)
    watch = LimitsWatch(home)
    watch.look()
    limits_file(home).write_text("[people]\nanonymous = maybe\n")
    watch.look()
    with pytest.raises(ConfigError):
        watch.look()
    assert watch.look() is None
    limits_file(home).write_text("[people]\nanonymous = false\n")
    watch.look()
    mended = watch.look()
    assert mended is not None
    assert not mended.people.anonymous


def test_a_file_that_an_editor_empties_before_it_writes_it_leaves_the_worker_its_limits(tmp_path: Path) -> None:
    home = Home(tmp_path)
    limits_file(home).write_text("[people]\nanonymous = false\n")
    watch = LimitsWatch(home)
    watch.look()
    limits_file(home).write_text("")
    assert watch.look() is None
    limits_file(home).write_text("[people]\nmin_give_back = 2\nanonymous = false\n")
    assert watch.look() is None
    changed = watch.look()
    assert changed is not None
    assert (changed.people.min_give_back, changed.people.anonymous) == (2, False)


def test_a_worker_is_paused_whatever_is_wrong_with_its_file(tmp_path: Path) -> None:
    home = Home(tmp_path)
    watch = LimitsWatch(home)
    limits_file(home).write_text("[people]\nanonymous = false\n")
    watch.look()
    limits_file(home).write_text("[people]\nanonymous = maybe\n")
    watch.look()
    pause(home, on=True)
    with pytest.raises(ConfigError):
        watch.look()
    paused = watch.look()
    assert paused is not None
    assert (paused.paused, paused.people.anonymous) == (True, False), "by the former file"
    assert watch.look() is None


# The command line


def potluck(*words: str) -> Result:
    return CliRunner().invoke(main, words)


def test_what_peer_toml_says_can_be_looked_at_without_serving(tmp_path: Path) -> None:
    (tmp_path / "peer.toml").write_text(FULL)
    words = ("worker", "--check", "--home", str(tmp_path))
    assert "people.min_give_back = 1" in potluck(*words).output
    found = json.loads(potluck(*words, "--json", "--min-free-rate", "7").output)
    assert found["content"]["decline"] == ["adult", "hate"]
    assert found["people"]["min_free_rate"] == 7, "the command line goes before the file"
    (tmp_path / "peer.toml").write_text("[people]\nmin_give_back = 9\n")
    result = potluck(*words, "--json")
    assert result.exit_code == 2
    assert json.loads(result.output)["text"].endswith("people.min_give_back: wanted an integer of 0 to 3, found 9")


def test_a_worker_is_paused_and_goes_on_by_a_command(tmp_path: Path) -> None:
    home = ("--home", str(tmp_path))
    assert "serves your own account alone" in potluck("worker", "--pause", *home).output
    assert "as before" in potluck("worker", "--pause", *home).output
    assert potluck("worker", "--check", *home).output.startswith("paused")
    assert json.loads(potluck("worker", "--resume", "--json", *home).output) == {"paused": False, "changed": True}
    result = potluck("worker", "--pause", "--resume", *home)
    assert result.exit_code == 2
    assert "wanted one of them" in result.output


def test_every_reason_has_its_words_for_both_sides_and_no_other() -> None:
    assert set(WORKER) == set(JOB) == {reason.value for reason in Reason}


def test_who_waits_is_told_whether_time_alone_may_help() -> None:
    assert "no worker that is here could ever serve this: they do not serve this topic (2)" in waiting_text({"flag": 2})
    assert waiting_text({"flag": 2, "busy": 1}).startswith("the workers that are here do not serve this topic (2); can")
    assert "no worker is here" in waiting_text({})
    only_once = waiting_text({"had_it": 1})
    assert "ever" not in only_once
    assert "could not be reached from here; they can get it if it is asked for anew (1)" in only_once
    assert waiting_text({"news": 1}).endswith("news (1)"), "a tracker that knows a reason more is understood"


def test_who_is_idle_is_told_why_the_most_frequent_first() -> None:
    assert idle_lines({}) == ["idle        no job waits: nobody asks for anything at the moment"]
    head, first, second = idle_lines({"busy": 1, "no_anonymous": 3})
    assert head.startswith("waiting     4 in all")
    assert first.strip().startswith("3  come from people without an account")
    assert second.strip().startswith("1  can be served")
