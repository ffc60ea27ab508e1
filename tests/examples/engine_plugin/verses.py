"""An engine of one's own: verses by chance, a word for a token. It runs in a process of its own, so that it may take
its time, import what it likes and print what it likes (but never a prompt)."""

from __future__ import annotations

import random
from collections.abc import Sequence

from peer.engines.base import Done, EngineError, StepsDone, TextMade
from peer.engines.maker import Job, Maker
from peer.engines.spec import EngineSpec, SpecError
from protocol.messages import Offer
from protocol.work import TextPrivate, TextWork

MOODS = {
    "merry": ("sun", "dances", "over", "bright", "meadows", "and", "laughs"),
    "sad": ("rain", "falls", "on", "grey", "roofs", "and", "sighs"),
}


def maker(spec: EngineSpec) -> Maker:
    """What the entry point names: the maker for what the operator asked for. Raises `SpecError` for what cannot be."""
    options = dict(spec.options)
    mood = str(options.pop("mood", "merry"))
    if mood not in MOODS or options:
        known = " or ".join(MOODS)
        raise SpecError(f"verses: wanted the option mood, {known}; found {dict(spec.options)}")
    return Verses(spec.model, MOODS[mood])


class Verses(Maker):
    """One vocabulary."""

    def __init__(self, model: str, words: Sequence[str]) -> None:
        self._model = model
        self._words = words

    def load(self) -> Sequence[Offer]:
        # Where a model would be loaded. The class says within what the same seed gives the same verses.
        return [Offer(kind="text", model=self._model, engine="verses 1.0", max_tokens=500, max_context=2048)]

    def make(self, job: Job) -> Done:
        work, private = job.task.work, job.task.private
        if not isinstance(work, TextWork) or not isinstance(private, TextPrivate):
            raise EngineError("unsupported", "verses are texts")
        given = len(private.prompt.split()) + sum(len(message.content.split()) for message in private.messages)
        if given + work.max_tokens > work.context_tokens:
            raise EngineError("too_long", f"{given} words and {work.max_tokens} to come exceed {work.context_tokens}")
        chance = random.Random(job.task.seed)
        for made in range(work.max_tokens):
            if job.halted:  # somebody has enough: what there is was said already
                return Done(made, given + made, "cancelled")
            job.say(TextMade(chance.choice(self._words) + " "))
            job.say(StepsDone(made + 1, work.max_tokens))
        return Done(work.max_tokens, given + work.max_tokens, "length")
