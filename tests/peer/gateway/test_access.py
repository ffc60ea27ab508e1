"""Who may ask the gateway: by Host, Origin and key, from hostile pages and honest programs."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from peer.gateway.access import (
    NOBODY,
    Access,
    Denied,
    Heard,
    Preflight,
    Served,
    Style,
    Verdict,
    host_name,
    is_loopback,
    origin_of,
)

KEY = "abcdefghijklmnopqrst_-"
HOME_PAGE = "http://chat.example:3000"
ACCESS = Access(KEY, hosts=frozenset({"nas.example"}), origins=frozenset({HOME_PAGE, "tauri://localhost"}))
BEARER: dict[str, Any] = {"authorization": f"Bearer {KEY}"}


def heard(
    method: str = "POST", style: Style = "bearer", *, local: str = "", is_file: bool = False, **headers: str | list[str]
) -> Heard:
    """A request of an honest program on this machine, but for what is said."""
    said = {"host": "127.0.0.1:7346", **{name.replace("_", "-"): value for name, value in headers.items()}}
    values = {name: [value] if isinstance(value, str) else value for name, value in said.items()}
    return Heard(method, style, values, local=local, is_file=is_file)


def kind(verdict: Verdict) -> str:
    """In a word."""
    match verdict:
        case Served(caller):
            return caller.value
        case Preflight():
            return "preflight"
        case Denied(trouble):
            return trouble.kind


# Host


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "127.0.0.1:7346",
        "127.8.9.10:1",
        "localhost",
        "LocalHost:7346",
        "localhost.:80",
        "[::1]",
        "[::1]:7346",
        "nas.example",
        "NAS.example:443",
    ],
)
def test_this_machines_own_names_are_served(host: str) -> None:
    assert kind(ACCESS.decide(heard(host=host, **BEARER))) == "member"


@pytest.mark.parametrize(
    "host",
    [
        "",
        "evil.example",
        "evil.example:7346",
        "127.0.0.1.evil.example",
        "localhost.evil.example",
        "evil-localhost",
        "evil.localhost",
        "nas.example.evil.example",
        "192.168.0.7:7346",
        "0.0.0.0:7346",
        "[::]:7346",
        "2130706433",
        "127.1",
        "0x7f.0.0.1",
        "127.0.0.1@evil.example",
        "evil.example#127.0.0.1",
        "evil.example/127.0.0.1",
        "127.0.0.1:7346:80",
        "127.0.0.1 evil.example",
        "[::1",
        "[::1]evil.example",
        "[fe80::1%25eth0]",
        "127.0.0.1:port",
        "\u0131localhost",
    ],
)
def test_a_rebound_or_broken_host_is_refused_even_with_the_key(host: str) -> None:
    assert kind(ACCESS.decide(heard(host=host, **BEARER))) == "forbidden"


def test_no_host_and_two_hosts_are_refused() -> None:
    assert kind(ACCESS.decide(heard(host=[], **BEARER))) == "forbidden"
    assert kind(ACCESS.decide(heard(host=["127.0.0.1", "evil.example"], **BEARER))) == "forbidden"


def test_the_address_by_which_it_came_is_a_host_only_where_every_address_is_listened_on() -> None:
    wide = Access(KEY, any_local=True)
    there = heard(host="192.168.0.7:7346", local="192.168.0.7", **BEARER)
    rebound = heard(host="evil.example", local="192.168.0.7", **BEARER)

    assert kind(wide.decide(there)) == "member"
    assert kind(wide.decide(rebound)) == "forbidden"
    assert kind(ACCESS.decide(there)) == "forbidden"


# Origin


@pytest.mark.parametrize("origin", [HOME_PAGE, "tauri://localhost"])
@pytest.mark.parametrize("site", [None, "same-site", "cross-site"])
def test_a_named_page_is_served_and_may_read_the_answer(origin: str, site: str | None) -> None:
    more: dict[str, Any] = {"sec_fetch_site": site} if site else {}
    verdict = ACCESS.decide(heard(origin=origin, **BEARER, **more))

    assert kind(verdict) == "member"
    assert verdict.headers["Access-Control-Allow-Origin"] == origin


@pytest.mark.parametrize(
    "origin",
    [
        "null",
        "",
        "*",
        "http://evil.example",
        "http://chat.example",
        "http://chat.example:3001",
        "https://chat.example:3000",
        "http://chat.example:3000/",
        "http://chat.example:3000.evil.example",
        "http://evil.example/http://chat.example:3000",
        "http://CHAT.example:3000",
        "http://127.0.0.1:7346",
        "http://localhost",
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS", "DELETE"])
def test_a_page_that_nobody_named_is_refused_and_reads_nothing(origin: str, method: str) -> None:
    for style in ("bearer", "basic", "apikey", "open"):
        verdict = ACCESS.decide(heard(method, style, origin=origin, **BEARER, apikey=KEY))

        assert kind(verdict) == "forbidden"
        assert verdict.headers == {}


def test_two_origins_are_refused() -> None:
    assert kind(ACCESS.decide(heard(origin=[HOME_PAGE, "http://evil.example"], **BEARER))) == "forbidden"


@pytest.mark.parametrize("site", ["cross-site", "same-site", "same-origin, cross-site", "unheard-of"])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_page_that_hides_its_origin_is_refused(site: str, method: str) -> None:
    for style in ("bearer", "apikey", "open"):
        assert kind(ACCESS.decide(heard(method, style, sec_fetch_site=site, **BEARER))) == "forbidden"


@pytest.mark.parametrize("site", ["none", "same-origin"])
def test_the_address_bar_may_ask(site: str) -> None:
    assert kind(ACCESS.decide(heard("GET", "open", sec_fetch_site=site))) == "anybody"


def test_a_picture_under_its_name_may_be_shown_by_any_page_and_not_sent_to() -> None:
    asked: dict[str, Any] = {"sec_fetch_site": "cross-site", "is_file": True}

    assert kind(ACCESS.decide(heard("GET", "open", **asked))) == "anybody"
    assert kind(ACCESS.decide(heard("POST", "open", **asked))) == "forbidden"
    assert kind(ACCESS.decide(heard("GET", "open", host="evil.example", **asked))) == "forbidden"


def test_a_preflight_of_a_named_page_is_answered_exactly() -> None:
    verdict = ACCESS.decide(
        heard(
            "OPTIONS",
            origin=HOME_PAGE,
            sec_fetch_site="cross-site",
            access_control_request_method="POST",
            access_control_request_headers="authorization, content-type",
            access_control_request_private_network="true",
        )
    )

    assert kind(verdict) == "preflight"
    assert verdict.headers["Access-Control-Allow-Origin"] == HOME_PAGE
    assert verdict.headers["Access-Control-Allow-Headers"] == "authorization, content-type"
    assert verdict.headers["Access-Control-Allow-Private-Network"] == "true"
    assert "POST" in verdict.headers["Access-Control-Allow-Methods"]
    assert "Access-Control-Allow-Credentials" not in verdict.headers


def test_what_a_preflight_does_not_ask_is_not_granted() -> None:
    verdict = ACCESS.decide(heard("OPTIONS", origin=HOME_PAGE, access_control_request_headers="x\r\nSet-Cookie: a=b"))

    assert "Access-Control-Allow-Headers" not in verdict.headers
    assert "Access-Control-Allow-Private-Network" not in verdict.headers


@pytest.mark.parametrize("method", ["TRACE", "CONNECT", "TRACK", "PROPFIND", "get", ""])
def test_other_methods_are_refused(method: str) -> None:
    assert kind(ACCESS.decide(heard(method, **BEARER))) == "bad_method"


# Keys


def basic(text: str) -> dict[str, Any]:
    return {"authorization": "Basic " + base64.b64encode(text.encode()).decode()}


@pytest.mark.parametrize(
    ("style", "headers"),
    [
        ("bearer", BEARER),
        ("bearer", {"authorization": f"bearer   {KEY} "}),
        ("basic", BEARER),
        ("basic", basic(f"anybody:{KEY}")),
        ("basic", basic(f":{KEY}")),
        ("basic", basic(f"{KEY}:")),
        ("basic", basic(KEY)),
        ("apikey", {"apikey": KEY}),
    ],
)
def test_the_key_opens_each_door_in_its_way(style: Style, headers: dict[str, Any]) -> None:
    assert kind(ACCESS.decide(heard(style=style, **headers))) == "member"


@pytest.mark.parametrize(
    ("style", "headers"),
    [
        ("bearer", {}),
        ("bearer", {"authorization": ""}),
        ("bearer", {"authorization": "Bearer"}),
        ("bearer", {"authorization": "Bearer "}),
        ("bearer", {"authorization": f"Bearer {KEY[:-1]}"}),
        ("bearer", {"authorization": f"Bearer {KEY}x"}),
        ("bearer", {"authorization": f"Bearer {KEY.upper()}"}),
        ("bearer", {"authorization": f"Bearer {NOBODY}"}),
        ("bearer", {"authorization": "Bearer \u00e9\u00e9"}),
        ("bearer", {"authorization": "Bearer \udce9"}),
        ("bearer", {"authorization": KEY}),
        ("bearer", basic(f"user:{KEY}")),
        ("bearer", {"apikey": KEY}),
        ("bearer", {"authorization": [f"Bearer {KEY}", f"Bearer {KEY}"]}),
        ("basic", {}),
        ("basic", {"authorization": "Basic !!!"}),
        ("basic", {"authorization": "Basic /w=="}),
        ("basic", basic("user:wrong")),
        ("basic", basic(f"{KEY}:wrong")),
        ("basic", basic("")),
        ("basic", {"apikey": NOBODY}),
        ("apikey", {"apikey": "wrong"}),
        ("apikey", {"apikey": KEY[:-1]}),
        ("apikey", {"apikey": "00000000000"}),
        ("apikey", {"apikey": [NOBODY, KEY]}),
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_without_the_right_key_nobody_comes_in(style: Style, headers: dict[str, Any], method: str) -> None:
    verdict = ACCESS.decide(heard(method, style, **headers))

    assert kind(verdict) in ("bad_key", "forbidden")
    assert KEY not in str(verdict)


def test_a_named_page_may_read_that_its_key_is_wrong() -> None:
    verdict = ACCESS.decide(heard(origin=HOME_PAGE, authorization="Bearer wrong"))

    assert kind(verdict) == "bad_key"
    assert verdict.headers["Access-Control-Allow-Origin"] == HOME_PAGE


@pytest.mark.parametrize("headers", [{}, {"apikey": NOBODY}, {"apikey": ""}])
def test_nobody_in_particular_is_served_where_that_is_usual(headers: dict[str, Any]) -> None:
    assert kind(ACCESS.decide(heard(style="apikey", **headers))) == "anybody"
    assert kind(ACCESS.decide(heard(style="apikey", origin=HOME_PAGE, **headers))) == "anybody"
    assert kind(ACCESS.decide(heard(style="apikey", origin="http://evil.example", **headers))) == "forbidden"


def test_nobody_can_be_switched_off_and_polling_still_works() -> None:
    strict = Access(KEY, anonymous=False)

    assert kind(strict.decide(heard("POST", "apikey"))) == "bad_key"
    assert kind(strict.decide(heard("POST", "apikey", apikey=NOBODY))) == "bad_key"
    assert kind(strict.decide(heard("POST", "apikey", apikey=KEY))) == "member"
    # AI Horde's own clients send no key when they ask how a request stands, or take it back.
    assert kind(strict.decide(heard("GET", "apikey"))) == "anybody"
    assert kind(strict.decide(heard("DELETE", "apikey"))) == "anybody"


# Words on the command line


@pytest.mark.parametrize(
    ("said", "origin"),
    [
        ("http://chat.example:3000", "http://chat.example:3000"),
        ("http://chat.example:3000/", "http://chat.example:3000"),
        ("https://Chat.Example", "https://chat.example"),
        ("https://chat.example:443", "https://chat.example"),
        ("http://chat.example:80", "http://chat.example"),
        ("http://[::1]:8000", "http://[::1]:8000"),
        ("chrome-extension://abcdef", "chrome-extension://abcdef"),
    ],
)
def test_an_origin_is_read_as_browsers_send_it(said: str, origin: str) -> None:
    assert origin_of(said) == origin


@pytest.mark.parametrize(
    "said", ["", "null", "*", "chat.example", "http://", "http://*.example", "http://a/b", "http://u@a", "file://"]
)
def test_what_is_no_origin_is_refused(said: str) -> None:
    with pytest.raises(ValueError, match="wanted scheme"):
        origin_of(said)


def test_names_and_loopback() -> None:
    assert host_name("Nas.Example.:80") == "nas.example"
    assert host_name("[2001:db8::1]:80") == "2001:db8::1"
    assert host_name("[2001:DB8:0:0::1]") == "2001:db8::1"
    assert host_name("[127.0.0.1.evil]") == host_name("[::1::2]") == ""
    assert is_loopback("127.3.4.5")
    assert not is_loopback("0.0.0.0")
    assert not is_loopback("128.0.0.1")
