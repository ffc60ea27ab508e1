"""Who is connected, in which part: how a word reaches a worker, or whoever follows a request."""

from __future__ import annotations

from collections import Counter
from typing import Protocol

from protocol.documents import PeerRecord, open_document
from protocol.envelope import Envelope
from protocol.errors import Equivocation, OutOfTurn
from protocol.messages import SessionMessage


class Listener(Protocol):
    """A connection that something can be said to."""

    def tell(self, *messages: SessionMessage) -> None:
        """Say something."""

    def hand(self, *envelopes: bytes) -> None:
        """Give documents."""

    def unfollow(self, request: bytes) -> None:
        """A request that this connection follows has ended."""


class Presence:
    """Workers by key and requesters by request, each with the connection that speaks for it."""

    def __init__(self) -> None:
        self._workers: dict[bytes, Listener] = {}
        self._requesters: dict[bytes, Listener] = {}
        self._records: dict[bytes, Envelope] = {}
        self._showing: Counter[bytes] = Counter()  # connections that have shown a record

    def worker(self, key: bytes) -> Listener | None:
        """The connection of a worker."""
        return self._workers.get(key)

    def requester(self, request: bytes) -> Listener | None:
        """The connection that follows a request."""
        return self._requesters.get(request)

    def is_followed(self, request: bytes) -> bool:
        """Whether the requester is there."""
        return request in self._requesters

    def set_worker(self, key: bytes, listener: Listener) -> None:
        """From now on this connection speaks for the worker."""
        self._workers[key] = listener

    def set_requester(self, request: bytes, listener: Listener) -> None:
        """From now on this connection follows the request."""
        self._requesters[request] = listener

    def drop_worker(self, key: bytes, listener: Listener) -> bool:
        """This connection speaks for the worker no more; False if another one does."""
        if self._workers.get(key) is not listener:
            return False
        del self._workers[key]
        return True

    def drop_requester(self, request: bytes, listener: Listener) -> bool:
        """This connection follows the request no more; False if another one does."""
        if self._requesters.get(request) is not listener:
            return False
        del self._requesters[request]
        return True

    def forget_request(self, request: bytes) -> None:
        """A request has ended."""
        listener = self._requesters.pop(request, None)
        if listener is not None:
            listener.unfollow(request)

    def keep_record(self, envelope: Envelope, record: PeerRecord) -> bool:
        """Where a worker is reached; False if that is known. Raises `OutOfTurn` for a version lower than the last one,
        `Equivocation` for a different record of the same version."""
        known = self._records.get(envelope.key)
        if known is not None:
            version = open_document(known, PeerRecord).version
            if version > record.version:
                raise OutOfTurn("a peer record of a lower version than the last one: raise its version")
            if version == record.version and known.digest != envelope.digest:
                raise Equivocation("a different peer record of the same version: raise its version with every change")
        self._records[envelope.key] = envelope
        return known is None or known.digest != envelope.digest

    def shows_record(self, key: bytes) -> None:
        """A connection of this worker has shown its first record."""
        self._showing[key] += 1

    def is_shown(self, key: bytes) -> bool:
        """Whether a worker that is connected now has shown its record; one that is kept may be out of date."""
        return key in self._showing

    def showed_record(self, key: bytes, *, needed: bool) -> None:
        """Such a connection is gone. Unless somebody needs the record, it is forgotten with the last of them."""
        self._showing[key] -= 1
        if not self._showing[key]:
            del self._showing[key]
            if not needed:
                self._records.pop(key, None)

    def hand_lease(self, listener: Listener, worker: bytes, lease: bytes) -> None:
        """To a requester: where its worker is reached, and the lease."""
        record = self._records.get(worker)
        if record is not None:
            listener.hand(record.raw)
        listener.hand(lease)

    def tell_worker(self, key: bytes, message: SessionMessage) -> None:
        """Say something to a worker, if it is there."""
        if (listener := self._workers.get(key)) is not None:
            listener.tell(message)

    def hand_worker(self, key: bytes, document: bytes) -> None:
        """Give a worker a document, if it is there."""
        if (listener := self._workers.get(key)) is not None:
            listener.hand(document)

    def tell_requester(self, request: bytes, message: SessionMessage) -> None:
        """Say something to whoever follows a request."""
        if (listener := self._requesters.get(request)) is not None:
            listener.tell(message)
