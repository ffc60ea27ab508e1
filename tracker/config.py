"""`horde.toml`: the rules of a horde and the settings of this process, typed, read once.

What the file does not say has a default that runs. What it says and is not known, or is out of range, is an error
with file, line and key; all errors are reported together.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal, cast, get_args, get_origin
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta

from protocol import prices
from protocol.errors import BadKey
from protocol.keys import parse_key
from protocol.links import is_private_host
from protocol.rules import Positive, Rules, Section, to_json
from protocol.toml_file import ConfigError as ConfigError  # noqa: PLC0414 (of this file, for all who load it)
from protocol.toml_file import KeyPath, TableReader, shown, tables_of, text_of
from protocol.work import ImageWork, TextWork
from tracker.forwarded import TRUSTS_NOBODY, IPNetwork, Trust
from tracker.pricing import BadPlugin, plugin

FILE_NAME = "horde.toml"
DEFAULT_LISTEN = "127.0.0.1:7345"

#: What one job may cost, so that sums over all jobs of a horde's life stay within 64 bits.
MAX_PRICE = 10**12

#: What the rules may take as published, so that with the digests of word lists they fit into a document.
MAX_RULES_BYTES = 200 * 1024


class ServerSection(Section, frozen=True, kw_only=True):
    """How this process runs; not published. What each key means stands in `rulebook.NOTES`."""

    listen: Annotated[str, Meta(min_length=1, max_length=300)] = DEFAULT_LISTEN
    url: Annotated[str, Meta(max_length=300)] = ""
    database: Annotated[str, Meta(min_length=1)] = "horde.db"
    delegation: Annotated[str, Meta(min_length=1)] = "serving.delegation"
    serving_key: Annotated[str, Meta(min_length=1)] = "serving.key"
    certificate: Annotated[str, Meta(max_length=300)] = ""
    private_key: Annotated[str, Meta(max_length=300)] = ""
    trusted_proxies: tuple[str, ...] = ()
    forwarded_header: Literal["X-Forwarded-For", "Forwarded"] = "X-Forwarded-For"
    proxy_protocol: bool = False
    heartbeat: Annotated[int, Meta(ge=1, le=3600)] = 30
    outbox: Annotated[int, Meta(ge=16, le=65_536)] = 2048
    stop_grace: Positive = 5


@dataclass(frozen=True)
class Settings:
    """How this process runs, ready to use.

    host, port: where to listen. url: as written, empty where it is to be derived. database, delegation, serving_key:
    whole paths, as are certificate and private_key, where there are any: with both the tracker speaks TLS itself, with
    the first alone a proxy shows that certificate. trust: who may say where connections come from. proxy_protocol:
    whether they do it by a PROXY header. heartbeat_s, stop_grace_s: seconds. outbox: messages that may wait for one
    peer.
    """

    host: str
    port: int
    url: str
    database: Path
    delegation: Path
    serving_key: Path
    certificate: Path | None = None
    private_key: Path | None = None
    trust: Trust = TRUSTS_NOBODY
    proxy_protocol: bool = False
    heartbeat_s: int = 30
    outbox: int = 2048
    stop_grace_s: int = 5

    def link_url(self, port: int) -> str:
        """The tracker's address for links, `port` being the one that is really listened on."""
        return self.url or f"{self.scheme}://{_host_text(self.host)}:{port}"

    @property
    def scheme(self) -> str:
        """What is spoken where this process listens: ws or wss."""
        return "ws" if self.private_key is None else "wss"

    def listening(self, listen: str) -> Settings:
        """These settings, listening elsewhere; raises `ValueError`."""
        host, port = parse_listen(listen)
        return replace(self, host=host, port=port)


@dataclass(frozen=True)
class Config:
    """One file's content. path: of the file."""

    path: Path
    rules: Rules
    settings: Settings


#: Every table of the file and the type of its content; of `models`, that of each model.
SECTIONS: dict[str, type[Section]] = {
    **{
        field.name: cast("type[Section]", get_args(field.type)[1] if get_origin(field.type) is dict else field.type)
        for field in msgspec.structs.fields(Rules)
    },
    "server": ServerSection,
}


def load(path: Path) -> Config:
    """The content of the file; raises `ConfigError`."""
    return parse(text_of(path), path)


def parse(text: str, path: Path) -> Config:
    """The content of `text`, which stands in `path`; raises `ConfigError` with every fault that it has."""
    tables = tables_of(text, path)
    reader = Reader(path, text)
    sections = reader.sections(tables)
    server = cast("ServerSection", sections.pop("server", ServerSection()))
    rules = Rules(**cast("dict[str, Any]", sections))
    if rules.filter.lists:
        reader.fault(("filter", "lists"), "is filled in by the tracker: put lists into the folder `filter`")
    if rules.catalogue.digest:
        reader.fault(("catalogue", "digest"), "is filled in by the tracker: put models into the file `models.toml`")
    if not reader.faults:
        for key, fault in cross_checks(rules):
            reader.fault(key, fault)
    settings = _settings(server, path.parent, reader)
    if reader.faults:
        raise ConfigError(reader.faults_in_order())
    return Config(path, rules, settings)


def parse_listen(text: str) -> tuple[str, int]:
    """Host and port of `host:port`, IPv6 hosts in brackets; raises `ValueError`."""
    fault = f"wanted host:port such as {DEFAULT_LISTEN} or [::1]:7345, found {text[:80]!r}"
    try:
        parts = urlsplit(f"//{text}")
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise ValueError(fault) from error
    if not host or port is None or parts.netloc != text or parts.username is not None:
        raise ValueError(fault)
    return host, port


def check_link_url(settings: Settings) -> str:
    """Why no link can be made from these settings; empty if one can."""
    if settings.url:
        return ""
    try:
        everywhere = ipaddress.ip_address(settings.host).is_unspecified
    except ValueError:
        everywhere = False
    if everywhere:
        return f"needed, since {settings.host} stands for every address of this machine: say by which one peers come"
    if settings.scheme == "ws" and not is_private_host(settings.host):
        return f"needed, since {settings.host} is no private address: peers come there by wss:// only"
    return ""


class Reader(TableReader):
    """Of the tables of `horde.toml`, and of what stands beside it."""

    def __init__(self, path: Path, text: str) -> None:
        super().__init__(path, text, SECTIONS)


def _settings(server: ServerSection, folder: Path, reader: Reader) -> Settings:
    """The section with its texts understood; those that cannot be are noted as faults."""
    try:
        host, port = parse_listen(server.listen)
    except ValueError as error:
        reader.fault(("server", "listen"), str(error))
        host, port = parse_listen(DEFAULT_LISTEN)
    networks: list[IPNetwork] = []
    for proxy in server.trusted_proxies:
        try:
            networks.append(ipaddress.ip_network(proxy))
        except ValueError as error:
            reader.fault(("server", "trusted_proxies"), f"wanted networks such as 10.0.0.0/8: {error}")
    if server.url and (fault := _fault_of_url(server.url)):
        reader.fault(("server", "url"), fault)
    for key, fault in _server_checks(server):
        reader.fault(("server", key), fault)
    return Settings(
        host=host,
        port=port,
        url=server.url.rstrip("/"),
        database=folder / server.database,
        delegation=folder / server.delegation,
        serving_key=folder / server.serving_key,
        certificate=folder / server.certificate if server.certificate else None,
        private_key=folder / server.private_key if server.private_key else None,
        trust=Trust(tuple(networks), server.forwarded_header),
        proxy_protocol=server.proxy_protocol,
        heartbeat_s=server.heartbeat,
        outbox=server.outbox,
        stop_grace_s=server.stop_grace,
    )


def _server_checks(server: ServerSection) -> Iterator[tuple[str, str]]:
    """What is wrong between settings that are each in range."""
    if server.private_key and not server.certificate:
        yield "private_key", "wanted server.certificate too: the file with the certificate that belongs to this key"
    if server.certificate and server.url.startswith("ws://"):
        yield "url", f"wanted wss://, since server.certificate is set, found {server.url[:80]!r}"
    if server.certificate and not server.private_key and not server.url:
        yield "certificate", "wanted server.private_key too, or server.url, the address of the proxy that shows it"
    if server.proxy_protocol and not server.trusted_proxies:
        yield "proxy_protocol", "wanted the proxies in server.trusted_proxies: nobody else is believed"


def _fault_of_url(url: str) -> str:
    """Why peers could not follow a link with this address; empty if they can."""
    fault = f"wanted ws://host:port or wss://host, found {url[:80]!r}"
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return fault
    plain = url.isascii() and url.isprintable() and " " not in url
    whole = parts.scheme in ("ws", "wss") and parts.hostname and port != 0
    return "" if plain and whole and not (parts.query or parts.fragment or parts.username) else fault


def _host_text(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def cross_checks(rules: Rules) -> Iterator[tuple[KeyPath, str]]:
    """What is wrong between values that are each in range."""
    for key, points in (("image_sizes", rules.prices.image_sizes), ("text_sizes", rules.prices.text_sizes)):
        if points[0][0] < 1 or not _ascends(points):
            wanted = "wanted points whose first numbers rise from 1 on and whose second ones never fall"
            yield ("prices", key), f"{wanted}, found {shown(points)}"
    if not all(left[0] < right[0] for left, right in pairwise(rules.mint.steps)):
        yield ("mint", "steps"), f"wanted steps whose first numbers rise, found {shown(rules.mint.steps)}"
    if large := [number for step in rules.mint.steps for number in step if number > 1000]:
        yield ("mint", "steps"), f"wanted permille, of at most 1000, found {large[0]}"
    yield from _time_checks(rules)
    yield from size_checks(rules)
    yield from price_checks(rules)
    yield from _role_checks(rules)
    if rules.prices.plugin:
        try:
            plugin(rules.prices.plugin)
        except BadPlugin as error:
            yield ("prices", "plugin"), str(error)


def _time_checks(rules: Rules) -> Iterator[tuple[KeyPath, str]]:
    times = rules.times
    for lease in ("image_lease", "text_lease"):
        within = getattr(times, lease)
        if times.cancel >= within:
            yield ("times", "cancel"), f"wanted less than times.{lease} ({within}), found {times.cancel}"
        if times.accept + times.open >= within:
            both = times.accept + times.open
            yield ("times", lease), f"wanted more than times.accept and times.open together ({both}), found {within}"


def _role_checks(rules: Rules) -> Iterator[tuple[KeyPath, str]]:
    for name, keys in (("operators", rules.roles.operators), ("moderators", rules.roles.moderators)):
        for text in keys:
            try:
                parse_key(text)
            except BadKey as error:
                yield ("roles", name), f"wanted keys as `potluck account` shows them, found {text!r}: {error}"
        if twice := [text for number, text in enumerate(keys) if text in keys[:number]]:
            yield ("roles", name), f"names key {twice[0]} twice: name it once"


def size_checks(rules: Rules) -> Iterator[tuple[KeyPath, str]]:
    """Refuse rules that are too large to be handed to peers."""
    size = len(to_json(rules).encode())
    if size > MAX_RULES_BYTES:
        yield (
            ("models",),
            f"wanted rules of at most {MAX_RULES_BYTES} bytes as published, found {size}: name fewer models",
        )


def price_checks(rules: Rules) -> Iterator[tuple[KeyPath, str]]:
    """Refuse prices by which the largest job that the limits allow costs more than can be summed up."""
    for model in (None, *rules.models):
        for kind, cost in _dearest(rules, model or ""):
            if cost > MAX_PRICE:
                key = ("models", model, "price") if model else ("prices", f"{kind}_sizes")
                yield key, f"the largest {kind} that limits allow would cost {cost}: wanted at most {MAX_PRICE}"


def _dearest(rules: Rules, model: str) -> Iterator[tuple[str, int]]:
    limits = rules.limits
    pixels = min(limits.max_pixels, 4096 * 4096)
    # Sizes of pictures are multiples of 8: the next larger square that might be asked for prices no less.
    side = min(4096, -(-int(pixels**0.5) // 8) * 8 + 8)
    image = ImageWork(
        width=side, height=side, steps=min(limits.max_steps, 500), extras=tuple(rules.prices.image_extras)
    )
    yield "image", prices.price(rules, image, model)
    text = TextWork(
        max_tokens=min(limits.max_tokens, 32_768), context_tokens=max(16, min(limits.max_context, 1_048_576))
    )
    yield "text", prices.price(rules, text, model)


def _ascends(points: Sequence[tuple[int, int]]) -> bool:
    return all(left[0] < right[0] and left[1] <= right[1] for left, right in pairwise(points))
