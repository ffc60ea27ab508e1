"""The places of a worker and of a requester."""

from __future__ import annotations

from typing import Any

import peer.spool
from peer.assembly import Assembly
from peer.client import Client
from peer.connection import Connection
from peer.engines import process
from peer.evidence import Evidence
from peer.keeping import Keeping
from peer.spool import Spool
from peer.worker_jobs import Jobs
from protocol.envelope import Envelope
from protocol.messages import Queued, Report
from tests.torture.seams import wrap
from tests.torture.trap import Trap

ENGINE_MODULE = "tests.torture.engine"


def install_worker(trap: Trap) -> None:
    """Make every place of a worker one where it can be killed, and have its engines come with theirs."""
    process.MODULE = ENGINE_MODULE
    wrap(trap, Jobs, "leased", before="a lease came")
    wrap(trap, Connection, "say", before=_reports("before"), after=lambda _, *given: _reports("after")(*given))
    wrap(trap, Jobs, "opened", before="the stream is opened")
    wrap(trap, Spool, "create", after="the spool is made")
    wrap(trap, Jobs, "progressed", before="making")
    wrap(trap, Spool, "sync", before="all made, not on disk", after="on disk, not signed")
    wrap(trap, peer.spool, "_sync_folder", before="receipt renamed, folder not on disk")
    wrap(trap, Spool, "keep_receipt", before="signed, receipt not on disk", after="receipt on disk")
    wrap(
        trap,
        Connection,
        "send_document",
        before=lambda _, envelope: "before handing the receipt" if envelope.kind == "receipt" else "",
        after=lambda _, __, envelope: "after handing the receipt" if envelope.kind == "receipt" else "",
    )
    wrap(trap, Keeping, "keep", before="settlement came, not kept", after="settlement kept, result not removed")
    wrap(trap, Spool, "remove", after="result removed")


def _reports(when: str) -> Any:
    def place(_: Connection, message: object) -> str:
        return f"{when} a report" if isinstance(message, Report) else ""

    return place


def install_requester(trap: Trap) -> None:
    """Make every place of a requester one where it can be killed."""
    wrap(trap, Connection, "send_document", before=_sends, after=lambda _, *given: _sent(*given))
    wrap(trap, Client, "received", before=lambda _, message: "queued" if isinstance(message, Queued) else "")
    wrap(trap, Client, "received_document", before=lambda _, paper: "a lease came" if paper.kind == "lease" else "")
    wrap(trap, Assembly, "take", before="streaming")
    wrap(trap, Evidence, "keep", before="all came, proof not on disk")
    wrap(trap, Evidence, "await_settlement", before="proof on disk, statement not")
    wrap(trap, Evidence, "settle", before="settlement came, not kept", after="settlement kept")
    wrap(trap, Evidence, "forget", before="settlement kept, statement not forgotten")


def _sends(_: Connection, envelope: Envelope) -> str:
    return {"request": "before the request", "acknowledgement": "statement on disk, not sent"}.get(envelope.kind, "")


def _sent(_: Connection, envelope: Envelope) -> str:
    return {"request": "after the request", "acknowledgement": "acknowledged"}.get(envelope.kind, "")
