"""The sockets: peers over a WebSocket, readers over HTTP, and what is done about those who mean no good."""

import asyncio
import base64
import ipaddress
import json
import logging
import random
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import aiohttp
import pytest

from protocol import codec
from protocol.documents import RulesDocument
from protocol.envelope import MAX_BEFORE_HELLO_BYTES, MAX_ENVELOPE_BYTES, Challenge, Outbound, decode_challenge, parse
from protocol.links import parse_link
from protocol.messages import Hello, Holding, Refused, Welcome
from protocol.rules import AccountsSection, HordeSection, LimitsSection, Rules, TimesSection, from_json
from tests.support.builders import HOUR, ROOT, SERVING, a_delegation, a_key, a_nonce, a_profile, an_award, signed
from tests.support.rules import plain
from tracker import web
from tracker.commands.serve import now_ms
from tracker.config import Settings
from tracker.conversation import Conversation
from tracker.coordinator import Coordinator
from tracker.forwarded import Trust
from tracker.ledger import day_of
from tracker.porch import CannotListen
from tracker.store.base import Gifts, StoreError
from tracker.store.sqlite import SqliteStore
from tracker.web import Outlet, make_app, serving

SETTINGS = Settings("127.0.0.1", 0, "", Path(), Path(), Path())
LOOPBACK = (ipaddress.ip_network("127.0.0.1"),)


class Tracker:
    """A tracker that listens, and a client of it."""

    def __init__(self, coordinator, link, client):
        self.coordinator = coordinator
        self.link = link
        self.client = client
        self.url = link.url.replace("ws://", "http://")

    @property
    def place(self) -> tuple[str, int]:
        host, port = self.link.url.removeprefix("ws://").split(":")
        return host, int(port)

    @asynccontextmanager
    async def peer(self, **more):
        async with self.client.ws_connect(f"{self.url}/peer", **more) as socket:
            yield Peer(socket)

    async def get(self, path):
        async with self.client.get(f"{self.url}{path}") as answer:
            return answer, await answer.text()


class Peer:
    """The other end of a WebSocket, as far as these tests need one."""

    def __init__(self, socket):
        self.socket = socket

    async def challenge(self) -> Challenge:
        return decode_challenge(await self.socket.receive_bytes())

    async def hello(self, number: int = 70) -> None:
        challenge = await self.challenge()
        outbound = Outbound(ROOT.public, challenge.session, a_key(number))
        hello = Hello(session=a_nonce(9), software="test")
        await self.socket.send_bytes(outbound.seal("hello", codec.encode(hello)).raw)
        self.outbound = outbound

    async def hear(self, kind):
        """The next message of this kind."""
        while True:
            envelope = parse(await self.socket.receive_bytes())
            if envelope.kind == kind.KIND:
                return codec.decode(envelope.body, kind)

    async def end(self) -> tuple[int, str]:
        """Read on to the end; the code and reason that were given."""
        while True:
            message = await self.socket.receive()
            if message.type is aiohttp.WSMsgType.CLOSE:
                return message.data, message.extra
            if message.type in (aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.ERROR):
                return self.socket.close_code, ""


@pytest.fixture
def origins(monkeypatch):
    """Where the peers that come are said to come from."""
    found = []

    def open_and_note(self, outlet, origin, address):
        found.append(origin)
        return Conversation(self, outlet, origin, address)

    monkeypatch.setattr(Coordinator, "open", open_and_note)
    return found


@pytest.fixture
def start(tmp_path):
    @asynccontextmanager
    async def start(rules=None, settings=SETTINGS):
        path = tmp_path / "horde.db"
        SqliteStore.create(path, a_delegation(), plain(rules), SERVING, now_ms())
        async with (
            SqliteStore.open(path, SERVING) as store,
            Coordinator.start(
                store,
                root=ROOT.public,
                key=SERVING,
                delegation=a_delegation().raw,
                clock=now_ms,
                chance=random.Random(1),
            ) as coordinator,
            serving(make_app(coordinator, settings)) as link,
            aiohttp.ClientSession() as client,
        ):
            yield Tracker(coordinator, link, client)

    return start


# Peers


async def test_a_peer_is_challenged_and_welcomed(start):
    async with start() as tracker, tracker.peer() as peer:
        await peer.hello()
        welcome = await peer.hear(Welcome)
        rules = await peer.hear(RulesDocument)
        holding = await peer.hear(Holding)

    assert (welcome.rules_version, rules.version) == (1, 1)
    assert holding.last


async def test_nobody_but_a_proxy_chooses_the_origin_of_a_peer(start, origins):
    async with start() as tracker, tracker.peer(headers={"X-Forwarded-For": "203.0.113.7"}) as peer:
        await peer.challenge()
    assert origins == ["127.0.0.1"]


async def test_a_trusted_proxy_names_the_origin(start, origins):
    settings = replace(SETTINGS, trust=Trust(LOOPBACK))
    async with start(settings=settings) as tracker, tracker.peer(headers={"X-Forwarded-For": "203.0.113.7"}) as peer:
        await peer.challenge()
    assert origins == ["203.0.113.0/24"]


async def test_text_is_refused(start):
    async with start() as tracker, tracker.peer() as peer:
        await peer.socket.send_str("hello")
        code, reason = await peer.end()

    assert code == aiohttp.WSCloseCode.POLICY_VIOLATION
    assert reason.startswith("malformed: messages are binary")


async def test_a_message_that_is_too_large_ends_the_connection(start):
    async with start() as tracker, tracker.peer() as peer:
        await peer.challenge()
        await peer.socket.send_bytes(bytes(MAX_BEFORE_HELLO_BYTES + 1))
        code, reason = await peer.end()

    assert code == aiohttp.WSCloseCode.POLICY_VIOLATION
    assert reason == "too_large: a message of 4097 bytes: at most 4096 are read here"


async def test_after_hello_the_limit_is_that_of_an_envelope(start):
    async with start() as tracker, tracker.peer() as peer:
        await peer.hello()
        await peer.hear(Holding)
        await peer.socket.send_bytes(bytes(MAX_ENVELOPE_BYTES + 1))
        refused = await peer.hear(Refused)
        code, _ = await peer.end()

    assert (refused.code, refused.final) == ("too_large", True)
    assert code == aiohttp.WSCloseCode.POLICY_VIOLATION


async def test_who_speaks_before_the_challenge_is_not_let_in(start):
    async with start() as tracker:
        reader, writer = await asyncio.open_connection(*tracker.place)
        writer.write(
            b"GET /peer HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n\x82\x01"
        )
        async with asyncio.timeout(30):
            answer = await reader.read()
        writer.close()

    assert answer.startswith(b"HTTP/1.1 400")
    assert b"out_of_turn" in answer


async def test_nonsense_before_hello_ends_the_connection_with_the_reason(start):
    async with start() as tracker, tracker.peer() as peer:
        await peer.challenge()
        await peer.socket.send_bytes(b"\xc1")
        code, reason = await peer.end()

    assert code == aiohttp.WSCloseCode.POLICY_VIOLATION
    assert reason.startswith("malformed: ")


async def test_who_does_not_say_hello_in_time_is_cut_off(start):
    async with start(Rules(times=TimesSection(hello=1))) as tracker, tracker.peer() as silent, tracker.peer() as peer:
        await peer.hello()
        _, reason = await silent.end()
        await peer.hear(Welcome)
        assert not peer.socket.closed

    assert reason == "too_slow: hello was not complete in time"


async def test_compression_is_not_agreed_to(start):
    async with start() as tracker, tracker.peer(compress=15) as peer:
        await peer.challenge()
        assert not peer.socket.compress


async def test_an_address_gets_as_many_connections_as_the_rules_allow(start):
    async with start(Rules(limits=LimitsSection(connections=2))) as tracker:
        async with tracker.peer() as first, tracker.peer() as second:
            await first.challenge()
            await second.challenge()
            with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                async with tracker.peer():
                    pass
            assert refused.value.status == 429
        async with asyncio.timeout(30):
            while not await gets_in(tracker):  # until the tracker has noticed that they are gone
                pass


async def gets_in(tracker) -> bool:
    try:
        async with tracker.peer() as peer:
            await peer.challenge()
    except aiohttp.WSServerHandshakeError:
        return False
    return True


async def test_connections_through_a_proxy_are_counted_by_the_address_that_it_names(start):
    rules = Rules(limits=LimitsSection(connections=1))
    settings = replace(SETTINGS, trust=Trust(LOOPBACK))
    async with start(rules, settings) as tracker, tracker.peer(headers={"X-Forwarded-For": "203.0.113.7"}) as first:
        await first.challenge()
        async with tracker.peer(headers={"X-Forwarded-For": "203.0.113.8"}) as second:
            await second.challenge()
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            async with tracker.peer(headers={"X-Forwarded-For": "203.0.113.7"}):
                pass
    assert refused.value.status == 429


async def test_a_fault_of_ours_is_told_with_a_reference_to_the_log(start, monkeypatch, caplog):
    async with start() as tracker, tracker.peer() as peer:
        await peer.hello()
        await peer.hear(Holding)

        async def broken(self, raw):
            raise RuntimeError("broken")

        monkeypatch.setattr(Conversation, "receive", broken)
        await peer.socket.send_bytes(b"anything")
        refused = await peer.hear(Refused)
        await peer.end()

    assert refused.code == "internal"
    assert refused.final
    [record] = [record for record in caplog.records if "reference" in vars(record)]
    assert record.levelno == logging.ERROR
    assert vars(record)["reference"] in refused.text
    assert "RuntimeError: broken" in caplog.text


async def test_peers_hear_that_the_tracker_stops(start):
    async with start() as tracker:
        async with tracker.peer() as peer:
            await peer.hello()
            await peer.hear(Holding)
            await tracker.coordinator.stop()
            refused = await peer.hear(Refused)
            code, _ = await peer.end()
        answer, text = await tracker.get("/healthz")

    assert (refused.code, refused.final) == ("stopping", True)
    assert code == aiohttp.WSCloseCode.GOING_AWAY
    assert answer.status == 503
    assert json.loads(text) == {"ok": False, "text": "the tracker is stopping"}


async def test_a_connection_that_sends_no_request_is_closed(start, monkeypatch):
    monkeypatch.setattr(web, "HEAD_SECONDS", 0.05)
    async with start() as tracker:
        reader, writer = await asyncio.open_connection(*tracker.place)
        writer.write(b"GET /scrape HTTP/1.1\r\nHost: x\r\n")
        async with asyncio.timeout(30):
            assert await reader.read() == b""
        writer.close()


@pytest.mark.parametrize("header", [b"Host : x", b"Expect: \x8a"])
async def test_what_is_no_http_is_refused_and_fills_no_log(start, caplog, header):
    async with start() as tracker:
        reader, writer = await asyncio.open_connection(*tracker.place)
        writer.write(b"GET /scrape HTTP/1.1\r\n" + header + b"\r\nConnection: close\r\n\r\n")
        async with asyncio.timeout(30):
            assert (await reader.read()).startswith((b"HTTP/1.0 400", b"HTTP/1.1 500"))
        writer.close()
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.mark.parametrize("wrong", [b"dGhl", b"13", b"websocket"])
async def test_a_request_for_a_websocket_that_is_none_is_refused(start, caplog, wrong):
    async with start() as tracker:
        reader, writer = await asyncio.open_connection(*tracker.place)
        whole = (
            b"GET /peer HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        writer.write(whole.replace(wrong, b"\xa6"))
        async with asyncio.timeout(30):
            assert (await reader.readline()).startswith(b"HTTP/1.1 400")
        writer.close()
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


# The queue to a peer


class SlowSocket:
    """Takes nothing until it is told to."""

    def __init__(self):
        self.sent: list[bytes] = []
        self.ready = asyncio.Event()
        self.closed_with = (0, b"")

    async def send_bytes(self, data: bytes) -> None:
        await self.ready.wait()
        self.sent.append(data)

    async def close(self, *, code: int, message: bytes) -> None:
        self.closed_with = (code, message)


async def test_a_peer_that_takes_too_little_is_cut_off():
    aborted = []
    outlet = Outlet(3, lambda: aborted.append(True))
    for number in range(3):
        outlet.send(bytes([number]))
    assert not aborted

    outlet.send(b"one too many")

    assert aborted == [True]
    assert outlet.is_closing
    await outlet.ended()


async def test_what_was_said_is_sent_in_order_before_the_end():
    socket = SlowSocket()
    outlet = Outlet(100, lambda: None)
    outlet.write_to(socket)
    outlet.send(b"1")
    outlet.send(b"2")
    outlet.close("busy: " + "x" * 200)
    outlet.send(b"after the end")
    outlet.close("another reason")
    socket.ready.set()
    await outlet.finish()

    assert socket.sent == [b"1", b"2"]
    code, reason = socket.closed_with
    assert code == aiohttp.WSCloseCode.POLICY_VIOLATION
    assert reason == b"busy: " + b"x" * 114
    await outlet.ended()


async def test_a_peer_that_does_not_take_the_end_is_cut_off(monkeypatch):
    monkeypatch.setattr(web, "CLOSE_SECONDS", 0.01)
    aborted = asyncio.Event()
    outlet = Outlet(100, aborted.set)
    outlet.send(b"1")
    outlet.write_to(SlowSocket())
    outlet.close("stopping: soon")

    async with asyncio.timeout(30):
        await aborted.wait()
    await outlet.ended()


async def test_nothing_runs_for_a_peer_to_which_nothing_is_said():
    socket = SlowSocket()
    socket.ready.set()
    before = asyncio.all_tasks()
    outlet = Outlet(100, lambda: None)
    outlet.write_to(socket)
    assert asyncio.all_tasks() == before
    for number in range(2):
        outlet.send(bytes([number]))
        await outlet.finish()
        assert asyncio.all_tasks() == before
    assert socket.sent == [b"\0", b"\1"]
    await outlet.ended()


# Readers


async def test_a_scrape_says_how_it_goes(start):
    async with start(Rules(horde=HordeSection(name="<b>Ann's</b>"))) as tracker, tracker.peer() as peer:
        await peer.hello()
        await peer.hear(Holding)
        answer, text = await tracker.get("/scrape")

    found = json.loads(text)
    assert answer.content_type == "application/json"
    assert answer.headers["Access-Control-Allow-Origin"] == "*"
    assert found["name"] == "<b>Ann's</b>"
    assert parse_link(found["link"]) == tracker.link
    assert (found["peers"], found["workers"], found["waiting"]) == (1, 0, 0)
    assert found["kudos"] == {"minted": 0, "burned": 0, "unspent": 0}
    assert found["carried"]["text"] == "contributors carried 0 jobs of people without kudos"
    assert found["ledger"]["entries"] == found["ledger"]["checkpoint"]["size"] == 0


async def test_the_page_says_whom_contributors_carried_and_what_they_left(start):
    async with start() as tracker:
        tracker.coordinator.store.gifts = gifts_of(Gifts(unspent=12_345_600, jobs=4_210))
        answer, text = await tracker.get("/")
    assert answer.content_type == "text/html"
    assert "contributors carried 4,210 jobs of people without kudos" in text
    assert "12,345.6 kudos unspent" in text


async def test_the_page_says_how_to_join_also_if_the_database_cannot_be_asked(start):
    async with start() as tracker:
        tracker.coordinator.store.gifts = gifts_of(StoreError("no"))
        answer, text = await tracker.get("/")
    assert answer.status == 200
    assert "potluck join" in text


def gifts_of(found):
    async def gifts():
        if isinstance(found, Exception):
            raise found
        return found

    return gifts


async def test_services_are_listed_in_parts_and_no_crowd_of_them_holds_the_tracker_up(start, monkeypatch):
    monkeypatch.setattr(web, "LISTED", 2)
    monkeypatch.setattr(web, "MAX_LISTS", 3)
    async with start() as tracker:
        store, now = tracker.coordinator.store, tracker.coordinator.clock()
        monkeypatch.setattr(tracker.coordinator, "clock", lambda: now)
        numbers = []
        for key in (a_key(number) for number in range(5)):
            numbers.append(await store.register(key.public, now))
            said = a_profile("Ada", service=True)
            await store.profile(signed(said, key), said, now)
        found: list[int] = []
        after = 0
        for _ in range(2):
            part = json.loads((await tracker.get(f"/services?after={after}"))[1])
            found, after = [*found, *(one["account"] for one in part["services"])], part["after"]
        last = json.loads((await tracker.get(f"/services?after={after}"))[1])
        assert [*found, *(one["account"] for one in last["services"])] == numbers
        assert last["after"] is None
        assert (await tracker.get("/services"))[0].status == 200, "it was read in this second"
        assert (await tracker.get("/services?after=1"))[0].status == 503
        for wrong in ("-1", "x", "9" * 19, "²"):
            assert (await tracker.get(f"/services?after={wrong}"))[0].status == 400


async def test_awards_are_for_anybody_to_read(start, monkeypatch):
    monkeypatch.setattr(web, "LEDGER_MS", 0)
    async with start() as tracker:
        answer, text = await tracker.get("/awards")
        assert json.loads(text) == {"awards": []}
        store, now = tracker.coordinator.store, tracker.coordinator.clock()
        number = await store.register(a_key(7).public, now)
        said = an_award(number, 2_500, valid_until=now + HOUR // 2, reason="for <translations>")
        await store.award(signed(said), said, now)
        answer, text = await tracker.get("/awards")
    assert answer.headers["Access-Control-Allow-Origin"] == "*"
    [found] = json.loads(text)["awards"]
    assert found == {"account": number, "amount": 2_500, "reason": "for <translations>", "day": day_of(now)}


async def test_the_rules_are_published_as_signed(start):
    rules = Rules(limits=LimitsSection(max_n=3))
    async with start(rules) as tracker:
        _, text = await tracker.get("/rules")

    found = json.loads(text)
    envelope = parse(base64.b64decode(found["document"]))
    envelope.verify()
    assert envelope.key == SERVING.public
    assert envelope.digest.hex() == found["digest"]
    assert from_json(codec.decode(envelope.body, RulesDocument).rules) == plain(rules)
    assert found["rules"]["limits"]["max_n"] == 3
    assert found["version"] == 1


async def test_versions_of_the_rules_are_published_newest_first_and_in_parts(start):
    async with start() as tracker:
        for most in range(1, 24):
            await tracker.coordinator.publish(plain(Rules(limits=LimitsSection(max_n=most))))
        parts = [json.loads((await tracker.get("/rules/history"))[1])]
        while parts[-1]["before"] is not None:
            parts.append(json.loads((await tracker.get(f"/rules/history?before={parts[-1]['before']}"))[1]))
        assert (await tracker.get("/rules/history?before=x"))[0].status == 400
        assert (await tracker.get("/rules?version=99"))[0].status == 404
        _, text = await tracker.get("/rules?version=7")
    versions = [entry for part in parts for entry in part["versions"]]
    assert [len(part["versions"]) for part in parts] == [20, 4]
    assert [entry["version"] for entry in versions] == list(range(24, 0, -1))
    assert versions[0]["changes"] == [{"key": "limits.max_n", "before": 22, "after": 23}]
    assert [entry["previous"] for entry in versions] == [*(entry["digest"] for entry in versions[1:]), None]
    old = json.loads(text)
    assert (old["version"], old["rules"]["limits"]["max_n"], old["changes"][0]["before"]) == (7, 6, 5)
    assert parse(base64.b64decode(old["document"])).digest.hex() == old["digest"]


async def test_a_horde_for_members_says_so_in_its_link_and_on_its_page_as_the_rules_stand(start):
    async with start() as tracker:
        assert not parse_link(json.loads((await tracker.get("/scrape"))[1])["link"]).members
        assert "Members only" not in (await tracker.get("/"))[1]
        await tracker.coordinator.publish(plain(Rules(accounts=AccountsSection(anonymous=False))))
        scraped = json.loads((await tracker.get("/scrape"))[1])
        assert scraped["members_only"] is True
        assert parse_link(scraped["link"]).members
        assert "<strong>Members only:</strong>" in (await tracker.get("/"))[1]


async def test_health_is_said(start):
    async with start() as tracker:
        answer, text = await tracker.get("/healthz")

    assert answer.status == 200
    assert json.loads(text) == {"ok": True}


async def test_a_database_that_is_gone_is_said(start):
    async with start() as tracker:
        await tracker.coordinator.store._writer.close()
        answer, text = await tracker.get("/healthz")

    assert answer.status == 503
    assert not json.loads(text)["ok"]


async def test_a_disk_without_room_is_said(start, monkeypatch):
    monkeypatch.setattr(web, "ROOM_BYTES", 2**62)
    async with start() as tracker:
        answer, text = await tracker.get("/healthz")

    assert answer.status == 503
    assert "disk of the database is full" in json.loads(text)["text"]


async def test_the_page_shows_name_and_link_and_runs_nothing(start):
    async with start(Rules(horde=HordeSection(name="<script>x</script>"))) as tracker:
        answer, text = await tracker.get("/")

    assert "&lt;script&gt;" in text
    assert "<script>" not in text
    assert str(tracker.link).replace("&", "&amp;") in text
    assert answer.headers["Content-Security-Policy"] == "default-src 'none'"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize(
    ("method", "path", "status"), [("GET", "/nope", 404), ("POST", "/scrape", 405), ("GET", "/peer", 400)]
)
async def test_what_is_not_there_is_said_in_json(start, method, path, status):
    async with start() as tracker, tracker.client.request(method, tracker.url + path) as answer:
        assert answer.status == status
        assert (await answer.json())["code"] == "refused"


@pytest.mark.parametrize("path", ["/nope", "/accounts/Ann", "/accounts/"])
async def test_a_page_that_is_not_there_says_where_to_look(start, path):
    async with start() as tracker:
        _, text = await tracker.get(path)

    assert json.loads(text)["text"].startswith("nothing is here: / names what there is")


async def test_a_catalogue_that_is_not_in_force_is_answered_with_where_the_one_that_is_stands(start):
    async with start() as tracker:
        answer, text = await tracker.get(f"/models/{'0' * 64}")

    assert answer.status == 404
    assert json.loads(text)["text"] == "no catalogue with this digest is in force: /rules names the one that is"


async def test_a_failing_page_hides_the_fault_behind_a_reference(start, monkeypatch, caplog):
    async with start() as tracker:
        monkeypatch.setattr(Coordinator, "scrape", lambda self: 1 / 0)
        answer, text = await tracker.get("/scrape")

    found = json.loads(text)
    assert answer.status == 500
    assert found["code"] == "internal"
    assert "division" not in text
    [record] = [record for record in caplog.records if "reference" in vars(record)]
    assert vars(record)["reference"] in found["text"]
    assert "ZeroDivisionError" in caplog.text


async def test_an_address_that_is_taken_is_named(start):
    async with start() as tracker:
        taken = replace(SETTINGS, port=tracker.place[1])
        with pytest.raises(CannotListen, match=f"cannot listen on 127.0.0.1, port {tracker.place[1]}"):
            async with serving(make_app(tracker.coordinator, taken)):
                pass
