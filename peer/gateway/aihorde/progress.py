"""How a request stands, in AI Horde's words."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from peer.gateway.asks import ImageAsk, Result, TextAsk
from peer.gateway.errors import Trouble
from protocol.keys import show_key

#: A request for which no worker is known is called impossible only after so many milliseconds: clients give up at once
#: then, and a worker that was lost for a moment is no reason to.
PATIENCE_MS = 60_000

#: Units of work that one worker does a second with this model, 0 if nobody knows.
SpeedOf = Callable[[str], int]


class Request(Protocol):
    """What is known of a request as a whole; see `peer.gateway.running.Running`."""

    ask: ImageAsk | TextAsk
    since: int
    ended: bool
    cancelled: bool
    trouble: Trouble | None


def check(request: Request, results: Sequence[Result], speed_of: SpeedOf, now: int) -> dict[str, Any]:
    """The answer to a check: counts and times. results: as far as they are."""
    whole = [result for result in results if result.is_whole]
    is_over = request.ended or request.cancelled or len(whole) == len(results)
    making = [] if is_over else [result for result in results if result.is_being_made]
    waiting = [] if is_over else [result for result in results if not result.is_whole and not result.is_being_made]
    return {
        "finished": len(whole),
        "processing": len(making),
        "restarted": sum(result.restarts for result in results),
        "waiting": len(waiting),
        "done": is_over,
        "faulted": _is_faulted(request, len(whole)),
        "wait_time": max([0, *(_wait(result, request.ask, speed_of) for result in (*making, *waiting))]),
        "queue_position": max([0, *(result.ahead + 1 for result in waiting)]),
        "kudos": kudos(sum(result.paid if result.settled else result.price for result in whole)),
        "is_possible": not any(_is_hopeless(result, now - request.since) for result in waiting),
    }


def image(result: Result, seed: int, id: str, picture: str) -> dict[str, Any]:
    """One picture of a status. picture: a link to it, or itself in base64."""
    return {**_made(result, id), "img": picture, "seed": str(seed), "censored": False}


def text(result: Result, seed: int, id: str, written: str) -> dict[str, Any]:
    """One text of a status."""
    return {**_made(result, id), "text": written, "seed": seed, "censored": False}


def kudos(thousandths: int) -> float:
    """Kudos as AI Horde writes them."""
    return thousandths / 1000


def worker_name(key: bytes) -> str:
    """What people call a worker."""
    return show_key(key)[:8]


def _made(result: Result, id: str) -> dict[str, Any]:
    return {
        "id": id,
        "model": result.model,
        "worker_id": show_key(result.worker),
        "worker_name": worker_name(result.worker),
        "state": "partial" if result.finish == "cancelled" else "ok",
        "gen_metadata": [],
    }


def _is_faulted(request: Request, whole: int) -> bool:
    """Whether nothing came of it: clients throw away what there is as soon as they read this."""
    return request.ended and not request.cancelled and request.trouble is not None and whole == 0


def _is_hopeless(result: Result, waited_ms: int) -> bool:
    return waited_ms > PATIENCE_MS and bool(result.job) and result.workers == 0


def _wait(result: Result, ask: ImageAsk | TextAsk, speed_of: SpeedOf) -> int:
    """Seconds until this result is expected."""
    name = result.model or (ask.models[0] if ask.models else "")
    if not (speed := speed_of(name)):
        return result.wait
    if isinstance(ask, ImageAsk):
        passes = 2 if ask.guidance > 1 else 1
        left = (ask.steps - min(result.done, ask.steps)) * ask.width * ask.height * passes
    else:
        left = max(0, (ask.max_tokens or 0) - result.done)
    return (0 if result.is_being_made else result.wait) + -(-left // speed)
