"""The engines without a horde around them: a pipeline in a loop, the text engine in this very process, also by the HTTP
server that it brings along."""

from __future__ import annotations

import asyncio
import sys
import time
from io import BytesIO
from typing import Any

from peer.engines.base import Task, TextMade
from peer.engines.maker import Job, Maker, Said, cores
from peer.engines.spec import DiffusersOptions, options_of, shapes_spec, smollm2_spec
from protocol.digests import new_salt
from protocol.work import ChatMessage, TextPrivate, TextWork
from tests.bench.control import obey, run


class Bare:
    """What this process has loaded."""

    def __init__(self) -> None:
        self._pipeline: Any = None
        self._llama: Maker | None = None

    async def answer(self, what: str, about: dict[str, Any]) -> dict[str, Any] | None:
        """Do what is asked for."""
        found: dict[str, Any] = await asyncio.to_thread(getattr(self, f"do_{what}"), **about)
        return found

    def do_load_pictures(self) -> dict[str, Any]:
        """Load the picture model, with the worker's own settings."""
        import diffusers
        import torch

        options = options_of(shapes_spec(), DiffusersOptions)
        torch.set_num_threads(cores(options.threads))
        self._pipeline = diffusers.DiffusionPipeline.from_pretrained(
            options.path, dtype=torch.float32, local_files_only=True
        )
        self._pipeline.set_progress_bar_config(disable=True)
        return {}

    def do_pictures(self, prompt: str, count: int, side: int, steps: int, guidance: float) -> dict[str, Any]:
        """Make so many pictures, one after the other; the seconds that it took."""
        import torch

        began = time.perf_counter()
        for seed in range(count):
            found = self._pipeline(
                prompt,
                width=side,
                height=side,
                num_inference_steps=steps,
                guidance_scale=guidance,
                generator=torch.Generator().manual_seed(seed),
            )
            found.images[0].save(BytesIO(), "PNG")
        return {"seconds": time.perf_counter() - began}

    def do_load_text(self) -> dict[str, Any]:
        """Load the text model, with the worker's own settings."""
        from peer.engines.text import maker

        self._llama = maker(smollm2_spec())
        self._llama.load()
        return {}

    def do_serve_text(self) -> dict[str, Any]:
        """Load the text model, with the worker's own settings; where its own server listens, and the key to it."""
        from peer.engines.text import Llama, maker

        self._llama = maker(smollm2_spec())
        self._llama.load()
        assert isinstance(self._llama, Llama)
        return {"url": self._llama._server.listening_address, "key": self._llama._key}

    def do_text(self, prompt: str, tokens: int, seed: int) -> dict[str, Any]:
        """Make one text; the seconds to its first piece and to its end, and the tokens made."""
        assert self._llama is not None
        private = TextPrivate(
            messages=(ChatMessage(role="user", content=prompt),), seed=seed, temperature=0, salt=new_salt()
        )
        task = Task(smollm2_spec().model, TextWork(max_tokens=tokens, context_tokens=2048), private, seed)
        first: list[float] = []

        def say(said: Said) -> None:
            if isinstance(said, TextMade) and not first:
                first.append(time.perf_counter())

        began = time.perf_counter()
        done = self._llama.make(Job(task, say))
        ended = time.perf_counter()
        return {"first_s": first[0] - began, "seconds": ended - began, "tokens": done.used}


async def main() -> None:
    """Obey until standard input ends."""
    await obey(Bare().answer)


if __name__ == "__main__":
    # What libraries say goes to the log; the answers alone go to standard output.
    run(main)
    sys.exit(0)
