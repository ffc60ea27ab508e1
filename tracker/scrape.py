"""How it goes at a tracker, in numbers that concern nobody in particular."""

from __future__ import annotations

from tracker.jobs import Jobs


def scrape(jobs: Jobs, peers: int, now: int) -> dict[str, object]:
    """What `/scrape` says of jobs and workers. peers: that are here."""
    rules = jobs.rules.rules
    leased = sum(not lease.receipt for lease in jobs.leases.all())
    return {
        "name": rules.horde.name,
        "members_only": not rules.accounts.anonymous,
        "peers": peers,
        "workers": len(jobs.pool.workers),
        "paused": jobs.pool.paused(),
        "waiting": len(jobs.queue),
        "leased": leased,
        "delivered": len(jobs.leases) - leased,
        "since_start": {name: jobs.counts[name] for name in sorted(jobs.counts)},
        "waits": jobs.predictions.report(),
        "mint": {"daily": rules.mint.daily, "used_today": jobs.budget_used(now)},
        "kinds": jobs.figures.kinds(now),
        "swarms": jobs.figures.swarms(now),
    }
