"""Rules, word lists and catalogue, read again while the tracker is at work."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from pathlib import Path

from protocol.catalogue import Catalogue
from protocol.changes import changes, told
from protocol.filter.wordlist import WordList
from protocol.rules import Rules
from tracker.catalogue import catalogue_of, with_catalogue
from tracker.config import ConfigError, load
from tracker.coordinator import Coordinator
from tracker.store.base import StoreError
from tracker.word_lists import lists_of, naming

log = logging.getLogger(__name__)


class Reloading:
    """What stands in the horde's folder, put in force one reading after the other. path: of `horde.toml`. lists: in
    force."""

    def __init__(self, path: Path, coordinator: Coordinator, lists: Sequence[WordList]) -> None:
        self._path = path
        self._coordinator = coordinator
        self._lists = lists
        self._turn = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()

    def begin(self) -> None:
        """Read the files now, and publish them in a moment; a file with errors changes nothing."""
        try:
            config = load(self._path)
            lists = lists_of(self._path.parent)
            models = catalogue_of(self._path.parent, config.rules)
        except ConfigError as error:
            _stay(*error.faults)
            return
        task = asyncio.get_running_loop().create_task(self._publish(config.rules, lists, models))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def finish(self) -> None:
        """Wait until all that was read is published."""
        await asyncio.gather(*self._tasks)

    async def _publish(self, rules: Rules, lists: Sequence[WordList], models: Catalogue) -> None:
        coordinator = self._coordinator
        async with self._turn:
            before = coordinator.rules
            catalogue = coordinator.listing.catalogue
            # Before anybody hears of rules that name them.
            coordinator.content_filter.use(lists)
            coordinator.listing.use(models)
            try:
                after = await coordinator.publish(with_catalogue(naming(rules, lists), models))
            except StoreError as error:
                coordinator.content_filter.use(self._lists)
                coordinator.listing.use(catalogue)
                _stay(str(error))
                return
            self._lists = lists
        about: dict[str, object] = {"version": after.version}
        if after.version != before.version:
            about["changes"] = told(changes(before.rules, after.rules))
        log.info("new rules are in force" if "changes" in about else "the rules have not changed", extra=about)


def _stay(*why: str) -> None:
    for text in why:
        log.error("%s", text)
    log.error("the rules stay as they are")
