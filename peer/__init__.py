"""The peer: worker and requester in one program, the command `potluck`; in Python `from peer import Client`."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from peer.client import Client

__all__ = ["Client"]


def __getattr__(name: str) -> object:
    # Imported when asked for: `import peer` alone, as every `potluck --help` does, loads no network library.
    if name == "Client":
        from peer.client import Client

        return Client
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
