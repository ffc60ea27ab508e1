"""Whether something that an engine leans on is to be offered, and when to look at it again: no clock, socket or thread
in it. Times are seconds of any one clock.
"""

from __future__ import annotations

#: How often something that works is looked at, and something that does not, at first and at last.
LOOK_S = 15.0
FIRST_LOOK_S = 1.0
LAST_LOOK_S = 30.0
#: Two trials are at least so far apart, whatever fails in between.
TRIAL_S = 5.0
#: So many jobs that failed one after the other, and it rests; longer each time, until one is made. The longest rest is
#: short: people could send jobs of which they know that they fail.
FAILURES = 3
FIRST_REST_S = 15.0
LAST_REST_S = 120.0


class Health:
    """One thing that may cease to work, and come back.

    up: whether it is to be offered; it is not before the first look. text: why not. wants_trial: whether the next look
    is to try it out, rather than to ask whether it is there. due: when that look is.
    """

    def __init__(self) -> None:
        self.up = False
        self.text = ""
        self.wants_trial = False
        self.due = 0.0
        self._failures = 0
        self._in_vain = 0
        self._rest = FIRST_REST_S
        self._rests_until = 0.0
        self._tried = -TRIAL_S

    def worked(self) -> None:
        """A job was made."""
        self._failures = 0
        self._rest = FIRST_REST_S

    def failed(self, now: float, text: str, *, at_once: bool, counts: bool) -> None:
        """A job failed, and it may be to blame: it is tried out next. at_once: it is not offered until then. counts:
        it rests after `FAILURES` of these."""
        self.wants_trial = True
        self.due = max(now, self._tried + TRIAL_S)
        self._failures += counts
        if self._failures >= FAILURES:
            self._rests_until = self.due = now + self._rest
            self._rest = min(2 * self._rest, LAST_REST_S)
            self._failures = FAILURES - 1  # one more, and it rests again
        elif not at_once:
            return
        self.up = False
        self.text = text

    def looked(self, now: float, trouble: str = "") -> None:
        """Somebody looked, or tried it out if it wanted that. trouble: what is wrong with it, if something is."""
        if self.wants_trial:
            self._tried = now
        if trouble:
            self.up = False
            self.text = trouble
            self.due = now + min(FIRST_LOOK_S * 2**self._in_vain, LAST_LOOK_S)
            self._in_vain = min(self._in_vain + 1, 16)
            return
        self._in_vain = 0
        if now < self._rests_until:
            self.wants_trial = True  # once more, at the rest's end
            self.due = self._rests_until
            return
        self.wants_trial = False
        self.up = True
        self.text = ""
        self.due = now + LOOK_S
