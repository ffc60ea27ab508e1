"""The peer: worker and requester in one program, the command `potluck`; in Python `from peer import Client`.

Everything that a program needs in the common case is here by one import: `Client`, `Horde` (the same without `async`),
what comes of asking, and the ways in which it can go wrong. docs/python.md shows how it is used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from peer.client import Client
    from peer.events import (
        BadRequest,
        Denied,
        Event,
        JobCancelled,
        JobError,
        JobExpired,
        JobFailed,
        Leased,
        Picture,
        Position,
        PotluckError,
        Preview,
        Progress,
        Queued,
        Received,
        Refused,
        Requeued,
        Restarted,
        Settled,
        TextPiece,
        Unreachable,
    )
    from peer.home import Home
    from peer.measures import image_work, text_work
    from peer.results import Answer
    from peer.sync import Horde

__all__ = [
    "Answer",
    "BadRequest",
    "Client",
    "Denied",
    "Event",
    "Home",
    "Horde",
    "JobCancelled",
    "JobError",
    "JobExpired",
    "JobFailed",
    "Leased",
    "Picture",
    "Position",
    "PotluckError",
    "Preview",
    "Progress",
    "Queued",
    "Received",
    "Refused",
    "Requeued",
    "Restarted",
    "Settled",
    "TextPiece",
    "Unreachable",
    "image_work",
    "text_work",
]

#: Where a public name comes from; all others are of `peer.events`.
_ELSEWHERE = {
    "Answer": "peer.results",
    "Client": "peer.client",
    "Home": "peer.home",
    "Horde": "peer.sync",
    "image_work": "peer.measures",
    "text_work": "peer.measures",
}


def __getattr__(name: str) -> object:
    # Imported when asked for: `import peer` alone, as every `potluck --help` does, loads no network library.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_ELSEWHERE.get(name, "peer.events")), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
