"""Where a ledger is read: from its tracker over HTTP, or from the folder that an operator exported."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import msgspec

from peer.audit.votes import Counted, Row, Rows
from peer.events import Refused, Unreachable
from peer.scrape import http_url
from protocol import codec, merkle
from protocol.documents import RulesDocument
from protocol.errors import Refusal
from protocol.public import (
    BALANCES_FOLDER,
    ENTRIES_FOLDER,
    HEAD_FILE,
    MAX_BALANCES_BYTES,
    MAX_HEAD_BYTES,
    MAX_OPENED_BYTES,
    MAX_PART_BYTES,
    MAX_PROOF_BYTES,
    MAX_PROPOSALS_BYTES,
    MAX_PROPOSALS_FILE,
    MAX_SERVICES,
    MAX_SERVICES_BYTES,
    MAX_SERVICES_FILE,
    PROPOSALS_FILE,
    RULES_FOLDER,
    SERVICES_FILE,
    AskDisclosure,
    Balances,
    Consistency,
    Head,
    Inclusion,
    Opened,
    Part,
    Service,
    Services,
    part_name,
    part_of,
)

if TYPE_CHECKING:
    import aiohttp

    from protocol.links import Link

TIMEOUT_SECONDS = 60
#: A tracker with too many readers is asked again, so often in all.
BUSY_STATUS = 503
BUSY_TRIES = 8
#: From here on an answer is about the tracker, and not about what was asked for.
FAULT_STATUS = 500
#: Parts of the list of proposals that are read.
MAX_PROPOSAL_PARTS = 100

Pause = Callable[[float], Awaitable[None]]

T = TypeVar("T")


class BadSource(Exception):
    """What is there is no ledger that can be read; the text says what was wanted."""


class Source(Protocol):
    """A public ledger. All methods raise `Unreachable`, `Refused` or `BadSource`."""

    #: Whether proofs lead to the newest checkpoint, and not to the last one whose entries can be read.
    is_live: bool
    name: str

    async def head(self) -> Head:
        """Where it stands."""

    async def part(self, first: int, epoch: int) -> Part:
        """Entries from one number on."""

    async def rules(self, version: int) -> bytes:
        """A version of the rules, as signed."""

    async def proposals(self) -> Sequence[Row]:
        """What was proposed, the newest first, with outcomes and answers as signed; nothing of it is checked."""

    async def counted(self, vote: bytes) -> Counted:
        """Where a vote stands among those that were counted; a proof that has not been checked."""

    async def services(self) -> Sequence[Service]:
        """Which accounts are services, at the tracker's word."""

    async def balances(self, size: int) -> Balances:
        """What an audit goes on from where an archive ends; nothing of it has been checked."""

    async def inclusion(self, entry: int, size: int) -> Inclusion:
        """A proof that has not been checked."""

    async def consistency(self, earlier: int, later: int) -> Consistency:
        """A proof that has not been checked."""


class FromTracker:
    """A tracker that answers HTTP."""

    is_live = True

    def __init__(self, session: aiohttp.ClientSession, link: Link, pause: Pause = asyncio.sleep) -> None:
        from peer.connection import BACKOFF
        from peer.tracker_tls import tls_of

        self._pause = pause
        self._backoff = BACKOFF
        self._random = random.SystemRandom()
        self.name = http_url(link)
        self._session = session
        self._link = link
        self._tls = tls_of(link)

    @classmethod
    @asynccontextmanager
    async def open(cls, link: Link, pause: Pause = asyncio.sleep) -> AsyncIterator[FromTracker]:
        """The tracker behind this link, until the block ends. pause: how it is waited before asking again."""
        import aiohttp

        timeout = aiohttp.ClientTimeout(total=TIMEOUT_SECONDS)
        async with aiohttp.ClientSession(timeout=timeout, cookie_jar=aiohttp.DummyCookieJar()) as session:
            yield cls(session, link, pause)

    async def head(self) -> Head:
        """See `Source`."""
        return self._json(await self._get("/ledger", MAX_HEAD_BYTES), Head)

    async def part(self, first: int, epoch: int) -> Part:
        """See `Source`."""
        raw = await self._get(f"/ledger/entries?from={first}&epoch={epoch}", MAX_PART_BYTES)
        return self._body(raw, Part)

    async def rules(self, version: int) -> bytes:
        """See `Source`."""
        return await self._get(f"/ledger/rules?version={version}", RulesDocument.MAX_BYTES)

    async def proposals(self) -> Sequence[Row]:
        """See `Source`."""
        found: list[Row] = []
        before = ""
        for _ in range(MAX_PROPOSAL_PARTS):
            part = self._json(await self._get(f"/proposals{before}", MAX_PROPOSALS_BYTES), Rows)
            found += part.proposals
            if not part.before or not part.proposals:
                return found
            before = f"?before={part.before}"
        raise BadSource(f"{self.name}/proposals: shows more than {len(found)} proposals: is this a tracker's address?")

    async def counted(self, vote: bytes) -> Counted:
        """See `Source`."""
        return self._json(await self._get("/proposals/proof", MAX_PROOF_BYTES, vote), Counted)

    async def services(self) -> Sequence[Service]:
        """See `Source`; only the first, where there are too many to be listed."""
        found: list[Service] = []
        after: int | None = 0
        while after is not None and len(found) < MAX_SERVICES:
            part = self._json(await self._get(f"/ledger/services?after={after}", MAX_SERVICES_BYTES), Services)
            found += part.services
            after = part.after if part.services else None
        return found

    async def balances(self, size: int) -> Balances:
        """See `Source`."""
        return self._body(await self._get(f"/ledger/balances?size={size}", MAX_BALANCES_BYTES), Balances)

    async def inclusion(self, entry: int, size: int) -> Inclusion:
        """See `Source`."""
        return self._json(await self._get(f"/ledger/proof?entry={entry}&size={size}", MAX_PROOF_BYTES), Inclusion)

    async def consistency(self, earlier: int, later: int) -> Consistency:
        """See `Source`."""
        raw = await self._get(f"/ledger/consistency?from={earlier}&to={later}", MAX_PROOF_BYTES)
        return self._json(raw, Consistency)

    async def opened(self, asked: AskDisclosure) -> Opened:
        """What commitments hide, for a party of the job; raises as all others do."""
        return self._body(await self._get("/ledger/open", MAX_OPENED_BYTES, codec.encode(asked)), Opened)

    def _json(self, raw: bytes, of: type[T]) -> T:
        try:
            return msgspec.json.decode(raw, type=of)
        except msgspec.DecodeError as error:
            raise BadSource(f"{self.name} answers something else than a ledger ({error}): is it a tracker?") from error

    def _body(self, raw: bytes, of: type[T]) -> T:
        try:
            return codec.decode(raw, of)
        except Refusal as error:
            raise BadSource(f"{self.name} answers something else than a ledger ({error}): is it a tracker?") from error

    async def _get(self, path: str, limit: int, content: bytes | None = None) -> bytes:
        import aiohttp

        from peer.tracker_tls import other_certificate

        try:
            status, raw = await self._ask(path, limit, content)
            for failures in range(1, BUSY_TRIES):
                if status != BUSY_STATUS:
                    break
                await self._pause(self._backoff.delay(failures, self._random))
                status, raw = await self._ask(path, limit, content)
        except aiohttp.ServerFingerprintMismatch as error:
            raise Unreachable(other_certificate(self._link)) from error
        except (aiohttp.ClientError, OSError) as error:  # a time-out too
            raise Unreachable(f"no tracker answers at {self.name}: is it running, is the address right?") from error
        if status != 200:
            raise self._refused(status, raw)
        if len(raw) > limit:
            raise BadSource(f"{self.name}{path} answers more than {limit} bytes: is this a tracker's address?")
        return raw

    async def _ask(self, path: str, limit: int, content: bytes | None) -> tuple[int, bytes]:
        """Status and body, of which no more than one byte beyond the limit is read."""
        method = "GET" if content is None else "POST"
        async with self._session.request(
            method, self.name + path, data=content, allow_redirects=False, ssl=self._tls
        ) as answer:
            raw = bytearray()
            while len(raw) <= limit and (more := await answer.content.read(limit + 1 - len(raw))):
                raw += more
            return answer.status, bytes(raw)

    def _refused(self, status: int, raw: bytes) -> Exception:
        """What an answer without content means. A tracker that has no time, or a fault, has refused nothing."""
        try:
            said: Any = msgspec.json.decode(raw)
            code, text = str(said["code"])[:60], str(said["text"])[:2000]
        except (msgspec.DecodeError, TypeError, KeyError):
            return Unreachable(f"{self.name} answers with HTTP status {status}: is this the address of a tracker?")
        return Refused(code, text) if status < FAULT_STATUS else Unreachable(f"{self.name} answers {code}: {text}")


class FromFolder:
    """The files that `potluck-tracker export` wrote."""

    is_live = False

    def __init__(self, folder: Path) -> None:
        self.name = str(folder)
        self._folder = folder
        self._hashes: list[bytes] = []

    async def head(self) -> Head:
        """See `Source`."""
        raw = self._read(HEAD_FILE, MAX_HEAD_BYTES)
        try:
            return msgspec.json.decode(raw, type=Head)
        except msgspec.DecodeError as error:
            raise BadSource(f"{self._folder / HEAD_FILE}: no head of a ledger ({error}): export it again") from error

    async def part(self, first: int, epoch: int) -> Part:
        """See `Source`."""
        return self._part(first)

    def _part(self, first: int) -> Part:
        name = f"{ENTRIES_FOLDER}/{part_name(first)}"
        try:
            return codec.decode(self._read(name, MAX_PART_BYTES), Part)
        except Refusal as error:
            raise BadSource(f"{self._folder / name}: no part of a ledger ({error}): export it again") from error

    async def rules(self, version: int) -> bytes:
        """See `Source`."""
        return self._read(f"{RULES_FOLDER}/{version}", RulesDocument.MAX_BYTES)

    async def proposals(self) -> Sequence[Row]:
        """See `Source`."""
        try:
            return msgspec.json.decode(self._read(PROPOSALS_FILE, MAX_PROPOSALS_FILE), type=Rows).proposals
        except msgspec.DecodeError as error:
            raise BadSource(f"{self._folder / PROPOSALS_FILE}: no proposals ({error}): export it again") from error

    async def counted(self, vote: bytes) -> Counted:
        """See `Source`: only the tracker can show it."""
        raise BadSource(f"{self._folder}: who voted how is in no export")

    async def services(self) -> Sequence[Service]:
        """See `Source`."""
        try:
            return msgspec.json.decode(self._read(SERVICES_FILE, MAX_SERVICES_FILE), type=Services).services
        except msgspec.DecodeError as error:
            raise BadSource(f"{self._folder / SERVICES_FILE}: no services ({error}): export it again") from error

    async def balances(self, size: int) -> Balances:
        """See `Source`."""
        name = f"{BALANCES_FOLDER}/{size}"
        try:
            return codec.decode(self._read(name, MAX_BALANCES_BYTES), Balances)
        except Refusal as error:
            raise BadSource(f"{self._folder / name}: no balances of a ledger ({error}): export it again") from error

    async def inclusion(self, entry: int, size: int) -> Inclusion:
        """See `Source`; computed from the leaves."""
        hashes = self._leaves(size)
        proof = tuple(node.hex() for node in merkle.inclusion_proof(hashes, entry))
        return Inclusion(entry=entry, size=size, leaf=hashes[entry].hex(), proof=proof)

    async def consistency(self, earlier: int, later: int) -> Consistency:
        """See `Source`; computed from the leaves."""
        hashes = self._leaves(later)
        proof = tuple(node.hex() for node in merkle.consistency_proof(hashes, earlier))
        root = merkle.root_of(hashes[:earlier]).hex()
        return Consistency(earlier=earlier, later=later, root=root, proof=proof)

    def _leaves(self, size: int) -> Sequence[bytes]:
        while len(self._hashes) < size:
            first = part_of(len(self._hashes))
            rows = self._part(first).rows[len(self._hashes) - first :]
            if not rows:
                raise BadSource(f"{self._folder}: holds {len(self._hashes)} entries of {size}: export it again")
            self._hashes += [merkle.leaf_hash(row.leaf) for row in rows]
        return self._hashes[:size]

    def _read(self, name: str, limit: int) -> bytes:
        path = self._folder / name
        try:
            with path.open("rb") as file:
                raw = file.read(limit + 1)
        except OSError as error:
            text = f"{path}: cannot be read ({error.strerror}): wanted a folder that potluck-tracker export has written"
            raise BadSource(text) from error
        if len(raw) > limit:
            raise BadSource(f"{path}: more than {limit} bytes: wanted a file that potluck-tracker export has written")
        return raw
