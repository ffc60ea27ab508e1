"""`potluck-tracker init`: a new horde in a folder."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from protocol import documents
from protocol.documents import Serving
from protocol.keyfiles import create_key
from protocol.keys import show_key
from protocol.links import Link
from tracker.catalogue import with_catalogue
from tracker.commands.exits import BAD_COMMAND_LINE, BAD_HORDE, CommandError
from tracker.commands.folder import ROOT_KEY, make_link, read_catalogue, read_certificate_of, read_lists
from tracker.config import FILE_NAME, ConfigError, check_link_url, parse
from tracker.rulebook import default_toml
from tracker.store.base import StoreError
from tracker.store.sqlite import SqliteStore
from tracker.templates import NO_TEMPLATE, template
from tracker.tls import make_self_signed
from tracker.word_lists import naming

#: What `--self-signed` makes, in the horde's folder.
CERTIFICATE = "tls.crt"
PRIVATE_KEY = "tls.key"


@dataclass(frozen=True)
class NewHorde:
    """What `init` made. root: the horde's id. link: None where the system is to choose the port."""

    folder: Path
    root_key: Path
    root: bytes
    link: Link | None


def init(folder: Path, given: Mapping[str, object], now: int, *, self_signed: bool = False, kind: str = "") -> NewHorde:
    """Make keys, delegation, rules file and database; raises `CommandError` rather than touch a horde that is there.

    given: settings by their key in `horde.toml`. self_signed: make a certificate too, and speak TLS with it. kind: of
    the horde, one of `templates.NAMES`; empty for the defaults.
    """
    start = template(kind) if kind else NO_TEMPLATE
    if self_signed:
        given = {**given, "server.certificate": CERTIFICATE, "server.private_key": PRIVATE_KEY}
    text = default_toml({**start.values, **given}, start.reasons)
    try:
        config = parse(text, folder / FILE_NAME)
    except ConfigError as error:
        wrong = "\n".join(fault.partition(": ")[2] for fault in error.faults)
        raise CommandError(wrong, BAD_COMMAND_LINE) from error
    if fault := check_link_url(config.settings):
        raise CommandError(f"--url: {fault}", BAD_COMMAND_LINE)
    lists, models = read_lists(folder), read_catalogue(config)
    settings = config.settings
    root_key = folder / ROOT_KEY
    files = [root_key, settings.serving_key, settings.delegation, settings.database, config.path]
    files += [file for file in (settings.certificate, settings.private_key) if file]
    with _all_or_nothing(files) as made:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        root = create_key(root_key)
        made.append(root_key)
        serving = create_key(settings.serving_key)
        made.append(settings.serving_key)
        delegation = documents.sign(Serving(serving=serving.public, version=1), root, root.public)
        _write_new(settings.delegation, delegation.raw, 0o644, made)
        _write_new(settings.database, b"", 0o600, made)
        rules = with_catalogue(naming(config.rules, lists), models)
        SqliteStore.create(settings.database, delegation, rules, serving, now)
        if settings.certificate and settings.private_key:
            host = urlsplit(settings.link_url(settings.port)).hostname or settings.host
            certificate, private_key = make_self_signed(host)
            _write_new(settings.private_key, private_key, 0o600, made)
            _write_new(settings.certificate, certificate, 0o644, made)
        _write_new(config.path, text.encode(), 0o644, made)
    link = None
    if settings.url or settings.port:
        link = make_link(config, root.public, settings.port, read_certificate_of(settings))
    return NewHorde(folder, root_key, root.public, link)


def words(made: NewHorde) -> str:
    """What `init` says to people."""
    link = f"People join by this link:\n  {made.link}" if made.link else "`serve` prints the link by which people join."
    return f"""\
A new horde lies in {made.folder}. Its id is {show_key(made.root)}

Two things now:
  1. {made.root_key} is the root key: who has it is the horde. Copy it to where you keep such things
     (a stick in a drawer), then delete it here. The tracker runs without it.
  2. potluck-tracker serve {made.folder}

{link}"""


@contextmanager
def _all_or_nothing(files: list[Path]) -> Iterator[list[Path]]:
    """Refuse to begin if one of the files exists; if the block fails, remove those that it has noted as made."""
    existing = [file for file in files if file.exists()]
    if existing:
        raise CommandError(
            f"{existing[0]}: is there already: a horde is never overwritten; name another folder", BAD_HORDE
        )
    made: list[Path] = []
    try:
        yield made
    except (OSError, StoreError) as error:
        for file in made:
            file.unlink(missing_ok=True)
        raise CommandError(f"no horde could be made: {error}", BAD_HORDE) from error


def _write_new(path: Path, content: bytes, mode: int, made: list[Path]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    with os.fdopen(os.open(path, flags, mode), "wb") as file:
        made.append(path)
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
