"""The public log of what moderators and operators did: `/acts`. Persons stand there by the number of their account."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

from aiohttp import web

from protocol.documents import Award, open_document
from protocol.envelope import parse
from protocol.errors import BadValue
from protocol.governing import Act
from protocol.keys import show_key
from tracker.replies import as_json
from tracker.store.base import Logged

if TYPE_CHECKING:
    from tracker.coordinator import Coordinator

#: Acts in one part of the log.
LISTED = 50
_NEWEST = 2**62

COORDINATOR: web.AppKey[Coordinator] = web.AppKey("acts")


def add_acts(app: web.Application, coordinator: Coordinator) -> None:
    """Have the application answer `/acts`."""
    app[COORDINATOR] = coordinator
    app.add_routes([web.get("/acts", _acts)])


async def _acts(request: web.Request) -> web.Response:
    """The newest first, in parts: those below the number in `before`."""
    coordinator = request.app[COORDINATOR]
    before = request.query.get("before", "")
    if before and not (before.isascii() and before.isdecimal() and len(before) <= 12):
        text = f"before={before[:40]}: wanted the number of an act"
        return as_json({"code": BadValue.code, "text": text}, status=400)
    found = await coordinator.store.acts(coordinator.clock(), int(before or _NEWEST), LISTED)
    following = found[-1].number if len(found) == LISTED and found[-1].number > 1 else None
    return as_json({"acts": [shown(one) for one in found], "before": following})


def shown(one: Logged) -> dict[str, object]:
    """One act as everybody may read it, with the document that was signed."""
    envelope = parse(one.document)
    rest: dict[str, object]
    if one.kind == Award.KIND:
        award = open_document(envelope, Award)
        rest = {"reason": award.reason, "amount": award.amount}
    else:
        act = open_document(envelope, Act)
        rest = {
            "rule": act.rule,
            "reason": act.reason,
            "until": act.until or None,
            "open_jobs": act.open_jobs or None,
            "worker": act.worker.hex() or None,
            "to": act.to or None,
            "amount": act.amount or None,
            "block": act.block or None,
            "about": act.about.hex() or None,
        }
    return {
        "number": one.number,
        "act": one.kind,
        "account": one.account or None,
        "state": one.state,
        "time": one.time,
        **{name: value for name, value in rest.items() if value is not None},
        "by": show_key(envelope.key),
        "agreed": one.agreed.hex() or None,
        "lifted": one.ended_by.hex() or None,
        "open_appeals": one.appeals,
        "digest": one.digest.hex(),
        "document": base64.b64encode(one.document).decode("ascii"),
    }
