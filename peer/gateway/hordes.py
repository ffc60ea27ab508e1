"""The hordes that the gateway asks: a client of each, as ourselves and as nobody, opened when it is first needed."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import Counter, OrderedDict
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from peer import scrape
from peer.client import Client, system_clock
from peer.events import Event, PotluckError, Received, Requeued, Unreachable
from peer.gateway.asks import Ask, Caller, ImageAsk
from peer.gateway.catalogue import Catalogue, Chosen, Model, allowed, check_image, measured, read_scrape, with_former
from peer.gateway.errors import Troubled
from peer.home import Home
from peer.limits_watch import pause_file
from protocol.keys import SigningKey
from protocol.links import Link
from protocol.rules import Rules

if TYPE_CHECKING:
    from types import TracebackType

#: What a tracker publishes is asked for at most so often; a list that anybody looks at is no older.
FRESH_MS = 2_000
#: An ask goes by what was known so long ago, while it is asked for anew: asking a tracker first would cost time.
STALE_MS = 60_000
#: So long a tracker is waited for: at the first connection, for what it publishes, and at the end for settlements.
CONNECT_SECONDS = 10.0
SCRAPE_SECONDS = 5.0
LEAVE_SECONDS = 5.0
#: When so long nothing was heard of an ask, it is looked whether its tracker is still there.
TAKEN_SECONDS = 2.0
#: So long after it did not answer a tracker is not waited for again.
SILENT_MS = 10_000
#: What nobody waits for is fetched so much later: by then the ask that noticed has its first token.
BEHIND_SECONDS = 1.0
#: By these words a worker says that prompt and answer exceed the room that was asked for, and that its engine cannot do
#: what was asked for, such as draw with this sampler.
TOO_LONG, UNSUPPORTED = "too_long", "unsupported"
#: Pages of one tracker that are remembered.
MAX_PAGES = 64

_CLOSED = "the gateway is shutting down: ask again when it is back"


class Hordes:
    """links: by the names they were joined under, in the order in which they are asked. An async context manager.

    Leaving it cancels what is under way, and waits for what is being settled.
    """

    def __init__(
        self,
        links: Mapping[str, Link],
        home: Home,
        *,
        insecure: bool = False,
        relays_only: bool = False,
        clock: Callable[[], int] = system_clock,
        random: random.Random | None = None,
    ) -> None:
        self.links = dict(links)
        self.home = home
        self._clock = clock
        self._tasks: set[asyncio.Task[None]] = set()
        self._posts = {name: _Post(link, clock) for name, link in self.links.items()}
        self._models: dict[str, Sequence[Model]] = {}
        self._counted: dict[str, Mapping[str, Any]] = {}
        self._closed = False

        def seat(link: Link, caller: Caller) -> _Seat:
            def make() -> Client:
                member = caller is Caller.MEMBER
                return Client(
                    link,
                    None if member else SigningKey.generate(),
                    home=home if member else None,
                    insecure=insecure,
                    relays_only=relays_only,
                    connect_seconds=CONNECT_SECONDS,
                    leave_seconds=LEAVE_SECONDS,
                    clock=clock,
                    random=random,
                )

            return _Seat(make)

        self._seats = {(caller, name): seat(link, caller) for name, link in self.links.items() for caller in Caller}

    async def __aenter__(self) -> Hordes:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """End all that is under way; does nothing the second time. Whoever asks from now on hears `Unreachable`."""
        self._closed = True
        await asyncio.gather(*(seat.close() for seat in self._seats.values()), return_exceptions=True)
        for post in self._posts.values():
            post.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def catalogue(self, *, at_most_ms: int = FRESH_MS) -> Catalogue:
        """What the hordes serve, as they said so long ago at most; those that do not answer, as they last said."""
        silent = {}
        heard = await asyncio.gather(*(post.get("scrape", at_most_ms) for post in self._posts.values()))
        for name, page in zip(self._posts, heard, strict=True):
            # Programs that poll ask for it all the time: each page is taken apart once.
            if page.content is not None and page.content is not self._counted.get(name):
                self._counted[name] = page.content
                self._models[name] = with_former(read_scrape(name, page.content), self._models.get(name, ()))
            if page.trouble is not None:
                silent[name] = str(page.trouble)
        models = [model for name in self.links for model in self._models.get(name, ())]
        return Catalogue(list(self.links), models, silent)

    async def choose(self, ask: Ask, caller: Caller = Caller.MEMBER) -> Chosen:
        """Where this ask goes; raises `Troubled` if nobody serves it. A horde that serves members only, and was found
        not to count this caller among them, keeps nobody from another."""
        last = {name for name in self.links if self._seats[caller, name].is_outside}
        is_owner = caller is Caller.MEMBER and pause_file(self.home).exists()

        async def find(at_most_ms: int) -> Chosen:
            known = await self.catalogue(at_most_ms=at_most_ms)
            return (known.with_paused() if is_owner else known).find(ask.kind, ask.models, last)

        with contextlib.suppress(Troubled):
            return await find(STALE_MS)
        return await find(FRESH_MS)  # what is not known by what was heard a while ago may have come since

    async def reach(self, caller: Caller, ask: Ask) -> tuple[Chosen, Client]:
        """Where this ask goes, and the client that is let in there. A horde that cannot be reached, or serves others
        only, keeps nobody from the next one that serves the same. Raises what `choose` and `client` raise."""
        chosen, tried = await self.choose(ask, caller), set[str]()
        while True:
            try:
                client = await self.client(caller, chosen.horde)
                following = await self.choose(ask, caller) if _is_outside(client) else chosen
                if following.horde == chosen.horde or following.horde in tried:
                    return chosen, client
                tried.add(chosen.horde)
                chosen = following
            except Unreachable as error:
                tried.add(chosen.horde)
                if self._closed:
                    raise
                self._found_away(chosen.horde, error)
                chosen = await self.choose(ask, caller)
                if chosen.horde in tried:
                    raise

    async def ask(self, caller: Caller, ask: Ask, *, to_the_end: bool = False) -> AsyncGenerator[Event, None]:
        """Send an ask to the horde that serves it; what happens to it. Ends with the last result's `Received`, or, with
        `to_the_end`, with its `Settled`. Closing it earlier cancels what is not done.

        Raises, at the first event, whatever `trouble` knows.
        """
        chosen, client = await self.reach(caller, ask)
        if isinstance(ask, ImageAsk):
            check_image(ask, chosen)
            asked = ask.put(client, chosen.models)
        else:
            tokens, context = measured(ask, chosen, room_allowed(client))
            asked = ask.put(client, chosen.models, tokens, context)
        left, unable = ask.n, Counter[int]()
        try:
            event = await self._first(asked, client, chosen.horde)
            while event is not None:
                left -= type(event) is Received
                if type(event) is Requeued:
                    unable[event.index] += event.reason == UNSUPPORTED
                    _check_requeued(event, unable[event.index], chosen)
                yield event
                if not left and not to_the_end:
                    return
                event = await anext(asked, None)
        except Unreachable as error:
            if self._closed:
                raise Unreachable(_CLOSED) from error
            raise
        finally:
            if left or to_the_end:
                await asked.aclose()
            else:
                # All of it came; what is left is its settlement, for which nobody has to wait.
                self._spawn(_drain(asked))

    async def _first(self, asked: AsyncGenerator[Event, None], client: Client, horde: str) -> Event | None:
        """What happens first: the tracker takes it in. A client says it again and again for as long as that takes;
        here somebody waits. Raises `Unreachable` if the tracker is gone."""
        first = asyncio.ensure_future(anext(asked, None))
        try:
            while not (await asyncio.wait({first}, timeout=TAKEN_SECONDS))[0]:
                await client.ready()
        except Unreachable as error:
            self._found_away(horde, error)
            raise
        finally:
            first.cancel()
            await asyncio.gather(first, return_exceptions=True)
        return first.result()

    def _found_away(self, horde: str, error: Unreachable) -> None:
        if (post := self._posts.get(horde)) is not None:
            post.failed("scrape", error)

    async def client(self, caller: Caller, horde: str = "") -> Client:
        """The client of this horde, or of the first; raises `Unreachable`, or `Troubled` for an unknown name."""
        if self._closed:
            raise Unreachable(_CLOSED)
        client = await self._seats[caller, self._name(horde)].client()
        await client.ready()
        return client

    async def rules(self, caller: Caller, horde: str = "") -> Rules:
        """The rules of this horde, or of the first."""
        return (await self.client(caller, horde)).rules

    async def scraped(self, horde: str = "", what: str = "scrape", *, at_most_ms: int = FRESH_MS) -> dict[str, Any]:
        """What the horde's tracker publishes at this address, as it said so long ago at most; raises `Unreachable` if
        it does not answer, and `Troubled` (`not_found`) if it has nothing there."""
        page = await self._posts[self._name(horde)].get(what, at_most_ms)
        if isinstance(page.trouble, scrape.NoSuchPage):
            raise Troubled("not_found", str(page.trouble))
        if page.content is None:
            raise page.trouble or Unreachable("the horde's tracker does not answer")
        return page.content

    def _name(self, horde: str) -> str:
        name = horde or next(iter(self.links), "")
        if name not in self.links:
            known = ", ".join(self.links)
            raise Troubled("not_found", f"no horde {name[:100]!r} is asked here; asked are: {known or 'none'}")
        return name

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _check_requeued(event: Requeued, unable: int, chosen: Chosen) -> None:
    """Raises `Troubled` where the job would wait until it expires for a worker that does not exist. unable: how many
    have said that they cannot do such a job."""
    if event.reason == TOO_LONG:
        # Every other worker of the model would count the same tokens.
        raise Troubled("too_long", event.text or "the prompt does not fit: shorten it")
    if event.reason == UNSUPPORTED and unable >= sum(model.workers for model in chosen.of):
        raise Troubled("unsupported", event.text or "no worker of this model can do that: ask for less")


def room_allowed(client: Client) -> tuple[int, int]:
    """Tokens and room that the horde allows to whom this client asks as. A key without an account is nobody's."""
    return allowed(client.rules.limits, anonymous=not client.account_number)


def _is_outside(client: Client) -> bool:
    """Whether the horde serves members only, and whoever asks so is none."""
    return not client.rules.accounts.anonymous and not client.account_number


async def _drain(events: AsyncGenerator[Event, None]) -> None:
    """Read to the end what nobody reads any more."""
    with contextlib.suppress(PotluckError):
        async for _ in events:
            pass


class _Seat:
    """One client of one horde: opened when it is needed, and again when its connection has ended for good."""

    def __init__(self, make: Callable[[], Client]) -> None:
        self._make = make
        self._client: Client | None = None
        self._opening: asyncio.Task[Client] | None = None

    async def client(self) -> Client:
        """The client, open; raises what keeps it from being so. Whoever stops waiting does not disturb the others."""
        if self._client is not None and not self._client.has_ended:
            return self._client
        if self._opening is None or self._opening.done():
            self._opening = asyncio.create_task(self._open())
            self._opening.add_done_callback(_retrieved)
        return await asyncio.shield(self._opening)

    @property
    def is_outside(self) -> bool:
        """Whether its horde is known to serve others only."""
        return self._client is not None and _is_outside(self._client)

    async def _open(self) -> Client:
        await self._leave()
        client = self._make()
        await client.__aenter__()
        self._client = client
        return client

    async def _leave(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await client.__aexit__(None, None, None)

    async def close(self) -> None:
        """Cancel what its client asks for, and end it."""
        if self._opening is not None and not self._opening.done():
            self._opening.cancel()
            await asyncio.gather(self._opening, return_exceptions=True)
        await self._leave()


def _retrieved(task: asyncio.Task[Client]) -> None:
    """An error that nobody waits for any more is nothing to complain about."""
    if not task.cancelled():
        task.exception()


class _Post:
    """What one tracker publishes, each page as it was last heard."""

    def __init__(self, link: Link, clock: Callable[[], int]) -> None:
        self._link = link
        self._clock = clock
        self._pages: OrderedDict[str, _Page] = OrderedDict()

    async def get(self, what: str, at_most_ms: int) -> _Page:
        """The page, as it was so long ago at most if the tracker answers in time; else as it was last. What is not
        fresh is fetched behind the back of who does not mind."""
        page = self._pages.setdefault(what, _Page())
        self._pages.move_to_end(what)
        if len(self._pages) > MAX_PAGES:
            _, oldest = self._pages.popitem(last=False)
            oldest.close()
        now = self._clock()
        if not page.is_at_most(FRESH_MS, now):
            if page.fetching is None or page.fetching.done():
                page.wanted = asyncio.Event()
                page.fetching = asyncio.create_task(self._fetch(what, page))
            # Who was silent a moment ago is not waited for by everybody again.
            if not page.is_at_most(at_most_ms, now) and not (page.trouble and 0 <= now - page.tried < SILENT_MS):
                page.wanted.set()
                await asyncio.wait({page.fetching}, timeout=SCRAPE_SECONDS)
                if not page.fetching.done():
                    page.failed(Unreachable(f"{scrape.http_url(self._link)} takes too long to answer"), self._clock())
        return page

    async def _fetch(self, what: str, page: _Page) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(BEHIND_SECONDS):
                await page.wanted.wait()
        try:
            page.content = await scrape.fetch(self._link, what)
        except Unreachable as error:
            page.failed(error, self._clock())
        else:
            page.trouble, page.heard = None, self._clock()

    def failed(self, what: str, error: Unreachable) -> None:
        """The tracker was found not to answer, in another way; until it says this page anew it counts as silent."""
        if (page := self._pages.get(what)) is not None:
            page.failed(error, self._clock())

    def close(self) -> None:
        """Fetch nothing any more."""
        for page in self._pages.values():
            page.close()


@dataclass
class _Page:
    """content: as it was last heard, None before that. heard: when. trouble: why it was not heard the last time that
    it was asked for; tried: when that was. wanted: set once somebody waits for it."""

    content: dict[str, Any] | None = None
    heard: int = 0
    trouble: Unreachable | None = None
    tried: int = 0
    fetching: asyncio.Task[None] | None = None
    wanted: asyncio.Event = field(default_factory=asyncio.Event)

    def is_at_most(self, ms: int, now: int) -> bool:
        """Whether it was heard so long ago at most."""
        return self.content is not None and 0 <= now - self.heard <= ms

    def failed(self, error: Unreachable, now: int) -> None:
        """It was asked for in vain."""
        self.trouble, self.tried = error, now

    def close(self) -> None:
        """Do not wait for it."""
        if self.fetching is not None:
            self.fetching.cancel()
