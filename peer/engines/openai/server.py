"""The wire to a server with OpenAI's API."""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping
from typing import Any
from urllib.parse import urljoin, urlsplit

import aiohttp

from peer.engines.openai.says import MAX_BYTES, Events, Trouble, read_json, trouble_of

CONNECT_S = 10.0
#: Room for the largest picture in base64; and for an error, of which only the kind is wanted.
MAX_PICTURE_BYTES = 128 * 1024 * 1024
MAX_ERROR_BYTES = 64 * 1024


class Server:
    """One server. url: where its API begins, without a slash at the end. key: sent to it, and to nobody else."""

    def __init__(self, url: str, key: str) -> None:
        self.url = url
        self.root = url.removesuffix("/v1")
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}

    def session(self, silence_s: float, answer_s: float | None = None) -> aiohttp.ClientSession:
        """Connections to it, which may say nothing for so long; answer_s: and not take longer for a whole answer. No
        proxy, and no cookies."""
        timeout = aiohttp.ClientTimeout(total=answer_s, sock_connect=CONNECT_S, sock_read=silence_s)
        return aiohttp.ClientSession(headers=self._headers, timeout=timeout, cookie_jar=aiohttp.DummyCookieJar())

    async def ask(
        self, http: aiohttp.ClientSession, url: str, body: object = None, most: int = MAX_BYTES
    ) -> tuple[Mapping[str, Any], str]:
        """What it answers in JSON, and which program it says it is; raises `Trouble`."""
        async with _answering(http, url, body) as response:
            said = await _read(response, most)
            header = response.headers.get("Server", "")
        value = read_json(said)
        if not isinstance(value, dict) or value.get("error"):
            raise trouble_of(value, 0)
        return value, header

    async def stream(
        self, http: aiohttp.ClientSession, path: str, body: object, events: Events
    ) -> AsyncGenerator[Mapping[str, Any], None]:
        """What it says, as it says it; closing this closes the connection. Raises `Trouble`."""
        async with _answering(http, self.url + path, body) as response:
            try:
                async for piece in response.content.iter_any():
                    for said in events.feed(piece):
                        yield said
                    if events.ended:
                        return
                for said in events.rest():
                    yield said
            finally:
                response.close()

    async def fetch(self, http: aiohttp.ClientSession, url: str) -> bytes:
        """A file that it names, and that lies with it; raises `Trouble`."""
        try:
            url = urljoin(self.url + "/", url)
            is_here = urlsplit(url)[:2] == urlsplit(self.url)[:2]
        except ValueError:
            is_here = False
        if not is_here:
            raise Trouble("failed", "the back end's picture lies on another server", "failure")
        async with _answering(http, url, None) as response:
            return await _read(response, MAX_PICTURE_BYTES)


@contextlib.asynccontextmanager
async def _answering(http: aiohttp.ClientSession, url: str, body: object) -> AsyncIterator[aiohttp.ClientResponse]:
    """An answer that is none of an error. It follows no redirection: the key and the prompt are for this server."""
    with _named():
        method = "GET" if body is None else "POST"
        async with http.request(method, url, json=body, allow_redirects=False) as response:
            if response.status != 200:
                raise await _refused(response)
            yield response


async def _refused(response: aiohttp.ClientResponse) -> Trouble:
    raw = b""
    with contextlib.suppress(Trouble):
        raw = await _read(response, MAX_ERROR_BYTES)
    try:
        said = read_json(raw)
    except Trouble:
        said = raw.decode("utf-8", "replace")
    return trouble_of(said, response.status)


async def _read(response: aiohttp.ClientResponse, most: int) -> bytes:
    said = bytearray()
    async for piece in response.content.iter_any():
        said += piece
        if len(said) > most:
            raise Trouble("failed", f"the back end said more than {most} bytes", "failure")
    return bytes(said)


@contextlib.contextmanager
def _named() -> Iterator[None]:
    """Turn whatever goes wrong on the way into a `Trouble`."""
    try:
        yield
    except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
        raise Trouble(
            "unavailable", "the worker's back end does not answer", "server", f"no answer ({_reason(error)})"
        ) from error
    except TimeoutError as error:
        raise Trouble("hung", "the back end said nothing for too long", "failure") from error
    except (aiohttp.ClientError, OSError) as error:
        raise Trouble("failed", f"the back end broke off ({type(error).__name__})", "failure") from error


def _reason(error: Exception) -> str:
    if isinstance(error, ssl.CertificateError | aiohttp.ClientSSLError):
        return "its certificate is not one that this machine trusts"
    inner = getattr(error, "os_error", None) or error
    return str(getattr(inner, "strerror", None) or type(inner).__name__)
