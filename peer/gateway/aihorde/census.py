"""Models, load and counts, as AI Horde publishes them, from what the trackers publish."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from peer.gateway.catalogue import Model
from protocol.work import Kind

#: Seconds that AI Horde says for a queue that nobody works off.
NEVER_SECONDS = 10_000
PERIODS = ("minute", "hour", "day", "month", "total")

Scrape = Mapping[str, Any]


def count(value: object) -> int:
    """A number that a tracker published; 0 for whatever is none."""
    return max(0, int(value)) if isinstance(value, int | float) and math.isfinite(value) else 0


def models(served: Mapping[str, Model], queued: Mapping[tuple[Kind, str, str], int]) -> list[dict[str, Any]]:
    """`status/models`. served: by the names they can be asked for. queued: units of work that wait, by kind, horde and
    model."""
    found = []
    for name, model in served.items():
        units = queued.get((model.kind, model.horde, model.name), 0)
        slots = model.slots or model.workers
        found.append(
            {
                "name": name,
                "count": slots,
                "performance": float(model.speed),
                "queued": float(units),
                "jobs": float(model.waiting),
                "eta": _eta(units, slots * model.speed, model),
                "type": model.kind,
            }
        )
    return found


def _eta(units: int, speed: int, model: Model) -> int:
    """Seconds until what waits for the model is done."""
    if not model.workers:
        return NEVER_SECONDS
    return max(model.wait, -(-units // speed) if speed else 0)


def queued(scrapes: Mapping[str, Scrape]) -> dict[tuple[Kind, str, str], int]:
    """Units of work that wait, by kind, horde and model."""
    found: dict[tuple[Kind, str, str], int] = {}
    for horde, scrape in scrapes.items():
        swarms = scrape.get("swarms")
        for swarm in swarms if isinstance(swarms, list) else []:
            if isinstance(swarm, dict) and swarm.get("kind") in ("image", "text"):
                found[swarm["kind"], horde, str(swarm.get("model", ""))] = count(swarm.get("queued"))
    return found


def performance(scrapes: Iterable[Scrape]) -> dict[str, Any]:
    """`status/performance`: what all hordes together do."""
    all_scrapes = list(scrapes)
    images, texts = (_kind(all_scrapes, "image"), _kind(all_scrapes, "text"))
    return {
        "queued_requests": images["waiting"],
        "queued_text_requests": texts["waiting"],
        "worker_count": images["workers"],
        "text_worker_count": texts["workers"],
        "thread_count": images["slots"],
        "text_thread_count": texts["slots"],
        "queued_megapixelsteps": _mega(images["queued"]),
        "past_minute_megapixelsteps": _mega(images["past_minute"]),
        "queued_forms": 0.0,
        "interrogator_count": 0,
        "interrogator_thread_count": 0,
        "queued_tokens": float(texts["queued"]),
        "past_minute_tokens": float(texts["past_minute"]),
    }


def image_totals(scrapes: Iterable[Scrape]) -> dict[str, Any]:
    """`stats/img/totals`. Trackers count the last minute; of longer times they publish nothing by kind."""
    done = _kind(list(scrapes), "image")["past_minute"]
    return {period: {"images": None, "ps": done if period == "minute" else None} for period in PERIODS}


def text_totals(scrapes: Iterable[Scrape]) -> dict[str, Any]:
    """`stats/text/totals`, as far as it is known."""
    done = _kind(list(scrapes), "text")["past_minute"]
    return {period: {"tokens": done} if period == "minute" else {} for period in PERIODS}


def model_totals() -> dict[str, Any]:
    """`stats/img/models` and `stats/text/models`: no tracker keeps what each model did."""
    return {"day": {}, "month": {}, "total": {}}


def wanted(found: Sequence[dict[str, Any]], least: int | None, most: int | None) -> list[dict[str, Any]]:
    """The models that at least, and at most, so many jobs can be made of at once."""
    return [
        model
        for model in found
        if (least is None or model["count"] >= least) and (most is None or model["count"] <= most)
    ]


def _kind(scrapes: Sequence[Scrape], kind: Kind) -> dict[str, int]:
    names = ("workers", "slots", "waiting", "queued", "past_minute")
    found = [kinds.get(kind) for scrape in scrapes if isinstance(kinds := scrape.get("kinds"), dict)]
    return {name: sum(count(one.get(name)) for one in found if isinstance(one, dict)) for name in names}


def _mega(units: int) -> float:
    return round(units / 1_000_000, 2)
