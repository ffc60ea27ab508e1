"""The table of a job's life (docs/protocol.md, section 12), row by row, with every branch that the code has for it.

A branch names the hits (`tests.support.tally`) by which it is known to have been taken; any one of them will do. What
no branch names must not happen.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

Hits = tuple[str, ...]
Branches = Mapping[str, Hits]

#: What the losses of a lease are called, and what each means for the job.
_LOSSES = {
    "an engine that fails": "failed",
    "declined after acceptance": "declined after acceptance",
    "gone: no connection": "gone: no connection",
    "gone: not among what it holds": "gone: not among what it holds",
    "deadline": "deadline",
}
_UNCOUNTED = ("not accepted", "declined")
_COUNTED = ("not opened", "unreachable", *_LOSSES.values())
_LIFE_SIGNS = ("accepted", "opened")

#: Rows of docs/protocol.md as `state | event`.
ROWS: Mapping[str, Branches] = {
    "- | request": {
        "waits": ("- | request | waiting",),
        "leased in the same transaction": ("- | request | leased at once",),
        "the same again is answered, and nothing else": ("- | request | the same again",),
        "over what the rules allow": ("refused | request | over_limit",),
        "content that the filter refuses": ("refused | request | content_refused",),
        "without its private part": ("refused | request | private_part_missing",),
        "too late": ("refused | request | late",),
        "hold: all": ("- | hold | all",),
        "hold: as far as the balance goes": ("- | hold | some",),
        "hold: nothing is left": ("- | hold | none",),
        "hold: anonymous": ("- | hold | anonymous",),
    },
    "waiting | a worker is free, the requester is connected": {
        "a worker was free": ("waiting | lease | a worker was free",),
        "a worker announces": ("waiting | lease | a worker announces",),
        "the requester was away, and is back": ("waiting | lease | a requester is back",),
        "accepted": ("leased | accepted | leased",),
    },
    "leased | not accepted within 5 s, or `declined`": {
        "not accepted": ("leased | not accepted | waiting",),
        "declined": ("leased | declined | waiting",),
    },
    "leased | accepted, not opened within 10 s": {"not opened": ("leased | not opened | waiting",)},
    "leased | `opened`": {"opened": ("leased | opened | leased",)},
    "leased | `unreachable`": {"unreachable": ("leased | unreachable | waiting",)},
    "leased | `failed`, worker gone, or deadline": {
        name: (f"leased | {event} | waiting",) for name, event in _LOSSES.items()
    },
    "leased | one counted loss too many (3 by default)": {event: (f"leased | {event} | failed",) for event in _COUNTED},
    "leased | receipt": {
        "receipt": ("leased | receipt | delivered",),
        "the same again": ("delivered | the same receipt | nothing",),
    },
    "waiting | receipt of the last attempt": {"receipt": ("waiting | receipt | delivered",)},
    "waiting, leased, delivered | acknowledgement of the latest attempt, or of an older one while no newer one has"
    " delivered": {
        "waiting": ("waiting | acknowledgement | settled",),
        "leased": ("leased | acknowledgement | settled",),
        "delivered": ("delivered | acknowledgement | settled",),
        "waiting, an older one": ("waiting, an earlier attempt | acknowledgement | settled",),
        "leased, an older one": ("leased, an earlier attempt | acknowledgement | settled",),
        "the same again": ("ended | acknowledgement | nothing",),
        "paid from the hold": ("settled | from the hold",),
        "paid from the hold and the mint": ("settled | from the hold and from the mint",),
        "paid from the mint": ("settled | from the mint",),
        "paid nothing, the mint being used up": ("settled | nothing, the mint is used up",),
        "paid nothing, both sides being one account": ("settled | nothing, within one account",),
    },
    "leased, delivered | denial of the latest attempt": {
        "leased": ("leased | denial | refunded",),
        "delivered": ("delivered | denial | refunded",),
        "the same again": ("ended | denial | nothing",),
    },
    "delivered | a day of silence": {"silence": ("delivered | silence | settled",)},
    "waiting | cancel": {"cancel": ("waiting | cancel | cancelled",)},
    "waiting | time to live over (20 min, counted only while it waits)": {
        "expired": ("waiting | time to live over | expired",)
    },
    "leased | cancel": {
        "cancel": ("leased | cancel | leased",),
        "cancelled again": ("leased, called off | cancel | nothing",),
        "a partial receipt": ("leased, called off | partial receipt | settled",),
        "a partial receipt within an acknowledgement": ("leased, called off | partial acknowledgement | settled",),
        "a whole receipt after all": ("leased, called off | receipt | settled",),
        "an acknowledgement after all": ("leased, called off | acknowledgement | settled",),
        "a denial": ("leased, called off | denial | refunded",),
        "no receipt within 10 s": ("leased, called off | time for a partial receipt over | cancelled",),
        "the lease is lost before": tuple(
            f"leased, called off | {event} | cancelled" for event in (*_UNCOUNTED, *_COUNTED)
        ),
    },
    "delivered | cancel": {
        "delivered": ("delivered | cancel | nothing",),
        "ended": ("ended | cancel | nothing",),
    },
    "any of the three | tracker restarted": {
        **{
            f"{how}: {state}": (f"restart | {how} | {state}",)
            for how in ("stopped", "killed")
            for state in (
                "waiting",
                "leased, pushed",
                "leased, accepted",
                "leased, opened",
                "leased, called off",
                "delivered",
            )
        },
        "a stored lease is pushed again": ("restart | a lease was pushed again",),
        "a grace": ("restart | a life sign from before it was awaited anew, and did not come",),
    },
}

#: Rows of "What is refused, and changes nothing" as `message | when`.
REFUSED: Mapping[str, Branches] = {
    "receipt | of an attempt that a newer lease has replaced": {
        "the newer one is leased": ("leased, an earlier attempt | receipt | fenced",),
        "the newer one has delivered": ("delivered, an earlier attempt | receipt | fenced",),
        "the newer one is over": ("waiting, an earlier attempt | receipt | fenced",),
    },
    "acknowledgement | of an old attempt when a newer one has delivered": {
        "acknowledgement": ("delivered, an earlier attempt | acknowledgement | fenced",)
    },
    "denial | of an attempt that is not the latest, or that has ended": {
        "not the latest": tuple(
            f"{state}, an earlier attempt | denial | fenced" for state in ("waiting", "leased", "delivered")
        ),
        "has ended": ("waiting | denial | fenced",),
    },
    "any of the three | the job has ended otherwise": {
        what: (f"ended | {what} | too_late",) for what in ("receipt", "acknowledgement", "denial")
    },
    "receipt, acknowledgement | more `used` or `context_used` than leased, or `partial` without a cancel": {
        f"{what}, {wrong}": tuple(
            f"{state} | {name} | over_lease" for state in ("waiting", "leased", "leased, called off", "delivered")
        )
        for what in ("receipt", "acknowledgement")
        for wrong, name in (("too much", f"{what} that claims too much"), ("partial", f"partial {what}"))
    },
    "any of the three | a different document of this job and attempt was taken before": {
        what: (f"refused | {what} | equivocation",) for what in ("receipt", "acknowledgement", "denial")
    },
    "any | unknown job or attempt, or one in which this key has no part": {
        what: (f"refused | {what} | unknown_job",) for what in ("receipt", "acknowledgement", "denial", "cancel")
    },
    "any | the right job, the wrong signer": {
        what: (f"refused | {what} | wrong_signer",) for what in ("receipt", "acknowledgement", "denial")
    },
}

#: Rows of the design that need uploads. A later issue builds them, and takes them off this list.
NOT_YET_BUILT: Sequence[str] = (
    "leased, delivered | denial | disputed | the worker uploads; digest right: settled, and the requester can fetch it",
    "leased, delivered | denial | disputed | the worker uploads another digest, or too late: refunded",
    "disputed | acknowledgement | settled",
    "delivered | a day of silence | settled | a random share of workers and all newcomers must upload first",
)


def _may_happen() -> set[str]:
    """Turns that are no branch of the table: repetitions and races, which change nothing, and their refusals."""
    hits = {
        "refused | request | equivocation",
        "refused | cancel | equivocation",
        "refused | cancel | late",
        "refused | unreachable | unknown_job",
        "refused | peer_record | out_of_turn",
        "waiting | lease | nothing",
        "waiting | cancel | nothing",
        "waiting | the same receipt | nothing",
        "ended | silence | nothing",
        "ended | time to live over | nothing",
        "ended | the same receipt | nothing",
        "ended | time for a partial receipt over | nothing",
        "waiting | time to live over | nothing",
        "leased | time to live over | nothing",
        "delivered | time to live over | nothing",
        "delivered | silence | nothing",
        "leased, called off | accepted | leased",
        "leased, called off | opened | leased",
    }
    hits |= {f"refused | {what} | receipt_mismatch" for what in ("acknowledgement", "denial")}
    states = ("waiting", "leased", "delivered", "leased, called off")
    attempts = [state + earlier for state in states for earlier in ("", ", an earlier attempt")]
    for state in (*attempts, "ended"):
        hits |= {f"{state} | {event} | nothing" for event in (*_LIFE_SIGNS, *_UNCOUNTED, *_COUNTED)}
        hits |= {f"{state} | the same receipt | {result}" for result in ("nothing", "fenced")}
    for state in attempts:
        for what in ("receipt", "acknowledgement"):
            for form in (what, f"partial {what}", f"{what} that claims too much"):
                hits |= {f"{state} | {form} | {code}" for code in ("over_lease", "fenced")}
        hits.add(f"{state} | denial | fenced")
    hits.add("leased, called off, an earlier attempt | acknowledgement | settled")
    hits |= {f"{state}, an earlier attempt | partial acknowledgement | settled" for state in ("leased, called off",)}
    for what in ("receipt", "acknowledgement"):
        hits |= {f"ended | {form} | too_late" for form in (f"partial {what}", f"{what} that claims too much")}
    hits |= {f"ended | {form}acknowledgement | nothing" for form in ("partial ",)}
    hits.add("ended | acknowledgement that claims too much | nothing")
    return hits


MAY_HAPPEN = frozenset(_may_happen())


def missed(hits: Counter[str], rows: Mapping[str, Branches]) -> list[str]:
    """Every branch that was never taken."""
    return [
        f"{row}: {branch}"
        for row, branches in rows.items()
        for branch, known_by in branches.items()
        if not any(hits[hit] for hit in known_by)
    ]


def unforeseen(hits: Counter[str], *tables: Mapping[str, Branches]) -> list[str]:
    """Every hit that no branch names, and that is no repetition or race either."""
    named = {hit for rows in tables for branches in rows.values() for known_by in branches.values() for hit in known_by}
    return sorted(hit for hit in hits if hit not in named | MAY_HAPPEN)


def shown(hits: Counter[str], *tables: Mapping[str, Branches]) -> str:
    """How often each branch was taken, one line for each."""
    lines = []
    for rows in tables:
        for row, branches in rows.items():
            lines.append(row)
            for branch, known_by in branches.items():
                lines.append(f"{sum(hits[hit] for hit in known_by):>9}  {branch}")
    lines += ["not yet built:", *(f"        -  {row}" for row in NOT_YET_BUILT)]
    return "\n".join(lines)
