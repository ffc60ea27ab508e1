"""Whether a task is one of those that an engine offers."""

from __future__ import annotations

from collections.abc import Sequence

from peer.engines.base import EngineError, Task
from protocol.messages import Offer
from protocol.work import ImageWork, Work, kind_of


def why_not(task: Task, offers: Sequence[Offer]) -> EngineError | None:
    """The first reason against this task, or none."""
    if not offers:
        return EngineError("unavailable", "what this engine works with does not answer for now")
    kind = kind_of(task.work)
    mine = [offer for offer in offers if offer.kind == kind and offer.model == task.model]
    if not mine:
        served = ", ".join(f"{offer.kind} {offer.model!r}" for offer in offers)
        return EngineError("unsupported", f"asked for {kind} {task.model!r}; this engine serves {served}")
    if task.private.__struct_config__.tag != kind:
        return EngineError("unsupported", f"the private part is not one of kind {kind}")
    too_much = over(task.work, mine[0])
    if too_much:
        return EngineError("unsupported", too_much)
    if task.prefix and not mine[0].continues:
        return EngineError("prefix_unsupported", f"{task.model!r} cannot continue a given text here: start afresh")
    return None


def over(work: Work, offer: Offer) -> str:
    """What of this work is more than the offer takes; empty if it fits."""
    if isinstance(work, ImageWork):
        asked = (("pixels", work.width * work.height, offer.max_pixels), ("steps", work.steps, offer.max_steps))
    else:
        asked = (
            ("tokens", work.max_tokens, offer.max_tokens),
            ("tokens of context", work.context_tokens, offer.max_context),
        )
    for what, wanted, most in asked:
        if wanted > most:
            return f"{wanted} {what} asked for; {offer.model!r} takes at most {most} here"
    return ""
