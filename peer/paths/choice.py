"""Which way to a worker is tried when, and which one is taken: no socket, task or clock in it.

What the ways bring and what the tracker says goes in with the time; effects come out, which `peer.paths.race` carries
out in their order. As in Happy Eyeballs, the better way gets a short head start, and the first that stands is taken;
a better one that stands later takes over.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass, replace


class Path(enum.IntEnum):
    """How the bytes go; the best first."""

    DIRECT = 0
    PUNCHED = 1
    RELAYED = 2

    @property
    def word(self) -> str:
        """As it is shown."""
        return self.name.lower()


@dataclass(frozen=True)
class Way:
    """One way that is tried. number: which of its path, from 0."""

    path: Path
    number: int = 0


@dataclass(frozen=True)
class Timing:
    """In milliseconds. stagger: between two direct addresses. ask_after: so long direct addresses have the tracker's
    help to spare. head_start: that of a punched path before relays. answer: so long the tracker may take. race: after
    that whatever has not come does not count any more."""

    stagger: int = 250
    ask_after: int = 300
    head_start: int = 1_000
    answer: int = 3_000
    race: int = 8_000

    def within(self, open_ms: int) -> Timing:
        """The same where the tracker gives so long for the opening: what is kept back is for the opening itself."""
        return replace(self, race=max(LEAST_RACE, open_ms - KEPT_BACK), answer=max(self.answer, open_ms * 3 // 10))


#: Of the tracker's time for the opening, in milliseconds: for TLS and the opening, and what a race has at least.
KEPT_BACK, LEAST_RACE = 2_000, 2_000

TIMING = Timing()


@dataclass(frozen=True)
class Try:
    """Begin with this way."""

    way: Way


@dataclass(frozen=True)
class Ask:
    """Ask the tracker for help. reason: a code."""

    reason: str


@dataclass(frozen=True)
class Use:
    """This way is taken, in place of the one before. reason: for people."""

    way: Way
    reason: str


@dataclass(frozen=True)
class Drop:
    """This way is not wanted (any more): end it."""

    way: Way


@dataclass(frozen=True)
class GiveUp:
    """There is no way. reason: a code; text: what was tried, and what became of it."""

    reason: str
    text: str


Effect = Try | Ask | Use | Drop | GiveUp


class _Help(enum.Enum):
    """How far the tracker's help has come."""

    UNASKED = "unasked"
    ASKED = "asked"
    OVER = "over"


@dataclass
class Choice:
    """The race for one opening of a stream.

    addresses: the direct ones, for people, in the order in which they are tried. none_because: a code, why there is
    none. helped: whether there is a tracker to ask. relays_only: no other path is taken, and none is tried.
    """

    addresses: Sequence[str]
    none_because: str = "no_address"
    helped: bool = True
    relays_only: bool = False
    timing: Timing = TIMING

    def __post_init__(self) -> None:
        self.used: Way | None = None
        self.is_over = False
        self._names = {Way(Path.DIRECT, number): address for number, address in enumerate(self.addresses)}
        self._direct_left = [] if self.relays_only else list(self._names)
        self._spared: list[Way] = []
        self._relays_left: list[Way] = []
        self._doubted: list[Way] = []
        self._relays = 0
        self._pending: set[Way] = set()
        self._failures: list[tuple[str, str]] = []
        self._help = _Help.UNASKED if self.helped else _Help.OVER
        self._next_direct = self._ask_at = self._answer_by = self._relays_at = self._ends = 0

    # What goes in

    def begin(self, now: int) -> list[Effect]:
        """The race begins."""
        self._ends = now + self.timing.race
        self._ask_at = now + self.timing.ask_after
        effects: list[Effect] = []
        if self._direct_left:
            effects += self._dial(now)
        elif self._help is _Help.UNASKED:
            effects += self._ask(now, "relays_only" if self.relays_only else self.none_because)
        if not self._direct_left and not self.addresses:
            self._failures.append((self.none_because, "the worker names no address that can be used from here"))
        return effects + self._conclude()

    def stands(self, way: Way, now: int) -> list[Effect]:
        """This way is connected, with the right certificate at its other end."""
        self._pending.discard(way)
        if self.is_over or (self.used is not None and way.path >= self.used.path):
            return [Drop(way)]
        reason = self._why(way)
        self.used = way
        effects: list[Effect] = [Use(way, reason)]
        for other in sorted(self._pending, key=_order):
            if other.path >= way.path:
                self._pending.discard(other)
                effects.append(Drop(other))
                self._spared += [other] if other.path is Path.DIRECT else []
        if way.path is Path.DIRECT:
            self._spared += self._direct_left
            self._direct_left.clear()
        self._relays_left.clear()
        self._doubted.clear()
        return effects + self._conclude()

    def broke(self, reason: str, text: str, now: int) -> list[Effect]:
        """The way that was taken ended before the worker answered. What was dropped for it is tried again, as far as it
        is ours to try; for all else the tracker is asked once more, since the worker waits nowhere any longer."""
        way, self.used, self.is_over = self.used, None, False
        assert way is not None  # noqa: S101 (else nothing could break)
        self._failures.append((reason, f"{self._named(way)}: {text}"))
        if now >= self._ends:
            return self._end()
        if Way(Path.PUNCHED) not in self._pending:
            self._names.pop(Way(Path.PUNCHED), None)
        self._direct_left += self._spared
        self._spared.clear()
        effects = self._dial(now)
        if self.helped and self._help is not _Help.ASKED:
            effects += self._ask(now, "broken")
        return effects + self._conclude()

    def failed(self, way: Way, reason: str, text: str, now: int) -> list[Effect]:
        """Nothing came of this way."""
        if way not in self._pending:
            return []
        self._pending.discard(way)
        self._failures.append((reason, f"{self._named(way)}: {text}"))
        effects: list[Effect] = []
        if way.path is Path.DIRECT:
            effects += self._dial(now)
            if not self._pending and self._help is _Help.UNASKED and self.used is None:
                effects += self._ask(now, reason)
        elif way.path is Path.PUNCHED:
            effects += self._relay()
        elif self._doubted and not any(other.path is Path.RELAYED for other in self._pending):
            self._relays_left, self._doubted = self._doubted, []
            effects += self._relay()
        return effects + self._conclude()

    def not_asked(self, reason: str, text: str) -> list[Effect]:
        """The tracker could not be asked, or refuses to help."""
        if self._help is _Help.OVER:
            return []
        self._help = _Help.OVER
        self._failures.append((reason, text))
        return self._conclude()

    def meeting(self, now: int) -> list[Effect]:
        """The tracker has begun to bring the two together."""
        way = Way(Path.PUNCHED)
        if self.is_over or self.relays_only or way in self._names or (self.used and self.used.path <= way.path):
            return []
        self._names[way] = "through both routers"
        self._pending.add(way)
        return [Try(way)]

    def relays(self, names: Sequence[str], reason: str, now: int, doubted: int = 0) -> list[Effect]:
        """The tracker has named relays, the best first, or said why there is none. doubted: so many of them, the last
        ones, have let somebody down before: they are tried where the others have failed."""
        self._help = _Help.OVER
        ways = [Way(Path.RELAYED, self._relays + index) for index in range(len(names))]
        self._relays += len(names)
        if self.is_over or self.used is not None:
            return []
        if not names:
            self._failures.append((reason or "no_path", f"relayed: the tracker names no relay ({reason or 'none'})"))
        self._names.update(zip(ways, names, strict=True))
        self._relays_left += ways[: len(ways) - doubted]
        self._doubted += ways[len(ways) - doubted :]
        if not self._relays_left:
            self._relays_left, self._doubted = self._doubted, []
        self._relays_at = now + self.timing.head_start
        effects = [] if Way(Path.PUNCHED) in self._pending else self._relay()
        return effects + self._conclude()

    def tick(self, now: int) -> list[Effect]:
        """Time has passed."""
        if self.is_over:
            return []
        if now >= self._ends:
            return self._end()
        effects: list[Effect] = []
        if self._direct_left and now >= self._next_direct:
            effects += self._dial(now)
        if self.used is None:
            if self._help is _Help.UNASKED and now >= self._ask_at:
                effects += self._ask(now, "no_answer")
            elif self._help is _Help.ASKED and now >= self._answer_by:
                self._help = _Help.OVER
                self._failures.append(("no_path", "the tracker named no other path in time"))
            if self._relays_left and now >= self._relays_at:
                effects += self._relay()
        return effects + self._conclude()

    @property
    def is_asking(self) -> bool:
        """Whether the tracker's answer is waited for."""
        return self._help is _Help.ASKED and not self.is_over

    @property
    def wake(self) -> int | None:
        """When `tick` is wanted next, if at all."""
        if self.is_over:
            return None
        moments = [self._ends]
        if self._direct_left:
            moments.append(self._next_direct)
        if self.used is None:
            moments += [self._ask_at] if self._help is _Help.UNASKED else []
            moments += [self._answer_by] if self._help is _Help.ASKED else []
            moments += [self._relays_at] if self._relays_left else []
        return min(moments)

    # Decisions

    def _dial(self, now: int) -> list[Effect]:
        if not self._direct_left:
            return []
        way = self._direct_left.pop(0)
        self._pending.add(way)
        self._next_direct = now + self.timing.stagger
        return [Try(way)]

    def _relay(self) -> list[Effect]:
        """All at once: the nearest comes first by itself."""
        ways, self._relays_left = self._relays_left, []
        self._pending.update(ways)
        return [Try(way) for way in ways]

    def _ask(self, now: int, reason: str) -> list[Effect]:
        self._help = _Help.ASKED
        self._answer_by = now + self.timing.answer
        return [Ask(reason)]

    def _conclude(self) -> list[Effect]:
        """End the race where nothing can come of it any more."""
        if self.is_over or self._pending or self._direct_left or self._relays_left or self._doubted:
            return []
        if self.used is None and self._help is not _Help.OVER:
            return []
        self.is_over = True
        return [] if self.used is not None else [self._gave_up()]

    def _end(self) -> list[Effect]:
        """Time is up."""
        effects: list[Effect] = []
        for way in sorted(self._pending, key=_order):
            self._failures.append(("timeout", f"{self._named(way)}: not connected in time"))
            effects.append(Drop(way))
        self._pending.clear()
        self._direct_left.clear()
        self._relays_left.clear()
        self._doubted.clear()
        self._help = _Help.OVER
        return effects + self._conclude()

    def _gave_up(self) -> GiveUp:
        reason = self._failures[0][0] if self._failures else "no_path"
        return GiveUp(reason, "; ".join(text for _, text in self._failures) or "there was nothing to try")

    def _why(self, way: Way) -> str:
        if self.used is not None:
            return f"took over from the {self.used.path.word} path: {self._named(way)}"
        if self.relays_only:
            return f"{self._named(way)}; only relays were asked for"
        if way.path is Path.DIRECT:
            return self._named(way)
        return f"{self._named(way)}; {self._failures[0][1] if self._failures else 'no direct answer so far'}"

    def _named(self, way: Way) -> str:
        return f"{way.path.word} {self._names[way]}"


def _order(way: Way) -> tuple[int, int]:
    return way.path, way.number
