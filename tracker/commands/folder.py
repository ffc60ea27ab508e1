"""A horde's folder: what lies in it, and how it is opened by the commands."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from pathlib import Path

from protocol import documents
from protocol.catalogue import Catalogue
from protocol.documents import Serving
from protocol.envelope import Envelope, check_delegation
from protocol.errors import Refusal
from protocol.filter.wordlist import WordList
from protocol.keyfiles import KeyFileError, load_key
from protocol.keys import SigningKey, show_key
from protocol.links import Link
from tracker.catalogue import catalogue_of
from tracker.commands.exits import BAD_CONFIG, BAD_HORDE, CommandError
from tracker.config import FILE_NAME, Config, ConfigError, Settings, check_link_url, load
from tracker.tls import BadCertificate, Certificate, read_certificate
from tracker.word_lists import lists_of

ROOT_KEY = "root.key"
LOCK = "serving.lock"
ARCHIVES_LOCK = "archiving.lock"


def read_config(folder: Path) -> Config:
    """The folder's `horde.toml`."""
    if not (folder / FILE_NAME).exists():
        raise CommandError(
            f"{folder}: holds no {FILE_NAME}: make a horde with `potluck-tracker init {folder}`", BAD_CONFIG
        )
    try:
        return load(folder / FILE_NAME)
    except ConfigError as error:
        raise CommandError(str(error), BAD_CONFIG) from error


def read_lists(folder: Path) -> Sequence[WordList]:
    """The word lists in force."""
    try:
        return lists_of(folder)
    except ConfigError as error:
        raise CommandError(str(error), BAD_CONFIG) from error


def read_catalogue(config: Config) -> Catalogue:
    """What the horde knows of models."""
    try:
        return catalogue_of(config.path.parent, config.rules)
    except ConfigError as error:
        raise CommandError(str(error), BAD_CONFIG) from error


def read_serving_key(settings: Settings) -> SigningKey:
    """The key that the process signs with."""
    try:
        return load_key(settings.serving_key)
    except KeyFileError as error:
        raise CommandError(str(error), BAD_HORDE) from error


def read_delegation(settings: Settings) -> Envelope:
    """The root's delegation, checked in itself: its envelope's key is the horde's root key."""
    try:
        raw = settings.delegation.read_bytes()
    except OSError as error:
        raise CommandError(f"{settings.delegation}: cannot be read: {error.strerror}", BAD_HORDE) from error
    try:
        envelope = documents.parse_document(raw, Serving)
        check_delegation(envelope, envelope.key)
    except Refusal as refusal:
        text = f"{settings.delegation}: no delegation by a root key ({refusal}): restore the file from a copy"
        raise CommandError(text, BAD_HORDE) from refusal
    return envelope


def check_appointment(delegation: Envelope, key: SigningKey, now: int) -> str:
    """Why this key may not serve under this delegation; empty if it may."""
    serving = documents.open_document(delegation, Serving)
    if serving.serving != key.public:
        return f"the delegation appoints {show_key(serving.serving)}, and the serving key is {show_key(key.public)}"
    if serving.expires and serving.expires <= now:
        return "the delegation has expired: sign a new one with the root key"
    return ""


def read_certificate_of(settings: Settings) -> Certificate | None:
    """What those who connect are shown, as the settings name it; None where they name nothing."""
    if settings.certificate is None:
        return None
    try:
        return read_certificate(settings.certificate, settings.private_key)
    except BadCertificate as error:
        raise CommandError(str(error), BAD_HORDE) from error


def check_link(config: Config) -> None:
    """Refuse settings from which no link can be made."""
    if fault := check_link_url(config.settings):
        raise CommandError(f"{config.path}: server.url: {fault}", BAD_CONFIG)


def make_link(config: Config, root: bytes, port: int, certificate: Certificate | None) -> Link:
    """The link by which this horde is joined. certificate: the one that the settings name."""
    check_link(config)
    pin = certificate.pin if certificate else b""
    rules = config.rules
    return Link(config.settings.link_url(port), root, rules.horde.name, pin, not rules.accounts.anonymous)


def take_lock(folder: Path) -> sqlite3.Connection:
    """Hold this folder for the one process that may serve it; released when the process ends, however it does."""
    return _take(folder, LOCK, "another process serves this horde already: end that one first")


def take_archives(folder: Path) -> sqlite3.Connection:
    """The same for the one process that may make archives of it, beside a tracker that serves."""
    return _take(folder, ARCHIVES_LOCK, "another process makes an archive or restores a backup: wait for it to end")


def _take(folder: Path, name: str, busy: str) -> sqlite3.Connection:
    """SQLite's own file lock, since every system has it in the same form."""
    connection = sqlite3.connect(folder / name, timeout=0, isolation_level=None)
    try:
        connection.execute("BEGIN EXCLUSIVE")
    except sqlite3.OperationalError as error:
        connection.close()
        if error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY:
            text = busy
        else:
            text = f"cannot be locked ({error}): make room on its disk, and see that it can be written"
        raise CommandError(f"{folder}: {text}", BAD_HORDE) from error
    return connection
