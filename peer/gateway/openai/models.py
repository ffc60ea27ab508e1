"""The list of models, as OpenAI's clients read it."""

from __future__ import annotations

from typing import Any

from peer.gateway.catalogue import Catalogue, Model


def listed(catalogue: Catalogue) -> list[dict[str, Any]]:
    """All models that are served now, under the names by which they can be asked for; with several hordes each also as
    HORDE/MODEL, which names the horde."""
    return [_entry(name, model) for name, model in catalogue.names().items()]


def _entry(name: str, model: Model) -> dict[str, Any]:
    """A model. What stands behind `owned_by` is not OpenAI's; a size that is not known is left out."""
    sizes = {
        "context_length": model.max_context,
        "max_tokens": model.max_tokens,
        "max_pixels": model.max_pixels,
        "max_steps": model.max_steps,
    }
    return {
        "id": name,
        "object": "model",
        # When a model was made is nowhere said.
        "created": 0,
        "owned_by": model.horde,
        "kind": model.kind,
        "workers": model.workers,
        "waiting": model.waiting,
        **{size: value for size, value in sizes.items() if value},
    }
