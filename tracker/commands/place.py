"""Where an act goes and who signs it: a horde's folder on this machine, or a link and a key from anywhere."""

from __future__ import annotations

import ipaddress
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import msgspec

from protocol.documents import Serving, open_document
from protocol.errors import BadKey
from protocol.keyfiles import KeyFileError, load_key
from protocol.keys import SigningKey, show_key
from protocol.links import SCHEME, BadLink, parse_link
from tracker.commands.exits import BAD_COMMAND_LINE, BAD_HORDE, CommandError
from tracker.commands.folder import (
    check_appointment,
    read_certificate_of,
    read_config,
    read_delegation,
    read_serving_key,
)
from tracker.config import Settings


@dataclass(frozen=True)
class Place:
    """A tracker that is being served, and the key that speaks to it. certificate: the digest of the one that it must
    show; empty where an authority vouches for it. version: of the newest delegation that was seen; an older one is
    refused. memory: where newer ones are remembered; None: the horde's folder has them. is_linked: a link says all
    this, and who wrote it may have been anybody."""

    url: str
    root: bytes
    key: SigningKey
    certificate: bytes = b""
    version: int = 0
    memory: Path | None = None
    is_linked: bool = False


def find_place(horde: str, key_file: Path | None = None, url: str | None = None) -> Place:
    """The tracker that `horde` means: a link, with the key in `key_file`; or a folder, with that key or the serving
    key that lies there. url: where the tracker of a folder is met. Raises `CommandError`."""
    if horde.startswith(f"{SCHEME}:"):
        return _by_link(horde, key_file)
    folder = Path(horde)
    settings = read_config(folder).settings
    delegation = read_delegation(settings)
    certificate = read_certificate_of(settings)
    pin = certificate.digest if certificate and (url is None or certificate.is_self_signed) else b""
    if key_file is not None:
        key = _read_key(key_file)
    else:
        key = read_serving_key(settings)
        if fault := check_appointment(delegation, key, time.time_ns() // 1_000_000):
            raise CommandError(f"{settings.serving_key}: {fault}", BAD_HORDE)
    version = open_document(delegation, Serving).version
    return Place(url or local_url(settings), delegation.key, key, pin, version)


def _by_link(text: str, key_file: Path | None) -> Place:
    try:
        link = parse_link(text)
    except (BadLink, BadKey) as error:
        raise CommandError(str(error), BAD_COMMAND_LINE) from error
    if key_file is None:
        raise CommandError(
            "--key: wanted the file of a key that the horde's rules name (roles), as `key` in a peer's folder",
            BAD_COMMAND_LINE,
        )
    if link.needs_insecure:
        raise CommandError(
            f"{link.url} would send this over the internet in the clear: ask for a wss link", BAD_COMMAND_LINE
        )
    memory = key_file.with_name(f"{key_file.name}.seen")
    key, version = _read_key(key_file), _seen(memory).get(show_key(link.root), 0)
    return Place(link.url, link.root, key, link.certificate, version, memory, is_linked=True)


def _seen(memory: Path) -> dict[str, int]:
    """Versions of delegations, by horde; none if nothing is remembered."""
    try:
        return msgspec.json.decode(memory.read_bytes(), type=dict[str, int])
    except (OSError, msgspec.DecodeError):
        return {}


def remember(place: Place, version: int) -> None:
    """A newer delegation was seen: an older one is refused from now on. Whoever cannot write beside the key goes
    without: what is said now is said to the right one all the same."""
    if place.memory is None or version <= place.version:
        return
    seen = {**_seen(place.memory), show_key(place.root): version}
    new = place.memory.with_name(f".{place.memory.name}.new")
    with suppress(OSError):
        new.write_bytes(msgspec.json.encode(seen))
        new.replace(place.memory)


def _read_key(path: Path) -> SigningKey:
    try:
        return load_key(path)
    except KeyFileError as error:
        raise CommandError(str(error), BAD_COMMAND_LINE) from error


def local_url(settings: Settings) -> str:
    """Where the tracker of these settings is met from its own machine, without the proxy before it."""
    if not settings.port:
        raise CommandError("server.listen leaves the port to the system: say where it is with --url", BAD_COMMAND_LINE)
    try:
        everywhere = ipaddress.ip_address(settings.host).is_unspecified
    except ValueError:
        everywhere = False
    host = ("[::1]" if ":" in settings.host else "127.0.0.1") if everywhere else settings.host
    return f"{settings.scheme}://{f'[{host}]' if ':' in host and host[0] != '[' else host}:{settings.port}"
