"""Why nothing comes, in words: for a worker that is idle, and for somebody who waits."""

from __future__ import annotations

from collections.abc import Mapping

#: Of waiting jobs, why one does not come to this worker; and of workers, why none of them takes this job.
WORKER: Mapping[str, str] = {
    "other_kind": "ask for the other kind, pictures or texts",
    "other_model": "ask for a model that this worker does not serve",
    "too_large": "are larger than this worker's largest picture",
    "too_many_steps": "want more steps than this worker takes",
    "too_long": "are longer than this worker's longest text",
    "paused": "would have to wait until you let this worker go on (`potluck worker --resume`)",
    "no_anonymous": "come from people without an account, whom this worker does not serve",
    "flag": "are about a topic that this worker does not serve",
    "no_services": "come from a service that this worker does not serve",
    "give_back": "come from people who give back less than this worker wants",
    "account": "come from an account that this worker does not serve",
    "had_it": "have been at this worker before",
    "not_offered": "have no price by the rules as they are now",
    "over_max_price": "cost more than who asks allows",
    "free_rate": "are paid by the horde with less than this worker wants",
    "requester_away": "wait for their requester to come back",
    "running_limit": "wait until another job of who asks has ended",
    "resting": "could be served, once the hour is over in which you turned down too many (rule matching.declines)",
    "kept_out": "could be served, but moderators keep this worker from it (`potluck acts`)",
    "busy": "can be served, and come as soon as there is room",
}
JOB: Mapping[str, str] = {
    "other_kind": "serve the other kind, pictures or texts, only",
    "other_model": "do not serve a model that you named",
    "too_large": "take smaller pictures only",
    "too_many_steps": "take fewer steps only",
    "too_long": "take shorter texts only",
    "paused": "are paused by their owners",
    "no_anonymous": "serve people with an account only: `potluck account --register`",
    "flag": "do not serve this topic",
    "no_services": "do not serve this service",
    "give_back": "serve only people who give more back",
    "account": "do not serve this account",
    "had_it": "have had this job, and did not finish it or could not be reached from here; they can get it if it is"
    " asked for anew",
    "not_offered": "cannot be paid for it: the rules have no price for it any more",
    "over_max_price": "cost more than your --max-price",
    "free_rate": "do no work for free at the moment; with enough kudos they would serve you",
    "requester_away": "wait for you",
    "running_limit": "would serve you as soon as another job of yours has ended",
    "resting": "turned down too much, and get nothing before the hour is over",
    "kept_out": "are kept from work by moderators",
    "busy": "can serve it, and are busy",
}
#: What time alone may change, for who waits.
PASSING = frozenset({"paused", "free_rate", "requester_away", "running_limit", "resting", "kept_out", "busy"})


def can_be_served(reasons: Mapping[str, int]) -> bool:
    """Whether a worker that is here could serve the job at some time, if nobody changes what he serves."""
    return any(reason in PASSING for reason in reasons)


def idle_lines(reasons: Mapping[str, int]) -> list[str]:
    """Why a worker is idle, for people; reasons: counts of waiting jobs."""
    if not reasons:
        return ["idle        no job waits: nobody asks for anything at the moment"]
    lines = [f"{count:>10}  {WORKER.get(reason, reason)}" for reason, count in _counted(reasons)]
    return [f"waiting     {sum(reasons.values())} in all, by why they do not come to it:", *lines]


def waiting_text(reasons: Mapping[str, int]) -> str:
    """Why a job waits, in a sentence; reasons: counts of workers."""
    if not reasons:
        return "no worker is here at the moment: it waits until one comes, or until its time is over"
    told = "; ".join(f"{JOB.get(reason, reason)} ({count})" for reason, count in _counted(reasons))
    if can_be_served(reasons):
        return f"the workers that are here {told}"
    if "had_it" in reasons:  # which lies in this job, and not in what was asked for
        return f"no worker that is here gets this job any more: they {told}"
    return f"no worker that is here could ever serve this: they {told}"


def _counted(reasons: Mapping[str, int]) -> list[tuple[str, int]]:
    """The most frequent first."""
    return sorted(reasons.items(), key=lambda entry: -entry[1])
