"""Where processes are killed, by name, and the table of how often that was done."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import NamedTuple

TRACKER, WORKER, ENGINE, REQUESTER = VICTIMS = ("tracker", "worker", "engine", "requester")

#: The place of a kill that comes from outside, whenever it comes.
RANDOM = "a random moment"


class Cell(NamedTuple):
    """One line of the table."""

    victim: str
    place: str


#: Steps of the store whose commit is cut off, just before it would become durable.
STEPS = ("admit", "lease", "happen", "receive", "acknowledge", "deny", "cancel", "register", "seal")
#: What a job has just become, durably, and nobody has been told.
JOB_STATES = (
    "waiting",
    "leased",
    "accepted",
    "opened",
    "delivered",
    "settled",
    "refunded",
    "cancelled",
    "requeued",
)
#: Sends that the tracker does not come to, for all that it is committed.
SENDS = (
    "queued to requester",
    "position to requester",
    "peer_record to requester",
    "lease to requester",
    "lease to worker",
    "taken to worker",
    "settlement to worker",
    "settlement to requester",
    "ended to requester",
    "requeued to requester",
    "withdrawn to worker",
    "account to requester",
)
#: Sends after which it ends: the other side counts on what it has been told.
SENT = ("queued", "lease", "taken", "settlement", "ended")

TRACKER_PLACES = (
    *(f"before the commit of {step}" for step in STEPS),
    *(f"committed: job {state}" for state in JOB_STATES),
    *(f"before sending {send}" for send in SENDS),
    *(f"after sending {sent}" for sent in SENT),
)
WORKER_PLACES = (
    "a lease came",
    "before a report",
    "after a report",
    "the stream is opened",
    "the spool is made",
    "making",
    "all made, not on disk",
    "on disk, not signed",
    "signed, receipt not on disk",
    "receipt renamed, folder not on disk",
    "receipt on disk",
    "before handing the receipt",
    "after handing the receipt",
    "settlement came, not kept",
    "settlement kept, result not removed",
    "result removed",
)
ENGINE_PLACES = (
    "loading",
    "a job came",
    "a step made",
    "before handing over what it made",
    "before done",
    "after done",
)
REQUESTER_PLACES = (
    "before the request",
    "after the request",
    "queued",
    "a lease came",
    "streaming",
    "all came, proof not on disk",
    "proof on disk, statement not",
    "statement on disk, not sent",
    "acknowledged",
    "settlement came, not kept",
    "settlement kept, statement not forgotten",
    "settlement kept",
)

PLACES: Mapping[str, tuple[str, ...]] = {
    TRACKER: TRACKER_PLACES,
    WORKER: WORKER_PLACES,
    ENGINE: ENGINE_PLACES,
    REQUESTER: REQUESTER_PLACES,
}
CELLS = tuple(Cell(victim, place) for victim in VICTIMS for place in PLACES[victim])
RANDOM_CELLS = tuple(Cell(victim, RANDOM) for victim in VICTIMS)


def table(kills: Mapping[Cell, int], cells: Iterable[Cell]) -> str:
    """Kills by place, with those of each victim and of all at the end."""
    cells = list(cells)
    width = max(len(cell.place) for cell in cells)
    lines = ["", f"kills by place{'':{width - 2}}kills"]
    by_victim: Counter[str] = Counter()
    for cell in cells:
        lines.append(f"  {cell.victim:9} {cell.place:{width}} {kills.get(cell, 0):5}")
        by_victim[cell.victim] += kills.get(cell, 0)
    parts = ", ".join(f"{victim} {count}" for victim, count in by_victim.items())
    return "\n".join([*lines, f"  {sum(by_victim.values())} in all: {parts}", ""])


def too_few(kills: Mapping[Cell, int], cells: Iterable[Cell], least: int) -> list[Cell]:
    """The cells with fewer kills than wanted."""
    return [cell for cell in cells if kills.get(cell, 0) < least]
