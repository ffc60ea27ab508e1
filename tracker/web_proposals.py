"""What people propose and how they vote, for everybody: `/proposals`. Who voted how is shown to nobody."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

from aiohttp import web

from protocol.documents import open_document, parse_document
from protocol.envelope import check_document_context, parse
from protocol.errors import BadValue, Refusal
from protocol.governing import Answer, Outcome, Proposal, Vote
from tracker.proposals import Proposed
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
    return as_json({"proposals": [shown(one) for one in found], "before": following})


def shown(one: Proposed) -> dict[str, object]:
    """One proposal as everybody may read it, with the documents that were signed."""
    said = open_document(parse(one.document), Proposal)
    outcome = open_document(parse(one.outcome), Outcome) if one.outcome else None
    answered = open_document(parse(one.answer), Answer) if one.answer else None
    return {
        "number": one.number,
        "digest": one.digest.hex(),
        "account": one.account,
        "key": said.key,
        "value": said.value,
        "was": one.was,
        "text": said.text,
        "rules": one.rules,
        "opened": one.opened,
        "until": one.until,
        "voices": one.voices,
        "ledger_size": one.size,
        "document": base64.b64encode(one.document).decode("ascii"),
        "outcome": outcome
        and {
            "yes": outcome.yes,
            "no": outcome.no,
            "accepted": outcome.accepted,
            "ended": outcome.ended,
            "root": outcome.root.hex(),
            "document": base64.b64encode(one.outcome).decode("ascii"),
        },
        "answer": answered
        and {
            "text": answered.text,
            "rules": answered.rules or None,
            "document": base64.b64encode(one.answer).decode("ascii"),
        },
    }


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
