"""The folder of one peer: its key, the hordes it joined, their rules, what it keeps of results.

```
key             the private key, which is the account (PEM, mode 0600)
hordes.json     the links joined, by name, and which of them is meant when none is named
rules/          the rules last seen of each horde, signed, and the version of its delegation
transfers/      for each horde a transfer that it has not answered yet, so that it can be sent again
votes/          our newest vote on each proposal, by the proposal's digest, for each horde
results/        what proves a result, by the SHA-256 of its content (`peer.evidence`)
worker/         what the worker keeps; one program at a time uses it; a file `paused` there pauses it for others
peer.toml       what the worker serves, and for whom; written by its owner (`peer.limits`)
audit/          entries of ledgers that were read, and evidence of two histories (`potluck audit`)
```
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import msgspec
import platformdirs

from protocol.documents import RulesDocument, parse_document
from protocol.envelope import Envelope, check_document_context
from protocol.errors import Refusal
from protocol.keys import SigningKey, show_key
from protocol.links import Link, parse_link

DEFAULT_NAME = "horde"


class HomeError(Exception):
    """Something in the folder that cannot be used; the text says what to do."""


class HomeBusy(HomeError):
    """Another program uses this folder's worker."""


class UnknownHorde(HomeError):
    """A horde that was not joined under this name, or none was joined at all."""


class Hordes(msgspec.Struct, frozen=True):
    """The hordes joined. default: name of the one meant when none is named, empty if there is none."""

    default: str = ""
    links: dict[str, str] = {}


def default_folder() -> Path:
    """Where a peer lives if nothing else is said."""
    return Path(platformdirs.user_data_dir("potluck", appauthor=False))


class Home:
    """One peer's folder; made when something is first written."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def key_file(self) -> Path:
        """Where the private key is."""
        return self.folder / "key"

    @property
    def worker_folder(self) -> Path:
        """What the worker keeps: spools, receipts, the engines' log."""
        return self.folder / "worker"

    @property
    def results_folder(self) -> Path:
        """What proves the results that this peer got."""
        return self.folder / "results"

    def key(self) -> SigningKey:
        """The peer's key, made now if there is none; raises `HomeError` for one that cannot be used."""
        # Here, for `cryptography` is slow to load and most commands need no key.
        from protocol.keyfiles import KeyFileError, load_or_create_key

        try:
            return load_or_create_key(self.key_file)
        except KeyFileError as error:
            raise HomeError(str(error)) from error
        except OSError as error:
            raise HomeError(
                f"{self.folder}: cannot be written: {error.strerror}; choose another with --home"
            ) from error

    def hordes(self) -> Hordes:
        """The hordes joined so far."""
        path = self.folder / "hordes.json"
        try:
            return msgspec.json.decode(path.read_bytes(), type=Hordes)
        except FileNotFoundError:
            return Hordes()
        except OSError as error:
            raise HomeError(f"{path}: cannot be read: {error.strerror}") from error
        except msgspec.DecodeError as error:
            raise HomeError(f"{path}: not a list of hordes ({error}): move it away and join again") from error

    def join(self, link: Link, name: str = "", *, default: bool = False) -> str:
        """Keep a link under `name` (else the horde's own); the name that it got. A link to a horde that was joined
        before replaces the older one. The first horde, or one joined with `default`, is meant when none is named."""
        hordes = self.hordes()
        links = dict(hordes.links)
        name = name or _name_of(links, link) or _free_name(links, link.name)
        links[name] = str(link)
        meant = name if default or not hordes.default else hordes.default
        content = msgspec.json.format(msgspec.json.encode(Hordes(meant, links)), indent=2) + b"\n"
        write_file(self.folder / "hordes.json", content)
        return name

    def links(self) -> list[Link]:
        """The links of all hordes that were joined, as far as they can be read."""
        found = []
        for text in self.hordes().links.values():
            with contextlib.suppress(ValueError, Refusal):
                found.append(parse_link(text))
        return found

    def link(self, name: str = "") -> Link:
        """The link of the horde `name`, or of the default one; raises `UnknownHorde`."""
        hordes = self.hordes()
        if not hordes.links:
            raise UnknownHorde("no horde was joined yet: `potluck join LINK`, with the link that its operator gave out")
        chosen = name or hordes.default
        if chosen not in hordes.links:
            known = ", ".join(sorted(hordes.links))
            raise UnknownHorde(f"no horde {chosen!r} was joined; joined are: {known}")
        try:
            return parse_link(hordes.links[chosen])
        except (ValueError, Refusal) as error:
            raise HomeError(f"{self.folder / 'hordes.json'}: {chosen}: {error}") from error

    def rules(self, root: bytes) -> Envelope | None:
        """The rules last seen of this horde; None if there are none that can be used."""
        try:
            envelope = parse_document(self._rules_file(root).read_bytes(), RulesDocument)
            check_document_context(envelope, root)
            envelope.verify()
        except (OSError, Refusal):
            return None  # they are a copy, and the tracker sends them again
        return envelope

    def keep_rules(self, root: bytes, envelope: Envelope) -> None:
        """Keep the rules that this horde just sent."""
        write_file(self._rules_file(root), envelope.raw)

    def delegation(self, root: bytes) -> int:
        """The highest version of the root's delegation that this horde's tracker has shown, 0 if none was seen."""
        try:
            return int(self._delegation_file(root).read_text("ascii"))
        except (OSError, ValueError):
            return 0

    def keep_delegation(self, root: bytes, version: int) -> None:
        """Remember the version of a delegation; a lower one is refused from now on."""
        if version > self.delegation(root):
            write_file(self._delegation_file(root), str(version).encode())

    def unanswered_transfer(self, root: bytes) -> Path:
        """Where a transfer is kept until this horde has answered it."""
        return self.folder / "transfers" / show_key(root)

    def votes_folder(self, root: bytes) -> Path:
        """Where our votes in this horde are kept, so that an audit can look whether they were counted."""
        return self.folder / "votes" / show_key(root)

    def _delegation_file(self, root: bytes) -> Path:
        return self.folder / "rules" / f"{show_key(root)}.delegation"

    def _rules_file(self, root: bytes) -> Path:
        return self.folder / "rules" / show_key(root)

    @contextlib.contextmanager
    def worker_lock(self) -> Iterator[None]:
        """Hold the worker's part of this folder; raises `HomeBusy` if another program does. Ends with the process."""
        self.worker_folder.mkdir(parents=True, exist_ok=True)
        with contextlib.ExitStack() as stack:
            file = stack.enter_context((self.worker_folder / "lock").open("ab"))
            if not _lock(file.fileno()):
                raise HomeBusy(
                    f"{self.folder}: a worker runs here already; end it, or give this one a folder of its own (--home)"
                )
            yield


def write_file(path: Path, content: bytes, *, synced: bool = True) -> None:
    """Write or replace a file that only its owner may read: whoever reads it finds the old or the new content, whole,
    also after a loss of power if it is synced."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # mkstemp makes files of mode 0600.
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=".new-")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            if synced:
                file.flush()
                os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _name_of(links: dict[str, str], link: Link) -> str:
    """The name under which this horde was joined before, or nothing."""
    for name, text in links.items():
        with contextlib.suppress(ValueError, Refusal):
            if parse_link(text).root == link.root:
                return name
    return ""


def _free_name(links: dict[str, str], wanted: str) -> str:
    plain = re.sub(r"[^\w.-]+", "-", wanted.strip().lower()).strip("-") or DEFAULT_NAME
    name, number = plain, 2
    while name in links:
        name, number = f"{plain}-{number}", number + 1
    return name


if sys.platform == "win32":
    import msvcrt

    def _lock(descriptor: int) -> bool:
        os.lseek(descriptor, 0, os.SEEK_SET)
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

else:
    import fcntl

    def _lock(descriptor: int) -> bool:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        return True
