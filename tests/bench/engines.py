"""A horde with one real worker, as anybody would start it, for the parts that compare engines."""

from __future__ import annotations

import importlib.util
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from peer.client import Client
from tests.bench.control import Child
from tests.bench.scale import Bench
from tests.bench.stage import children
from tests.support.horde import Horde

#: All pictures of a repetition are asked for in one request, by somebody without an account.
RULES = "limits.anonymous_max_n = 20"


def lacking(*modules: str) -> str:
    """What of these is not installed, in words; empty if nothing."""
    missing = [module for module in modules if importlib.util.find_spec(module) is None]
    return f"not installed: {', '.join(missing)}" if missing else ""


@asynccontextmanager
async def one_worker(bench: Bench, name: str, *arguments: str) -> AsyncIterator[tuple[Client, Child]]:
    """A client in a horde with one worker of these arguments, and a process for the engine alone."""
    folder = bench.folder / name
    async with Horde.open(folder, RULES) as horde, children(folder, "bare", 1) as (bare,):
        await horde.worker("worker", *arguments)
        async with horde.client() as client:
            yield client, bare
