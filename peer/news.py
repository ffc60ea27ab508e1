"""What a worker tells whoever watches it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from peer.spool import Attempt


@dataclass(frozen=True)
class News:
    """Something that an operator may want to see.

    kind: what happened; of the tracker `listening`, `account` (with its notice), `joined`, `lost`, `rules`,
    `moderation` (an act that concerns its owner), `refused`, `filter` (a word list is not here yet), `models` (one
    may not be offered), `limits` (its owner has changed them); of its engines `offers` (what is served from now on);
    of how it is reached `reached`, `unreachable`, `mapped`; of its relay `relaying`, `relayed` (what it has carried
    so far); of an attempt `accepted` (with who asks, as far as it is known), `declined`, `opened`, `started`,
    `progress` (with done and total), `made`, `failed`, `dropped`, `settled` (with earned, in thousandths). text: for
    people, never a prompt.
    """

    kind: Literal[
        "listening",
        "account",
        "joined",
        "lost",
        "rules",
        "moderation",
        "refused",
        "filter",
        "limits",
        "models",
        "offers",
        "reached",
        "unreachable",
        "mapped",
        "relaying",
        "relayed",
        "accepted",
        "declined",
        "opened",
        "started",
        "progress",
        "made",
        "failed",
        "dropped",
        "settled",
    ]
    text: str = ""
    attempt: Attempt | None = None
    done: int = 0
    total: int = 0
    earned: int = 0
