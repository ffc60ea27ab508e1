"""Which models the hordes serve, and where an ask for one of them goes. Nothing here opens anything."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from peer.gateway.errors import Troubled
from protocol.work import Kind

#: What a message of a conversation may take besides its words, in tokens: role and marks of the model's template.
MESSAGE_TOKENS = 16
#: Room is asked for in steps of so many tokens, by which it is priced too.
ROOM_STEP = 1024
#: Tokens made at most, where the client does not say.
USUAL_TOKENS = 1024


@dataclass(frozen=True)
class Model:
    """One model in one horde, as its tracker counts it now; 0 where it does not say. horde: the name it was joined
    under. waiting: jobs. max_*: the largest that a worker serves. speed: pixel steps or tokens a second of one worker,
    as measured. wait: seconds until a small job is expected to begin. threads: jobs at once, of all workers."""

    kind: Kind
    name: str
    horde: str
    workers: int
    waiting: int = 0
    max_pixels: int = 0
    max_steps: int = 0
    max_tokens: int = 0
    max_context: int = 0
    speed: int = 0
    wait: int = 0
    threads: int = 0


@dataclass(frozen=True)
class Chosen:
    """Where an ask goes. models: those of the wanted ones that this horde serves, by its own names; empty for any of
    the kind. of: the same, with what is known of each."""

    horde: str
    models: tuple[str, ...]
    of: tuple[Model, ...]


class Catalogue:
    """hordes: their names in the order in which they are asked. models: what each of them counts. silent: those that
    did not answer, with why; what they said last still counts."""

    def __init__(self, hordes: Sequence[str], models: Sequence[Model], silent: Mapping[str, str] | None = None) -> None:
        self.hordes = tuple(hordes)
        self.models = tuple(models)
        self.silent = dict(silent or {})

    def served(self, kind: Kind | None = None) -> list[Model]:
        """Models that a worker serves now, of this kind or of all; one for each name and kind: of the horde that an
        ask for it would go to."""
        raise NotImplementedError

    def find(self, kind: Kind, names: Sequence[str] = ()) -> Chosen:
        """Where an ask for any of these models goes: the first horde that serves one. HORDE/MODEL means that horde's.

        Raises `Troubled`: `unknown_model` if no horde has heard of any; `unavailable` if none of them is served now.
        """
        raise NotImplementedError


def read_scrape(horde: str, scraped: Mapping[str, Any]) -> list[Model]:
    """The models that a tracker's `/scrape` counts; what is not understood is left out."""
    raise NotImplementedError


def room_for(texts: Sequence[str], max_tokens: int, most: int = 0) -> int:
    """Tokens of room for these texts, whose tokens nobody here can count, and for an answer of `max_tokens`; never
    above `most` if that is known: then it is the worker who finds out whether they fit."""
    raise NotImplementedError


def tokens_for(texts: Sequence[str], chosen: Chosen, max_tokens: int, max_context: int) -> int:
    """Tokens of an answer whose length was not said. max_tokens, max_context: what the horde's rules allow."""
    raise NotImplementedError


__all__ = ["Catalogue", "Chosen", "Model", "Troubled", "read_scrape", "room_for", "tokens_for"]
