"""At which relays two peers may meet, and how often they may ask."""

import random
from collections import Counter

import pytest

from protocol.documents import RelayTicket, open_document
from protocol.envelope import parse
from protocol.errors import Busy, OverLimit
from protocol.messages import OfferRelay
from protocol.rules import RelaysSection
from tests.support import builders as b
from tracker import relaying
from tracker.relaying import Askings, Avoided, Volunteer, Volunteers

RULES = RelaysSection()
LEASE = b.a_lease()


def a_volunteer(number: int = 0, household: str = "", *, streams: int = 4, max_rate: int = 0) -> Volunteer:
    offer = OfferRelay(port=7346, certificate=b.a_digest(number), streams=streams, max_rate=max_rate)
    house = household or f"11.0.{number}.9"
    return Volunteer(b.a_key(100 + number).public, (f"11.0.{number}.9:7346",), house, number, offer)


def volunteers(*known: Volunteer) -> Volunteers:
    found = Volunteers(random.Random(1))
    for volunteer in known:
        found.add(volunteer)
    return found


def test_at_most_two_volunteers_of_different_households_are_named():
    chosen = volunteers(*map(a_volunteer, range(9)), a_volunteer(20, "11.0.0.9")).choose(LEASE, b.NOW)

    assert len(chosen) == len({volunteer.household for volunteer in chosen}) == 2


def test_many_keys_of_one_household_are_one_relay():
    known = volunteers(*(a_volunteer(number, "one house") for number in range(9)))

    assert len(known.choose(LEASE, b.NOW)) == 1


def test_who_is_reached_by_the_versions_of_both_sides_is_named_first():
    four, six, both, busy = (a_volunteer(number) for number in range(4))
    six.addresses, both.addresses = ("[2a00::9]:7346",), ("11.0.2.9:7346", "[2a00::2]:7346")
    busy.given = {(bytes(16), attempt): b.NOW for attempt in range(4)}
    known = volunteers(four, six, both, busy)

    assert known.choose(LEASE, b.NOW, [{4}, {6}])[0] is both
    assert {found.key for found in known.choose(b.but(LEASE, attempt=2), b.NOW, [{4}, set()])} == {four.key, both.key}
    found = relaying.ticket_of(LEASE, RULES, b.NOW, both)
    assert (found.url, found.also) == ("wss://11.0.2.9:7346", "wss://[2a00::2]:7346")


def test_who_hides_from_the_worker_is_not_sent_to_the_workers_house_or_account():
    known = volunteers(a_volunteer(1, "the worker's"), a_volunteer(2), a_volunteer(3))
    avoided = Avoided(frozenset({"the worker's"}), account=2)

    assert [found.account for found in known.choose(LEASE, b.NOW, (), avoided)] == [3]


def test_a_worker_does_not_relay_for_itself():
    own = a_volunteer(0)
    own.key = LEASE.worker

    assert volunteers(own).choose(LEASE, b.NOW) == []


def test_all_volunteers_get_their_share_and_none_more_than_it_offers():
    known = volunteers(*(a_volunteer(number, streams=4) for number in range(6)))
    named = Counter(
        volunteer.key for attempt in range(1, 21) for volunteer in known.choose(b.but(LEASE, attempt=attempt), b.NOW)
    )

    assert sorted(named.values()) == [4] * 6
    assert known.choose(LEASE, b.NOW + relaying.LOAD_MS) == []
    assert len(known.choose(LEASE, b.NOW + relaying.LOAD_MS + 1)) == 2


def test_one_attempt_that_asks_again_and_again_makes_no_volunteer_busy():
    known = volunteers(a_volunteer(0, streams=2), a_volunteer(1, streams=2))
    for _ in range(relaying.MAX_ASKED):
        assert len(known.choose(LEASE, b.NOW)) == 2

    assert len(known.choose(b.but(LEASE, attempt=2), b.NOW)) == 2


def test_a_newer_offer_does_not_make_a_busy_volunteer_idle():
    known = volunteers(a_volunteer(0, streams=1))
    assert len(known.choose(LEASE, b.NOW)) == 1
    known.add(a_volunteer(0, streams=1))
    assert known.choose(LEASE, b.NOW) == []


def test_who_has_gone_is_named_no_more():
    known = volunteers(a_volunteer(0))
    known.remove(a_volunteer(0).key)
    known.remove(a_volunteer(0).key)

    assert known.choose(LEASE, b.NOW) == []
    assert len(known) == 0


def test_a_volunteers_ticket_has_its_address_certificate_and_the_lower_rate():
    volunteer = a_volunteer(3, max_rate=1_000)
    found = relaying.ticket_of(LEASE, RULES, b.NOW, volunteer)

    assert found == RelayTicket(
        job=LEASE.job,
        attempt=LEASE.attempt,
        relay=volunteer.key,
        url="wss://11.0.3.9:7346",
        certificate=b.a_digest(3),
        requester=LEASE.job_key,
        worker=LEASE.worker,
        max_bytes=RULES.max_bytes,
        max_rate=1_000,
        valid_until=b.NOW + RULES.seconds * 1000,
    )
    assert relaying.ticket_of(LEASE, RULES, b.NOW, a_volunteer(3, max_rate=10**9)).max_rate == RULES.max_rate
    assert relaying.ticket_of(LEASE, RULES, b.NOW, a_volunteer(3)).max_rate == RULES.max_rate


def test_the_trackers_own_ticket_is_signed_by_the_serving_key_for_itself():
    terms = relaying.ticket(LEASE, RULES, b.NOW, key=b.SERVING, url="wss://horde.example")
    [raw] = relaying.tickets([terms], b.SERVING, b.ROOT.public)
    envelope = parse(raw)
    envelope.verify()
    found = open_document(envelope, RelayTicket)

    assert envelope.key == found.relay == b.SERVING.public
    assert (found.url, found.certificate) == ("wss://horde.example", b"")


def test_paths_are_asked_for_now_and_then_and_not_for_ever():
    askings, now = Askings(), b.NOW
    name = (LEASE.job, 1)
    askings.ask(name, now)
    with pytest.raises(Busy):
        askings.ask(name, now + 999)
    askings.ask((LEASE.job, 2), now)
    for _ in range(relaying.MAX_ASKED - 1):
        now += relaying.SOON_MS
        askings.ask(name, now)
    with pytest.raises(OverLimit, match="unreachable"):
        askings.ask(name, now + b.HOUR)
    askings.keep({(LEASE.job, 2)})
    assert len(askings) == 1
