"""Pictures with a sampler that is a wish and not a condition.

AI Horde's clients name a sampler in every request, mostly their own default, without knowing the model: workers there
take another one where it does not fit. Here a worker declines, and the job would wait for one that never comes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from peer.client import Client
from peer.events import Event, Received, Requeued
from peer.gateway.asks import ImageAsk


@dataclasses.dataclass(frozen=True, kw_only=True)
class LenientAsk(ImageAsk):
    """Pictures that are drawn with the model's own sampler if it has not the one that was named."""

    def put(self, client: Client, models: Sequence[str]) -> AsyncGenerator[Event, None]:
        first = super().put(client, models)
        return _drawn(first, self, client, models) if self.sampler else first


async def _drawn(
    first: AsyncGenerator[Event, None], ask: LenientAsk, client: Client, models: Sequence[str]
) -> AsyncGenerator[Event, None]:
    some_are_whole = False
    async with aclosing(first):
        async for event in first:
            if _lacks_sampler(event) and not some_are_whole:
                break
            some_are_whole = some_are_whole or isinstance(event, Received)
            yield event
        else:
            return
    async with aclosing(dataclasses.replace(ask, sampler="").put(client, models)) as again:
        async for event in again:
            yield event


def _lacks_sampler(event: Event) -> bool:
    return isinstance(event, Requeued) and event.reason == "unsupported" and "sampler" in event.text
