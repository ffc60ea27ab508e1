"""`potluck-tracker check`: whether a horde's folder is fit to be served, without serving it."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec

from protocol import documents
from protocol.changes import changes, told
from protocol.documents import RulesDocument
from protocol.envelope import parse
from protocol.errors import Refusal
from protocol.keys import show_key
from protocol.rules import Rules, from_json
from tracker.archives.whole import read_list
from tracker.audit.database import open_read_only
from tracker.catalogue import with_catalogue
from tracker.commands.exits import CommandError
from tracker.commands.folder import (
    ROOT_KEY,
    check_appointment,
    check_link,
    make_link,
    read_catalogue,
    read_certificate_of,
    read_config,
    read_delegation,
    read_lists,
    read_serving_key,
)
from tracker.config import Config
from tracker.store.base import StoreError
from tracker.store.sqlite.database import migrations
from tracker.tls import Certificate
from tracker.word_lists import lists_of, naming

#: With less room than this on the database's disk, somebody should look after it.
FEW_BYTES = 1024**3
#: A certificate that ends sooner should be looked after; those who renew by themselves do it earlier.
FEW_DAYS = 14


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at. grade: `error` keeps the tracker from serving, `warning` does not."""

    grade: Literal["ok", "warning", "error"]
    what: str
    text: str


def check(folder: Path, now: int) -> Iterator[Finding]:
    """Everything that was looked at, as it is found."""
    try:
        config = read_config(folder)
        read_lists(folder)
        read_catalogue(config)
    except CommandError as error:
        for line in str(error).splitlines():
            yield Finding("error", "settings", line)
        return
    yield Finding("ok", "settings", f"{config.path} is understood")
    root = None
    try:
        delegation = read_delegation(config.settings)
        root = delegation.key
        yield Finding("ok", "delegation", f"by root key {show_key(root)}")
        key = read_serving_key(config.settings)
        fault = check_appointment(delegation, key, now)
        yield Finding("error", "serving key", fault) if fault else Finding("ok", "serving key", "appointed")
        check_link(config)
        certificate = read_certificate_of(config.settings)
        if certificate is not None:
            yield _check_certificate(certificate, now)
        known = bool(config.settings.url or config.settings.port)
        link = "`serve` prints it with its port"
        if known:
            link = str(make_link(config, root, config.settings.port, certificate))
        yield Finding("ok", "link", link)
    except CommandError as error:
        yield Finding("error", "keys" if root is None else "serving key, certificate or link", str(error))
    if (folder / ROOT_KEY).exists():
        yield Finding(
            "warning",
            "root key",
            f"{folder / ROOT_KEY} lies beside the tracker: copy it to a safe place, then delete it here",
        )
    yield from _check_database(config, root)
    yield _check_disk(config)


def _check_certificate(certificate: Certificate, now: int) -> Finding:
    if certificate.is_self_signed:
        return Finding("ok", "certificate", "self-signed: the link carries its digest")
    left = (certificate.until - now) // 86_400_000
    if left < FEW_DAYS:
        return Finding(
            "warning", "certificate", f"ends in {left} days: renew it" if left >= 0 else "has ended: renew it"
        )
    return Finding("ok", "certificate", f"ends in {left:,} days")


def _check_database(config: Config, root: bytes | None) -> Iterator[Finding]:
    path = config.settings.database
    try:
        with closing(open_read_only(path)) as connection:
            version = connection.execute("PRAGMA user_version").fetchone()[0]
            newest = migrations()[-1][0]
            if version > newest:
                yield Finding(
                    "error", "database", f"{path}: has version {version}, this program knows {newest}: update it"
                )
                return
            later = f"; `serve` brings it to {newest}" if version < newest else ""
            yield Finding("ok", "database", f"{path}: version {version}{later}")
            horde = connection.execute("SELECT root FROM horde").fetchone()
            rules = connection.execute("SELECT version, document FROM rules ORDER BY version DESC LIMIT 1").fetchone()
            if horde is None or rules is None:
                missing = "horde" if horde is None else "rules"
                yield Finding("error", "database", f"{path}: holds no {missing}: restore it from a backup")
                return
            if root is not None and horde[0] != root:
                text = f"belongs to horde {show_key(horde[0])}, the delegation to {show_key(root)}"
                yield Finding("error", "database", f"{path}: {text}")
            yield from _check_archives(connection, path)
            named = naming(config.rules, lists_of(config.path.parent))
            yield _check_rules(with_catalogue(named, read_catalogue(config)), *rules)
    except (StoreError, sqlite3.Error) as error:
        yield Finding("error", "database", str(error))


def _check_archives(connection: sqlite3.Connection, path: Path) -> Iterator[Finding]:
    found = read_list(connection, path)
    half = [archive.name for archive in found if archive.state == "moving"]
    if half:
        text = f"{half[0]} is half moved: give `potluck-tracker archive` once more"
        yield Finding("warning", "archives", text)
    elif found:
        yield Finding(
            "ok", "archives", f"{len(found)}, up to entry {found[-1].said.size:,}; keep copies of all of them"
        )


def _check_rules(rules: Rules, version: int, document: bytes) -> Finding:
    try:
        in_force = from_json(documents.open_document(parse(document), RulesDocument).rules)
    except (Refusal, msgspec.DecodeError) as error:
        return Finding("error", "rules", f"version {version} in the database cannot be read: {error}")
    if in_force == rules:
        return Finding("ok", "rules", f"version {version} is what the file says")
    differing = told(changes(in_force, rules))
    text = f"the file differs from version {version}: `serve` publishes version {version + 1} ({differing})"
    return Finding("ok", "rules", text)


def _check_disk(config: Config) -> Finding:
    folder = config.settings.database.parent
    try:
        free = shutil.disk_usage(folder).free
    except OSError as error:
        return Finding("error", "disk", f"{folder}: {error.strerror}")
    text = f"{free // 1024**2:,} MiB free for the database"
    return Finding("warning", "disk", f"only {text}") if free < FEW_BYTES else Finding("ok", "disk", text)
