"""The requester's end of the direct stream: HTTPS to a worker whose certificate is known beforehand, frames out.

All streams share one connector, and every certificate has one pin: so a connection to the same worker serves again.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import ThreadedResolver
from multidict import CIMultiDict

from protocol import frames
from protocol.documents import PeerRecord, open_document
from protocol.envelope import Envelope
from protocol.errors import Malformed, Refusal, TooLarge
from protocol.links import is_private_host

MEDIA_TYPE = "application/x-potluck-stream"

#: From dialling to the end of the TLS handshake, for each address.
CONNECT_SECONDS = 3.0
#: From the end of dialling to the worker's answer; the opening is on its way in that time.
ANSWER_SECONDS = 10.0
#: Without any frame, not even a sign of life, for so long the stream counts as cut.
SILENCE_SECONDS = 10.0
#: So long a connection that is not used is kept; a worker keeps it longer.
IDLE_SECONDS = 5.0
#: A worker ends the response right behind the last frame; a connection that it leaves open longer is not used again.
END_SECONDS = 1.0

MAX_ERROR_BYTES = 64 * 1024
MAX_PINS = 1024
READ_BYTES = 256 * 1024


class StreamBroken(Exception):
    """The stream could not be opened, or ended too early. reason: a code."""

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        self.reason = reason


class BadRecord(Exception):
    """A peer record that leads nowhere."""


@dataclass(frozen=True)
class Address:
    """Where a worker listens."""

    host: str
    port: int

    @property
    def url(self) -> str:
        """The address as the beginning of a URL."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"https://{host}:{self.port}"


def parse_address(text: str) -> Address:
    """`host:port`, IPv6 hosts in brackets; raises `BadRecord`."""
    host, _, port = text.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    if bracketed:
        host = host[1:-1]
    if not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        raise BadRecord(f"{text[:80]!r} is no address: wanted host:port")
    if not host or bracketed != (":" in host) or any(letter in host for letter in "/?#@% \\"):
        raise BadRecord(f"{text[:80]!r} is no address: wanted host:port, IPv6 hosts in brackets")
    return Address(host, int(port))


@dataclass(frozen=True)
class Worker:
    """Where a worker is reached, checked: its key, the certificate that answers there, its addresses, best first."""

    key: bytes
    version: int
    certificate: bytes
    addresses: tuple[Address, ...]


def worker_of(envelope: Envelope, *, private_too: bool) -> Worker:
    """The worker that a peer record (context and signature checked) speaks of. Private addresses are left out unless
    the horde itself is on one, for they would lead into the requester's own network. Raises `BadRecord`."""
    record = open_document(envelope, PeerRecord)
    addresses = tuple(parse_address(text) for text in record.addresses)
    allowed = tuple(address for address in addresses if private_too or not _is_private(address.host))
    if not allowed:
        found = "private ones only" if addresses else "none"
        raise BadRecord(f"a worker without an address that can be used here: it names {found}")
    return Worker(envelope.key, record.version, record.certificate, allowed)


class Pin(aiohttp.Fingerprint):
    """The one certificate that may answer, in the one version of TLS that hides it from those in between."""

    def check(self, transport: asyncio.Transport) -> None:
        """Raise unless the other end is the right one. Nothing has been sent to it yet."""
        super().check(transport)
        connection = transport.get_extra_info("ssl_object")
        if connection is None or connection.version() != "TLSv1.3":
            transport.abort()
            raise aiohttp.ClientConnectionError("the worker does not speak TLS 1.3")


class PublicResolver(AbstractResolver):
    """Resolves names, but to no private address: a worker must not lead requesters into their own network."""

    def __init__(self) -> None:
        self._inner = ThreadedResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """The addresses of `host`; raises `OSError` if there is none that is public."""
        found = [result for result in await self._inner.resolve(host, port, family) if not _is_private(result["host"])]
        if not found:
            raise OSError(None, f"{host} leads to private addresses only")
        return found

    async def close(self) -> None:
        """Nothing is held."""
        await self._inner.close()


class StreamReader:
    """Opens streams. Whoever opens it closes it: use it as an async context manager.

    private_too: private addresses are followed, for the horde is on one.
    """

    def __init__(
        self,
        *,
        private_too: bool,
        connect_seconds: float = CONNECT_SECONDS,
        silence_seconds: float = SILENCE_SECONDS,
        answer_seconds: float = ANSWER_SECONDS,
    ) -> None:
        self.private_too = private_too
        self._connect_seconds = connect_seconds
        self._answer_seconds = answer_seconds
        self._silence_seconds = silence_seconds
        self._pins: dict[bytes, Pin] = {}
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> StreamReader:
        options: dict[str, Any] = {} if self.private_too else {"resolver": PublicResolver()}
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=IDLE_SECONDS, **options),
            timeout=aiohttp.ClientTimeout(
                total=None, sock_connect=self._connect_seconds, sock_read=self._silence_seconds
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers=CIMultiDict({"Accept-Encoding": "identity"}),
            read_bufsize=READ_BYTES,
            auto_decompress=False,
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._session is not None:
            await self._session.close()

    async def read(self, worker: Worker, body: bytes, after: int) -> AsyncGenerator[frames.Frame | None, None]:
        """Open the stream and yield None once the worker answered, then its frames, `Final` last. Ends with
        `StreamBroken` in every other case; its reason is the worker's own code if it refused the opening."""
        response = await self._open(worker, body, after)
        async with response:
            if response.status != 200:
                raise await _refusal(response)
            yield None
            async for frame in self._frames(response):
                yield frame
                if isinstance(frame, frames.Final):
                    await _to_the_end(response)
                    return
        raise StreamBroken("cut", "the stream ended before the result was whole")

    async def _open(self, worker: Worker, body: bytes, after: int) -> aiohttp.ClientResponse:
        """The response of the first address at which the worker answers."""
        assert self._session is not None  # noqa: S101
        failures: list[StreamBroken] = []
        for address in worker.addresses:
            try:
                # The time-outs of aiohttp begin anew with every byte, also of a head that never ends.
                async with asyncio.timeout(self._connect_seconds + self._answer_seconds):
                    return await self._session.post(
                        f"{address.url}/stream",
                        params={"after": str(after)} if after >= 0 else {},
                        data=body,
                        ssl=self._pin(worker.certificate),
                        allow_redirects=False,
                    )
            except aiohttp.ServerFingerprintMismatch:
                text = f"{address.host}:{address.port} shows another certificate than the worker signed for"
                failures.append(StreamBroken("wrong_certificate", text))
            except (aiohttp.ClientError, OSError, ValueError) as error:  # a time-out is an OSError, a bad name no URL
                reason = "timeout" if isinstance(error, TimeoutError) else "no_connection"
                failures.append(
                    StreamBroken(reason, f"{address.host}:{address.port}: {str(error) or 'no answer in time'}")
                )
        first = failures[0]
        raise StreamBroken(first.reason, "; ".join(str(failure) for failure in failures))

    async def _frames(self, response: aiohttp.ClientResponse) -> AsyncGenerator[frames.Frame, None]:
        reader = frames.FrameReader()
        clock = asyncio.get_running_loop().time
        silent_at = clock() + self._silence_seconds
        try:
            # Bytes alone are no sign of life: frames are.
            while data := await _read_before(silent_at, response.content):
                for frame in reader.feed(data):
                    yield frame
                    silent_at = clock() + self._silence_seconds
        except (Malformed, TooLarge) as error:
            raise StreamBroken("malformed", str(error)) from error
        except TimeoutError as error:
            text = f"no sign of life from the worker for {self._silence_seconds:g} seconds"
            raise StreamBroken("silent", text) from error
        except (aiohttp.ClientError, OSError) as error:
            raise StreamBroken("cut", f"the stream was cut: {error}") from error

    def _pin(self, certificate: bytes) -> Pin:
        pin = self._pins.pop(certificate, None) or Pin(certificate)
        self._pins[certificate] = pin  # the newest last
        if len(self._pins) > MAX_PINS:
            del self._pins[next(iter(self._pins))]
        return pin


async def _read_before(moment: float, content: aiohttp.StreamReader) -> bytes:
    """What has come, nothing at the end; raises `TimeoutError` at this moment of the loop's clock."""
    async with asyncio.timeout_at(moment):  # and not `wait_for`, which starts a task for every read
        return await content.readany()


async def _refusal(response: aiohttp.ClientResponse) -> StreamBroken:
    """What a worker that refused the opening says about it."""
    plain = StreamBroken("refused", f"the worker answered with HTTP status {response.status}")
    try:
        raw = await response.content.read(MAX_ERROR_BYTES)
        said = list(frames.FrameReader().feed(raw))
    except (Refusal, aiohttp.ClientError, OSError):
        return plain
    match said:
        case [frames.Failed(code=code, text=text)]:
            return StreamBroken(code[:40] or plain.reason, text[:2000] or str(plain))
        case _:
            return plain


async def _to_the_end(response: aiohttp.ClientResponse) -> None:
    """Wait for the end of the response, so that its connection is free for the next one."""
    with contextlib.suppress(TimeoutError, aiohttp.ClientError, OSError):
        async with asyncio.timeout(END_SECONDS):
            await response.content.read(1)


def _is_private(host: str) -> bool:
    """As `is_private_host`, also of an IPv4 address in IPv6's clothes."""
    with contextlib.suppress(ValueError):
        address = ipaddress.ip_address(host)
        if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
            return is_private_host(str(address.ipv4_mapped))
    return is_private_host(host)
