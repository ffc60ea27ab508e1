"""What moderators' acts that stand mean for who asks and who serves, and who may act: decided without any storage."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from typing import Literal

from protocol.errors import NotAllowed, OverLimit, Suspended, WrongSigner
from protocol.governing import Act
from protocol.keys import show_key
from protocol.rules import Rules

State = Literal["proposed", "stands", "over"]

#: Acts that keep somebody from something for as long as they stand.
LASTING = frozenset({"limit", "suspend", "ban", "pause", "block"})
#: Acts that say something of another one.
WORDS = frozenset({"lift", "agree", "uphold"})
#: Acts that can be lifted once they are in force. What was returned is given back by another return.
LIFTED = LASTING | {"warn", "trust"}


@dataclass(frozen=True)
class Sanction:
    """An act that stands. digest: its name."""

    digest: bytes
    act: Act


def state_of(since: int, ended: int, until: int, now: int) -> State:
    """What has become of an act: since when it is in force, when it was lifted, its last moment (each 0 for not)."""
    if ended or (until and until < now):
        return "over"
    return "stands" if since else "proposed"


def is_operator(key: bytes, rules: Rules, serving: bytes) -> bool:
    """Whether this key acts for the horde in everything."""
    return key == serving or show_key(key) in rules.roles.operators


def check_role(key: bytes, rules: Rules, serving: bytes) -> None:
    """Refuse acts by a key that has no role."""
    if not is_operator(key, rules, serving) and show_key(key) not in rules.roles.moderators:
        raise NotAllowed(
            f"key {show_key(key)[:8]}… is no moderator's here: its operator names them in the rules (table roles)"
        )


def check_operator(key: bytes, rules: Rules, serving: bytes, what: str) -> None:
    """Refuse what only operators do."""
    if not is_operator(key, rules, serving):
        raise WrongSigner(
            f"{what} by key {show_key(key)[:8]}…, which is no operator's here: the rules name them (roles.operators)"
        )


def needs_second(said: Act, rules: Rules, lifted: Act | None = None) -> bool:
    """Whether an act has no effect before a second key has signed that it agrees. lifted: the act in force that it
    would end; what takes two to begin takes two to end."""
    if rules.moderation.signers < 2:
        return False
    if said.act == "lift":
        return lifted is not None and lifted.act == "ban"
    return said.act == "ban" or (said.act == "return" and said.amount > rules.moderation.return_alone)


def can_be_spoken_of(act: str, state: State, word: str) -> bool:
    """Whether `word` (lift, agree or uphold) can be said of an act: of another word only if that is a lift which waits
    for its second signature, to give it or to take the lift back."""
    return act not in WORDS or (act == "lift" and state == "proposed" and word in ("lift", "agree"))


class Sanctions:
    """All that stand at one tracker."""

    def __init__(self, standing: Iterable[Sanction] = ()) -> None:
        self._of_account: dict[int, list[Sanction]] = {}
        self._blocks: list[tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, Sanction]] = []
        self._ends: list[int] = []
        for one in standing:
            if one.act.act == "block":
                self._blocks.append((ipaddress.ip_network(one.act.block), one))
            else:
                self._of_account.setdefault(one.act.account, []).append(one)
            if one.act.until:
                self._ends.append(one.act.until)

    def next_end(self, now: int) -> int:
        """When the next of them ends by itself; 0 if none does."""
        return min((end for end in self._ends if end >= now), default=0)

    def bar(self, account: int, now: int) -> Sanction | None:
        """What keeps an account from asking and serving."""
        return self._find(account, ("suspend", "ban"), now)

    def check(self, account: int, now: int) -> None:
        """Refuse what an account does while it is suspended or banned."""
        if (found := self.bar(account, now)) is not None:
            raise Suspended(f"account {account} is {_word(found)}: {_why(found)}")

    def check_ask(self, account: int, open_jobs: int, n: int, now: int) -> None:
        """Refuse a request beyond what stands against an account. open_jobs: that it has already."""
        self.check(account, now)
        limit = self._find(account, ("limit",), now)
        if limit is not None and open_jobs + n > limit.act.open_jobs:
            raise OverLimit(
                f"{open_jobs} jobs of account {account} are under way and {n} more are asked for: at most"
                f" {limit.act.open_jobs} at once by an act of moderators: {_why(limit)}"
            )

    def keeps_from_work(self, account: int, worker: bytes, now: int) -> Sanction | None:
        """What keeps a worker from getting leases."""
        if (found := self.bar(account, now)) is not None:
            return found
        hashed = sha256(worker).digest()
        return next(
            (
                one
                for one in self._of_account.get(account, ())
                if one.act.act == "pause" and one.act.worker in (b"", hashed) and _holds(one, now)
            ),
            None,
        )

    def check_block(self, block: str, now: int) -> None:
        """Refuse people without an account from a network that is blocked. block: as `doors.block_of` has it."""
        if not self._blocks:
            return
        try:
            network = ipaddress.ip_network(block)
        except ValueError:
            return
        for blocked, one in self._blocks:
            inside = blocked.version == network.version and network.subnet_of(blocked)  # type: ignore[arg-type]
            if inside and _holds(one, now):
                raise Suspended(
                    f"from {blocked} nobody asks without an account or registers: {_why(one)}; who has an account is"
                    " served from there too"
                )

    def _find(self, account: int, acts: tuple[str, ...], now: int) -> Sanction | None:
        found = [one for one in self._of_account.get(account, ()) if one.act.act in acts and _holds(one, now)]
        if acts == ("limit",):
            return min(found, key=lambda one: one.act.open_jobs, default=None)
        return max(found, key=lambda one: one.act.until or 2**63, default=None)


def _holds(one: Sanction, now: int) -> bool:
    return not one.act.until or now <= one.act.until


def _word(one: Sanction) -> str:
    return "banned" if one.act.act == "ban" else "suspended"


def _why(one: Sanction) -> str:
    until = f", until {show_time(one.act.until)}" if one.act.until else ""
    return (
        f"{one.act.reason} (rule {one.act.rule}; act {one.digest[:6].hex()}{until});"
        f" `potluck acts` shows it, `potluck appeal {one.digest[:6].hex()} TEXT` answers to moderators"
    )


def show_time(time: int) -> str:
    """A moment as people read it."""
    try:
        return f"{datetime.fromtimestamp(time / 1000, UTC):%Y-%m-%d %H:%M} UTC"
    except (ValueError, OverflowError, OSError):  # beyond what a calendar has
        return f"millisecond {time}"
