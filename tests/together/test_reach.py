"""Whether people can connect to a worker: a real tracker tries, and never where a stranger would like it to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import aiohttp
import pytest
import pytest_asyncio

from peer.paths.punch import show_token
from protocol.documents import PeerRecord, ReachProof, sign
from protocol.envelope import Envelope
from protocol.keys import SigningKey
from protocol.links import Link
from protocol.messages import Account, AskAccount, Look, OfferRelay, Paths, Reached, Refused, Register
from tests.support.answering import Answer, Answering, Proving, http
from tests.support.horde import Horde, until
from tests.support.meeting import Two, terms_of
from tests.support.proxies import free_ports
from tests.support.raw_peer import RawPeer

pytestmark = pytest.mark.asyncio(loop_scope="module")

STRANGER = SigningKey.generate()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def link(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Link]:
    """A horde on loopback."""
    async with Horde.open(tmp_path_factory.mktemp("horde"), "reach.every = 1\nreach.a_minute = 1000\n") as horde:
        assert horde.link is not None
        yield horde.link


@asynccontextmanager
async def proving(
    folder: Path, link: Link, key: SigningKey, host: str = "127.0.0.1", port: int = 0, also: Sequence[str] = ()
) -> AsyncIterator[Answering]:
    """The peer of this key, answering as it should. also: at which addresses more."""
    proof = Proving(key, link.root)
    async with Answering.open(folder, proof, host, port, also) as answering:
        proof.certificate = answering.certificate.digest
        yield answering


async def heard_by(link: Link, record: PeerRecord, key: SigningKey | None = None, address: str = "") -> Reached:
    """What a worker with this record hears."""
    async with RawPeer.open(link, key, address=address) as peer:
        await peer.serve("a model", record=record)
        return await peer.expect(Reached)


async def test_a_worker_that_answers_is_told_where_it_was_reached_and_counted(link: Link, tmp_path: Path) -> None:
    key = SigningKey.generate()
    async with proving(tmp_path, link, key) as answering, RawPeer.open(link, key) as peer:
        await peer.serve("a model", record=answering.record())
        reached = await peer.expect(Reached)

        assert reached == Reached(address=f"127.0.0.1:{answering.port}", reachable=True)
        assert answering.asked[0].startswith(b"POST /reach HTTP/1.1\r\n")
        assert (await scraped(link))["reach"]["workers"]["reachable"] == 1


async def scraped(link: Link) -> dict:  # type: ignore[type-arg]
    """What the tracker shows to anybody."""
    horde = Horde(Path())
    horde.door = link
    return await horde.scrape()


ANSWERS: dict[str, tuple[str, Answer]] = {
    "nothing is there": ("no_proof", lambda _: http(b"", "404 Not Found")),
    "sent elsewhere": ("no_proof", lambda _: b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\n\r\n"),
    "no length": ("no_proof", lambda _: b"HTTP/1.1 200 OK\r\n\r\nwhatever"),
    "too long": ("no_proof", lambda _: http(bytes(4097))),
    "no proof": ("no_proof", lambda _: http(b"yes, it is me")),
    "a head without end": ("no_connection", lambda _: b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 100_000),
    "cut off": ("timeout", lambda _: b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort"),
    "silence": ("timeout", lambda _: None),
}


@pytest.mark.slow
async def test_whatever_else_answers_is_not_the_peer(link: Link, tmp_path: Path) -> None:
    async def judge(what: str) -> Reached:
        async with Answering.open(tmp_path / what, ANSWERS[what][1]) as answering:
            return await heard_by(link, answering.record())

    found = await asyncio.gather(*map(judge, ANSWERS))

    assert {what: reached.reason for what, reached in zip(ANSWERS, found, strict=True)} == {
        what: reason for what, (reason, _) in ANSWERS.items()
    }
    assert not any(reached.reachable for reached in found)
    assert all(reached.address.startswith("127.0.0.1:") for reached in found)


async def test_a_proof_by_another_key_for_another_test_or_certificate_is_none(link: Link, tmp_path: Path) -> None:
    key = SigningKey.generate()
    wrong: list[Callable[[bytes, bytes], Envelope]] = [
        lambda challenge, shown: _proof(challenge, shown, STRANGER, link.root),
        lambda _, shown: _proof(bytes(32), shown, key, link.root),
        lambda challenge, _: _proof(challenge, bytes(32), key, link.root),
        lambda challenge, shown: _proof(challenge, shown, key, STRANGER.public),
    ]
    for number, make in enumerate(wrong):
        shown: list[bytes] = []
        answer = partial(_answer, make, shown)
        async with Answering.open(tmp_path / str(number), answer) as answering:
            shown.append(answering.certificate.digest)
            assert (await heard_by(link, answering.record(), key)).reason == "no_proof"
    async with proving(tmp_path / "another", link, key) as right:
        assert (await heard_by(link, right.record(certificate=bytes(32)), key)).reason == "wrong_certificate"


def _proof(challenge: bytes, certificate: bytes, key: SigningKey, root: bytes) -> Envelope:
    return sign(ReachProof(challenge=challenge, certificate=certificate), key, root)


def _answer(make: Callable[[bytes, bytes], Envelope], shown: list[bytes], challenge: bytes) -> bytes:
    return http(make(challenge, shown[0]).raw)


async def test_a_closed_port_and_one_that_may_not_be_tried_are_said(link: Link) -> None:
    [port] = free_ports(1)
    closed, low = (PeerRecord(version=1, certificate=bytes(32), addresses=(f"127.0.0.1:{n}",)) for n in (port, 443))

    assert (await heard_by(link, closed)).reason == "no_connection"
    refused = await heard_by(link, low)
    assert (refused.address, refused.reason) == ("", "port")


async def test_only_the_address_of_the_connection_is_tried_and_not_one_that_is_named(
    link: Link, tmp_path: Path
) -> None:
    key = SigningKey.generate()
    async with (
        proving(tmp_path / "named", link, key, "127.0.0.2") as named,
        proving(tmp_path / "own", link, key, "127.0.0.1", named.port) as own,
    ):
        record = own.record(f"127.0.0.2:{named.port}", f"localhost:{named.port}")
        reached = await heard_by(link, record, key, address="127.0.0.2")  # a header that nobody believes

        assert reached == Reached(address=f"127.0.0.1:{own.port}", reachable=True)
        assert (named.came, own.came) == (0, 1)


@pytest.mark.slow
async def test_who_could_not_be_reached_is_tried_again_and_hears_of_it(link: Link, tmp_path: Path) -> None:
    key = SigningKey.generate()
    async with proving(tmp_path, link, key) as answering:
        [port] = free_ports(1)
        record = answering.record(f"127.0.0.1:{port}")
        async with RawPeer.open(link, key) as peer:
            await peer.serve("a model", record=record)
            assert not (await peer.expect(Reached)).reachable
            assert not (await peer.expect(Reached)).reachable
            record = answering.record(version=2)  # its router has changed
            await peer.send(sign(record, key, link.root).raw)
            while not (reached := await peer.expect(Reached)).reachable:
                pass
            assert reached.address == f"127.0.0.1:{answering.port}"


async def test_a_relay_is_tested_alike_and_needs_an_account(link: Link, tmp_path: Path) -> None:
    key = SigningKey.generate()
    async with proving(tmp_path, link, key) as answering, RawPeer.open(link, key) as peer:
        offer = OfferRelay(port=answering.port, certificate=answering.certificate.digest, streams=2)
        await peer.say(offer)
        assert (await refusal(peer)).code == "not_registered"
        await peer.say(Register())
        await peer.expect(Account)
        await peer.say(offer)
        assert (await peer.expect(Reached)).reachable
        assert (await scraped(link))["reach"]["relays"]["reachable"] == 1
        await peer.say(OfferRelay(port=answering.port, certificate=bytes(32), streams=0))
        await peer.say(AskAccount())
        await peer.expect(Account)
        assert (await scraped(link))["reach"]["relays"]["reachable"] == 0


async def refusal(peer: RawPeer) -> Refused:
    """The next refusal."""
    await until(lambda: any(found.kind == "refused" for found in peer.heard), "nothing was refused")
    [found] = [found for found in peer.heard if found.kind == "refused"]
    peer.heard.remove(found)
    return found.open(Refused)


# Where a stranger would like to send the tracker


@asynccontextmanager
async def proxied(folder: Path, rules: str = "") -> AsyncIterator[Link]:
    """A tracker that believes a proxy on this machine, by its real address."""
    async with Horde.open(folder, f'server.trusted_proxies = ["127.0.0.1"]\n{rules}') as horde:
        assert horde.door is not None
        yield horde.door


async def test_a_trusted_proxy_says_which_address_is_tried(tmp_path: Path) -> None:
    key = SigningKey.generate()
    async with proxied(tmp_path / "horde") as link, proving(tmp_path / "own", link, key, "127.0.0.3") as own:
        reached = await heard_by(link, own.record("127.0.0.1:9999", f"127.0.0.1:{own.port}"), key, "127.0.0.3")

        assert reached == Reached(address=f"127.0.0.3:{own.port}", reachable=True)
        nobody = await heard_by(link, own.record(), SigningKey.generate())
        assert (nobody.address, nobody.reason) == ("", "no_address")


#: Where no stranger comes from on the internet, whatever a header says.
NETWORKS = ["127.0.0.1", "10.0.0.1", "192.168.7.7", "172.31.0.1", "100.64.0.1", "169.254.169.254", "::1", "fe80::1"]


async def test_a_public_horde_connects_into_no_private_network(tmp_path: Path) -> None:
    [port] = free_ports(1)
    rules = f'server.listen = "127.0.0.1:{port}"\nserver.url = "wss://horde.example"\n'
    async with Horde.open(tmp_path / "horde", rules) as horde:
        assert horde.link is not None
        link = Link(f"ws://127.0.0.1:{port}", horde.link.root)
        async with Answering.open(tmp_path / "own", lambda _: None) as inside:
            assert (await heard_by(link, inside.record())).reason == "private_address"
            assert inside.came == 0


async def test_nor_where_a_proxy_says_that_a_stranger_comes_from(tmp_path: Path) -> None:
    [port] = free_ports(1)
    rules = (
        f'server.listen = "127.0.0.1:{port}"\nserver.url = "wss://horde.example"\n'
        'server.trusted_proxies = ["127.0.0.1"]\n'
    )
    async with Horde.open(tmp_path / "horde", rules) as horde:
        assert horde.link is not None
        link = Link(f"ws://127.0.0.1:{port}", horde.link.root)
        async with Answering.open(tmp_path / "own", lambda _: None) as inside:
            found = {address: (await heard_by(link, inside.record(), address=address)).reason for address in NETWORKS}

            assert found.pop("127.0.0.1") == "no_address"  # the proxy's own
            assert set(found.values()) == {"private_address"}
            assert inside.came == 0


async def test_where_the_rule_says_so_nobody_is_tested(tmp_path: Path) -> None:
    key = SigningKey.generate()
    async with Horde.open(tmp_path / "horde", "reach.test = false\n") as horde:
        assert horde.link is not None
        async with proving(tmp_path / "own", horde.link, key) as own, RawPeer.open(horde.link, key) as peer:
            await peer.serve("a model", record=own.record())
            await horde.workers(1)
            await peer.say(OfferRelay(port=own.port, certificate=own.certificate.digest, streams=1))
            assert (await refusal(peer)).code == "not_allowed"
            assert not any(found.kind == "reached" for found in peer.heard)
            assert own.came == 0


async def test_who_comes_back_before_its_former_connection_is_gone_hears_what_is_known(
    link: Link, tmp_path: Path
) -> None:
    key = SigningKey.generate()
    async with proving(tmp_path, link, key) as own, RawPeer.open(link, key) as former:
        await former.serve("a model", record=own.record())
        reached = await former.expect(Reached)
        async with RawPeer.open(link, key) as peer:
            await peer.serve("a model", record=own.record())

            assert await peer.expect(Reached) == reached
            assert own.came == 1


# The other version of IP


@asynccontextmanager
async def named(folder: Path, rules: str = "") -> AsyncIterator[Link]:
    """The same tracker, under a name that may lead to addresses of both versions."""
    [port] = free_ports(1)
    where = f'server.listen = "127.0.0.1:{port}"\nserver.url = "ws://localhost:{port}"\n'
    async with proxied(folder, f"{where}{rules}") as link:
        yield Link(f"ws://127.0.0.1:{port}", link.root)


async def come(link: Link, look: Look, address: str, **headers: str) -> int:
    """Open `/meet` as one is asked to; the status of the answer."""
    headers |= {"X-Forwarded-For": address}
    async with aiohttp.ClientSession(headers=headers) as session:
        try:
            async with session.ws_connect(f"{link.url}/meet", params={"token": show_token(look.token)}) as socket:
                await socket.receive()
                return 101
        except aiohttp.WSServerHandshakeError as error:
            return error.status


@asynccontextmanager
async def of_both(folder: Path, link: Link, key: SigningKey) -> AsyncIterator[Answering]:
    """A peer that answers at addresses of both versions, at one port."""
    [port] = free_ports(1)
    async with proving(folder, link, key, "127.0.0.3", port, ["::1"]) as both:
        yield both


async def test_a_worker_of_both_versions_is_tested_and_known_by_both(tmp_path: Path) -> None:
    key = SigningKey.generate()
    async with (
        named(tmp_path / "horde") as link,
        of_both(tmp_path, link, key) as own,
        RawPeer.open(link, key, address="127.0.0.3") as peer,
    ):
        await peer.serve("a model", record=own.record())
        look = await peer.expect(Look)
        first = await peer.expect(Reached)
        assert look.family == 6
        assert await come(link, look, "::1") == 101

        assert {first, await peer.expect(Reached)} == {
            Reached(address=f"127.0.0.3:{own.port}", reachable=True),
            Reached(address=f"[::1]:{own.port}", reachable=True),
        }
        assert (await scraped(link))["reach"]["workers"] == {"reachable": 1, "unreachable": 0, "untested": 0}
        await peer.send(sign(own.record(version=2), key, link.root).raw)
        await peer.say(AskAccount())
        await peer.expect(Account)
        assert not any(found.kind in ("look", "reached") for found in peer.heard), "it is known already"


async def test_a_relay_of_both_versions_is_named_by_both(tmp_path: Path) -> None:
    key = SigningKey.generate()
    async with (
        named(tmp_path / "horde", "relays.tracker = false\n") as link,
        of_both(tmp_path, link, key) as own,
        RawPeer.open(link, key, address="127.0.0.3") as peer,
    ):
        await peer.register()
        await peer.say(OfferRelay(port=own.port, certificate=own.certificate.digest, streams=2))
        look = await peer.expect(Look)
        await peer.expect(Reached)
        assert await come(link, look, "::1") == 101
        await peer.expect(Reached)
        async with Two.open(link) as two:
            await two.ask()
            [raw] = (await two.requester.expect(Paths)).tickets

        terms = terms_of(raw)
        assert (terms.url, terms.also) == (f"wss://127.0.0.3:{own.port}", f"wss://[::1]:{own.port}")


async def test_nobody_else_is_tested_by_a_second_look(tmp_path: Path) -> None:
    key = SigningKey.generate()
    async with (
        named(tmp_path / "horde") as link,
        of_both(tmp_path, link, key) as own,
        RawPeer.open(link, key, address="127.0.0.3") as peer,
    ):
        await peer.serve("a model", record=own.record())
        look = await peer.expect(Look)
        await peer.expect(Reached)

        # The readers of a web page come with its name; what is none of the other version, or reserved, is none.
        assert await come(link, look, "::1", Origin="https://page.example") == 403
        assert await come(link, Look(token=bytes(16), family=6), "::1") == 403
        assert await come(link, look, "ff02::1") == 101
        assert await come(link, look, "::1") == 403  # it has served
        await peer.say(AskAccount())
        await peer.expect(Account)
        assert own.came == 1


async def test_a_web_page_is_no_worker_whose_reader_could_be_tested(tmp_path: Path) -> None:
    key = SigningKey.generate()
    async with (
        named(tmp_path / "horde") as link,
        proving(tmp_path, link, key, "127.0.0.3") as own,
        RawPeer.open(link, key, address="127.0.0.3", origin="https://page.example") as peer,
    ):
        await peer.serve("a model", record=own.record())
        assert (await peer.expect(Reached)).reason == "no_address"
        assert own.came == 0
