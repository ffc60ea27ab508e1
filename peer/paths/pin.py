"""The one certificate that may answer, where a document names its digest."""

from __future__ import annotations

import asyncio
import ssl
from typing import TypeAlias

import aiohttp

#: How a certificate is checked, as aiohttp takes it.
Tls: TypeAlias = "ssl.SSLContext | aiohttp.Fingerprint | bool"


class Pin(aiohttp.Fingerprint):
    """The one certificate that may answer, in the one version of TLS that hides it from those in between."""

    def check(self, transport: asyncio.Transport) -> None:
        """Raise unless the other end is the right one. Nothing has been sent to it yet."""
        super().check(transport)
        connection = transport.get_extra_info("ssl_object")
        if connection is None or connection.version() != "TLSv1.3":
            transport.abort()
            raise aiohttp.ClientConnectionError("the other end does not speak TLS 1.3")
