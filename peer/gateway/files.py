"""Pictures under unguessable names, for answers that hold a link instead of the picture. They are kept in memory."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass

from aiohttp import web

from peer.client import system_clock

#: Where they are served, without a key: whoever has the name may see it.
FOLDER = "/files/"
#: So long, and so many bytes of all together.
KEPT_MS = 30 * 60 * 1000
MAX_BYTES = 256 * 1024 * 1024

_ENDINGS = {"image/png": ".png", "image/webp": ".webp", "image/jpeg": ".jpg"}


@dataclass(frozen=True)
class _File:
    content: bytes
    media_type: str
    until: int


class Files:
    """The newest pictures, as far as they fit, for a while."""

    def __init__(self, clock: Callable[[], int] = system_clock, kept_ms: int = KEPT_MS, most: int = MAX_BYTES) -> None:
        self._clock = clock
        self._kept_ms = kept_ms
        self._most = most
        self._bytes = 0
        #: The oldest first, which is the order of their ends too.
        self._files: dict[str, _File] = {}

    def put(self, content: bytes, media_type: str) -> str:
        """Keep a picture; the name under which it can be had. The oldest go, if there is no room."""
        now = self._clock()
        name = secrets.token_urlsafe(16) + _ENDINGS.get(media_type, "")
        self._files[name] = _File(content, media_type, now + self._kept_ms)
        self._bytes += len(content)
        self._sweep(now)
        return name

    def get(self, name: str) -> tuple[bytes, str] | None:
        """Content and media type; None if there is none of that name, or no longer."""
        self._sweep(self._clock())
        found = self._files.get(name)
        return (found.content, found.media_type) if found is not None else None

    def _sweep(self, now: int) -> None:
        while self._files:
            name, oldest = next(iter(self._files.items()))
            if self._bytes <= self._most and now < oldest.until:
                return
            del self._files[name]
            self._bytes -= len(oldest.content)


def url_of(request: web.Request, name: str) -> str:
    """The link to a picture, at the address by which this request came."""
    return f"{request.scheme}://{request.host}{FOLDER}{name}"
