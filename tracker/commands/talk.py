"""The operator speaks with a tracker that serves: a session of the serving key, over the socket that peers use."""

from __future__ import annotations

import asyncio
import secrets

import aiohttp

from protocol import codec
from protocol.envelope import Envelope, Inbound, Outbound, check_delegation, decode_challenge, parse
from protocol.errors import MAX_TEXT_CHARACTERS, Refusal, WrongHorde, refusal
from protocol.keys import SigningKey, show_key
from protocol.messages import FROM_TRACKER, Hello, Holding, Refused, SessionMessage, Taken
from tracker.commands.exits import NOT_DONE, CommandError

#: A tracker that serves answers at once.
PATIENCE_S = 30.0
#: A connection that breaks off leaves open what was done; the same document is sent again.
TRIES = 3


async def present(url: str, root: bytes, key: SigningKey, document: Envelope, certificate: bytes = b"") -> None:
    """Hand a document to the tracker at `url`, which must serve the horde `root`; returns when it is durable.

    certificate: digest of the one that it must show; empty where an authority vouches for it. Raises `CommandError` if
    it is refused, or if nobody answers.
    """
    for left in reversed(range(TRIES)):
        try:
            async with asyncio.timeout(PATIENCE_S):
                await _present(url, root, key, document, certificate)
                return
        except Refusal as refused:
            raise CommandError(f"the tracker refused this: {refused} ({refused.code})", NOT_DONE) from refused
        except (aiohttp.ClientError, OSError, TimeoutError, _Gone) as error:
            if left:
                continue
            why = str(error) or "too slow"
            text = f"{url}: no tracker answers ({why}): serve the horde first, or say where it is met with --url"
            raise CommandError(text, NOT_DONE) from error


class _Gone(Exception):
    """The tracker hung up."""


async def _present(url: str, root: bytes, key: SigningKey, document: Envelope, certificate: bytes) -> None:
    pin = aiohttp.Fingerprint(certificate) if certificate else True
    async with aiohttp.ClientSession() as http, http.ws_connect(f"{url}/peer", ssl=pin) as socket:
        session = _Session(socket, root, key)
        await session.begin()
        await socket.send_bytes(document.raw)
        while True:
            match await session.hear():
                case Taken(documents=digests) if document.digest in digests:
                    return
                case Refused(about=about, code=code, text=text) if about == document.digest:
                    raise refusal(code, text)
                case _:
                    pass


class _Session:
    """One session, in which this side has nothing to say but what it came for."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse, root: bytes, key: SigningKey) -> None:
        self._socket = socket
        self._root = root
        self._key = key
        self._id = secrets.token_bytes(16)
        self._inbound = Inbound(root, self._id)

    async def begin(self) -> None:
        """Be welcomed, and hold nothing."""
        challenge = decode_challenge(await self._receive())
        if challenge.root != self._root:
            raise WrongHorde(f"another horde is served there: {show_key(challenge.root)}")
        check_delegation(parse(challenge.delegation), self._root)
        self._outbound = Outbound(self._root, challenge.session, self._key)
        await self._say(Hello(session=self._id, software="potluck-tracker admin"))
        while not (isinstance(heard := await self.hear(), Holding) and heard.last):
            if isinstance(heard, Refused):
                raise refusal(heard.code, heard.text)
        await self._say(Holding(entries=(), last=True))

    async def hear(self) -> SessionMessage | None:
        """What the tracker says next; None for a document. It is signed by the serving key, which is ours."""
        envelope = parse(await self._receive())
        if envelope.is_document:
            return None
        self._inbound.check(envelope, self._key.public)
        kind = FROM_TRACKER.get(envelope.kind)
        return envelope.open(kind) if kind else None

    async def _say(self, message: SessionMessage) -> None:
        await self._socket.send_bytes(self._outbound.seal(message.KIND, codec.encode(message)).raw)

    async def _receive(self) -> bytes:
        message = await self._socket.receive()
        if message.type is not aiohttp.WSMsgType.BINARY:
            raise _Gone(str(message.extra or "it hung up")[:MAX_TEXT_CHARACTERS])
        return bytes(message.data)
