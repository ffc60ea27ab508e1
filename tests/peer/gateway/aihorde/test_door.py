"""AI Horde's door over HTTP, with workers behind it who do what they are told to."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import aiohttp
import pytest

from peer import events
from peer.client import Client
from peer.engines.dry_run import png
from peer.events import Event, JobFailed, Refused
from peer.gateway import aihorde
from peer.gateway.access import Access
from peer.gateway.aihorde.lenient import LenientAsk
from peer.gateway.asks import Ask, Caller, ImageAsk
from peer.gateway.catalogue import Catalogue, Model
from peer.gateway.errors import Troubled
from peer.gateway.hordes import Hordes
from peer.gateway.serve import Listening, make_app, serving
from peer.home import Home
from protocol.links import Link
from protocol.messages import Quote
from protocol.rules import Rules

KEY = "x" * 22
WISH = {"prompt": "a cup ### blue", "params": {"width": 64, "height": 64}, "r2": False}


class Asked:
    """What the door needs of a client; refusal: what it is told in place of a price."""

    rules = Rules()
    account_number = 123

    def __init__(self) -> None:
        self.refusal: Refused | None = None

    async def quote(self, work: object, *, models: Sequence[str] = (), n: int = 1) -> Quote:
        if self.refusal is not None:
            raise self.refusal
        return Quote(price=7000, tax=3000, held=0, free=0, workers=1, ahead=0)


class Workers(Hordes):
    """Hordes that answer what a test puts into `plan`."""

    def __init__(self, folder: Path) -> None:
        super().__init__({}, Home(folder))
        self.plan: asyncio.Queue[Event | Exception | None] = asyncio.Queue()
        self.asked: list[Ask] = []
        self.callers: list[Caller] = []
        self.left = asyncio.Event()
        self.begun = asyncio.Event()
        self.one = Asked()

    async def catalogue(self, *, at_most_ms: int = 0) -> Catalogue:
        models = [Model("image", "painter", "home", workers=1), Model("text", "teller", "home", workers=1)]
        return Catalogue(["home"], models)

    async def client(self, caller: Caller, horde: str = "") -> Client:
        self.callers.append(caller)
        return cast("Client", self.one)

    async def ask(self, caller: Caller, ask: Ask, *, to_the_end: bool = False) -> AsyncGenerator[Event, None]:
        self.asked.append(ask)
        self.begun.set()
        try:
            while (told := await self.plan.get()) is not None:
                if isinstance(told, Exception):
                    raise told
                yield told
        finally:
            self.left.set()

    def tell(self, *told: Event | Exception | None) -> None:
        for one in told:
            self.plan.put_nowait(one)


def leased(index: int = 0) -> Event:
    return events.Leased(index, b"w" * 32, "painter", 1, price=7000, paid=0)


def whole(index: int = 0) -> Event:
    return events.Received(index, 1, "stop", "an engine", 30, (), b"", b"")


def queued(index: int = 0) -> Event:
    return events.Queued(index, b"j" * 16, 0)


class Program:
    """A client."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self.session = session
        self.url = f"{url}/api/v2"

    async def ask(
        self, what: str, body: object = None, status: int = 200, method: str = "", key: str = KEY
    ) -> dict[str, Any]:
        method = method or ("GET" if body is None else "POST")
        headers = {"apikey": key} if key else {}
        async with self.session.request(method, self.url + what, json=body, headers=headers) as answer:
            assert answer.status == status, await answer.text()
            found: dict[str, Any] = await answer.json()
            return found

    async def done(self, what: str) -> dict[str, Any]:
        """Ask until it is done."""
        async with asyncio.timeout(30):
            while True:
                if (found := await self.ask(what))["done"]:
                    return found


@pytest.fixture
def workers(tmp_path: Path) -> Workers:
    return Workers(tmp_path)


@asynccontextmanager
async def opened(workers: Workers, *, anonymous: bool = True) -> AsyncIterator[Program]:
    app = make_app(workers, Access(KEY, anonymous=anonymous), doors=(aihorde,))
    async with serving(app, Listening("127.0.0.1", 0)) as url, aiohttp.ClientSession() as session:
        yield Program(session, url)


async def test_a_request_is_taken_in_looked_at_and_done(workers: Workers) -> None:
    async with opened(workers) as program:
        workers.tell(queued())
        taken = await program.ask("/generate/async", WISH, 202)
        assert taken == {"id": taken["id"], "kudos": 10.0}
        found = await program.ask(f"/generate/check/{taken['id']}", key="")
        assert (found["done"], found["waiting"]) == (False, 1)

        picture = events.Picture(0, png(bytes(64 * 64 * 3), 64, 64), "image/png", 7)
        workers.tell(leased(), picture, whole(), None)
        await program.done(f"/generate/check/{taken['id']}")
        (made,) = (await program.ask(f"/generate/status/{taken['id']}"))["generations"]
        assert (made["seed"], made["model"]) == ("7", "painter")
        (same,) = (await program.ask(f"/generate/status/{taken['id']}", method="DELETE"))["generations"]
        assert same == made
        assert (await program.ask(f"/generate/text/status/{taken['id']}", status=404))["rc"] == "RequestNotFound"


async def test_what_a_client_of_ai_horde_does_not_say_is_said_for_it(workers: Workers) -> None:
    async with opened(workers) as program:
        workers.tell(queued())
        await program.ask("/generate/async", WISH, 202)
        (ask,) = workers.asked
        assert isinstance(ask, ImageAsk)
        assert ask.seed is not None
        assert (ask.prompt, ask.negative_prompt, ask.models) == ("a cup", "blue", ())


@pytest.mark.parametrize(
    ("key", "caller"), [(KEY, Caller.MEMBER), ("", Caller.ANYBODY), ("0000000000", Caller.ANYBODY)]
)
async def test_who_shows_the_key_asks_as_us_and_everybody_else_as_nobody(
    workers: Workers, key: str, caller: Caller
) -> None:
    async with opened(workers) as program:
        await program.ask("/generate/async", {**WISH, "dry_run": True}, key=key)
        assert workers.callers == [caller]


async def test_nobody_is_served_where_that_is_switched_off_but_may_look_at_what_is_under_way(workers: Workers) -> None:
    async with opened(workers, anonymous=False) as program:
        for key in ("", "0000000000", "y" * 22):
            assert (await program.ask("/generate/async", WISH, 401, key=key))["rc"] == "InvalidAPIKey"
        workers.tell(queued())
        taken = await program.ask("/generate/async", WISH, 202)
        await program.ask(f"/generate/check/{taken['id']}", key="")


@pytest.mark.parametrize(
    ("refusal", "status", "rc"),
    [
        (Refused("over_limit", "steps 60: at most 50 here by the rule limits.max_steps"), 400, "TooManySteps"),
        (Refused("over_limit", "9 jobs are under way: the rule limits.open_jobs"), 429, "TooManyPrompts"),
        (Refused("not_allowed", "a delegation forbids it"), 403, "Forbidden"),
        (Refused("content_refused", "minors: the prompt filter found it"), 400, "CorruptPrompt"),
        (Refused("timed_out", "nothing is taken from you for another 60 s"), 403, "TimeoutIP"),
        (Refused("suspended", "account 5 is suspended: by act 6"), 403, "Forbidden"),
        (Refused("not_registered", "this horde serves its members"), 403, "AnonForbidden"),
    ],
)
async def test_what_a_tracker_refuses_is_refused_at_once(
    workers: Workers, refusal: Refused, status: int, rc: str
) -> None:
    async with opened(workers) as program:
        workers.one.refusal = refusal
        assert await program.ask("/generate/async", WISH, status) == {"message": str(refusal), "rc": rc}
        workers.one.refusal = None
        workers.tell(refusal)
        assert (await program.ask("/generate/async", WISH, status))["rc"] == rc


async def test_what_fails_later_is_faulted(workers: Workers) -> None:
    async with opened(workers) as program:
        workers.tell(queued())
        taken = await program.ask("/generate/text/async", {"prompt": "a cup"}, 202)
        workers.tell(JobFailed("failed", "three workers tried"))
        found = await program.done(f"/generate/text/status/{taken['id']}")
        assert (found["faulted"], found["generations"]) == (True, [])
        assert "message" not in found


async def test_one_that_is_deleted_is_cancelled(workers: Workers) -> None:
    async with opened(workers) as program:
        workers.tell(queued(), leased())
        taken = await program.ask("/generate/async", WISH, 202)
        assert not workers.left.is_set()
        found = await program.ask(f"/generate/status/{taken['id']}", method="DELETE")
        assert (found["done"], found["faulted"], found["processing"]) == (True, False, 0)
        async with asyncio.timeout(30):
            await workers.left.wait()


async def test_one_whose_client_goes_away_before_it_knows_its_name_is_cancelled(workers: Workers) -> None:
    async with opened(workers) as program:
        asking = asyncio.create_task(program.ask("/generate/async", WISH, 202))
        async with asyncio.timeout(30):
            await workers.begun.wait()
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)
            await workers.left.wait()


async def test_bodies_that_cannot_be_read_name_the_field(workers: Workers) -> None:
    async with opened(workers) as program:
        found = await program.ask("/generate/async", {"prompt": "x", "params": {"steps": "many"}}, 400)
        assert (found["rc"], set(found["errors"])) == ("BadRequest", {"params.steps"})
        async with program.session.post(f"{program.url}/generate/async", data=b"{", headers={"apikey": KEY}) as answer:
            assert answer.status == 400
            assert (await answer.json())["rc"] == "BadRequest"


async def test_what_is_not_here_has_a_word_too(workers: Workers) -> None:
    async with opened(workers) as program:
        assert (await program.ask("/nothing/here", status=404))["rc"] == "ThingNotFound"
        assert (await program.ask("/generate/async", status=405))["rc"] == "BadRequest"
        assert (await program.ask("/interrogate/async", {"forms": []}, 400))["rc"] == "NoValidWorkers"
        assert (await program.ask("/interrogate/status/x", status=404))["rc"] == "RequestNotFound"
        assert (await program.ask("/users/abc", status=404))["rc"] == "UserNotFound"
        assert (await program.ask("/documents/terms?format=pdf", status=400))["rc"] == "BadRequest"
        assert (await program.ask("/status/models?type=video", status=400))["rc"] == "BadRequest"
        assert (await program.ask("/status/models?min_count=-1", status=400))["rc"] == "BadRequest"


async def test_a_tracker_that_publishes_no_figures_leaves_the_models(
    workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scraped(horde: str = "", what: str = "scrape", *, at_most_ms: int = 0) -> dict[str, Any]:
        raise Troubled("not_found", "the tracker has nothing there")

    workers.links["home"] = cast("Link", None)
    monkeypatch.setattr(workers, "scraped", scraped)
    async with opened(workers) as program:
        (model,) = cast("list[dict[str, Any]]", await program.ask("/status/models?type=text"))
        assert (model["name"], model["queued"]) == ("teller", 0)
        assert (await program.ask("/status/performance"))["worker_count"] == 0
        assert not await program.ask("/workers")


@pytest.mark.parametrize(
    ("gift", "status", "rc"),
    [
        ({"username": "Ada#200", "amount": -1}, 400, "NegativeKudosTransfer"),
        ({"username": "Ada#200", "amount": 0}, 400, "BadRequest"),
        ({"username": "Ada#200"}, 400, "BadRequest"),
        ({"username": "Ada#200", "amount": 0.0001}, 400, "BadRequest"),
        ({"username": "Ada#200", "amount": 1e300}, 400, "BadRequest"),
        ({"username": "Ada", "amount": 1}, 404, "UserNotFound"),
        ({"amount": 1}, 404, "UserNotFound"),
        ({"username": "me#123", "amount": 1}, 400, "KudosTransferToSelf"),
    ],
)
async def test_a_gift_that_cannot_be_is_refused(workers: Workers, gift: object, status: int, rc: str) -> None:
    async with opened(workers) as program:
        assert (await program.ask("/kudos/transfer", gift, status))["rc"] == rc
        assert (await program.ask("/kudos/transfer", gift, 403, key=""))["rc"] == "AnonForbidden"


class Sampled:
    """A client whose workers have no sampler but their own."""

    def __init__(self, before: Sequence[Event] = ()) -> None:
        self.samplers: list[str] = []
        self.before = before

    async def image(self, prompt: str, *, sampler: str = "", **_: object) -> AsyncGenerator[Event, None]:
        self.samplers.append(sampler)
        yield queued()
        for event in self.before:
            yield event
        if sampler:
            yield events.Requeued(0, 1, "unsupported", f"no sampler {sampler!r} for this model")
            return
        yield whole()


async def drawn(client: Sampled, **more: Any) -> list[str]:
    ask = LenientAsk(prompt="x", **more)
    return [type(event).__name__ async for event in ask.put(cast("Client", client), ())]


async def test_a_sampler_that_the_model_has_not_gives_way_to_its_own() -> None:
    client = Sampled()
    assert await drawn(client, sampler="lcm") == ["Queued", "Queued", "Received"]
    assert client.samplers == ["lcm", ""]
    assert await drawn(plain := Sampled()) == ["Queued", "Received"]
    assert plain.samplers == [""]


async def test_what_is_whole_already_is_not_drawn_again() -> None:
    client = Sampled([whole(1)])
    assert await drawn(client, sampler="lcm", n=2) == ["Queued", "Received", "Requeued"]
    assert client.samplers == ["lcm"]


def test_no_body_of_an_error_holds_more_than_it_should() -> None:
    from peer.gateway.errors import trouble

    answer = aihorde.refuse(trouble(RuntimeError("a secret wish")))
    assert answer.text is not None
    assert "secret" not in answer.text
    assert set(json.loads(answer.text)) == {"message", "rc"}
