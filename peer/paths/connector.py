"""TLS to a worker over a socket that stands already, however it came about, as a connection of aiohttp's.

Each connection has a name of its own, which takes the place of host and port in its URL: a request goes over the very
connection that was chosen for it, and aiohttp keeps it between two requests.
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import socket
import ssl
from typing import TYPE_CHECKING, Any

import aiohttp
from aiohttp.client_proto import ResponseHandler

if TYPE_CHECKING:
    from aiohttp import ClientRequest, ClientTimeout
    from aiohttp.tracing import Trace

#: So long the other side may take to agree to the end of TLS.
GOODBYE_SECONDS = 1.0
#: No name of the internet ends so (RFC 2606): what is not connected is never looked up.
_DOMAIN = "path.invalid"


class WrongCertificate(Exception):
    """Another certificate than the worker signed for."""


class NotConnected(aiohttp.ClientConnectionError):
    """The connection of this name has ended: nothing was sent."""


class Connector(aiohttp.BaseConnector):
    """Holds connections to workers by their names; `keep_seconds` is how long one that is not used is kept."""

    def __init__(self, keep_seconds: float) -> None:
        super().__init__(limit=0, keepalive_timeout=keep_seconds)
        self._context = _client_context()
        self._numbers = itertools.count()
        self._fresh: dict[str, ResponseHandler] = {}

    async def connect_over(
        self, connection: socket.socket, certificate: bytes, seconds: float, *, once: bool = False
    ) -> str:
        """Begin TLS on a connected socket, which is ours from now on; the connection's name. once: it serves one
        request only.

        Raises `WrongCertificate`, or `OSError` (also a `TimeoutError`) if there is no TLS 1.3 at the other end.
        Whoever is given the name uses it once at least, or drops it.
        """
        loop = asyncio.get_running_loop()
        connection.setblocking(False)
        options: dict[str, Any] = {
            "ssl": self._context,
            "sock": connection,
            "server_hostname": "",
            "ssl_handshake_timeout": seconds,
            "ssl_shutdown_timeout": GOODBYE_SECONDS,
        }
        connect = loop.create_unix_connection if connection.family == _UNIX else loop.create_connection
        try:
            transport, protocol = await connect(lambda: ResponseHandler(loop=loop), **options)
        except (ssl.SSLError, ConnectionError) as error:
            # A side that speaks another version often just goes.
            raise ConnectionError(f"no TLS 1.3 at the other end: {str(error) or type(error).__name__}") from error
        except BaseException:
            connection.close()
            raise
        shown = transport.get_extra_info("ssl_object").getpeercert(binary_form=True)
        if hashlib.sha256(shown or b"").digest() != certificate:
            transport.abort()
            raise WrongCertificate("shows another certificate than the worker signed for")
        if once:
            protocol.force_close()
        name = f"c{next(self._numbers)}.{_DOMAIN}"
        self._fresh[name] = protocol
        return name

    def drop(self, name: str) -> None:
        """The connection of this name is not wanted; without effect once it was used."""
        protocol = self._fresh.pop(name, None)
        if protocol is not None:
            protocol.close()

    async def _create_connection(
        self, req: ClientRequest, traces: list[Trace], timeout: ClientTimeout
    ) -> ResponseHandler:
        """Hand over a connection that was never used; aiohttp asks only where it keeps none of this name."""
        protocol = self._fresh.pop(req.url.host or "", None)
        if protocol is None or not protocol.is_connected():
            raise NotConnected("the connection has ended")
        return protocol

    def drop_all(self) -> None:
        """Close what was never used."""
        for name in list(self._fresh):
            self.drop(name)


_UNIX = getattr(socket, "AF_UNIX", None)


def _client_context() -> ssl.SSLContext:
    """TLS 1.3, which hides the certificate from those in between; who is right is told by the certificate alone."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    return context
