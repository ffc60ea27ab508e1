"""Who may ask here: decisions about the headers of one request, before anybody reads more of it.

A page in a browser can send requests to this machine, from any place in the web. It cannot choose the headers `Host`,
`Origin` and `Sec-Fetch-Site`, so these say who asks: a name other than ours in `Host` is a page whose own name leads
here (rebinding), an `Origin` that nobody named is a page that nobody wants.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import ipaddress
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from peer.gateway.asks import Caller
from peer.gateway.errors import Trouble

#: How a door's clients say their key: `Authorization: Bearer`, that or HTTP's Basic, or the header `apikey`, which may
#: also say that the client is nobody. `open` wants none.
Style = Literal["bearer", "basic", "apikey", "open"]

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
#: What clients of AI Horde send as nobody.
NOBODY = "0000000000"
#: Seconds for which a browser may remember the answer to its preflight.
PREFLIGHT_SECONDS = 600

_TOKENS = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+(?:\s*,\s*[A-Za-z0-9!#$%&'*+.^_`|~-]+)*")


@dataclass(frozen=True)
class Heard:
    """One request's head. headers: all values by lower-case name, in order. local: the address of this machine at which
    it came. is_file: whether it is for something under an unguessable name."""

    method: str
    style: Style
    headers: Mapping[str, Sequence[str]]
    local: str = ""
    is_file: bool = False

    def one(self, name: str) -> str | None:
        """The value of a header, None without one. Raises `Two` if there are several."""
        values = self.headers.get(name, ())
        if len(values) > 1:
            raise Two(name)
        return values[0] if values else None


class Two(Exception):
    """A header that may be there once came twice."""


@dataclass(frozen=True)
class Served:
    """It may go on. headers: for its answer."""

    caller: Caller
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Preflight:
    """A browser asks whether its page may ask; it may, and these headers say so."""

    headers: Mapping[str, str]


@dataclass(frozen=True)
class Denied:
    """It may not. headers: for the answer, so that a named page can read why."""

    trouble: Trouble
    headers: Mapping[str, str] = field(default_factory=dict)


Verdict = Served | Preflight | Denied


@dataclass(frozen=True)
class Access:
    """key: what members show. hosts: names in `Host` besides those of loopback, in lower case. origins: pages that may
    ask, as scheme://host:port. anonymous: whether nobody in particular is served, where a door has that. any_local:
    whether every address of this machine is listened on, so that each is a fitting `Host`."""

    key: str
    hosts: frozenset[str] = frozenset()
    origins: frozenset[str] = frozenset()
    anonymous: bool = True
    any_local: bool = False

    def decide(self, heard: Heard) -> Verdict:
        """Whether this request is served, and as whom."""
        try:
            return self._decide(heard)
        except Two as error:
            return _denied("forbidden", f"the header {error} came more than once: send it once")

    def _decide(self, heard: Heard) -> Verdict:
        if heard.method not in METHODS:
            return Denied(Trouble("bad_method", f"method {heard.method[:20]}: wanted one of {', '.join(METHODS)}"))
        if (denied := self._of_host(heard)) is not None:
            return denied
        origin = heard.one("origin")
        if (denied := self._of_origin(heard, origin)) is not None:
            return denied
        headers = _cors(origin) if origin else {}
        if heard.method == "OPTIONS":
            return Preflight({**headers, **_preflight(heard)} if origin else {})
        caller = self._caller(heard)
        return Served(caller, headers) if isinstance(caller, Caller) else Denied(caller, headers)

    def _of_host(self, heard: Heard) -> Denied | None:
        host = heard.one("host")
        name = host_name(host) if host else ""
        if name and (is_loopback(name) or name in self.hosts or (self.any_local and name == heard.local)):
            return None
        return _denied(
            "forbidden",
            f"the header Host names {(host or 'nothing')[:100]!r}, which is not how this gateway is called: use its"
            " address, or start it with --host-name NAME",
        )

    def _of_origin(self, heard: Heard, origin: str | None) -> Denied | None:
        if origin is not None:
            if origin in self.origins:
                return None
            return _denied(
                "forbidden",
                f"the page at {origin[:100]!r} was not named: start the gateway with --origin {origin[:100]} if it is"
                " yours",
            )
        site = heard.one("sec-fetch-site")
        if site in (None, "none", "same-origin") or (heard.is_file and heard.method in ("GET", "HEAD")):
            return None
        return _denied("forbidden", "a page of another site asked without saying which: name it with --origin")

    def _caller(self, heard: Heard) -> Caller | Trouble:
        if heard.style == "open":
            return Caller.ANYBODY
        said = heard.one("apikey") if heard.style == "apikey" else heard.one("authorization")
        if heard.style == "apikey" and (said or NOBODY) == NOBODY:
            return self._nobody(heard)
        if any(self._fits(secret) for secret in _secrets(said or "", heard.style)):
            return Caller.MEMBER
        return Trouble("bad_key", _WANTED[heard.style] if said else f"no key came: {_WANTED[heard.style]}")

    def _nobody(self, heard: Heard) -> Caller | Trouble:
        # Clients poll without their key; what they ask about has an unguessable name.
        if self.anonymous or heard.method != "POST":
            return Caller.ANYBODY
        return Trouble("bad_key", f"this gateway serves nobody without a key (--no-anonymous): {_WANTED['apikey']}")

    def _fits(self, secret: str) -> bool:
        return hmac.compare_digest(secret.encode("utf-8", "replace"), self.key.encode())


_WHERE = "the gateway's access key, which its folder holds in gateway/access-key"
_WANTED: dict[Style, str] = {
    "bearer": f"wanted in the header Authorization: Bearer and {_WHERE}",
    "basic": f"wanted in the header Authorization: Basic, as the password, or Bearer and {_WHERE}",
    "apikey": f"wanted in the header apikey: {_WHERE}, or {NOBODY} for nobody",
    "open": "",
}


def _denied(kind: Literal["forbidden"], text: str) -> Denied:
    return Denied(Trouble(kind, text))


def _secrets(said: str, style: Style) -> list[str]:
    """What may be the key in such a header."""
    if style == "apikey":
        return [said]
    scheme, _, rest = said.strip().partition(" ")
    if scheme.lower() == "bearer":
        return [rest.strip()]
    if scheme.lower() != "basic" or style != "basic":
        return []
    try:
        both = base64.b64decode(rest.strip(), validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        return []
    user, _, password = both.partition(":")
    # Some programs have one field for both, into which people paste the key.
    return [password or user]


def _cors(origin: str) -> dict[str, str]:
    return {"Access-Control-Allow-Origin": origin, "Access-Control-Expose-Headers": "*"}


def _preflight(heard: Heard) -> dict[str, str]:
    headers = {
        "Access-Control-Allow-Methods": ", ".join(METHODS),
        "Access-Control-Max-Age": str(PREFLIGHT_SECONDS),
    }
    wanted = heard.one("access-control-request-headers") or ""
    if _TOKENS.fullmatch(wanted.strip()):
        headers["Access-Control-Allow-Headers"] = wanted.strip()
    if heard.one("access-control-request-private-network") == "true":
        headers["Access-Control-Allow-Private-Network"] = "true"
    return headers


def host_name(host: str) -> str:
    """The name or address in a `Host` header, in one spelling and without port and brackets; empty if it is none."""
    match = re.fullmatch(r"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9._-]+))(?::[0-9]{1,5})?", host)
    if match is None:
        return ""
    name = (match[1] or match[2]).lower().removesuffix(".")
    try:
        return str(ipaddress.ip_address(name))
    except ValueError:
        return "" if match[1] else name


def is_loopback(name: str) -> bool:
    """Whether only this machine is called so."""
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def origin_of(text: str) -> str:
    """An origin as browsers send it; raises `ValueError` for what cannot be one."""
    match = re.fullmatch(r"([a-z][a-z0-9+.-]*)://([A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?/?", text.strip())
    if match is None:
        raise ValueError(f"origin {text[:100]!r}: wanted scheme://host or scheme://host:port, as the browser shows it")
    scheme, host, port = match[1], match[2].lower(), match[3] or ""
    usual = {"http": ":80", "https": ":443"}
    return f"{scheme}://{host}" + ("" if port == usual.get(scheme) else port)
