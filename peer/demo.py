"""A whole horde on one machine: a tracker, a worker for pictures and one for texts, and their owners who ask.

Every part is a process of its own and talks over real sockets. The owner of the text worker, who has no kudos, asks
for pictures and is served free, by which the other owner earns enough to pay a text in full.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from peer import events, shapes
from peer.children import Child, ChildFailed, child, run
from peer.client import Client
from peer.engines.spec import SMOLLM2_MODEL
from peer.events import Event
from peer.evidence import Evidence
from peer.home import Home
from peer.verify import verify_file
from protocol import prices
from protocol.links import Link, parse_link
from protocol.messages import Account
from protocol.rules import Rules
from protocol.work import ImageWork, TextWork

NAME = "Potluck demo"
PICTURE_PROMPT = "a large red circle on blue"
TEXT_PROMPT = "Why do people share what they have? Answer in two short sentences."
PICTURE = ImageWork(width=shapes.SIDE, height=shapes.SIDE, steps=shapes.STEPS, guidance_passes=2)
TEXT = TextWork(max_tokens=96, context_tokens=512)
SEED = 7

#: Workers load their models in this time, even on a slow disk.
READY_SECONDS = 600.0
#: How much larger people get to see the small picture.
ENLARGED = 12

#: The demo's horde runs on rules of its own. It has one worker of each kind, so that nobody else could have served
#: what one does; and nobody here waits for days.
RULES = f"""\
[horde]
name = "{NAME}"

[server]
listen = "127.0.0.1:0"

[mint]
owners = 1

[earning]
withheld = 0

[models."{SMOLLM2_MODEL}"]
millions = 135
"""


class DemoFailed(Exception):
    """The demo did not show what it should; the text says where it stopped."""


class Show(Protocol):
    """Whoever tells people or scripts how it goes."""

    def step(self, text: str) -> None:
        """Something begins, or was found."""

    def asks(self, who: str, n: int) -> None:
        """Events of n jobs of one kind of request follow."""

    def tell(self, event: Event) -> None:
        """One of those events."""

    def answered(self) -> None:
        """No more of them."""


@dataclass
class Result:
    """What a job of the demo brought."""

    receipt_digest: bytes = b""
    acknowledged_digest: bytes = b""
    settled: events.Settled | None = None
    path: Path | None = None
    sha256: bytes = b""
    text: list[str] = field(default_factory=list)

    def take(self, event: Event) -> None:
        """Note what the event says."""
        match event:
            case events.TextPiece(text=text):
                self.text.append(text)
            case events.Restarted():
                self.text.clear()
            case events.Received():
                self.receipt_digest, self.acknowledged_digest = event.receipt_digest, event.acknowledged_digest
            case events.Settled():
                self.settled = event
            case _:
                pass

    def fields(self) -> dict[str, Any]:
        """For scripts."""
        settled = self.settled
        return {
            "receipt_digest": self.receipt_digest.hex(),
            "acknowledged_digest": self.acknowledged_digest.hex(),
            "settled": settled is not None,
            "paid": settled.paid if settled else None,
            "minted": settled.minted if settled else None,
            "burned": settled.burned if settled else None,
            "entry": settled.entry if settled else None,
        }


@dataclass(frozen=True)
class Outcome:
    """All that the demo showed. pictures, text: results. enlarged: the first picture for people. balances: of the
    owners of the picture and the text worker, in thousandths, before, after the pictures and at the end."""

    folder: Path
    pictures: list[Result]
    enlarged: Path
    text: Result
    balances: list[tuple[int, int]]
    price: int
    tax: int
    audit: dict[str, Any]

    def fields(self) -> dict[str, Any]:
        """The last line of `potluck demo --json`."""
        first = self.pictures[0]
        names = ("before", "between", "after")
        return {
            "folder": str(self.folder),
            "image": {
                "path": str(first.path),
                "enlarged": str(self.enlarged),
                "sha256": first.sha256.hex(),
                "prompt": PICTURE_PROMPT,
                "count": len(self.pictures),
                **first.fields(),
            },
            "text": {"content": "".join(self.text.text), "prompt": TEXT_PROMPT, **self.text.fields()},
            "balances": {
                name: {"pictures": pictures, "texts": texts}
                for name, (pictures, texts) in zip(names, self.balances, strict=True)
            },
            "audit": self.audit,
        }


def pictures_needed(rules: Rules) -> int:
    """How many pictures earn what one text costs, tax included."""
    text = prices.price(rules, TEXT, SMOLLM2_MODEL) + prices.tax(rules)
    each = prices.price(rules, PICTURE, shapes.NAME)
    return max(1, -(-text // max(1, each)))


class Demo:
    """One run of the demo in one folder, which it makes and leaves."""

    def __init__(self, folder: Path, show: Show) -> None:
        self.folder = folder
        self._show = show
        self._pictures_home = Home(folder / "pictures")
        self._texts_home = Home(folder / "texts")

    async def run(self) -> Outcome:
        """The whole of it; raises `DemoFailed`, `ChildFailed` or a `PotluckError`. No process is left behind."""
        self.folder.mkdir(parents=True)
        async with AsyncExitStack() as stack:
            link = await self._start_tracker(stack)
            await self._start_workers(stack, link)
            pictures_owner = await stack.enter_async_context(Client(link, home=self._pictures_home))
            texts_owner = await stack.enter_async_context(Client(link, home=self._texts_home))
            return await self._ask(pictures_owner, texts_owner)

    async def _start_tracker(self, stack: AsyncExitStack) -> Link:
        place = self.folder / "tracker"
        self._show.step("A tracker starts: it matches, keeps the accounts and sees no picture and no text.")
        code, _, errors = await run(
            ["tracker", "init", str(place), "--name", NAME, "--listen", "127.0.0.1:0", "--json"]
        )
        if code:
            raise ChildFailed("potluck-tracker init", code, errors)
        (place / "horde.toml").write_text(RULES, "utf-8")
        self._show.step(
            "Its rules are the demo's own: kudos is made though one owner serves alone, and no pay is withheld."
        )
        words = ["tracker", "serve", str(place), "--json-logs", "--until-stdin-closes"]
        tracker = await stack.enter_async_context(child("the tracker", words, self.folder / "tracker.log"))
        said = await self._ready(tracker, "serving")
        return parse_link(str(said["link"]))

    async def _start_workers(self, stack: AsyncExitStack, link: Link) -> None:
        self._show.step("Two workers start, each with an account of its own: one draws, one writes.")
        kinds = {"pictures": ("--image", shapes.NAME), "texts": ("--text", SMOLLM2_MODEL)}
        workers = []
        for home, (name, serves) in zip((self._pictures_home, self._texts_home), kinds.items(), strict=True):
            home.join(link)
            home.key()
            words = ["peer", "worker", "--home", str(home.folder), *serves, "--listen", "127.0.0.1:0"]
            words += ["--json", "--until-stdin-closes"]
            log = self.folder / f"worker-{name}.log"
            workers.append(await stack.enter_async_context(child(f"the worker for {name}", words, log)))
        await asyncio.gather(*(self._ready(worker, "joined") for worker in workers))

    async def _ready(self, one: Child, event: str) -> dict[str, Any]:
        try:
            async with asyncio.timeout(READY_SECONDS):
                return await one.until(lambda said: said.get("event") == event)
        except TimeoutError:
            raise DemoFailed(f"{one.name} was not ready in {READY_SECONDS:g} seconds; its log: {one.log}") from None

    async def _ask(self, pictures_owner: Client, texts_owner: Client) -> Outcome:
        rules = pictures_owner.rules
        balances = [await _balances(pictures_owner, texts_owner)]
        pictures = await self._ask_pictures(texts_owner, pictures_needed(rules))
        balances.append(await _balances(pictures_owner, texts_owner))
        earned = _kudos(balances[1][0])
        self._show.step(f"{len(pictures)} pictures came, and their worker's owner has earned {earned} kudos by them.")
        text = await self._ask_text(pictures_owner)
        balances.append(await _balances(pictures_owner, texts_owner))
        outcome = Outcome(
            self.folder,
            pictures,
            await asyncio.to_thread(self._enlarge, pictures[0]),
            text,
            balances,
            prices.price(rules, TEXT, SMOLLM2_MODEL),
            prices.tax(rules),
            await self._audit(),
        )
        _check(outcome)
        return outcome

    async def _ask_pictures(self, owner: Client, n: int) -> list[Result]:
        self._show.step(
            f"The owner of the text worker has no kudos and asks for {n} pictures of “{PICTURE_PROMPT}”.\n"
            "They are free for who has nothing; the horde pays the worker that draws them."
        )
        results = [Result() for _ in range(n)]
        self._show.asks("picture", n)
        asked = owner.image(
            PICTURE_PROMPT,
            models=[shapes.NAME],
            width=PICTURE.width,
            height=PICTURE.height,
            steps=PICTURE.steps,
            guidance=shapes.GUIDANCE,
            seed=SEED,
            n=n,
        )
        try:
            async for event in asked:
                self._show.tell(event)
                results[event.index].take(event)
                if isinstance(event, events.Picture):
                    await self._save(owner, results[event.index], event)
        finally:
            self._show.answered()
        return results

    async def _save(self, owner: Client, result: Result, picture: events.Picture) -> None:
        result.path = self.folder / f"picture-{picture.index + 1}.png"
        result.path.write_bytes(picture.content)
        result.sha256 = hashlib.sha256(picture.content).digest()
        await owner.saved(result.path, result.sha256)

    async def _ask_text(self, owner: Client) -> Result:
        self._show.step(
            "The owner of the picture worker asks for a text, and pays for it from what was earned:\n“"
            + TEXT_PROMPT
            + "”"
        )
        result = Result()
        self._show.asks("text", 1)
        asked = owner.text(
            TEXT_PROMPT, models=[SMOLLM2_MODEL], max_tokens=TEXT.max_tokens, context=TEXT.context_tokens, seed=SEED
        )
        try:
            async for event in asked:
                self._show.tell(event)
                result.take(event)
        finally:
            self._show.answered()
        result.path = self.folder / "text.txt"
        content = "".join(result.text).encode()
        result.path.write_bytes(content)
        result.sha256 = hashlib.sha256(content).digest()
        await owner.saved(result.path, result.sha256)
        return result

    def _enlarge(self, result: Result) -> Path:
        """The picture with each of its pixels as a square, since it is too small to look at."""
        # Here, for it comes with the engines' libraries.
        from PIL import Image

        assert result.path is not None  # noqa: S101
        enlarged = result.path.with_stem("picture-enlarged")
        with Image.open(result.path) as picture:
            size = (picture.width * ENLARGED, picture.height * ENLARGED)
            picture.resize(size, Image.Resampling.NEAREST).save(enlarged)
        return enlarged

    async def _audit(self) -> dict[str, Any]:
        self._show.step("The ledger is computed again from its evidence, as anybody can do with it.")
        code, out, errors = await run(["tracker", "audit", str(self.folder / "tracker"), "--json"])
        try:
            report: dict[str, Any] = json.loads(out)
        except ValueError as error:
            raise ChildFailed("potluck-tracker audit", code, errors) from error
        return report


async def _balances(pictures_owner: Client, texts_owner: Client) -> tuple[int, int]:
    first: Account = await pictures_owner.account()
    second: Account = await texts_owner.account()
    return first.balance, second.balance


def _kudos(thousandths: int) -> str:
    return f"{thousandths / 1000:.3f}"


def _check(outcome: Outcome) -> None:
    """Raise `DemoFailed` unless all is as it should be: a demo that only looks right shows nothing."""
    faults = []
    for result, owner in [*((picture, "texts") for picture in outcome.pictures), (outcome.text, "pictures")]:
        if result.settled is None or result.receipt_digest != result.acknowledged_digest or result.path is None:
            faults.append("a result was not settled")
        else:
            verify_file(result.path, Evidence(Home(outcome.folder / owner).results_folder))
    earned = outcome.balances[1][0] - outcome.balances[0][0]
    spent = outcome.balances[1][0] - outcome.balances[2][0]
    settled = outcome.text.settled
    if settled is not None and (
        settled.minted or settled.burned != outcome.tax or spent != settled.paid + settled.burned
    ):
        faults.append(f"the text was not paid as it should be: {spent} went from the account, {settled}")
    if earned != sum(picture.settled.minted + picture.settled.paid for picture in outcome.pictures if picture.settled):
        faults.append(f"{earned} were earned, which is not what the settlements say")
    if not outcome.audit.get("ok") or outcome.audit.get("sum") != 0:
        faults.append(f"the audit does not pass: {outcome.audit.get('findings')}")
    if faults:
        raise DemoFailed("; ".join(faults))
