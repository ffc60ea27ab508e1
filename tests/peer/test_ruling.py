"""Earlier versions of the rules, each checked by the one after it, and what changed since a peer was here."""

import base64

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from peer.events import Unreachable
from peer.ruling import Version, changed, earlier, find, read
from protocol.documents import RulesDocument
from protocol.envelope import Envelope
from protocol.links import Link
from protocol.rules import LimitsSection, Rules, to_json
from tests.support.builders import NOW, ROOT, SERVING, a_key, signed


def rules(most: int) -> Rules:
    return Rules(limits=LimitsSection(max_n=most))


def chain(*most: int) -> list[Envelope]:
    """One version after the other, each naming the one before it."""
    made: list[Envelope] = []
    for number, one in enumerate(most, 1):
        previous = made[-1].digest if made else b""
        document = RulesDocument(version=number, issued=NOW + number, rules=to_json(rules(one)), previous=previous)
        made.append(signed(document, SERVING))
    return made


@pytest.fixture
async def tracker():
    """Answers for versions as a tracker does; `shown` is what it shows."""
    app = web.Application()
    shown: dict[str, object] = {}

    async def answer(request: web.Request) -> web.Response:
        found = shown.get(request.query["version"])
        if found is None:
            return web.json_response({"code": "bad_value", "text": "no such version"}, status=404)
        return web.json_response({"document": found})

    app.add_routes([web.get("/rules", answer)])
    async with TestServer(app) as server:
        yield Link(f"ws://127.0.0.1:{server.port}", ROOT.public), shown


def show(shown: dict[str, object], versions: list[Envelope]) -> Version:
    """Have these shown; the newest, as the horde vouched for it."""
    for number, one in enumerate(versions, 1):
        shown[str(number)] = base64.b64encode(one.raw).decode()
    return read(versions[-1])


async def test_every_version_is_found_by_the_one_after_it(tracker):
    link, shown = tracker
    newest = show(shown, chain(5, 6, 7))

    assert (await find(link, newest, 1)).rules == rules(5)
    assert (await find(link, newest, 2)).rules == rules(6)
    assert await find(link, newest, 3) == newest
    assert await earlier(link, await find(link, newest, 1)) is None


async def test_a_version_that_was_rewritten_is_found_out(tracker):
    link, shown = tracker
    newest = show(shown, chain(5, 6, 7))
    shown["1"] = base64.b64encode(chain(4)[0].raw).decode()

    assert (await find(link, newest, 2)).rules == rules(6)
    with pytest.raises(Unreachable, match="somebody has rewritten them"):
        await find(link, newest, 1)


@pytest.mark.parametrize("wrong", [None, "", "???", "AAAA", 5])
async def test_what_is_no_version_is_told(tracker, wrong):
    link, shown = tracker
    newest = show(shown, chain(5, 6))
    shown["1"] = wrong

    with pytest.raises(Unreachable):
        await earlier(link, newest)


async def test_a_version_of_another_horde_is_none_of_ours(tracker):
    link, shown = tracker
    newest = show(shown, chain(5, 6))
    with pytest.raises(Unreachable):
        await earlier(Link(link.url, a_key(60).public), newest)


async def test_a_version_that_there_is_not_yet_is_told(tracker):
    link, shown = tracker
    newest = show(shown, chain(5))
    with pytest.raises(Unreachable, match="no version 2 of these rules: the newest is 1"):
        await find(link, newest, 2)


def test_what_changed_since_a_peer_was_here_is_told_and_nothing_to_who_was_not():
    [kept] = chain(5)

    assert [str(change) for change in changed(kept, rules(6))] == ["limits.max_n: 5 -> 6"]
    assert changed(kept, rules(5)) == []
    assert changed(None, rules(6)) == []


def test_rules_kept_that_cannot_be_read_any_more_tell_nothing():
    document = RulesDocument(version=1, issued=NOW, rules='{"horde": {"name": 5}}')

    assert changed(signed(document, SERVING), rules(6)) == []
