"""Which of its models a worker may offer: those that the horde's catalogue allows, with the files that it names.

The rules name the catalogue by its digest. A model that is in it is offered when every file that could be loaded has
the SHA-256 that stands there; what is not in it is offered where the rules allow that.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

import msgspec

from peer.engines.spec import EngineSpec
from peer.events import Unreachable
from peer.home import write_file
from peer.news import News
from peer.scrape import fetch_bytes
from protocol.catalogue import (
    MAX_BYTES,
    NOTHING,
    BadCatalogue,
    Catalogue,
    differing,
    files_at,
    read,
    sha256_of,
    why_not,
)
from protocol.links import Link
from protocol.messages import Offer
from protocol.rules import CatalogueSection, Rules

#: Between two looks whether the rules have changed, and after a fetch that failed.
LOOK_SECONDS = 5.0
RETRY_SECONDS = 60.0
#: After so many looks the files are looked at again: an engine that begins anew loads what lies there then.
LOOKS = 12
#: Digests that are remembered.
KEPT = 10_000


class Digests:
    """SHA-256 of files, computed once while size and time of change stay the same. file: where that is kept."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._known: dict[str, tuple[int, int, str]] | None = None

    def of(self, paths: Mapping[str, Path]) -> dict[str, str]:
        """Of each of these files; raises `OSError`."""
        known = self._load()
        before = dict(known)
        found = {name: self._one(known, path.resolve()) for name, path in paths.items()}
        if known != before:
            newest = dict(list(known.items())[-KEPT:])
            write_file(self._file, msgspec.json.encode(newest))
        return found

    def _load(self) -> dict[str, tuple[int, int, str]]:
        if self._known is None:
            try:
                self._known = msgspec.json.decode(self._file.read_bytes(), type=dict[str, tuple[int, int, str]])
            except (OSError, msgspec.DecodeError):
                self._known = {}  # they are computed again
        return self._known

    def _one(self, known: dict[str, tuple[int, int, str]], path: Path) -> str:
        is_now = path.stat()
        size, changed, digest = known.get(str(path), (0, 0, ""))
        if not digest or (size, changed) != (is_now.st_size, is_now.st_mtime_ns):
            digest = sha256_of(path)
            known[str(path)] = (is_now.st_size, is_now.st_mtime_ns, digest)
        return digest


def place_of(spec: EngineSpec) -> Path | None:
    """Where the files of a model that is loaded lie; None if its engine does not say. Raises `OSError`."""
    if path := spec.options.get("path"):
        return Path(str(path))
    if hub := spec.options.get("hub"):
        from huggingface_hub import snapshot_download

        revision = str(spec.options.get("revision", "")) or None
        try:
            return Path(snapshot_download(str(hub), revision=revision, local_files_only=True))
        except ValueError as error:  # of what the library says of a snapshot that is not here
            raise FileNotFoundError(str(error)) from error
    return None


@dataclass
class _Judged:
    """What was found under one catalogue section: why a model may not be offered, by kind and name; empty if it may.
    catalogue: the one that the section names."""

    under: CatalogueSection
    catalogue: Catalogue
    why: dict[tuple[str, str], str] = field(default_factory=dict)


def _name(offer: Offer) -> tuple[str, str]:
    return offer.kind, offer.model


def _binds(under: CatalogueSection) -> bool:
    return bool(under.digest or under.listed_only or under.open_only)


class Models:
    """The models of one worker. specs: of its engines, as far as they have any; folder: its own."""

    def __init__(self, link: Link, folder: Path, specs: Iterable[EngineSpec], tell: Callable[[News], None]) -> None:
        self._link = link
        self._specs = {spec.model: spec for spec in specs}
        self._tell = tell
        self._digests = Digests(folder / "digests.json")
        self._judged: _Judged | None = None
        self._wanted = asyncio.Event()

    def may(self, offer: Offer, rules: Rules | None) -> bool:
        """Whether a model may be offered, as far as is known by now; what is still to be looked at may not."""
        if rules is None or not _binds(rules.catalogue):
            return True
        if not self._is_judged(rules.catalogue, (offer,)):
            self._wanted.set()
            return False
        return self._judged is None or not self._judged.why[_name(offer)]

    async def keep(
        self,
        rules: Callable[[], Rules | None],
        offers: Callable[[], Iterable[Offer]],
        changed: Callable[[], object],
    ) -> None:
        """Look at the models whenever the rules want it, and again now and then; call `changed` when something came of
        it. Until cancelled."""
        for look in count(1):
            now, offered = rules(), tuple(offers())
            is_done = now is None or self._is_judged(now.catalogue, offered)
            is_again = is_done and look % LOOKS == 0 and self._judged is not None
            if now is not None and (is_again or not is_done):
                before = self._judged.why if self._judged is not None else {}
                is_done = await self.judge(now.catalogue, offered, again=is_again)
                if is_done and not (is_again and self._judged is not None and self._judged.why == before):
                    changed()
            try:
                async with asyncio.timeout(LOOK_SECONDS if is_done else RETRY_SECONDS):
                    await self._wanted.wait()
            except TimeoutError:
                pass
            self._wanted.clear()

    def _is_judged(self, under: CatalogueSection, offers: Iterable[Offer]) -> bool:
        """Whether there is nothing to look at: it was done, or nothing ever had to be. What an engine serves can change
        while the rules do not."""
        if self._judged is None or self._judged.under != under:
            return self._judged is None and not _binds(under)
        return not _binds(under) or all(_name(offer) in self._judged.why for offer in offers)

    async def judge(self, under: CatalogueSection, offers: Iterable[Offer], *, again: bool = False) -> bool:
        """Look at every model that is offered; whether that could be done. again: also at those that were looked at
        under these rules."""
        known = self._judged if self._judged is not None and self._judged.under == under else None
        try:
            catalogue = known.catalogue if known else await self._get(under.digest) if under.digest else NOTHING
        except (Unreachable, BadCatalogue) as error:
            self._tell(News("models", f"nothing is offered yet, since the catalogue is not here: {error}"))
            return False
        before = known.why if known else {}
        judged = _Judged(under, catalogue, {} if again else dict(before))
        for offer in offers:
            if _name(offer) in judged.why:
                continue
            why = await asyncio.to_thread(self._why_not, offer, catalogue, under)
            judged.why[_name(offer)] = why
            if why and why != before.get(_name(offer)):
                self._tell(News("models", f"{offer.model!r} is not offered: {why}"))
        self._judged = judged
        return True

    def _why_not(self, offer: Offer, catalogue: Catalogue, under: CatalogueSection) -> str:
        if why := why_not(offer.model, offer.kind, catalogue, under):
            return why
        model = catalogue.models.get(offer.model)
        if model is None or not model.files:
            return ""
        spec = self._specs.get(offer.model)
        try:
            place = place_of(spec) if spec is not None else None
            if place is None:
                return "the catalogue names its files, and this engine does not say which it loads"
            return differing(model, self._digests.of(files_at(place)))
        except OSError as error:
            return f"its files cannot be read: {error}"

    async def _get(self, digest: str) -> Catalogue:
        return read(await fetch_bytes(self._link, f"models/{digest}", MAX_BYTES + 1), digest)
