"""What makes jobs alike, and what a worker's announce says to jobs of that kind: an offer that fits, or a reason."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

from protocol.messages import Announce, Offer
from protocol.work import ImageWork, Kind, PublicPart, Work, kind_of
from tracker.lifecycle import NO_FACTS, Facts

#: Constraints that are kept with what an announce says to them.
JUDGED = 512
#: The bounds of a size class lie at these eighths of a power of two.
_EIGHTHS = (8, 9, 10, 11, 12, 13, 14, 15)


class Reason(StrEnum):
    """Why a worker does not get a job."""

    OTHER_KIND = "other_kind"
    OTHER_MODEL = "other_model"
    TOO_LARGE = "too_large"
    TOO_MANY_STEPS = "too_many_steps"
    TOO_LONG = "too_long"
    PAUSED = "paused"
    NO_ANONYMOUS = "no_anonymous"
    FLAG = "flag"
    NO_SERVICES = "no_services"
    GIVE_BACK = "give_back"
    ACCOUNT = "account"
    HAD_IT = "had_it"
    NOT_OFFERED = "not_offered"
    OVER_MAX_PRICE = "over_max_price"
    FREE_RATE = "free_rate"
    REQUESTER_AWAY = "requester_away"
    RUNNING_LIMIT = "running_limit"
    RESTING = "resting"
    KEPT_OUT = "kept_out"
    BUSY = "busy"


def size_class(value: int) -> int:
    """The smallest class bound that is not below `value`: eight bounds for each power of two."""
    if value <= _EIGHTHS[0]:
        return max(value, 0)
    shift = value.bit_length() - 4
    return next(
        (bound << shift for bound in _EIGHTHS if bound << shift >= value),
        1 << value.bit_length(),
    )


@dataclass(frozen=True)
class Constraints:
    """What makes jobs alike: kind, models (none: any), size classes, flags; and of who asks whether it is anonymous or
    a service, and its give-back class."""

    kind: Kind
    models: tuple[str, ...]
    size: int
    length: int
    flags: tuple[str, ...]
    anonymous: bool
    service: bool = False
    give_back: int = 0

    @property
    def bare(self) -> Constraints:
        """The same, whoever asks."""
        found: Constraints | None = self.__dict__.get("kept_bare")
        if found is None:
            found = replace(self, anonymous=False, service=False, give_back=0)
            object.__setattr__(self, "kept_bare", found)
        return found

    def __hash__(self) -> int:
        """Taken once: a worker's swarms are gone through by it for every job."""
        found: int | None = self.__dict__.get("hashed")
        if found is None:
            asker = self.anonymous, self.service, self.give_back
            found = hash((self.kind, self.models, self.size, self.length, self.flags, asker))
            object.__setattr__(self, "hashed", found)
        return found


def constraints_of(
    public: PublicPart, models: tuple[str, ...], *, anonymous: bool, facts: Facts = NO_FACTS
) -> Constraints:
    """The constraints of a request's jobs; `models` are those of its models whose price it bears."""
    size, length = measures(public.work)
    return Constraints(
        kind_of(public.work),
        tuple(sorted(set(models))),
        size_class(size),
        size_class(length),
        tuple(sorted({*public.flags, *facts.labels})),
        anonymous,
        bool(facts.service),
        facts.give_back,
    )


def measures(work: Work) -> tuple[int, int]:
    """Pixels and steps, or context and tokens."""
    if isinstance(work, ImageWork):
        return work.width * work.height, work.steps
    return work.context_tokens, work.max_tokens


#: What a worker's announce says to each of the constraints that were held against it.
Judged = dict[Constraints, "tuple[Offer, ...] | Reason"]


def judge(judged: Judged, constraints: Constraints, announce: Announce) -> tuple[Offer, ...] | Reason:
    """What `fitting_offers` finds; kept in `judged`."""
    found = judged.get(constraints)
    if found is None:
        if len(judged) >= JUDGED:
            judged.clear()
        found = judged[constraints] = fitting_offers(constraints, announce)
    return found


def fitting_offers(constraints: Constraints, announce: Announce, *, own: bool = False) -> tuple[Offer, ...] | Reason:
    """The offers that meet the constraints, or the reason that went furthest. own: of jobs of the worker's own account,
    to which nothing matters but what the worker can make."""
    fitting: list[Offer] = []
    closest = Reason.OTHER_KIND
    for offer in announce.offers:
        reason = _why_not_offer(constraints, offer)
        if reason is None:
            fitting.append(offer)
        else:
            closest = max(closest, reason, key=_DEPTH.__getitem__)
    if not fitting:
        return closest
    return (None if own else _why_not_asker(constraints, announce)) or tuple(fitting)


def _why_not_asker(constraints: Constraints, announce: Announce) -> Reason | None:
    """What the owner of a worker does not want to serve, as far as an announce says so of jobs that are alike."""
    if announce.paused:
        return Reason.PAUSED
    if constraints.anonymous and not announce.anonymous:
        return Reason.NO_ANONYMOUS
    if not set(announce.declines).isdisjoint(constraints.flags):
        return Reason.FLAG
    if constraints.service and not announce.services:
        return Reason.NO_SERVICES
    return Reason.GIVE_BACK if constraints.give_back < announce.min_give_back else None


_DEPTH = {reason: depth for depth, reason in enumerate(Reason)}


def _why_not_offer(constraints: Constraints, offer: Offer) -> Reason | None:
    if offer.kind != constraints.kind:
        return Reason.OTHER_KIND
    if constraints.models and offer.model not in constraints.models:
        return Reason.OTHER_MODEL
    if constraints.kind == "image":
        if constraints.size > size_class(offer.max_pixels):
            return Reason.TOO_LARGE
        return Reason.TOO_MANY_STEPS if constraints.length > size_class(offer.max_steps) else None
    fits = constraints.size <= size_class(offer.max_context) and constraints.length <= size_class(offer.max_tokens)
    return None if fits else Reason.TOO_LONG
