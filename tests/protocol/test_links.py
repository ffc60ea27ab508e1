"""Links: read back as printed, refused with a sentence otherwise, and never a way to plain ws over the internet."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import BadKey
from protocol.keys import show_key
from protocol.links import BadLink, Link, is_private_host, parse_link, show_certificate
from tests.support.builders import ROOT, a_digest, a_key, a_link

ID = show_key(ROOT.public)

names = st.text(st.characters(categories=["L", "N", "P", "S", "Zs"]), max_size=60).map(
    lambda name: "".join(character for character in name if character.isprintable())
)


@given(name=names, number=st.integers(0, 9), path=st.text("abc/%+&=-~", max_size=9))
def test_a_link_is_read_back_as_printed(name: str, number: int, path: str) -> None:
    link = Link(f"wss://horde.example:8443/a{path.rstrip('/')}b", a_key(number).public, name)

    assert parse_link(str(link)) == link


def test_a_link_looks_like_a_magnet_link() -> None:
    assert str(a_link()) == f"potluck:?tr=ws://127.0.0.1:8000&id={ID}&name=a%20test%20horde"


def test_order_unknown_fields_space_around_and_a_slash_at_the_end_do_not_matter() -> None:
    assert parse_link(f" potluck:?name=x&new=1&id={ID}&tr=ws%3A%2F%2F[::1]:8000/ \n") == Link(
        "ws://[::1]:8000", ROOT.public, "x"
    )


@pytest.mark.parametrize(
    "text",
    [
        "",
        "magnet:?xt=1",
        "potluck:",
        "potluck://host?tr=ws://h&id=" + ID,
        "potluck://[",
        f"potluck:?id={ID}",
        "potluck:?tr=ws://h",
        f"potluck:?tr=ws://h&tr=ws://i&id={ID}",
        f"potluck:?tr=ws://h&id={ID}&id={ID}",
        f"potluck:?tr=http://h&id={ID}",
        f"potluck:?tr=ws://&id={ID}",
        f"potluck:?tr=ws://h:0&id={ID}",
        f"potluck:?tr=ws://h:65536&id={ID}",
        f"potluck:?tr=ws://h:x&id={ID}",
        f"potluck:?tr=ws://user@h&id={ID}",
        f"potluck:?tr=ws://h%3Fq&id={ID}",
        f"potluck:?tr=ws://h%23f&id={ID}",
        f"potluck:?tr=ws://h%0Ah&id={ID}",
        f"potluck:?tr=ws://h%20h&id={ID}",
        f"potluck:?tr=ws://h%1b[31m&id={ID}",
        f"potluck:?tr=ws://[&id={ID}",
        f"potluck:?tr=ws://h&id={ID}" + "&a=1" * 20,
    ],
)
def test_what_leads_to_no_horde_is_refused(text: str) -> None:
    with pytest.raises(BadLink):
        parse_link(text)


@pytest.mark.parametrize("key", ["", "x", ID.upper(), show_key(bytes(32))])
def test_a_link_without_a_usable_key_is_refused(key: str) -> None:
    with pytest.raises((BadLink, BadKey)):
        parse_link(f"potluck:?tr=ws://h&id={key}")


CERTIFICATE = show_certificate(a_digest("certificate"))


def test_a_link_carries_the_certificate_to_be_taken_and_says_so_in_base32() -> None:
    link = Link("wss://192.0.2.7:7345", ROOT.public, "x", a_digest("certificate"))

    assert str(link) == f"potluck:?tr=wss://192.0.2.7:7345&id={ID}&cert={CERTIFICATE}&name=x"
    assert parse_link(str(link)) == link


@pytest.mark.parametrize(
    ("url", "rest"),
    [
        ("wss://h", "&cert="),
        ("wss://h", "&cert=x"),
        ("wss://h", f"&cert={CERTIFICATE[:-1]}"),
        ("wss://h", f"&cert={CERTIFICATE[:-1]}b"),
        ("wss://h", f"&cert={CERTIFICATE.upper()}"),
        ("wss://h", f"&cert={CERTIFICATE}&cert={CERTIFICATE}"),
        ("wss://h", f"&cert=&cert={CERTIFICATE}"),
        ("ws://127.0.0.1", f"&cert={CERTIFICATE}"),
    ],
)
def test_a_link_with_a_certificate_that_cannot_be_looked_at_is_refused_and_not_followed_without(
    url: str, rest: str
) -> None:
    with pytest.raises(BadLink, match="cert="):
        parse_link(f"potluck:?tr={url}&id={ID}{rest}")


@given(text=st.text() | st.text().map(lambda rest: "potluck:?" + rest))
def test_any_text_is_a_link_or_refused(text: str) -> None:
    try:
        link = parse_link(text)
    except (BadLink, BadKey):
        return
    assert parse_link(str(link)) == link


def test_a_name_cannot_steer_a_terminal() -> None:
    assert parse_link(f"potluck:?tr=ws://h&id={ID}&name=%1b[2Ja%07b%0ac%E2%80%AEd").name == "[2Jabcd"


def test_a_long_name_is_cut() -> None:
    assert parse_link(f"potluck:?tr=ws://h&id={ID}&name={'x' * 100}").name == "x" * 60


@pytest.mark.parametrize(
    "host",
    [
        *("localhost", "a.localhost", "127.0.0.1", "10.1.2.3", "192.168.0.1", "172.16.0.1", "100.64.0.1"),
        *("100.127.255.255", "::ffff:100.64.0.1", "::1", "fe80::1", "fd00::1"),
    ],
)
def test_a_private_host_may_be_reached_without_tls(host: str) -> None:
    assert is_private_host(host)
    shown = f"[{host}]" if ":" in host else host
    assert not a_link(f"ws://{shown}:1").needs_insecure


@pytest.mark.parametrize(
    "host",
    ["example.org", "localhost.example.org", "8.8.8.8", "172.32.0.1", "100.128.0.1", "2606:4700::1", "::ffff:8.8.8.8"],
)
def test_a_public_host_may_not(host: str) -> None:
    assert not is_private_host(host)
    shown = f"[{host}]" if ":" in host else host
    assert a_link(f"ws://{shown}:1").needs_insecure
    assert not a_link(f"wss://{shown}:1").needs_insecure


def test_a_link_says_that_only_members_are_served_there() -> None:
    link = Link("ws://127.0.0.1:8000", ROOT.public, "x", members=True)

    assert str(link) == f"potluck:?tr=ws://127.0.0.1:8000&id={ID}&members=1&name=x"
    assert parse_link(str(link)) == link
    assert not parse_link(f"potluck:?tr=ws://[::1]:8000&id={ID}").members


@pytest.mark.parametrize("field", ["members=0", "members=", "members=yes", "members=1&members=1"])
def test_a_link_that_says_something_else_about_members_is_refused(field: str) -> None:
    with pytest.raises(BadLink, match="members="):
        parse_link(f"potluck:?tr=ws://[::1]:8000&id={ID}&{field}")
