"""The worker's side of paths: who cannot connect to it is met half-way, and let in at the same door as all others."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable, Coroutine
from typing import Any

from peer.gate import household_of
from peer.paths.punch import NoMeeting, Punching, meeting_of
from peer.paths.race import Said
from peer.paths.relay_end import NotRelayed, RelayEnds, Tracker, check_ticket
from protocol.errors import Refusal
from protocol.keys import SigningKey
from protocol.messages import Meet, Paths, Punch

#: Meetings and relays that are waited for at once; a worker makes only so many jobs.
MAX_AT_ONCE = 128

log = logging.getLogger(__name__)


class Approaches:
    """What one worker does about requesters that cannot connect to it.

    take: lets in a connection, for a household. expects: whether there is such an attempt here. serving, now: the
    tracker's key and clock.
    """

    def __init__(
        self,
        key: SigningKey,
        root: bytes,
        tracker: Tracker,
        relays: RelayEnds,
        take: Callable[[socket.socket, str], bool],
        *,
        expects: Callable[[bytes, int], bool],
        serving: Callable[[], bytes | None],
        now: Callable[[], int],
        max_at_once: int = MAX_AT_ONCE,
    ) -> None:
        self._key = key
        self._root = root
        self._tracker = tracker
        self._relays = relays
        self._take = take
        self._expects = expects
        self._serving = serving
        self._now = now
        self._max_at_once = max_at_once
        self._tasks: set[asyncio.Task[None]] = set()
        self._punching: dict[tuple[bytes, int], Punching] = {}

    async def __aenter__(self) -> Approaches:
        return self

    async def __aexit__(self, *_: object) -> None:
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def told(self, message: Said) -> None:
        """The tracker brings somebody here."""
        attempt = message.job, message.attempt
        if isinstance(message, Punch):
            if (punching := self._punching.get(attempt)) is not None:
                punching.told(message)
        elif not self._expects(*attempt):
            log.info(
                "the tracker brings somebody for attempt %s of %s, which is not here", attempt[1], attempt[0].hex()
            )
        elif isinstance(message, Meet):
            self._spawn(self._meet(message))
        else:
            for raw in message.tickets:
                self._spawn(self._join(raw, message))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        if len(self._tasks) >= self._max_at_once:
            work.close()
            log.warning("%d requesters are waited for already: this one is not", len(self._tasks))
            return
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _meet(self, message: Meet) -> None:
        attempt, tracker = (message.job, message.attempt), self._tracker
        punching = Punching(meeting_of(message, tracker.url, tracker.tls, private_too=tracker.private_too))
        self._punching[attempt] = punching
        try:
            connection, address = await punching.connect()
        except NoMeeting as error:
            log.info("a requester was not met: %s", error)
        else:
            self._take(connection, household_of(address.host))
        finally:
            if self._punching.get(attempt) is punching:
                del self._punching[attempt]

    async def _join(self, raw: bytes, message: Paths) -> None:
        attempt = message.job, message.attempt
        try:
            ticket = check_ticket(
                raw,
                root=self._root,
                serving=self._serving(),
                me=self._key.public,
                attempt=attempt,
                now=self._now(),
            )
            connection = await self._relays.join(ticket, self._key, self._root)
        except Refusal as error:
            log.warning("a relay ticket that cannot be used: %s", error.text)
        except NotRelayed as error:
            log.info("a requester did not come to the relay: %s", error)
        else:
            # Whoever it is, its place is that of this one job.
            self._take(connection, f"relayed {message.job.hex()}")
