"""What people propose and how they vote, for everybody: `/proposals`. Who voted how is shown to nobody."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiohttp import web

from protocol.documents import parse_document
from protocol.envelope import check_document_context
from protocol.errors import BadValue, Refusal
from protocol.governing import Vote
from tracker.proposals import as_shown
from tracker.replies import as_json

if TYPE_CHECKING:
    from tracker.coordinator import Coordinator

#: Proposals in one part.
LISTED = 20
_NEWEST = 2**62

COORDINATOR: web.AppKey[Coordinator] = web.AppKey("proposals")


def add_proposals(app: web.Application, coordinator: Coordinator) -> None:
    """Have the application answer `/proposals` and `/proposals/proof`."""
    app[COORDINATOR] = coordinator
    app.add_routes([web.get("/proposals", _proposals), web.post("/proposals/proof", _proof)])


async def _proposals(request: web.Request) -> web.Response:
    """The newest first, in parts: those below the number in `before`."""
    coordinator = request.app[COORDINATOR]
    before = request.query.get("before", "")
    if before and not (before.isascii() and before.isdecimal() and len(before) <= 12):
        text = f"before={before[:40]}: wanted the number of a proposal"
        return as_json({"code": BadValue.code, "text": text}, status=400)
    found = await coordinator.store.proposals(int(before or _NEWEST), LISTED)
    following = found[-1].number if len(found) == LISTED and found[-1].number > 1 else None
    return as_json({"proposals": [as_shown(one) for one in found], "before": following})


async def _proof(request: web.Request) -> web.Response:
    """Whoever holds a vote is shown that it was counted; the body is its envelope, which only its signer has."""
    coordinator = request.app[COORDINATOR]
    try:
        envelope = parse_document(await request.read(), Vote)
        check_document_context(envelope, coordinator.root)
        envelope.verify()
        found = await coordinator.store.proof_of_vote(envelope)
    except Refusal as refusal:
        return as_json({"code": refusal.code, "text": refusal.text}, status=400)
    if found is None:
        return as_json({"code": BadValue.code, "text": "this vote was not counted, or the vote goes on"}, status=404)
    place, size, proof = found
    return as_json({"place": place, "size": size, "proof": [one.hex() for one in proof]})
