"""`potluck-tracker serve`: the tracker at work, until somebody ends it."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack, closing
from dataclasses import dataclass, field, replace
from pathlib import Path

from aiohttp import web

from protocol.catalogue import Catalogue
from protocol.envelope import Envelope, parse
from protocol.filter.wordlist import WordList
from protocol.keys import SigningKey, show_key
from protocol.links import Link
from protocol.rules import Rules
from tracker.catalogue import Listing, with_catalogue
from tracker.commands.exits import BAD_COMMAND_LINE, BAD_HORDE, CANNOT_LISTEN, INTERRUPTED, OK, CommandError
from tracker.commands.folder import (
    check_appointment,
    check_link,
    read_catalogue,
    read_certificate_of,
    read_config,
    read_delegation,
    read_lists,
    read_serving_key,
    take_lock,
)
from tracker.config import Config, Settings
from tracker.content_filter import ContentFilter
from tracker.coordinator import Coordinator
from tracker.porch import CannotListen
from tracker.reloading import Reloading
from tracker.store.base import StoreError
from tracker.store.sqlite import SqliteStore
from tracker.tls import BadCertificate, Certificate, read_certificate
from tracker.web import DESK, make_app, serving, show_certificate
from tracker.word_lists import naming

log = logging.getLogger(__name__)


def now_ms() -> int:
    """The time that all documents are dated by: milliseconds since 1970 (UTC)."""
    return time.time_ns() // 1_000_000


@dataclass
class End:
    """Whether the process is to end, and with which code."""

    event: asyncio.Event = field(default_factory=asyncio.Event)
    code: int = OK

    def ask(self, code: int, why: str) -> None:
        """End, unless that was asked for already."""
        if not self.event.is_set():
            log.info("ends: %s", why)
            self.code = code
            self.event.set()


@dataclass(frozen=True)
class Horde:
    """All that a folder says, checked."""

    config: Config
    key: SigningKey
    delegation: Envelope
    certificate: Certificate | None
    lists: Sequence[WordList]
    models: Catalogue

    @property
    def rules(self) -> Rules:
        """The rules to be published."""
        return with_catalogue(naming(self.config.rules, self.lists), self.models)


def serve(folder: Path, *, listen: str | None, until_stdin_closes: bool, announce: Callable[[Link], None]) -> int:
    """Serve the horde in `folder`; returns the exit code. `announce` is called once peers can come."""
    horde = _read(folder, listen)
    with closing(take_lock(folder)), asyncio.Runner(loop_factory=_loop_factory()) as runner:
        try:
            return runner.run(_serve(horde, until_stdin_closes=until_stdin_closes, announce=announce))
        except StoreError as error:
            raise CommandError(str(error), BAD_HORDE) from error
        except CannotListen as error:
            raise CommandError(str(error), CANNOT_LISTEN) from error


def _read(folder: Path, listen: str | None) -> Horde:
    config = read_config(folder)
    if listen is not None:
        try:
            config = replace(config, settings=config.settings.listening(listen))
        except ValueError as error:
            raise CommandError(f"--listen: {error}", BAD_COMMAND_LINE) from error
    check_link(config)
    key = read_serving_key(config.settings)
    delegation = read_delegation(config.settings)
    if fault := check_appointment(delegation, key, now_ms()):
        raise CommandError(f"{config.settings.serving_key}: {fault}", BAD_HORDE)
    certificate = read_certificate_of(config.settings)
    return Horde(config, key, delegation, certificate, read_lists(folder), read_catalogue(config))


async def _serve(horde: Horde, *, until_stdin_closes: bool, announce: Callable[[Link], None]) -> int:
    config, key = horde.config, horde.key
    end = End()
    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(SqliteStore.open(config.settings.database, key))
        root = parse(await store.delegation()).key
        if root != horde.delegation.key:
            text = f"belongs to horde {show_key(root)}, the delegation to {show_key(horde.delegation.key)}"
            raise CommandError(f"{config.settings.database}: {text}", BAD_HORDE)
        await store.publish_rules(horde.rules, now_ms())
        coordinator = await stack.enter_async_context(
            Coordinator.start(
                store,
                root=root,
                key=key,
                delegation=horde.delegation.raw,
                clock=now_ms,
                chance=random.Random(),  # noqa: S311 (draws among workers; nothing secret hangs on it)
                content_filter=ContentFilter(horde.lists),
                listing=Listing(horde.models),
            )
        )
        app = make_app(coordinator, config.settings, horde.certificate)
        link = await stack.enter_async_context(serving(app))
        _spare_the_collector()

        reloading = Reloading(config.path, coordinator, horde.lists)

        def reload() -> None:
            _reload_certificate(config.settings, app)
            reloading.begin()

        _listen_to_signals(end, reload)
        if until_stdin_closes:
            _watch_stdin(end)
        log.info("serving", extra={"event": "serving", "url": link.url, "link": str(link)})
        announce(link)
        async with asyncio.TaskGroup() as group:
            loops = group.create_task(coordinator.run(), name="coordinator")
            await end.event.wait()
            loops.cancel()
        # While the sockets are still there, so that peers hear of it.
        await coordinator.stop()
    log.info("ended")
    return end.code


def _spare_the_collector() -> None:
    """What is here by now stays: modules, and the jobs that were taken up. The search for dead cycles leaves it out,
    and comes less often than after every 700 objects, of which a job makes more."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 20)


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """The one of uvloop where there is one: it takes half of asyncio's time for a message."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


def _listen_to_signals(end: End, reload: Callable[[], None]) -> None:
    """SIGINT and SIGTERM end the process cleanly, SIGHUP reads the rules again, where the system has them."""
    actions: dict[str, Callable[[], None]] = {
        "SIGINT": lambda: end.ask(INTERRUPTED, "interrupted"),
        "SIGTERM": lambda: end.ask(OK, "terminated"),
        "SIGBREAK": lambda: end.ask(OK, "terminated"),
        "SIGHUP": reload,
    }
    loop = asyncio.get_running_loop()
    for name, action in actions.items():
        number = getattr(signal, name, None)
        if number is None:
            continue
        try:
            loop.add_signal_handler(number, action)
        except NotImplementedError:  # Windows: the handler runs in the main thread, between two steps of the loop
            signal.signal(number, lambda *_, action=action: loop.call_soon_threadsafe(action))


def _watch_stdin(end: End) -> None:
    """End when standard input does: whoever started this process with a pipe has gone."""
    loop = asyncio.get_running_loop()

    def wait() -> None:
        # Not through sys.stdin: its lock, held by a thread that waits, would break the interpreter's end.
        while os.read(sys.stdin.fileno(), 4096):
            pass
        if not loop.is_closed():
            loop.call_soon_threadsafe(end.ask, OK, "standard input was closed")

    threading.Thread(target=wait, name="stdin", daemon=True).start()


def _reload_certificate(settings: Settings, app: web.Application) -> None:
    """Read the certificate files again and show them to whoever comes; files that cannot be used change nothing."""
    if settings.certificate is None:
        return
    try:
        certificate = read_certificate(settings.certificate, settings.private_key)
    except BadCertificate as error:
        log.error("%s", error)  # noqa: TRY400 (the text says it all)
        log.error("the certificate stays as it is")  # noqa: TRY400
        return
    before, after = app[DESK].link, show_certificate(app, certificate)
    if before.certificate != after.certificate:
        log.warning(
            "another certificate without an authority is shown: earlier links lead nowhere",
            extra={"event": "certificate", "link": str(after)},
        )
    else:
        log.info("the certificate was read again", extra={"event": "certificate", "link": str(after)})
