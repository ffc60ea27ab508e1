"""Workers decide what they serve and for whom, over real sockets: before the lease where the tracker can tell, else by
a decline that costs nothing; own jobs come first, also while paused; who is idle and who waits can ask why."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from peer import events
from peer.client import Client
from peer.limits import show_pseudonym
from protocol.keys import show_key
from tests.support.horde import PATIENCE_S, Horde, Process, until

pytestmark = pytest.mark.slow

SMALL: dict[str, Any] = {"width": 64, "height": 64, "steps": 3}
LIMITS = """
[work]
max_pixels = 16384

[people]
anonymous = false

[content]
decline = ["adult"]
words = ["casino*"]
"""


async def why_it_waits(client: Client, prompt: str = "a red circle", **more: Any) -> dict[str, int]:
    """What the horde says of a job that no worker can take; it is cancelled then."""
    job = b""
    async with contextlib.aclosing(client.image(prompt, **{**SMALL, **more})) as jobs, asyncio.timeout(PATIENCE_S):
        async for event in jobs:
            if isinstance(event, events.Queued):
                job = event.job
            if isinstance(event, events.Position) and not event.workers:
                return await client.why(job)
    raise AssertionError("it was served")


async def picture(client: Client, prompt: str = "a red circle") -> events.Settled:
    """What was paid for a picture that was made."""
    async with asyncio.timeout(PATIENCE_S):
        async for event in client.image(prompt, **SMALL):
            if isinstance(event, events.Settled):
                return event
    raise AssertionError("no settlement")


async def told(worker: Process, kind: str, wanted: Callable[[str], bool] = bool, after: int = 0) -> str:
    """What the worker says of this kind, once it does, later than so many lines before."""
    found: dict[str, Any] = await until(
        lambda: next(
            (one for one in worker.lines()[after:] if one.get("event") == kind and wanted(one.get("text", ""))), None
        ),
        f"the worker did not tell of {kind}:\n{worker.text()[-2000:]}",
    )
    return str(found["text"])


@contextlib.asynccontextmanager
async def a_horde(folder: Path) -> AsyncIterator[tuple[Horde, Process]]:
    """A horde with one worker that has limits."""
    async with Horde.open(folder) as horde:
        home = horde.join("ann")
        (home.folder / "peer.toml").write_text(LIMITS)
        yield horde, await horde.worker("ann", "--dry-run", "image")


async def change(horde: Horde, worker: Process, text: str) -> None:
    """Write peer.toml anew; returns when the worker goes by it."""
    before = len(worker.lines())
    (horde.home("ann").folder / "peer.toml").write_text(text)
    await told(worker, "limits", lambda said: "taken" in said, after=before)


async def test_what_a_worker_does_not_serve_does_not_come_and_both_sides_can_ask_why(tmp_path: Path) -> None:
    async with a_horde(tmp_path) as (horde, worker):
        horde.join("bob")
        async with horde.client() as nobody, horde.client("bob") as bob:
            await bob.register()
            assert await why_it_waits(nobody) == {"no_anonymous": 1}
            assert await why_it_waits(bob, width=256, height=256) == {"too_large": 1}
            assert await why_it_waits(bob, "two nude women in love") == {"flag": 1}
            assert not [line for line in worker.lines() if line.get("event") in ("accepted", "declined")]

            # Of words only the worker can tell: it declines, and neither side is worse off.
            assert await why_it_waits(bob, "a casino by night") == {"had_it": 1}
            await told(worker, "declined", lambda said: "casino" not in said)
            assert (await picture(bob)).paid + (await picture(bob)).minted > 0, "the same worker, and it has no fault"

            waiting = asyncio.create_task(why_for_long(nobody))
            status = await until_idle(horde, "ann", {"no_anonymous": 1})
            waiting.cancel()
            assert "people without an account" in status


async def why_for_long(client: Client) -> None:
    """A job that waits until it is cancelled."""
    async for _ in client.image("a red circle", **SMALL):
        pass


async def until_idle(horde: Horde, name: str, reasons: dict[str, int]) -> str:
    """What `potluck status` says to people, once it gives the worker these reasons."""
    words = ("peer", "status", "--home", str(horde.home(name).folder))
    async with asyncio.timeout(PATIENCE_S):
        while json.loads(await horde.run(*words, "--json"))["worker"] != reasons:
            pass
    return await horde.run(*words)


async def test_accounts_are_declined_and_befriended_by_the_pseudonym_that_this_worker_alone_knows(
    tmp_path: Path,
) -> None:
    async with a_horde(tmp_path) as (horde, worker):
        home = horde.join("bob")
        async with horde.client("bob") as bob:
            await bob.register()
            await picture(bob)
            key = horde.home("ann").key().public
            known = show_pseudonym((await bob.account(key)).pseudonym)
            assert known in await told(worker, "accepted")
            said = await horde.run("peer", "account", "--known-to", show_key(key), "--home", str(home.folder))
            assert known in said
            other = (await bob.account(home.key().public)).pseudonym
            assert show_pseudonym(other) != known, "each worker knows another name"

            await change(horde, worker, f"[people]\nnot_accounts = ['{known}']\n")
            assert await why_it_waits(bob) == {"account": 1}
            # A name that some other worker knows is nobody's here.
            await change(horde, worker, f"[people]\nnot_accounts = ['{show_pseudonym(other)}']\n")
            await picture(bob)
            (horde.home("ann").folder / "peer.toml").write_text("[people]\n\nfreinds = []\n")
            fault = await told(worker, "limits", lambda said: "freinds" in said)
            assert "peer.toml:3: people.freinds: unknown key (did you mean friends?)" in fault
            await picture(bob)


@pytest.mark.ci_slow
async def test_a_paused_worker_serves_its_own_account_and_for_nothing_and_others_when_it_goes_on(
    tmp_path: Path,
) -> None:
    async with a_horde(tmp_path) as (horde, worker):
        horde.join("bob")
        ann = str(horde.home("ann").folder)
        async with horde.client("bob") as bob, horde.client("ann") as owner:
            await bob.register()
            before = len(worker.lines())
            await horde.run("peer", "worker", "--pause", "--home", ann)
            await told(worker, "limits", lambda said: "paused" in said, after=before)
            assert await why_it_waits(bob) == {"paused": 1}
            assert (await horde.scrape())["paused"] == 1

            own = await picture(owner, "two nude women in a casino")
            assert (own.paid, own.minted, own.burned) == (0, 0, 0), "nothing moves between keys of one account"
            assert await told(worker, "accepted") == "asked by your own account"

            waits = asyncio.create_task(picture(bob))
            await horde.run("peer", "worker", "--resume", "--home", ann)
            assert (await waits).minted > 0
        assert (await horde.audit())["ok"]


async def test_somebody_whom_no_worker_could_ever_serve_is_told_so(tmp_path: Path) -> None:
    async with a_horde(tmp_path) as (horde, _):
        process = await Process.start(
            "asks",
            tmp_path / "logs",
            *("peer", "image", "a red circle", "-o", str(tmp_path / "x.png"), "--anonymous"),
            *("--width", "64", "--height", "64", "--home", str(horde.home("ann").folder)),
        )
        horde.processes.append(process)
        said = "no worker that is here could ever serve this: they serve people with an account only"
        await until(lambda: said in " ".join(process.text().split()), "it was not told why it waits")
