"""Jobs and attempts as the tracker's decisions see them: every argument has a sound default."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, TypeVar

from protocol.work import PublicPart, Work
from tests.support.builders import NOW, SECOND, a_digest, a_handle, a_key, a_public_part, an_image_work, model_for
from tracker.lifecycle import Attempt, Job, Received, Stage, State

#: Accounts that are no system accounts.
PAYER = 100
OWNER = 101
ORIGIN = "~0123456789abcdef01234567"

J = TypeVar("J", Job, Attempt)


def a_job(state: State = State.WAITING, *, attempt: int = 0, work: Work | None = None, **fields: Any) -> Job:
    """A job that has been in `state` since `NOW`."""
    job = Job(
        handle=a_handle(),
        request=a_digest("request"),
        number=0,
        public=a_public_part(work or an_image_work()),
        private_digest=a_digest("private"),
        job_key=a_key(4).public,
        signer=a_key(3).public,
        payer=PAYER,
        origin=str(PAYER),
        state=state,
        attempt=attempt,
        failed=0,
        held=10_600,
        score=0,
        anonymous=False,
        admitted=NOW,
        changed=NOW,
    )
    return _with(job, fields)


def a_waiting_job(number: int = 0, public: PublicPart | None = None, **fields: Any) -> Job:
    """The waiting job of that number, by a request of its own."""
    job = a_job(public=public or a_public_part(), handle=a_handle(number), request=a_digest(f"request {number}"))
    return _with(job, fields)


def an_attempt(number: int = 1, stage: Stage = Stage.OPENED, *, work: Work | None = None, **fields: Any) -> Attempt:
    """An attempt of such a job, priced at 7.6 kudos and fully covered."""
    attempt = Attempt(
        attempt=number,
        worker=a_key(100 + number).public,
        owner=OWNER,
        model=model_for(work or an_image_work()),
        lease=a_digest(f"lease {number}"),
        stage=stage,
        issued=NOW,
        deadline=NOW + 600 * SECOND,
        rules=1,
        price=7_600,
        paid=7_600,
        free=0,
        uncovered=0,
        tax=3_000,
        reserved=0,
    )
    return _with(attempt, fields)


def a_received(label: object = "receipt", *, used: int = 30, context_used: int = 0, partial: bool = False) -> Received:
    """What of a receipt matters to a job's life; all of the 30 steps unless `used` says otherwise."""
    return Received(a_digest(label), used, context_used, partial)


def _with(value: J, fields: dict[str, Any]) -> J:
    return replace(value, **fields)
