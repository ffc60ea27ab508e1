"""`potluck-tracker restore`: go on from a copy of the database, openly, under a new serving key.

All is made ready beside the files that are there; then these are set aside one by one and the new ones take their
places. Nothing is deleted. Should that be interrupted, `serve` refuses what does not fit together, and the same command
can be given again.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from protocol import documents
from protocol.documents import Serving
from protocol.envelope import Envelope
from protocol.keyfiles import KeyFileError, load_key, save_key, write_secret
from protocol.keys import SigningKey, show_key
from tracker.archives.file import FOLDER, check
from tracker.archives.whole import listed
from tracker.audit import audit
from tracker.commands.exits import BAD_COMMAND_LINE, BAD_HORDE, CommandError
from tracker.commands.folder import ROOT_KEY, read_config, read_delegation, take_archives, take_lock
from tracker.config import Settings
from tracker.epochs import TooManyEpochs, appoint
from tracker.store.base import StoreError
from tracker.store.sqlite.copies import Copy, go_on, look_into, make_copy


@dataclass(frozen=True)
class Restored:
    """What was done. entries: of the copy. aside: the files that were there, under their new names. missing: what is
    wrong with each archive that the copy names and that is not there as it should be."""

    folder: Path
    epoch: int
    entries: int
    serving: bytes
    aside: Sequence[Path]
    missing: Sequence[str] = ()


def restore(folder: Path, file: Path, *, root_key: Path | None, force: bool, now: int) -> Restored:
    """Make the copy in `file` the database of the horde in `folder`; raises `CommandError`, and nothing has changed."""
    settings = read_config(folder).settings
    if settings.database.exists() and file.samefile(settings.database):
        raise CommandError(f"{file}: is the horde's own database: name a backup", BAD_COMMAND_LINE)
    root = _read_root_key(root_key or folder / ROOT_KEY)
    with closing(take_lock(folder)), closing(take_archives(folder)):
        try:
            copy = look_into(file)
            _check_root(copy, root, settings)
            _check_audit(copy, force=force)
            return _restore(folder, settings, copy, root, now)
        except (StoreError, TooManyEpochs) as error:
            raise CommandError(str(error), BAD_HORDE) from error
        except OSError as error:
            raise CommandError(f"{error.filename}: {error.strerror}", BAD_HORDE) from error


def _read_root_key(path: Path) -> SigningKey:
    if not path.exists():
        raise CommandError(
            f"{path}: there is no root key: a restore is signed by it; bring it from where it lies, and name it "
            "with --root-key",
            BAD_HORDE,
        )
    try:
        return load_key(path)
    except KeyFileError as error:
        raise CommandError(str(error), BAD_HORDE) from error


def _check_root(copy: Copy, root: SigningKey, settings: Settings) -> None:
    if copy.root != root.public:
        text = f"a copy of horde {show_key(copy.root)}, and the root key is of {show_key(root.public)}"
        raise CommandError(f"{copy.path}: {text}: name the right one of both", BAD_HORDE)
    if settings.delegation.exists() and (there := read_delegation(settings)).key != copy.root:
        text = f"a copy of horde {show_key(copy.root)}, and the folder is of {show_key(there.key)}"
        raise CommandError(f"{copy.path}: {text}: name the right one of both", BAD_HORDE)


def _check_audit(copy: Copy, *, force: bool) -> None:
    report = audit(copy.path, root=copy.root)
    if report.ok or force:
        return
    raise CommandError(
        f"{copy.path}: its audit finds {len(report.findings) + report.more} faults, the first being: "
        f"{report.findings[0]}\ntake another backup, or go on from this one all the same with --force",
        BAD_HORDE,
    )


def _restore(folder: Path, settings: Settings, copy: Copy, root: SigningKey, now: int) -> Restored:
    seen = [_serving(read_delegation(settings))] if settings.delegation.exists() else []
    key = SigningKey.generate()
    delegation, epoch = appoint(root, key.public, copy.serving, seen, size=copy.size, tree=copy.tree, now=now)
    places = (settings.database, settings.serving_key, settings.delegation)
    database, key_file, delegation_file = (_beside(place, "restoring") for place in places)
    for leftover in (*_with_logs(database), key_file, delegation_file):
        leftover.unlink(missing_ok=True)
    os.close(os.open(database, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    make_copy(copy.path, database)
    go_on(database, delegation, epoch, key, now)
    save_key(key_file, key)
    write_secret(delegation_file, delegation.raw)
    aside = [*_set_aside(_with_logs(settings.database), f"before-{now}")]
    database.replace(settings.database)
    aside += _set_aside((settings.serving_key, settings.delegation), f"before-{now}")
    key_file.replace(settings.serving_key)
    delegation_file.replace(settings.delegation)
    missing = _missing(settings.database)
    return Restored(folder, _serving(delegation).epoch, copy.size, key.public, aside, missing)


def _missing(database: Path) -> list[str]:
    found = []
    for archive in listed(database):
        try:
            check(database.parent / FOLDER / archive.name, archive.said.file, archive.file_bytes)
        except StoreError as error:
            found.append(str(error))
    return found


def _serving(delegation: Envelope) -> Serving:
    return documents.open_document(delegation, Serving)


def _beside(path: Path, what: str) -> Path:
    return path.with_name(f"{path.name}.{what}")


def _with_logs(database: Path) -> Iterator[Path]:
    """The database, and what SQLite keeps beside it, which is found by its name."""
    for end in ("", "-wal", "-shm", "-journal"):
        yield database.with_name(database.name + end)


def _set_aside(files: Iterator[Path] | Sequence[Path], mark: str) -> Iterator[Path]:
    """Rename the files that are there; a log stays the log of its database."""
    for file in files:
        if file.exists():
            stem, dash, end = (
                file.name.partition("-") if file.name.endswith(("-wal", "-shm", "-journal")) else (file.name, "", "")
            )
            yield file.rename(file.with_name(f"{stem}.{mark}{dash}{end}"))


def words(done: Restored) -> str:
    """What `restore` says to people."""
    aside = "\n".join(f"  {file}" for file in done.aside) or "  nothing"
    missing = "\n".join(f"  {text}" for text in done.missing)
    lacks = f"\n\nThe horde goes on without these archives, and an audit from the beginning does not:\n{missing}"
    return f"""\
The horde in {done.folder} goes on from entry {done.entries} of its ledger, as epoch {done.epoch}, under a new serving
key. What was there lies aside:
{aside}

Now:
  1. Put the root key back where it belongs.
  2. potluck-tracker serve {done.folder}
     Peers come back by themselves and show what they were paid after the copy was made; it is entered again.
  3. potluck-tracker audit {done.folder}
     says in the end what nobody has shown.{lacks if missing else ""}"""
