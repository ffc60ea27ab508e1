"""A peer that only relays: for others who cannot connect to each other, it passes on bytes that it cannot read."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from peer.certificate import Certificate, fresh_certificate
from peer.connection import BACKOFF, Backoff, CannotJoin, Connection
from peer.news import News
from peer.paths.look import be_seen
from peer.paths.relay_end import tracker_of
from peer.reach import reach_routes
from peer.relaying import OFFERING, Offering, Relaying
from peer.stream_server import StreamServer
from protocol.envelope import Envelope
from protocol.errors import BadInvite, NotAllowed, NotRegistered, refusal
from protocol.keys import SigningKey
from protocol.links import Link
from protocol.messages import Account, Held, Look, Reached, Refused, Register, SessionMessage, Welcome

#: Refusals that do not get better by trying again.
_LASTING = (NotRegistered.code, BadInvite.code, NotAllowed.code)


@dataclass(frozen=True)
class Settings:
    """Where it listens: an empty host means all addresses. offering: what it gives."""

    host: str = ""
    port: int = 0
    offering: Offering = OFFERING


class RelayPeer:
    """One relay of one horde. folder: its own; one program at a time uses it. registers: whether its key becomes an
    account where it has none."""

    def __init__(
        self,
        link: Link,
        key: SigningKey,
        folder: Path,
        *,
        clock: Callable[[], int],
        random: random.Random,
        settings: Settings,
        insecure: bool = False,
        rules: Envelope | None = None,
        delegation_seen: int = 0,
        backoff: Backoff = BACKOFF,
        on_news: Callable[[News], None] = lambda news: None,
        registers: bool = True,
    ) -> None:
        self.connection = Connection(
            link,
            key,
            self,
            clock=clock,
            random=random,
            insecure=insecure,
            rules=rules,
            delegation_seen=delegation_seen,
            backoff=backoff,
        )
        connection = self.connection
        self.relaying = Relaying(
            key.public,
            link.root,
            settings.offering,
            serving=lambda: connection.serving,
            now=connection.now,
        )
        self._key = key
        self._folder = folder
        self._settings = settings
        self._on_news = on_news
        self._registers = registers
        self._certificate: Certificate | None = None
        self._server: StreamServer | None = None
        self._tracker = tracker_of(link)
        self._group: asyncio.TaskGroup | None = None
        self._looking: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """Relay until cancelled. Raises `CannotJoin` if the tracker cannot be joined or wants no relays, `OSError` if
        the port or the folder cannot be used."""
        self._certificate = fresh_certificate(self._folder)
        routes = reach_routes(self._key, self.connection.root, self._certificate.digest)
        server = StreamServer(
            None,
            self._certificate.context,
            host=self._settings.host,
            port=self._settings.port,
            routes=[*routes, *self.relaying.routes()],
        )
        async with server as self._server:
            self._on_news(News("listening", f"port {server.port}"))
            try:
                async with asyncio.TaskGroup() as self._group:
                    self._group.create_task(self.connection.run())
                    self._group.create_task(self.relaying.report(self._on_news))
            except BaseExceptionGroup as errors:
                if len(errors.exceptions) == 1:
                    raise errors.exceptions[0] from None
                raise
            finally:
                self._on_news(self.relaying.news())

    # The connection's handler

    def holding(self) -> Sequence[Held]:
        """A relay holds nothing."""
        return ()

    async def welcomed(self, welcome: Welcome) -> None:
        """Nothing to say before the holding."""

    async def reconciled(self, theirs: Sequence[Held]) -> None:
        """Offer; register first where there is no account."""
        if self.connection.account:
            await self._offer()
        elif self._registers:
            await self.connection.say(Register())
        else:
            raise CannotJoin(
                NotRegistered("this key acts for no account here (any more): ask its owner for a delegation")
            )

    async def received(self, message: SessionMessage) -> None:
        """The account; whether the tracker reached us."""
        match message:
            case Account(number=number, notice=notice) if number:
                self._on_news(News("account", f"{number}. {notice}"))
                await self._offer()
            case Look() if self._group is not None and (self._looking is None or self._looking.done()):
                self._looking = self._group.create_task(be_seen(message, self._tracker))
            case Reached(reachable=True, address=address):
                self._on_news(News("reached", address))
            case Reached(reason=reason, text=text):
                self._on_news(News("unreachable", f"{text or reason}; nobody is sent here until that is better"))
            case Refused(code=code, text=text):
                self._on_news(News("refused", f"{code}: {text}"))
                if code in _LASTING:
                    raise CannotJoin(refusal(code, text))
            case _:
                pass

    async def received_document(self, envelope: Envelope) -> None:
        """Only the rules concern us."""
        if envelope.kind == "rules":
            self._on_news(News("rules", self.connection.rules_news))

    async def lost(self) -> None:
        """Who meets here already goes on."""
        self._on_news(News("lost"))

    async def _offer(self) -> None:
        assert self._certificate is not None  # noqa: S101 (made before the connection)
        assert self._server is not None  # noqa: S101
        await self.connection.say(self.relaying.offer(self._server.port, self._certificate.digest))
        self._on_news(News("relaying", f"account {self.connection.account}"))
