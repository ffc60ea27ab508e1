"""Accounts and workers, as AI Horde shows users and workers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from peer.gateway.aihorde.census import count
from peer.gateway.aihorde.progress import kudos
from protocol.documents import shown_name
from protocol.messages import Account

NOBODY = "Anonymous#0"
DAY_SECONDS = 86_400


def own(account: Account, open_jobs: int, active: Mapping[str, list[str]]) -> dict[str, Any]:
    """Our account. open_jobs: how many the rules allow at once. active: ids of what is under way, by kind."""
    found = _user(account.number, shown_name(account.name or "unnamed", account.number))
    found.update(
        kudos=kudos(account.balance),
        kudos_details={**found["kudos_details"], "accumulated": kudos(account.earned - account.spent)},
        evaluating_kudos=kudos(account.withheld),
        concurrency=open_jobs,
        trusted=not (account.trust_jobs or account.trust_days or account.faults),
        service=account.service,
        usage={"requests": account.jobs_received, "megapixelsteps": 0.0},
        contributions={"fulfillments": account.jobs_done, "megapixelsteps": 0.0},
        active_generations=dict(active),
    )
    return found


def nobody(open_jobs: int) -> dict[str, Any]:
    """Everybody without a key."""
    return {**_user(0, NOBODY), "concurrency": open_jobs, "pseudonymous": True}


def other(page: Mapping[str, Any], now_ms: int) -> dict[str, Any]:
    """An account whose owner wants it seen, from its page at the tracker. Of its balance the page says nothing."""
    number = count(page.get("account"))
    gave, took = (page.get(part) for part in ("gave", "took"))
    gave, took = (part if isinstance(part, dict) else {} for part in (gave, took))
    found = _user(number, str(page.get("name") or shown_name("unnamed", number)))
    earned, spent = count(gave.get("kudos")), count(took.get("kudos"))
    found.update(
        kudos_details={**found["kudos_details"], "accumulated": kudos(earned - spent)},
        account_age=max(0, now_ms // 1000 - count(page.get("since_day")) * DAY_SECONDS),
        service=bool(page.get("service")),
        usage={"requests": count(took.get("jobs")), "megapixelsteps": 0.0},
        contributions={"fulfillments": count(gave.get("jobs")), "megapixelsteps": 0.0},
    )
    return found


def _user(number: int, name: str) -> dict[str, Any]:
    """What every user has, with what a horde has no counterpart for at its usual value."""
    details = ("accumulated", "gifted", "donated", "admin", "received", "recurring", "awarded", "styled")
    return {
        "username": name,
        "id": number,
        "kudos": 0.0,
        "kudos_details": dict.fromkeys(details, 0.0),
        "evaluating_kudos": 0.0,
        "concurrency": 0,
        "worker_invited": 0,
        "moderator": False,
        "worker_count": 0,
        "worker_ids": [],
        "sharedkey_ids": [],
        "monthly_kudos": {"amount": 0},
        "trusted": False,
        "flagged": False,
        "vpn": False,
        "service": False,
        "education": False,
        "customizer": False,
        "special": False,
        "suspicious": 0,
        "pseudonymous": False,
        "account_age": 0,
        "usage": {"requests": 0, "megapixelsteps": 0.0},
        "contributions": {"fulfillments": 0, "megapixelsteps": 0.0},
        "records": {
            "usage": {"megapixelsteps": 0.0, "tokens": 0},
            "contribution": {"megapixelsteps": 0.0, "tokens": 0},
            "fulfillment": {"image": 0, "text": 0, "interrogation": 0},
            "request": {"image": 0, "text": 0, "interrogation": 0},
        },
        "styles": [],
    }


def workers(entry: Mapping[str, Any], now_ms: int) -> list[dict[str, Any]]:
    """A worker from its tracker's list: one entry for each kind that it serves, since a worker there has one."""
    offers = entry.get("offers")
    found = [offer for offer in (offers if isinstance(offers, list) else []) if isinstance(offer, dict)]
    return [
        _worker(entry, kind, [offer for offer in found if offer.get("kind") == kind], now_ms)
        for kind in ("image", "text")
        if any(offer.get("kind") == kind for offer in found)
    ]


def _worker(entry: Mapping[str, Any], kind: str, offers: list[dict[str, Any]], now_ms: int) -> dict[str, Any]:
    speeds = [float(said) for offer in offers if isinstance(said := offer.get("speed"), int | float) and said > 0]
    found: dict[str, Any] = {
        "type": kind,
        "name": str(entry.get("name", "")),
        "id": str(entry.get("id", "")),
        "online": True,
        "requests_fulfilled": count(entry.get("jobs")),
        "kudos_rewards": kudos(count(entry.get("kudos"))),
        "kudos_details": {"generated": kudos(count(entry.get("kudos"))), "uptime": 0},
        "performance": _pace(kind, sum(speeds) / max(1, len(speeds))),
        "threads": count(entry.get("slots")),
        "uptime": max(0, now_ms - count(entry.get("since"))) // 1000,
        "maintenance_mode": entry.get("paused") is True,
        "paused": entry.get("paused") is True,
        "nsfw": True,
        "trusted": True,
        "flagged": False,
        "uncompleted_jobs": 0,
        "models": [str(offer.get("model", "")) for offer in offers],
        "forms": [],
        "bridge_agent": "Potluck:1:",
    }
    if (account := entry.get("account")) is not None:
        found["owner"] = f"account {account}"
    most = {name: max(count(offer.get(name)) for offer in offers) for name in _BOUNDS}
    if kind == "image":
        none = ("img2img", "painting", "post-processing", "lora", "controlnet", "sdxl_controlnet")
        found |= {"max_pixels": most["max_pixels"], "megapixelsteps_generated": 0, **dict.fromkeys(none, False)}
    else:
        found |= {
            "max_length": most["max_tokens"],
            "max_context_length": most["max_context"],
            "tokens_generated": 0,
        }
    return found


_BOUNDS = ("max_pixels", "max_tokens", "max_context")


def _pace(kind: str, speed: float) -> str:
    """A speed as people read it, and as clients take it apart."""
    if kind == "text":
        return f"{speed:.1f} tokens per second"
    return f"{speed / 1_000_000:.1f} megapixelsteps per second"
