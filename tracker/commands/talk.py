"""Who acts for a horde speaks with the tracker that serves it, over the socket that peers use."""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any, TypeVar

import aiohttp

from protocol import codec, documents
from protocol.documents import Serving, Shown
from protocol.envelope import (
    Envelope,
    Inbound,
    Outbound,
    check_delegation,
    check_document_context,
    decode_challenge,
    parse,
)
from protocol.errors import MAX_TEXT_CHARACTERS, BadDelegation, Refusal, WrongCertificate, WrongHorde, refusal
from protocol.keys import show_key
from protocol.messages import FROM_TRACKER, Appeals, AskAppeals, Hello, Holding, Refused, SessionMessage, Taken
from tracker.commands.exits import NOT_DONE, CommandError
from tracker.commands.place import Place, remember

T = TypeVar("T")

#: A tracker that serves answers at once.
PATIENCE_S = 30.0
#: A page that is larger is not read.
MAX_PAGE_BYTES = 4 * 1024 * 1024
#: A connection that breaks off leaves open what was done; the same document is sent again.
TRIES = 3


async def present(place: Place, document: Envelope) -> None:
    """Hand a document to the tracker; returns when it is durable.

    Raises `CommandError` if it is refused, or if nobody answers.
    """

    async def hand(session: _Session) -> None:
        await session.send(document.raw)
        while True:
            match await session.hear():
                case Taken(documents=digests) if document.digest in digests:
                    return
                case Refused(about=about, code=code, text=text) if about == document.digest:
                    raise refusal(code, text)
                case _:
                    pass

    await _try(place, hand)


async def ask_appeals(place: Place) -> Appeals:
    """The appeals that nobody has answered, for a key with a role; raises `CommandError`."""

    async def ask(session: _Session) -> Appeals:
        asked = await session.say(AskAppeals())
        while True:
            match await session.hear():
                case Appeals() as appeals:
                    return appeals
                case Refused(about=about, code=code, text=text) if about == asked:
                    raise refusal(code, text)
                case _:
                    pass

    return await _try(place, ask)


async def fetch(place: Place, path: str) -> Any:
    """What the tracker publishes under a path, read as JSON; raises `CommandError`."""
    url = f"{place.url.replace('ws', 'http', 1)}/{path}"
    try:
        async with (
            asyncio.timeout(PATIENCE_S),
            aiohttp.ClientSession() as http,
            http.get(url, ssl=_pin(place), allow_redirects=False) as answer,
        ):
            if answer.status != HTTPStatus.OK:
                raise CommandError(f"{url} answers with HTTP status {answer.status}", NOT_DONE)
            raw = bytearray()
            while len(raw) <= MAX_PAGE_BYTES and (more := await answer.content.read(MAX_PAGE_BYTES + 1 - len(raw))):
                raw += more
            if len(raw) > MAX_PAGE_BYTES:
                raise CommandError(f"{url} answers more than {MAX_PAGE_BYTES} bytes: is it a tracker?", NOT_DONE)
            return json.loads(raw)
    except (aiohttp.ClientError, OSError, TimeoutError, ValueError, RecursionError) as error:
        why = str(error) or "too slow"
        raise CommandError(f"{url}: nothing that can be read is answered ({why})", NOT_DONE) from error


async def _try(place: Place, talk: Callable[[_Session], Awaitable[T]]) -> T:
    for left in reversed(range(TRIES)):
        try:
            async with (
                asyncio.timeout(PATIENCE_S),
                aiohttp.ClientSession() as http,
                http.ws_connect(f"{place.url}/peer", ssl=_pin(place)) as socket,
            ):
                session = _Session(socket, place)
                await session.begin()
                return await talk(session)
        except Refusal as refused:
            raise CommandError(f"the tracker refused this: {refused} ({refused.code})", NOT_DONE) from refused
        except (aiohttp.ClientError, OSError, TimeoutError, _Gone) as error:
            if left:
                continue
            why = str(error) or "too slow"
            text = f"{place.url}: no tracker answers ({why}): serve the horde first, or say where it is met with --url"
            raise CommandError(text, NOT_DONE) from error
    raise AssertionError("the last try returns or raises")


def _pin(place: Place) -> aiohttp.Fingerprint | bool:
    return aiohttp.Fingerprint(place.certificate) if place.certificate else True


def check_serving(raw: bytes, place: Place, now: int) -> Serving:
    """The root's delegation to the key that serves; raises a `Refusal` for one that has ended, or is older than one
    that was seen before."""
    envelope = documents.parse_document(raw, Serving)
    check_delegation(envelope, place.root)
    said = documents.open_document(envelope, Serving)
    if said.expires and said.expires <= now:
        raise BadDelegation(
            f"the root's delegation to the serving key ended at {said.expires}, and it is {now}: check this machine's"
            " clock, or have a new one signed"
        )
    if said.version < place.version:
        raise BadDelegation(
            f"delegation {said.version}, and {place.version} was seen before: an older serving key may be a stolen one"
        )
    return said


def check_shown(raw: bytes, place: Place, serving: bytes) -> None:
    """Refuse a certificate for which the serving key does not vouch: else whoever wrote the link could listen."""
    envelope = documents.parse_document(raw, Shown)
    check_document_context(envelope, place.root)
    envelope.verify()
    if envelope.key != serving or documents.open_document(envelope, Shown).digest != place.certificate:
        raise WrongCertificate("the tracker does not vouch for the certificate that the link names: get the link anew")


class _Gone(Exception):
    """The tracker hung up."""


class _Session:
    """One session, in which this side has nothing to say but what it came for."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse, place: Place) -> None:
        self._socket = socket
        self._place = place
        self._root = place.root
        self._key = place.key
        self._id = secrets.token_bytes(16)
        self._inbound = Inbound(place.root, self._id)
        self._serving = b""

    async def begin(self) -> None:
        """Be welcomed, and hold nothing."""
        challenge = decode_challenge(await self._receive())
        if challenge.root != self._root:
            raise WrongHorde(f"another horde is served there: {show_key(challenge.root)}")
        serving = check_serving(challenge.delegation, self._place, time.time_ns() // 1_000_000)
        if self._place.is_linked and self._place.certificate:
            check_shown(challenge.shown, self._place, serving.serving)
        remember(self._place, serving.version)
        self._serving = serving.serving
        self._outbound = Outbound(self._root, challenge.session, self._key)
        await self.say(Hello(session=self._id, software="potluck-tracker admin"))
        while not (isinstance(heard := await self.hear(), Holding) and heard.last):
            if isinstance(heard, Refused):
                raise refusal(heard.code, heard.text)
        await self.say(Holding(entries=(), last=True))

    async def hear(self) -> SessionMessage | None:
        """What the tracker says next; None for a document. It is signed by the key that the root appointed."""
        envelope = parse(await self._receive())
        if envelope.is_document:
            return None
        self._inbound.check(envelope, self._serving)
        kind = FROM_TRACKER.get(envelope.kind)
        return envelope.open(kind) if kind else None

    async def say(self, message: SessionMessage) -> bytes:
        """Say something; the digest of it, by which a refusal names it."""
        envelope = self._outbound.seal(message.KIND, codec.encode(message))
        await self.send(envelope.raw)
        return envelope.digest

    async def send(self, raw: bytes) -> None:
        """Send what is signed already."""
        await self._socket.send_bytes(raw)

    async def _receive(self) -> bytes:
        message = await self._socket.receive()
        if message.type is not aiohttp.WSMsgType.BINARY:
            raise _Gone(str(message.extra or "it hung up")[:MAX_TEXT_CHARACTERS])
        return bytes(message.data)
