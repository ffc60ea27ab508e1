"""The prompt filter at a worker: over what is asked for and the text already shown, with the lists of the rules."""

import hashlib
from pathlib import Path

import msgspec
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from peer.content import Content
from peer.news import News
from peer.worker_jobs import Discard, Tell
from protocol.errors import ContentRefused
from protocol.filter.wordlist import shipped
from protocol.links import Link
from protocol.rules import FilterSection, Rules
from tests.peer.test_worker_jobs import TEXTS, an_opened, some_jobs, text_lease, told
from tests.support.builders import NOW, ROOT, an_image_private, signed

CLUB = b"category: other\nlanguage: en\n3 casino*\n"
DIGEST = hashlib.sha256(CLUB).hexdigest()


def naming(**lists: str) -> Rules:
    digests = {one.name: one.digest.hex() for one in shipped()} | lists
    return msgspec.structs.replace(Rules(), filter=msgspec.structs.replace(Rules().filter, lists=digests))


@pytest.fixture
async def tracker():
    """Answers for lists as a tracker does; `given` is what it answers."""
    app = web.Application()
    given = {"body": CLUB}

    async def answer(request: web.Request) -> web.Response:
        assert request.match_info["digest"] == DIGEST
        return web.Response(body=given["body"])

    app.add_routes([web.get("/filter/{digest}", answer)])
    async with TestServer(app) as server:
        yield Link(f"ws://127.0.0.1:{server.port}", ROOT.public, "a horde"), given


def content(tracker, folder: Path) -> tuple[Content, list[News]]:
    news: list[News] = []
    return Content(tracker[0], folder, news.append), news


async def test_a_list_that_the_rules_name_is_fetched_once_and_kept(tracker, tmp_path):
    casino = an_image_private("a casino")
    first, _ = content(tracker, tmp_path)
    assert first.refuses(casino, "", naming()) == ""
    assert await first.bring(naming(club=DIGEST))
    assert first.refuses(casino, "", naming(club=DIGEST)) == "other"

    tracker[1]["body"] = b"gone"
    second, _ = content(tracker, tmp_path)
    assert await second.bring(naming(club=DIGEST))
    assert second.refuses(casino, "", naming(club=DIGEST)) == "other"


async def test_a_list_that_is_named_no_more_is_used_no_more(tracker, tmp_path):
    mine, _ = content(tracker, tmp_path)
    assert await mine.bring(naming(club=DIGEST))
    assert await mine.bring(naming())
    assert mine.refuses(an_image_private("a casino"), "", naming()) == ""
    assert list(tmp_path.iterdir()) == []


async def test_another_list_than_the_one_that_is_named_is_not_used(tracker, tmp_path):
    tracker[1]["body"] = CLUB + b"- casino\n"
    mine, news = content(tracker, tmp_path)

    assert not await mine.bring(naming(club=DIGEST))
    assert "another list than its rules name" in news[0].text
    assert mine.refuses(an_image_private("nude child"), "", naming(club=DIGEST)) == "minors"


@pytest.mark.parametrize(
    "lists", [{"club": "../" * 21 + "x"}, {"club": "a" * 64 + "\n"}, {f"club{n}": "a" * 64 for n in range(129)}]
)
def test_rules_name_lists_by_digests_alone_and_only_so_many(lists: dict[str, str]) -> None:
    assert msgspec.convert({"lists": {"club": "a" * 64}}, FilterSection).lists
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"lists": lists}, FilterSection)


def test_rules_that_name_no_list_leave_the_shipped_ones_in_force(tmp_path):
    mine = Content(Link("ws://127.0.0.1:1", ROOT.public, ""), tmp_path, lambda news: None)

    assert mine.refuses(an_image_private("nude child"), "", Rules()) == "minors"
    assert mine.refuses(an_image_private("nude child"), "", None) == "minors"
    assert mine.refuses(an_image_private("a lighthouse"), "", None) == ""


@pytest.mark.parametrize("prefix", ["and a prefix", ""])
def test_a_worker_declines_what_it_may_not_make_and_says_so_to_both(prefix: str) -> None:
    jobs = some_jobs((msgspec.structs.replace(TEXTS, continues=True),))
    seen = []

    def refuses(private, shown):
        seen.append((private.prompt or private.messages[0].content, shown))
        return "minors"

    jobs.refuses = refuses
    lease = text_lease()
    jobs.leased(signed(lease), NOW)
    effects = jobs.opened(an_opened(lease, prefix=prefix), NOW)

    assert told(effects) == [("declined", "content_refused")]
    assert [type(effect) for effect in effects] == [Tell, Discard]
    assert [shown for _, shown in seen] == [prefix]
    with pytest.raises(ContentRefused, match="minors"):
        jobs.opened(an_opened(lease), NOW)


def test_a_worker_serves_what_the_filter_lets_through() -> None:
    jobs = some_jobs((TEXTS,))
    lease = text_lease()
    jobs.leased(signed(lease), NOW)

    assert ("opened", "") in told(jobs.opened(an_opened(lease), NOW))
