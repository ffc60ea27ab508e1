"""What goes on in the horde while something is killed: requests of every fate, by peers that nobody restarts."""

from __future__ import annotations

import asyncio
import secrets
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import aiohttp

from peer.client import Client
from peer.events import Event, PotluckError, Queued, Requeued, Settled, TextPiece
from protocol import codec
from protocol.digests import private_digest
from protocol.documents import Denial, Lease, Request, sign
from protocol.envelope import Envelope
from protocol.keys import SigningKey
from protocol.messages import Ended, Private, Unreachable
from protocol.work import PublicPart, TextPrivate, TextWork
from tests.support.horde import PATIENCE_S, until
from tests.support.raw_peer import RawPeer, fund, now_ms
from tests.torture.prey import Prey

#: What a broken connection looks like to a scripted peer.
BROKEN = (AssertionError, aiohttp.ClientError, OSError, TimeoutError, TypeError)

Fate = Callable[[], Awaitable[str]]


class Traffic:
    """Requesters that stay, through whatever happens. outcomes: how many requests of each fate ended how."""

    def __init__(self, prey: Prey, payer: Client, anonymous: Client) -> None:
        self.outcomes: Counter[str] = Counter()
        self._prey = prey
        self._payer = payer
        self._anonymous = anonymous
        self._fates: dict[str, Fate] = {
            "text": self._text,
            "picture": self._picture,
            "shaky": self._shaky,
            "cancelled": self._cancelled,
            "waiting": self._waiting,
            "denied": self._denied,
            "registered": self._registered,
        }

    @classmethod
    @asynccontextmanager
    async def open(cls, prey: Prey) -> AsyncIterator[Traffic]:
        """A requester with kudos and one without an account."""
        assert prey.link is not None
        for _ in range(2):
            await fund(prey.link, prey.join("payer").key())
        async with (
            prey.client("payer", leave_seconds=1.0) as payer,
            prey.client(leave_seconds=1.0) as anonymous,
        ):
            yield cls(prey, payer, anonymous)

    @property
    def fates(self) -> tuple[str, ...]:
        """All that can be asked for."""
        return tuple(self._fates)

    async def burst(self, special: str) -> None:
        """A text, a picture and something special; returns when each has ended, through whatever happens."""
        async with asyncio.timeout(PATIENCE_S), asyncio.TaskGroup() as group:
            for fate in {"text", "picture", special}:
                group.create_task(self._one(fate))

    async def _one(self, fate: str) -> None:
        self.outcomes[f"{fate}: {await self._fates[fate]()}"] += 1

    async def fresh(self) -> None:
        """A request that is made when all is well again is settled."""
        how = await self._text()
        assert how == "settled", f"a request after everybody was back ended otherwise: {how}"

    async def _text(self) -> str:
        return await _end(self._payer.text("a word", models=["word"], max_tokens=6, context=64, n=2))

    async def _picture(self) -> str:
        return await _end(self._anonymous.image("a picture", models=["picture"], width=64, height=64, steps=4))

    async def _shaky(self) -> str:
        """The shaky engine fails, if it gets the job; then another one makes it."""
        return await _end(self._payer.text("a word", models=["shaky", "word"], max_tokens=6, context=64))

    async def _cancelled(self) -> str:
        return await self._until_left(models=["word"], max_tokens=300, context=512, of=TextPiece)

    async def _waiting(self) -> str:
        return await self._until_left(models=["nobody's"], max_tokens=6, context=64, of=Queued)

    async def _until_left(self, *, of: type[Event], **asked: object) -> str:
        """Somebody asks, and wants it no more after the first event of a type."""
        assert self._prey.link is not None
        async with self._prey.client(leave_seconds=5.0, connect_seconds=PATIENCE_S) as guest:
            coming = guest.text("a word", **asked)  # type: ignore[arg-type]
            async for event in coming:
                if isinstance(event, of):
                    break
            await coming.aclose()
        return "left"

    async def _registered(self) -> str:
        assert self._prey.link is not None
        async with self._prey.client(leave_seconds=1.0, connect_seconds=PATIENCE_S) as newcomer:
            account = await newcomer.register()
            assert account.number
        return "registered"

    async def _denied(self) -> str:
        """A scripted requester, who says it all again whenever the connection breaks."""
        assert self._prey.link is not None
        denier = _Denier(self._prey.link.root)
        while True:
            with suppress(*BROKEN):
                async with RawPeer.open(self._prey.link, denier.key) as peer:
                    return await denier.converse(peer)
            await asyncio.sleep(0.2)


async def _end(coming: AsyncIterator[Event]) -> str:
    requeued = False
    how = "nothing"
    try:
        async for event in coming:
            requeued |= isinstance(event, Requeued)
            if isinstance(event, Settled):
                how = "settled"
    except PotluckError as error:
        return f"{type(error).__name__}: {error}"
    return f"{how} after another attempt" if requeued and how != "settled" else how


class _Denier:
    """One request that is denied."""

    def __init__(self, root: bytes) -> None:
        self.key = SigningKey.generate()
        self._root = root
        self._job_key = SigningKey.generate()
        private = TextPrivate(messages=(), prompt="a word", salt=secrets.token_bytes(32))
        self._private = codec.encode(private)
        request = Request(
            nonce=secrets.token_bytes(16),
            valid_until=now_ms() + 30 * 60 * 1000,
            public=PublicPart(work=TextWork(max_tokens=6, context_tokens=64), models=("word",)),
            private_digest=private_digest(self._private),
            job_key=self._job_key.public,
        )
        self._request = sign(request, self.key, root)

    async def converse(self, peer: RawPeer) -> str:
        """Ask, give the first worker up, deny the next, until the tracker says how it ended."""
        await peer.say(Private(private=self._private))
        await peer.send(self._request.raw)
        while True:
            heard = await _next_of(peer, ("lease", "ended", "settlement"))
            if heard.kind == "ended":
                return heard.open(Ended).state
            if heard.kind == "settlement":
                return "settled"
            lease = heard.open(Lease)
            if lease.attempt == 1:
                await peer.say(Unreachable(job=lease.job, attempt=1, reason="unwanted"))
                continue
            denial = Denial(job=lease.job, attempt=lease.attempt, reason="unwanted", receipt=b"")
            await peer.send(sign(denial, self._job_key, self._root).raw)


async def _next_of(peer: RawPeer, kinds: tuple[str, ...]) -> Envelope:
    """The next thing of one of these kinds; raises `AssertionError` when the connection ends."""

    def look() -> Envelope | str | None:
        for number, found in enumerate(peer.heard):
            if found.kind in kinds:
                return peer.heard.pop(number)
        return peer.close_reason or ("closed" if peer._socket.closed else None)

    heard = await until(look, "the tracker said nothing more")
    assert isinstance(heard, Envelope), heard
    return heard
