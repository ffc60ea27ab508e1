"""Which address the tracker may try for a peer, when it does, and what it takes for an answer."""

import ipaddress
import random
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.rules import ReachSection
from tests.support import builders as b
from tracker import reach
from tracker.reach import Home, Probes, Result, Target, check_proof, home_of, is_ours, ports_of, why_not

RULES = ReachSection()
PUBLIC = "11.0.0.7"


def of(text: str):
    return ipaddress.ip_address(text)


# Which address


@pytest.mark.parametrize(
    ("url", "home"),
    [
        ("wss://horde.example", Home.PUBLIC),
        ("wss://11.0.0.7:443/potluck", Home.PUBLIC),
        ("ws://[2a00::1]:7345", Home.PUBLIC),
        ("ws://192.168.1.5:7345", Home.PRIVATE),
        ("ws://0.0.0.0:7345", Home.PRIVATE),
        ("ws://[fd00::1]:7345", Home.PRIVATE),
        ("ws://127.0.0.1:7345", Home.LOOPBACK),
        ("ws://localhost:7345", Home.LOOPBACK),
        ("ws://[::1]:7345", Home.LOOPBACK),
    ],
)
def test_where_the_horde_is_shows_in_its_address(url, home):
    assert home_of(url) is home


#: Addresses, and where the horde has to be at least that they are tried: 0 anywhere, 1 in a private network, 2 on
#: loopback, 3 nowhere.
ADDRESSES = {
    "11.0.0.7": 0,
    "2a00::7": 0,
    "10.0.0.1": 1,
    "172.16.0.1": 1,
    "192.168.1.1": 1,
    "100.64.0.1": 1,
    "169.254.169.254": 1,
    "198.18.0.1": 1,
    "fd00::1": 1,
    "fe80::1": 1,
    "2002:a00:1::": 1,
    "2001:0:a00:1::": 1,
    "64:ff9b::a00:1": 1,
    "64:ff9b:1::a00:1": 1,
    # Compatible, translated, site-local, for examples, and what nobody was given: all of IPv6 that is not 2000::/3.
    "::10.0.0.1": 1,
    "::ffff:0:10.0.0.1": 1,
    "fec0::1": 1,
    "3fff::1": 1,
    "5f00::1": 1,
    "192.88.99.1": 1,
    "127.0.0.1": 2,
    "127.9.9.9": 2,
    "::1": 2,
    "0.0.0.0": 3,
    "::": 3,
    "224.0.0.1": 3,
    "239.1.1.1": 3,
    "255.255.255.255": 3,
    "240.0.0.1": 3,
    "ff02::1": 3,
}


@pytest.mark.parametrize("text", ADDRESSES)
@pytest.mark.parametrize(("home", "level"), [(Home.PUBLIC, 0), (Home.PRIVATE, 1), (Home.LOOPBACK, 2)])
def test_a_stranger_makes_the_tracker_connect_into_nobodys_network(text, home, level):
    assert (why_not(of(text), home, ours=False) == "") == (ADDRESSES[text] <= level)


def test_a_public_horde_does_not_try_its_own_machine():
    assert why_not(of(PUBLIC), Home.PUBLIC, ours=True) == f"{PUBLIC} is the tracker's own"
    assert why_not(of("192.168.1.1"), Home.PRIVATE, ours=True) == ""


def test_the_machines_own_addresses_are_known():
    assert is_ours(of("127.0.0.1"))
    assert not is_ours(of("198.51.100.77"))
    assert not is_ours(of("2001:db8::77"))


@given(st.ip_addresses())
def test_what_is_tried_for_a_public_horde_is_reachable_from_everywhere(address):
    if not why_not(address, Home.PUBLIC, ours=False):
        assert address.is_global
        assert not address.is_multicast
        assert not address.is_private


@pytest.mark.parametrize(
    ("addresses", "ports"),
    [
        (("192.168.1.5:8443",), (8443,)),
        (("192.168.1.5:8443", "[2a00::7]:8443", "11.0.0.7:9000"), (8443, 9000)),
        (("a:1024", "b:1025", "c:1026"), (1024, 1025)),
        (("a:1023", "b:80", "c:65535"), (65535,)),
        (("a:65536", "b:0", "c:-8443", "d:８４４３", "no port", "e:"), ()),
        ((), ()),
    ],
)
def test_only_ports_from_1024_are_tried_and_not_many(addresses, ports):
    assert ports_of(b.a_peer_record(addresses=addresses)) == ports


# When


def a_target(number: int = 0, address: str = "", ports=(8443,)) -> Target:
    return Target(
        b.a_key(number).public, of(address or f"11.{number >> 8}.{number & 255}.7"), ports, b.a_digest(number)
    )


def a_name(number: int = 0, role="worker", version=4):
    return b.a_key(number).public, role, version


class Book:
    """Probes with a clock."""

    def __init__(self, rules=RULES):
        self.now = b.NOW
        self.rules = rules
        self.tests = Probes(random.Random(1))
        self.begun = 0

    def want(self, number=0, **target):
        self.tests.want(a_name(number), a_target(number, **target), self.now)

    def start(self):
        begun = self.tests.start(self.now, self.rules)
        self.begun += len(begun)
        return begun

    def end(self, begun, reason="timeout"):
        return [
            self.tests.done(name, target, Result("11.0.0.7:8443", reason), self.now, self.rules)
            for name, target in begun
        ]


def test_a_peer_is_tested_at_once_and_its_result_is_kept():
    book = Book()
    book.want()
    [(name, target)] = begun = book.start()

    assert (name, target) == (a_name(), a_target())
    assert book.tests.result(name) is None
    assert book.end(begun, "") == [True]
    assert book.tests.result(name) == Result("11.0.0.7:8443")
    assert book.tests.counts("worker") == {"reachable": 1, "unreachable": 0, "untested": 0}


def test_the_same_again_is_not_tested_again():
    book = Book()
    book.want()
    book.end(book.start(), "")
    book.want()
    book.now += b.HOUR

    assert book.start() == []


def test_a_peer_that_was_not_reached_is_tried_again_about_every_so_often():
    book, waits = Book(), []
    book.want()
    for _ in range(50):
        begun = book.start()
        assert book.end(begun) == [True]
        since = book.now
        while not book.tests._heap[0][0] <= book.now:
            book.now += b.SECOND
        waits.append((book.now - since) // b.SECOND)

    assert min(waits) >= 30
    assert max(waits) <= 91
    assert len(set(waits)) > 10


def test_another_address_is_tested_soon_and_the_former_test_counts_no_more():
    book = Book()
    book.want()
    former = book.start()
    book.want(address="11.9.9.9")

    assert book.start() == []
    assert book.end(former, "") == [False]
    book.now += reach.SOON_MS
    [(_, target)] = begun = book.start()
    assert target.address == of("11.9.9.9")
    assert book.end(begun, "") == [True]


def test_who_changes_all_the_time_is_tested_now_and_then():
    book = Book()
    for port in range(2000, 2600):
        book.want(ports=(port,))
        book.end(book.start(), "")
        book.now += 100

    assert book.begun <= 60_000 // reach.SOON_MS + 1


def test_there_are_no_more_tests_in_a_minute_than_the_rule_allows():
    book = Book(ReachSection(a_minute=10))
    for number in range(40):
        book.want(number)
    begun = []
    for _ in range(59):
        found = book.start()
        begun += found
        book.end(found, "")
        book.now += b.SECOND
    assert len(begun) == 10
    book.now += b.MINUTE
    assert len(book.start()) == 10


def test_no_more_run_at_once_than_a_few():
    book = Book()
    for number in range(40):
        book.want(number)
    first = book.start()
    assert len(first) == reach.AT_ONCE
    assert book.start() == []
    book.end(first, "")
    assert len(book.start()) == reach.AT_ONCE


def test_one_household_does_not_use_up_the_tests_of_a_minute():
    book = Book()
    for number in range(200):
        book.want(number, address="11.0.0.7")
    book.want(500)
    begun = book.start()

    assert sum(target.address == of("11.0.0.7") for _, target in begun) == RULES.a_minute // reach.HOUSEHOLD_PART
    assert a_name(500) in [name for name, _ in begun]


def test_a_peer_of_two_addresses_is_counted_once_and_by_the_better_one():
    book = Book()
    for version in (4, 6):
        book.tests.want(a_name(version=version), a_target(), book.now)
    begun = book.tests.start(book.now, RULES)
    assert [name[2] for name, _ in begun] == [4, 6]
    for (name, target), result in zip(
        begun, (Result("11.0.0.7:8443", "timeout"), Result("[2a00::7]:8443")), strict=True
    ):
        assert book.tests.done(name, target, result, book.now, RULES)

    assert book.tests.counts("worker") == {"reachable": 1, "unreachable": 0, "untested": 0}


def test_of_who_has_gone_nothing_stays():
    book = Book()
    for number in range(30):
        book.want(number)
    begun = book.start()
    for number in range(30):
        book.tests.drop(a_name(number))

    assert book.end(begun, "") == [False] * len(begun)
    assert book.start() == []
    assert book.tests.counts("worker") == {"reachable": 0, "unreachable": 0, "untested": 0}
    assert len(book.tests._entries) == 0


def test_a_heap_of_who_comes_and_goes_does_not_grow():
    book = Book(ReachSection(a_minute=1))
    for number in range(10_000):
        book.tests.want(a_name(0), a_target(0, ports=(1024 + number,)), book.now + number)

    assert len(book.tests._heap) < 2_000


def test_doubt_of_a_reachable_worker_is_looked_into_but_not_all_the_time():
    book = Book()
    book.want()
    book.end(book.start(), "")
    for _ in range(100):
        book.tests.doubt(a_name(), book.now, book.rules)
    assert book.start() == []
    book.now += book.rules.every * b.SECOND
    assert len(book.start()) == 1


def test_where_the_rule_says_so_nobody_is_tested():
    book = Book(ReachSection(test=False))
    book.want()
    assert book.start() == []


# What answers


def test_a_proof_is_that_of_this_peer_for_this_test_and_certificate():
    target, challenge = a_target(2), b.a_salt(20)
    proof = b.a_reach_proof(challenge, target.certificate)
    check_proof(b.signed(proof).raw, challenge, target, b.ROOT.public)

    wrong = {
        "bad_signature": b.signed(proof).raw[:-1] + b"\x00",
        "wrong_signer": b.signed(proof, b.a_key(9)).raw,
        "wrong_horde": b.signed(proof, root=b.a_key(9)).raw,
        "unknown_kind": b.signed(b.a_receipt()).raw,
        "malformed": b"",
        "for another test": b.signed(b.a_reach_proof(b.a_salt(21), target.certificate)).raw,
        "or certificate": b.signed(b.a_reach_proof(challenge)).raw,
    }
    for text, raw in wrong.items():
        with pytest.raises(reach._NotReached, match=re.escape(text)) as refused:
            check_proof(raw, challenge, target, b.ROOT.public)
        assert refused.value.reason == "no_proof"


@pytest.mark.parametrize(
    ("head", "size"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 200\r\n\r\n", 200),
        (b"HTTP/1.1 200\r\ncontent-length:  7 \r\n\r\n", 7),
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 7\r\n\r\n", None),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", None),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n", None),
        (b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", None),
        (b"SSH-2.0-OpenSSH\r\n\r\n", None),
        (b"\r\n\r\n", None),
    ],
)
def test_an_answer_has_the_right_status_and_a_length(head, size):
    if size is not None:
        assert reach._size_of(head) == size
    else:
        with pytest.raises(reach._NotReached):
            reach._size_of(head)
