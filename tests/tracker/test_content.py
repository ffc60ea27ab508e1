"""The prompt filter at the tracker: refusals, strikes, time-outs, word lists; nothing of what was said stays."""

from functools import cache
from pathlib import Path

import msgspec
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from protocol.errors import TimedOut
from protocol.filter.wordlist import shipped
from protocol.messages import Private, Refused
from protocol.rules import FilterSection, Rules
from tests.support.builders import SECOND, a_profile, an_image_private
from tests.support.peers import Desk, FakeClock, Peer, states
from tracker.commands.exits import BAD_COMMAND_LINE, BAD_CONFIG, CommandError
from tracker.commands.filter import test as judge_file
from tracker.config import ConfigError, parse
from tracker.content_filter import ContentFilter
from tracker.conversation import LARGE_BYTES
from tracker.strikes import NONE, Strikes, check_time_out, standing, struck
from tracker.web_filter import add_filter
from tracker.word_lists import lists_of, naming

LINE = FilterSection(strikes=2, timeout=60, longest_timeout=200, forget=1_000)
TAKEN = ("", "")
ALICE, BOB = bytes(15) + b"A", bytes(15) + b"B"
WICKED = "sexual picture of a 12 year old"


@cache
def red_line() -> ContentFilter:
    """With the shipped lists; made once."""
    return ContentFilter(shipped())


async def ask(requester: Peer, prompt: str, user: bytes = b"") -> tuple[str, str]:
    """Ask for a picture; code and text of the refusal, empty where it was taken in."""
    asked = requester.prepare(private=an_image_private(prompt), user=user)
    await requester.say(Private(private=asked.private))
    await requester.send(asked.envelope)
    await requester.desk.quiet()
    refusals = [said for said in requester.heard if isinstance(said, Refused)]
    return next(((said.code, said.text) for said in refusals if said.about == asked.envelope.digest), TAKEN)


# Strikes


def test_strikes_are_without_consequence_at_first_then_time_outs_double() -> None:
    strikes, now, ends = NONE, 1_000_000, []
    for _ in range(6):
        strikes = struck(strikes, LINE, now)
        ends.append(max(0, strikes.until - now) // 1000)

    assert ends == [0, 0, 60, 120, 200, 200]


def test_strikes_are_forgotten_one_by_one() -> None:
    strikes = Strikes(count=3, last=5_000)

    assert [standing(strikes, LINE, 5_000 + seconds * 1000) for seconds in (0, 999, 1_000, 2_500, 9_000)] == [
        3,
        3,
        2,
        1,
        0,
    ]


def test_a_time_out_ends() -> None:
    check_time_out(Strikes(3, 0, until=5_000), 5_000)
    with pytest.raises(TimedOut, match="another 3 s"):
        check_time_out(Strikes(3, 0, until=5_000), 2_001)


def test_a_number_of_strikes_that_nobody_reaches_breaks_nothing() -> None:
    assert struck(Strikes(10**6, 0), LINE, 0).until == 200_000


# Lists


def test_own_lists_lie_beside_the_rules_and_their_digests_are_among_them(tmp_path: Path) -> None:
    (tmp_path / "filter").mkdir()
    (tmp_path / "filter" / "club.txt").write_text("category: other\nlanguage: en\n3 casino*\n")
    lists = lists_of(tmp_path)
    rules = naming(Rules(), lists)

    assert set(rules.filter.lists) == {one.name for one in shipped()} | {"club"}
    assert ContentFilter(lists).look(an_image_private("casinos by night"), FilterSection()).refused == "other"


def test_faults_of_own_lists_are_named_together(tmp_path: Path) -> None:
    (tmp_path / "filter").mkdir()
    (tmp_path / "filter" / "minor.en.txt").write_text("category: minor\nlanguage: en\n- child\n")
    (tmp_path / "filter" / "wrong.txt").write_text("category: minor\n3 child\n")
    with pytest.raises(ConfigError) as error:
        lists_of(tmp_path)

    [shadowing, wrong] = error.value.faults
    assert "a list of this name comes with Potluck" in shadowing
    assert "wrong.txt:2: wanted `category:` and `language:`" in wrong


def test_digests_of_lists_are_not_for_operators_to_write() -> None:
    with pytest.raises(ConfigError, match=r"horde\.toml:2: filter\.lists: is filled in by the tracker"):
        parse(f'[filter]\nlists = {{ "minor.en" = "{"0" * 64}" }}\n', Path("horde.toml"))


def test_a_file_of_prompts_is_judged_line_by_line(tmp_path: Path) -> None:
    (tmp_path / "horde.toml").write_text('[filter]\nviolence = "refuse"\nadult = "replace"\n')
    (tmp_path / "prompts.txt").write_text(
        "# a remark\n"
        f"blocked\t{WICKED}\n"
        "clean\ta lighthouse\n"
        "a beheading\n"
        "clean\tnude woman\n"
        "clean\tnude child\n"
        "tuned\tborderline\tart\tthe cat\n"
    )
    found = list(judge_file(tmp_path, tmp_path / "prompts.txt"))

    assert [(one.line, one.label, one.outcome, one.is_wrong) for one in found] == [
        (2, "blocked", "refused (minors)", False),
        (3, "clean", "passes", False),
        (4, "", "refused (violence)", False),
        (5, "clean", "to be asked without words of adult", False),
        (6, "clean", "refused (minors)", True),
        (7, "borderline", "passes", False),
    ]
    assert (3, "minor", "{age} year old") in found[0].terms


def test_a_line_whose_label_is_none_is_an_error_and_not_a_prompt_that_nothing_is_wanted_of(tmp_path: Path) -> None:
    (tmp_path / "horde.toml").write_text("")
    (tmp_path / "prompts.txt").write_text("clean\ta lighthouse\ncleen\ta teapot\n")
    with pytest.raises(CommandError, match=r"prompts\.txt:2: wanted clean, .*; found 'cleen'") as error:
        list(judge_file(tmp_path, tmp_path / "prompts.txt"))

    assert error.value.code == BAD_COMMAND_LINE


def test_a_horde_with_lists_that_cannot_be_followed_is_not_judged_by(tmp_path: Path) -> None:
    (tmp_path / "horde.toml").write_text("")
    (tmp_path / "filter").mkdir()
    (tmp_path / "filter" / "wrong.txt").write_text("what\n")
    with pytest.raises(CommandError) as error:
        list(judge_file(tmp_path, tmp_path / "prompts.txt"))

    assert error.value.code == BAD_CONFIG


# At the desk


@pytest.fixture
async def strict(path):
    clock = FakeClock()
    async with Desk.open(path, Rules(filter=LINE), clock=clock, content_filter=red_line()) as desk:
        yield desk


async def test_strikes_lead_to_a_time_out_of_this_account_alone_and_it_ends(strict):
    requester, other = await strict.requester(account=True), await strict.requester(101)
    refusals = [await ask(requester, WICKED) for _ in range(3)]
    assert [code for code, _ in refusals] == ["content_refused"] * 3
    assert not any("12" in text for _, text in refusals)
    assert "nothing is taken from you for 60 s now" in refusals[-1][1]

    assert (await ask(requester, "a lighthouse"))[0] == "timed_out"
    assert await ask(other, "a lighthouse") == TAKEN
    strict.clock.now += 60 * SECOND
    assert await ask(requester, "a lighthouse") == TAKEN


async def test_a_large_private_part_is_looked_at_beside_and_its_request_waits_for_that(strict):
    requester = await strict.requester()
    filler = "a long walk along the river. " * 2_000
    assert len(filler) > LARGE_BYTES

    assert (await ask(requester, filler + WICKED))[0] == "content_refused"
    assert await ask(requester, filler) == TAKEN


async def test_strikes_last_beyond_the_process_and_hold_nothing_of_what_was_said(path):
    rules = Rules(filter=msgspec.structs.replace(LINE, strikes=0))
    clock = FakeClock()
    async with Desk.open(path, rules, clock=clock, content_filter=red_line()) as desk:
        assert (await ask(await desk.requester(account=True), WICKED))[0] == "content_refused"
    async with Desk.open(path, rules, clock=clock, content_filter=red_line()) as desk:
        assert (await ask(await desk.requester(account=True), "a lighthouse"))[0] == "timed_out"
        clock.now += 10_000 * SECOND
        await desk.store.tidy(clock.now)
        assert states(desk) == []
    files = b"".join(file.read_bytes() for file in path.parent.glob(path.name + "*"))
    assert not any(word in files for word in (b"sexual", b"lighthouse", b"year old"))


async def test_words_to_be_dropped_are_refused_without_a_strike(path):
    rules = Rules(filter=FilterSection(strikes=0, violence="replace"))
    async with Desk.open(path, rules, content_filter=red_line()) as desk:
        requester = await desk.requester()
        code, text = await ask(requester, "a castle, beheading")
        assert code == "content_refused"
        assert text.startswith("violence: this horde drops words")
        assert await ask(requester, "a castle") == TAKEN


async def test_lists_are_there_by_their_digests(tmp_path: Path) -> None:
    app = web.Application()
    add_filter(app, ContentFilter(shipped()))
    async with TestClient(TestServer(app)) as client:
        one = shipped()[0]
        answer = await client.get(f"/filter/{one.digest.hex()}")
        assert (answer.status, await answer.read()) == (200, one.raw)
        assert (await client.get(f"/filter/{'0' * 64}")).status == 404


async def test_during_a_time_out_a_wicked_prompt_is_answered_like_any_other_and_counts_no_strike(strict):
    requester = await strict.requester(account=True)
    for _ in range(3):
        await ask(requester, WICKED)
    answers = {await ask(requester, prompt) for prompt in (WICKED, "a lighthouse", WICKED)}
    assert len(answers) == 1, answers
    assert answers.pop()[0] == "timed_out"

    strict.clock.now += 60 * SECOND
    assert "120 s now" in (await ask(requester, WICKED))[1]


async def test_of_a_service_the_user_is_struck_and_the_others_are_not(strict):
    service = await strict.requester(account=True)
    await service.present(a_profile("Pictures for all", service=True))
    await strict.quiet()
    for _ in range(3):
        assert (await ask(service, WICKED, ALICE))[0] == "content_refused"

    assert (await ask(service, "a lighthouse", ALICE))[0] == "timed_out"
    assert await ask(service, "a lighthouse", BOB) == TAKEN
    assert await ask(service, "a lighthouse") == TAKEN


@pytest.mark.parametrize("account", [True, False])
async def test_who_is_no_service_escapes_no_strike_behind_invented_users(strict, account):
    requester = await strict.requester(account=account)
    for number in range(4):
        assert (await ask(requester, WICKED, bytes(15) + bytes([number])))[0] == "bad_value"

    assert "refusal 1: after refusal 3 nothing is taken" in (await ask(requester, WICKED))[1]
