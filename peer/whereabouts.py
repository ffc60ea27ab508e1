"""Where a worker is found, and that the tracker knows it: its peer record, said anew whenever that has changed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from peer.connection import Connection
from peer.news import News
from peer.peer_record import Addresses, RecordKeeper
from protocol.documents import sign
from protocol.keys import SigningKey
from protocol.messages import Reached


class Whereabouts:
    """Of one worker. folder: where the version of its record is kept. tell: takes news."""

    def __init__(
        self,
        connection: Connection,
        key: SigningKey,
        folder: Path,
        addresses: Addresses,
        clock: Callable[[], int],
        tell: Callable[[News], None],
    ) -> None:
        self._connection = connection
        self._key = key
        self._keeper = RecordKeeper(folder / "record_version", clock)
        self._addresses = addresses
        self._tell = tell
        self._port = 0
        self._certificate = b""
        self._said: Sequence[str] | None = None

    def listens(self, port: int, certificate: bytes) -> None:
        """Where requesters come in, and what answers them there."""
        self._port, self._certificate = port, certificate

    def lost(self) -> None:
        """The tracker has to be told anew."""
        self._said = None

    async def say(self) -> Sequence[str]:
        """Hand over the record; the addresses in it."""
        addresses = self._addresses.known(self._port, self._connection.local_host)
        record = self._keeper.record(self._certificate, addresses)
        await self._connection.send_document(sign(record, self._key, self._connection.root))
        self._said = addresses
        return addresses

    async def tested(self, message: Reached) -> None:
        """The tracker has tried to reach us."""
        self._addresses.tested(message.address, self._connection.local_host, reachable=message.reachable)
        if message.reachable:
            self._tell(News("reached", message.address))
        else:
            why = message.text or message.reason
            self._tell(News("unreachable", f"{why}; requesters are met half-way, or at a relay"))
        await self._say_if_changed()

    async def keep_mapped(self) -> None:
        """Have the router let requesters in, as long as we run."""
        # Here, for it needs the extra `nat`.
        from peer.paths.mapping import keep_mapped

        async def changed(address: str, text: str) -> None:
            self._addresses.mapped = address
            self._tell(News("mapped", text if address else f"nowhere: {text}"))
            await self._say_if_changed()

        await keep_mapped(self._port, changed)

    async def _say_if_changed(self) -> None:
        if self._said is not None and self._said != self._addresses.known(self._port, self._connection.local_host):
            await self.say()
