"""Where a worker is found: the tracker tests it, tells it, and it says anew where it is."""

from __future__ import annotations

from pathlib import Path

import aiohttp
import pytest

from peer.peer_record import Addresses
from peer.relaying import Offering
from protocol.documents import PeerRecord, ReachProof, parse_document
from protocol.envelope import check_document_context
from protocol.messages import OfferRelay, Reached
from tests.peer.test_worker import Scene
from tests.support.builders import ROOT, WORKER, a_salt

OUTSIDE = "203.0.113.7:7400"


async def test_a_challenge_is_signed_by_who_answers_there(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    async with scene.play():
        record = scene.reader.record
        assert record is not None
        pin = aiohttp.Fingerprint(record.certificate)
        url = f"https://{record.addresses[0]}/reach"
        async with scene.reader.session.post(url, data=a_salt(7), ssl=pin) as response:
            envelope = parse_document(await response.read(), ReachProof)

        check_document_context(envelope, ROOT.public)
        envelope.verify()
        assert envelope.key == WORKER.public
        assert envelope.open(ReachProof) == ReachProof(challenge=a_salt(7), certificate=record.certificate)
        for wrong in (b"", a_salt()[:-1], a_salt() + b"x"):
            async with scene.reader.session.post(url, data=wrong, ssl=pin) as response:
                assert response.status == 400


async def test_the_address_that_was_reached_stands_first_in_a_new_record(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    async with scene.play():
        before = scene.reader.record
        assert before is not None
        await scene.tracker.says(Reached(address=OUTSIDE, reachable=True))
        _, after = await scene.tracker.gets(PeerRecord)

        assert after.addresses == (OUTSIDE, *before.addresses)
        assert after.version > before.version
        assert (await scene.until("reached")).text == OUTSIDE

        # The same again is no news; that it is reached no more is.
        await scene.tracker.says(Reached(address=OUTSIDE, reachable=True))
        await scene.tracker.says(Reached(address=OUTSIDE, reachable=False, reason="timeout", text="no answer"))
        _, again = await scene.tracker.gets(PeerRecord)

        assert again.addresses == before.addresses
        assert again.version > after.version
        assert "no answer" in (await scene.until("unreachable")).text


async def test_who_relays_too_says_so_behind_its_announce(tmp_path: Path) -> None:
    scene = Scene(tmp_path, relay=Offering(streams=4, max_rate=1_000_000))
    async with scene.play():
        record = scene.reader.record
        assert record is not None
        port = int(record.addresses[0].rpartition(":")[2])

        assert await scene.tracker.hears(OfferRelay) == OfferRelay(
            port=port, certificate=record.certificate, max_rate=1_000_000, streams=4
        )


@pytest.mark.parametrize(
    "given, expected",
    [
        ((), ("1.2.3.4:9", "5.6.7.8:10", "192.168.1.2:7")),
        (("example.org",), ("1.2.3.4:9", "5.6.7.8:10", "example.org:7")),
        (("1.2.3.4:9",), ("1.2.3.4:9", "5.6.7.8:10")),
    ],
)
def test_what_was_reached_comes_before_what_is_mapped_before_what_we_know(
    given: tuple[str, ...], expected: tuple[str, ...]
) -> None:
    addresses = Addresses("", given)
    addresses.tested("1.2.3.4:9", "192.168.1.2", reachable=True)
    addresses.mapped = "5.6.7.8:10"

    assert addresses.known(7, "192.168.1.2") == expected


def test_what_was_reached_in_another_network_is_not_said_here() -> None:
    addresses = Addresses("", ())
    addresses.tested("1.2.3.4:9", "192.168.1.2", reachable=True)

    assert addresses.known(7, "10.0.0.5") == ("10.0.0.5:7",)


def test_both_addresses_of_a_peer_of_two_versions_stand_first_and_each_goes_alone() -> None:
    addresses, local = Addresses("", ()), "192.168.1.2"
    for address in ("[2a00::7]:9", "1.2.3.4:9"):
        addresses.tested(address, local, reachable=True)
    assert addresses.known(9, local) == ("[2a00::7]:9", "1.2.3.4:9", "192.168.1.2:9")
    addresses.tested("[2a00::7]:9", local, reachable=False)
    assert addresses.known(9, local) == ("1.2.3.4:9", "192.168.1.2:9")
    addresses.tested("", local, reachable=False)
    assert addresses.known(9, local) == ("192.168.1.2:9",)
