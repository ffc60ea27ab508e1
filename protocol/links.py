"""The link by which a horde is joined, like a magnet link: `potluck:?tr=<url>&id=<root key>&members=1&name=...`."""

from __future__ import annotations

import base64
import ipaddress
import re
from dataclasses import dataclass
from urllib.parse import parse_qs, quote, urlsplit

from protocol.keys import parse_key, show_key

SCHEME = "potluck"
_CERTIFICATE = re.compile(r"[a-z2-7]{52}")


class BadLink(ValueError):
    """Not a link that leads to a horde; the text says what was wanted."""


@dataclass(frozen=True)
class Link:
    """A horde's address. url: ws:// or wss://, without a path or with the prefix under which the tracker answers.

    certificate: SHA-256 of the only TLS certificate to be taken there; empty where an authority vouches for it.
    members: whether only accounts are served there; the rules decide, and a link may be older than they are.
    """

    url: str
    root: bytes
    name: str = ""
    certificate: bytes = b""
    members: bool = False

    def __str__(self) -> str:
        text = f"{SCHEME}:?tr={quote(self.url, safe=':/')}&id={show_key(self.root)}"
        if self.certificate:
            text += f"&cert={show_certificate(self.certificate)}"
        if self.members:
            text += "&members=1"
        return f"{text}&name={quote(self.name, safe='')}" if self.name else text

    @property
    def is_private(self) -> bool:
        """Whether the tracker's host is loopback or a private network's, by its address or as `localhost`."""
        return is_private_host(urlsplit(self.url).hostname or "")

    @property
    def needs_insecure(self) -> bool:
        """Whether following this link would send messages over the internet without TLS."""
        return urlsplit(self.url).scheme == "ws" and not self.is_private


def parse_link(text: str) -> Link:
    """The link in `text`; raises `BadLink` or `BadKey`."""
    form = BadLink(f"{text[:80]!r} is not a link to a horde: wanted potluck:?tr=<url>&id=<root key>&name=<name>")
    try:
        parts = urlsplit(text.strip())
        fields = parse_qs(parts.query, keep_blank_values=True, max_num_fields=16)
    except ValueError as error:
        raise form from error
    if parts.scheme != SCHEME or parts.netloc or parts.path:
        raise form
    url, root = _one(fields, "tr"), _one(fields, "id")
    # A name is shown on terminals, where a control character would be a command.
    name = "".join(character for character in fields.get("name", [""])[0] if character.isprintable())
    url = _check_url(url)
    certificate = _parse_certificate(_one(fields, "cert")) if "cert" in fields else b""
    if certificate and not url.startswith("wss:"):
        raise BadLink(f"`cert=` says which certificate {url[:80]!r} shows, and ws:// shows none: wanted wss://")
    return Link(url, parse_key(root), name[:60], certificate, "members" in fields and _is_for_members(fields))


def tracker_at(url: str) -> Link:
    """The link to a tracker of which only the address is known: it names no horde. Raises `BadLink`."""
    return Link(_check_url(url), b"")


def show_certificate(digest: bytes) -> str:
    """The digest of a certificate as links carry it: 52 characters of lower-case base32."""
    return base64.b32encode(digest).decode("ascii").rstrip("=").lower()


def _parse_certificate(shown: str) -> bytes:
    digest = base64.b32decode(shown.upper() + "====") if _CERTIFICATE.fullmatch(shown) else b""
    if not digest or show_certificate(digest) != shown:
        raise BadLink(f"`cert={shown[:60]}` is no digest: wanted 52 characters of a-z and 2-7; copy the link again")
    return digest


#: RFC 6598: neither private nor global to the library.
_SHARED = ipaddress.ip_network("100.64.0.0/10")


def is_private_host(host: str) -> bool:
    """Whether `host` is an address on loopback, link-local or a private network, or `localhost`. The networks that
    providers and overlays number for themselves (100.64.0.0/10) are private as well."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    is_inner = isinstance(address, ipaddress.IPv4Address) and address in _SHARED
    return is_inner or address.is_private or address.is_loopback or address.is_link_local


def _one(fields: dict[str, list[str]], name: str) -> str:
    values = fields.get(name, [])
    if len(values) != 1:
        raise BadLink(f"a link to a horde has exactly one `{name}=`: this one has {len(values)}")
    return values[0]


def _is_for_members(fields: dict[str, list[str]]) -> bool:
    if (found := _one(fields, "members")) != "1":
        raise BadLink(f"`members={found[:60]}`: wanted `members=1`, or no such field; copy the link again")
    return True


def _check_url(url: str) -> str:
    if not (url.isascii() and url.isprintable()) or " " in url:
        raise BadLink(f"{url[:80]!r} is not an address: it has characters that no address has")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise BadLink(f"{url[:80]!r} is not an address: {error}") from error
    if parts.scheme not in ("ws", "wss") or not parts.hostname or parts.query or parts.fragment or parts.username:
        raise BadLink(f"{url[:80]!r} is not a tracker's address: wanted ws://host:port or wss://host")
    if port == 0:
        raise BadLink(f"{url[:80]!r} names port 0")
    return url.rstrip("/")
