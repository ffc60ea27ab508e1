"""The prompt filter at a peer: the same lists as the tracker's, over what is asked for and the text already shown.

A continuation goes from requester to worker, past the tracker, so that the worker has to look for itself. The rules
name the lists by their digests; those that do not ship with Potluck are fetched from the tracker, once.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Sequence, Set
from pathlib import Path

from peer.events import Unreachable
from peer.news import News
from peer.scrape import fetch_bytes
from protocol.filter.doors import words_of
from protocol.filter.rewording import Reworded, reworded
from protocol.filter.verdict import Filter
from protocol.filter.wordlist import MAX_BYTES, BadWordList, WordList, parse, shipped
from protocol.links import Link
from protocol.rules import Rules
from protocol.work import PrivatePart

#: Between two looks whether the rules name lists that are not here.
LOOK_SECONDS = 5.0
#: After a fetch that failed.
RETRY_SECONDS = 60.0


class Content:
    """The lists that are here. folder: where those that were fetched are kept.

    Those that ship with Potluck are in force whatever the rules say; until all others are here too, a worker looks with
    what it has, and says so: the tracker has looked at the private part with all of them.
    """

    def __init__(self, link: Link, folder: Path, tell: Callable[[News], None]) -> None:
        self._link = link
        self._folder = folder
        self._tell = tell
        self._fetched: dict[str, WordList] = {}
        self._filter = Filter(shipped())

    def refuses(self, private: PrivatePart, prefix: str, rules: Rules | None) -> str:
        """The category for which this may not be made; nothing if it may."""
        by_topic = rules.filter.treatments() if rules is not None else {}
        return self._filter.judge(words_of(private, prefix), by_topic).refused

    def reworded(self, texts: Sequence[str], rules: Rules) -> Reworded | None:
        """What to ask instead where this horde wants words dropped; None where that does not help."""
        return reworded(texts, self._filter, rules.filter.treatments())

    async def keep(self, rules: Callable[[], Rules | None]) -> None:
        """Fetch what the rules name, whenever they change. Until cancelled."""
        while True:
            now = rules()
            is_whole = now is None or await self.bring(now)
            await asyncio.sleep(LOOK_SECONDS if is_whole else RETRY_SECONDS)

    async def bring(self, rules: Rules) -> bool:
        """Get every list that the rules name and use just these; whether all of them are here."""
        known = {one.digest.hex(): one for one in shipped()} | self._fetched
        named = {digest: name for name, digest in rules.filter.lists.items()}
        missing = named.keys() - known.keys()
        for digest in sorted(missing):
            try:
                known[digest] = self._fetched[digest] = await self._get(digest, named[digest])
            except (Unreachable, BadWordList, OSError) as error:
                self._tell(News("filter", f"the word list {named[digest]!r} is not here yet: {error}"))
        await asyncio.to_thread(_forget, self._folder, named.keys())
        self._fetched = {digest: one for digest, one in self._fetched.items() if digest in named}
        own = [known[digest] for digest in sorted(named) if digest in known and known[digest] not in shipped()]
        if {one.digest for one in own} | {one.digest for one in shipped()} != self._filter.digests:
            self._filter = await asyncio.to_thread(Filter, [*shipped(), *own])
        return named.keys() <= known.keys()

    async def _get(self, digest: str, name: str) -> WordList:
        """A list from the folder, else from the tracker; what has another digest is neither."""
        file = self._folder / f"{digest}.txt"
        raw = await asyncio.to_thread(_read, file)
        if hashlib.sha256(raw).hexdigest() != digest:
            raw = await fetch_bytes(self._link, f"filter/{digest}", MAX_BYTES + 1)
            if hashlib.sha256(raw).hexdigest() != digest:
                raise BadWordList(f"{name}: the tracker answers with another list than its rules name")
            await asyncio.to_thread(_write, file, raw)
        return parse(raw, name)


def _read(file: Path) -> bytes:
    return file.read_bytes() if file.is_file() else b""


def _forget(folder: Path, named: Set[str]) -> None:
    """Remove lists that the rules do not name: they would become more with every version of them."""
    for file in folder.glob("*.txt"):
        if file.stem not in named:
            file.unlink(missing_ok=True)


def _write(file: Path, raw: bytes) -> None:
    """Whole, or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_suffix(".part")
    part.write_bytes(raw)
    part.replace(file)
