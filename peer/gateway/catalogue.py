"""Which models the hordes serve, and where an ask for one of them goes. Nothing here opens anything."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, get_args

from peer.gateway.asks import ImageAsk, TextAsk
from peer.gateway.errors import Troubled
from protocol.rules import LimitsSection
from protocol.work import MAX_MODELS, Kind

#: What a message of a conversation may take besides its words, in tokens: role and marks of the model's template.
MESSAGE_TOKENS = 16
#: Room is asked for in steps of so many tokens, by which it is priced too.
ROOM_STEP = 1024
#: Tokens made at most, where the client does not say.
USUAL_TOKENS = 1024
#: Models of one horde that are remembered though nobody serves them any more.
MAX_FORMER = 1_000
#: So many names are listed to somebody who asked for a model that is not there.
MAX_LISTED = 20


@dataclass(frozen=True)
class Model:
    """One model in one horde, as its tracker counts it now; 0 where it does not say. horde: the name it was joined
    under. waiting: jobs. max_*: the largest that a worker serves. speed: pixel steps or tokens a second of one worker,
    as measured. wait: seconds until a small job is expected to begin. slots: jobs at once, of all workers. paused:
    workers besides, who serve their own account alone."""

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
    slots: int = 0
    paused: int = 0

    @property
    def full_name(self) -> str:
        """The name by which this horde's is meant and no other's."""
        return f"{self.horde}/{self.name}"


@dataclass(frozen=True)
class Chosen:
    """Where an ask goes. models: those of the wanted ones that this horde serves, by its own names; empty for any of
    the kind. of: the models that can take it, with what is known of each."""

    horde: str
    models: tuple[str, ...]
    of: tuple[Model, ...]

    def most(self, field: str) -> int:
        """The most that any of these models allows of a `max_` field; 0 if that is not known of one of them."""
        values: list[int] = [getattr(model, field) for model in self.of]
        return max(values) if values and all(values) else 0


class Catalogue:
    """hordes: their names in the order in which they are asked. models: what each of them counts. silent: those that
    did not answer, with why; what they said last still counts."""

    def __init__(self, hordes: Sequence[str], models: Sequence[Model], silent: Mapping[str, str] | None = None) -> None:
        self.hordes = tuple(hordes)
        self.models = tuple(models)
        self.silent = dict(silent or {})
        #: In which an ask looks for who serves it: one that does not answer is left to those whom no other serves.
        self._order = sorted(self.hordes, key=lambda horde: horde in self.silent)

    def check_heard(self) -> None:
        """Raise `Troubled` if nothing is known because no horde answers: who looks at a list to see whether the address
        is right would take an empty one for a horde without workers."""
        if not self.models and self.silent:
            raise Troubled("unavailable", "; ".join(f"{horde}: {why}" for horde, why in self.silent.items()))

    def with_paused(self) -> Catalogue:
        """The same for somebody whom workers serve though they are paused: their owner."""
        models = [replace(model, workers=model.workers + model.paused) for model in self.models]
        return Catalogue(self.hordes, models, self.silent)

    def served(self, kind: Kind | None = None) -> list[Model]:
        """Models that a worker serves now, of this kind or of all; one for each name and kind: of the horde that an
        ask for it would go to."""
        found: dict[tuple[Kind, str], Model] = {}
        for horde in self._order:
            for model in self.models:
                if model.horde == horde and model.workers and kind in (None, model.kind):
                    found.setdefault((model.kind, model.name), model)
        return list(found.values())

    def names(self, kind: Kind | None = None) -> dict[str, Model]:
        """Every name by which a model that is served now can be asked for: its own, and, where several hordes are
        asked, HORDE/MODEL."""
        found = {model.name: model for model in self.served(kind)}
        if len(self.hordes) > 1:
            for model in self.models:
                if model.workers and kind in (None, model.kind):
                    found.setdefault(model.full_name, model)
        return found

    def find(self, kind: Kind, names: Sequence[str] = (), last: Collection[str] = ()) -> Chosen:
        """Where an ask for any of these models goes: the first horde that serves one, of those that answer if there is
        one among them. HORDE/MODEL means that horde's. last: hordes that are left to who finds no other.

        Raises `Troubled`: `unknown_model` if no horde has heard of any; `unavailable` if none of them is served now.
        """
        wanted = [model for model in self.models if model.kind == kind and self._is_wanted(model, names)]
        for horde in sorted(self._order, key=lambda horde: horde in last):
            if served := tuple(model for model in wanted if model.horde == horde and model.workers):
                models = tuple(model.name for model in served[:MAX_MODELS]) if names else ()
                return Chosen(horde, models, served)
        raise self._missing(kind, names, known=bool(wanted))

    def _is_wanted(self, model: Model, names: Sequence[str]) -> bool:
        if not names or model.name in names:
            return True
        # Names of models may hold a slash themselves; one that is a model's own means that.
        own = {other.name for other in self.models if other.kind == model.kind}
        return model.full_name in names and model.full_name not in own

    def _missing(self, kind: Kind, names: Sequence[str], *, known: bool) -> Troubled:
        silent = "".join(f"; {horde} does not answer ({why})" for horde, why in self.silent.items())
        if self.hordes and len(self.silent) == len(self.hordes) and not known:
            return Troubled("unavailable", f"no horde answers{silent}")
        served = sorted(self.names(kind))
        listed = ", ".join(served[:MAX_LISTED]) + (" ..." if len(served) > MAX_LISTED else "")
        instead = f"; served now: {listed}" if served else ""
        if not names:
            return Troubled("unavailable", f"no worker makes any {kind} at the moment: try again later{silent}")
        said = ", ".join(names[:MAX_LISTED])[:500]
        if known:
            return Troubled("unavailable", f"no worker serves {said} at the moment{instead}{silent}", "model")
        named = "an image" if kind == "image" else "a text"
        return Troubled("unknown_model", f"no horde knows {named} model {said}{instead}{silent}", "model")


_SIZES = ("max_pixels", "max_steps", "max_tokens", "max_context")
_COUNTS = ("workers", "waiting", *_SIZES, "speed", "wait", "slots", "paused")


def read_scrape(horde: str, scraped: Mapping[str, Any]) -> list[Model]:
    """The models that a tracker's `/scrape` counts; what is not understood is left out."""
    swarms = scraped.get("swarms")
    models = []
    for swarm in swarms if isinstance(swarms, list) else []:
        if not isinstance(swarm, dict) or swarm.get("kind") not in get_args(Kind):
            continue
        name = swarm.get("model")
        if isinstance(name, str) and name:
            counts = {count: _whole(swarm.get(count)) for count in _COUNTS}
            models.append(Model(kind=swarm["kind"], name=name, horde=horde, **counts))
    return models


def _whole(found: object) -> int:
    return max(0, int(found)) if isinstance(found, int | float) and math.isfinite(found) else 0


def with_former(now: Sequence[Model], before: Sequence[Model]) -> list[Model]:
    """What is counted now, and what was before, without workers: names that were right are not unknown because a worker
    went away for a while."""
    known = {(model.kind, model.name) for model in now}
    former = [
        Model(model.kind, model.name, model.horde, 0) for model in before if (model.kind, model.name) not in known
    ]
    return [*now, *former[:MAX_FORMER]]


def words(texts: Sequence[str]) -> int:
    """As many tokens as these texts are likely to have at most; nobody here can count them."""
    return sum(len(text.encode("utf-8", "replace")) // 2 + MESSAGE_TOKENS for text in texts)


def room_for(texts: Sequence[str], max_tokens: int, most: int = 0) -> int:
    """Tokens of room for these texts and for an answer of `max_tokens`; never above `most` if that is known: then it is
    the worker who finds out whether they fit."""
    room = -(-(words(texts) + max_tokens) // ROOM_STEP) * ROOM_STEP
    return min(room, most) if most else room


def tokens_for(texts: Sequence[str], max_tokens: int, max_context: int) -> int:
    """Tokens of an answer whose length was not said, at most. max_tokens, max_context: what is allowed, 0 unknown."""
    tokens = min(USUAL_TOKENS, max_tokens or USUAL_TOKENS)
    if not max_context:
        return tokens
    # Texts have fewer tokens than they may have: a long prompt still leaves a quarter, and the worker counts.
    return max(1, min(tokens, max(max_context - words(texts), max_context // 4)))


def at_most(texts: Sequence[str], tokens: int, max_tokens: int, max_context: int) -> int:
    """As many of these tokens of an answer as may be made; else as `tokens_for`. More than half of the room is what
    programs say that mean as much as there is: it leaves the prompt what it may take."""
    tokens = min(tokens, max_tokens or tokens)
    if not max_context or tokens <= max_context // 2:
        return tokens
    return max(1, min(tokens, max(max_context - words(texts), max_context // 4)))


def allowed(limits: LimitsSection, *, anonymous: bool) -> tuple[int, int]:
    """Tokens and room that a horde's rules allow to people without an account, or with one."""
    if anonymous:
        return limits.anonymous_max_tokens, limits.anonymous_max_context
    return limits.max_tokens, limits.max_context


def measured(ask: TextAsk, chosen: Chosen, most: tuple[int, int]) -> tuple[int, int]:
    """Tokens to make at most, and room, of an ask for text. most: both, as `allowed`. Raises `Troubled` for what no
    worker of these models could take; what the rules forbid the tracker refuses."""
    served = chosen.most("max_tokens"), chosen.most("max_context")
    most_tokens, most_context = (min(rule, of_model or rule) for rule, of_model in zip(most, served, strict=True))
    if ask.max_tokens is None:
        tokens = tokens_for(ask.texts, most_tokens, most_context)
    elif ask.or_fewer:
        tokens = at_most(ask.texts, ask.max_tokens, most_tokens, most_context)
    else:
        tokens = ask.max_tokens
    context = ask.context if ask.context is not None else room_for(ask.texts, tokens, most_context)
    _check(chosen, {"max_tokens": tokens, "max_context": context})
    if context <= tokens:
        raise Troubled(
            "too_long",
            f"an answer of up to {tokens} tokens leaves no room for a prompt in {context} tokens: ask for less",
            "max_tokens",
        )
    return tokens, context


def check_image(ask: ImageAsk, chosen: Chosen) -> None:
    """Raises `Troubled` for what no worker of these models could take."""
    _check(chosen, {"max_pixels": ask.width * ask.height, "max_steps": ask.steps})


def _check(chosen: Chosen, asked: Mapping[str, int]) -> None:
    """Else it would wait for a worker that does not exist."""
    for field, found in asked.items():
        if (most := chosen.most(field)) and found > most:
            which = " or ".join(chosen.models[:3]) or "any model here"
            raise Troubled(
                "over_limit", f"{field.removeprefix('max_')} {found}: workers of {which} take at most {most} now", field
            )
