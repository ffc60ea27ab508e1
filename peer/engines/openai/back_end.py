"""A server with OpenAI's API as an engine: what it serves, and whether it works.

It may end and come back. It is looked at all the time, and what it serves is offered only while it works, so that jobs
go elsewhere meanwhile.
"""

from __future__ import annotations

import asyncio
import hashlib
import platform
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import aiohttp

from peer.engines.base import Done, EngineError, Task
from peer.engines.health import Health
from peer.engines.maker import Job, Maker
from peer.engines.openai.asks import DIALECTS, dialect_of, offered_name, writes
from peer.engines.openai.making import Making, check_pillow
from peer.engines.openai.says import Trouble
from peer.engines.openai.server import Server
from peer.engines.spec import EngineSpec, OpenAIOptions, api_of, check, options_of, secret_of
from protocol.messages import Offer
from protocol.work import TextPrivate, TextWork

LOOK_TIMEOUT_S = 10.0
#: A trial may take so many times as long as a server may say nothing: one that makes a job meanwhile lets it wait.
TRIAL_SILENCES = 3
#: Of a server that lists more models than this, those to serve have to be named.
MAX_MODELS = 64
MAX_NAME = 120
USUAL_CONTEXT = 2048


def maker(spec: EngineSpec) -> Maker:
    """The maker for this spec."""
    check(spec)
    return BackEnd(spec.model, options_of(spec, OpenAIOptions))


class _Served:
    """One model: the server's name for it, what is offered of it, and how it does."""

    def __init__(self, named: str, offer: Offer, health: Health) -> None:
        self.named = named
        self.offer = offer
        self.health = health


class BackEnd(Maker):
    """One server, and what it serves. clock: in seconds."""

    def __init__(self, model: str, options: OpenAIOptions, clock: Callable[[], float] = time.monotonic) -> None:
        self._model = model
        self._options = options
        self._clock = clock
        self._server = Server(api_of(options), secret_of(options))
        self._dialect = DIALECTS["other"]
        self._about = ""
        self._health = Health()
        self._models: dict[str, _Served] = {}
        self._lock = threading.Lock()
        #: What was found first is said first, whichever thread it is.
        self._telling = threading.Lock()
        self._wake = threading.Event()
        self._offer: Callable[[Sequence[Offer], str], None] | None = None
        self._told: tuple[tuple[Offer, ...], str] = ((), "")

    # What is served, and whether it works

    def load(self) -> Sequence[Offer]:
        if self._options.kind == "image":
            check_pillow()
        trouble = asyncio.run(self.look())
        # One that does not answer may be started after us: that is said then, and it is looked at again.
        if trouble is not None and trouble.blame != "server":
            raise EngineError("failed", f"{self._server.url}: {trouble.detail}") from trouble
        self._told = self.offers()
        return self._told[0]

    def watch(self, offer: Callable[[Sequence[Offer], str], None]) -> None:
        self._offer = offer
        self._tell(again=not self._told[0])
        while True:
            self._wake.wait(max(0.0, self.due() - self._clock()))
            self._wake.clear()
            try:
                asyncio.run(self.look())
            except Exception as error:  # noqa: BLE001 (or it would never be looked at again)
                traceback.print_tb(error.__traceback__)
                with self._lock:
                    self._health.looked(self._clock(), f"looking at it failed with {type(error).__name__}")
            self._tell()

    def offers(self) -> tuple[tuple[Offer, ...], str]:
        """What is offered now, else why nothing is."""
        with self._lock:
            models = list(self._models.values()) if self._health.up else []
            up = tuple(served.offer for served in models if served.health.up)
            why = self._health.text or next((served.health.text for served in models), "")
        return up, "" if up else f"{self._server.url}: {why}"

    def _tell(self, *, again: bool = False) -> None:
        with self._telling:
            offers, why = self.offers()
            if self._offer is not None and (again or (offers, why) != self._told):
                self._told = offers, why
                self._offer(offers, why)

    def due(self) -> float:
        """When to look again."""
        with self._lock:
            if not self._health.up:  # no model of it is tried out before it answers
                return self._health.due
            trials = [served.health.due for served in self._models.values() if served.health.wants_trial]
            return min([self._health.due, *trials])

    def _blame(self, served: _Served, trouble: Trouble) -> None:
        """A job failed: offer less at once if that is clear, and have the server looked at."""
        blame, now = trouble.blame, self._clock()
        if blame == "none":
            return
        with self._lock:
            if blame == "server":
                self._health.failed(now, trouble.detail, at_once=True, counts=False)
            else:
                served.health.failed(now, trouble.detail, at_once=blame == "model", counts=blame != "doubt")
        self._tell()
        self._wake.set()

    async def look(self) -> Trouble | None:
        """Ask what the server lists, and try out what has failed; what is wrong with the server, if something is."""
        try:
            async with self._server.session(LOOK_TIMEOUT_S, LOOK_TIMEOUT_S) as http:
                await self._discover(http)
        except Trouble as trouble:
            with self._lock:
                self._health.looked(self._clock(), trouble.detail)
            return trouble
        with self._lock:
            self._health.looked(self._clock())
            due = [served for served in self._models.values() if served.health.wants_trial]
        for served in due:
            if served.health.due <= self._clock():
                await self._try(served)
        return None

    async def _try(self, served: _Served) -> None:
        """Let a model make one token. A picture would take too long: such a one is good until it fails again."""
        trouble = ""
        if self._options.kind == "text":
            task = Task(served.offer.model, TextWork(max_tokens=1), TextPrivate(prompt="Hi", salt=bytes(32)), 1)
            job = Job(task, lambda said: None)
            try:
                async with asyncio.timeout(TRIAL_SILENCES * self._options.timeout_s):
                    await self._making(served, job).run(self._options.timeout_s)
            except EngineError as found:
                trouble = found.detail if isinstance(found, Trouble) else str(found)
            except TimeoutError:
                trouble = "one token takes too long"
        with self._lock:
            served.health.looked(self._clock(), trouble)

    async def _discover(self, http: aiohttp.ClientSession) -> None:
        listed, header = await self._listed(http)
        if self._options.server == "auto":
            self._dialect = dialect_of(listed, header)
        else:
            self._dialect = DIALECTS[self._options.server]
        chosen = self._chosen(listed)
        with self._lock:
            known = {name: served.named for name, served in self._models.items()}
        if self._health.up and known == {name: str(model["id"]) for name, model in chosen.items()}:
            return
        # It is new, or has come back, maybe as another version.
        self._about = await self._version(http)
        offers = {name: await self._offer_of(http, name, model) for name, model in chosen.items()}
        with self._lock:
            self._models = {
                name: _Served(str(model["id"]), offers[name], self._health_of(name)) for name, model in chosen.items()
            }

    def _health_of(self, name: str) -> Health:
        """That of a model that is known; a new one counts as good until it fails."""
        if (served := self._models.get(name)) is not None:
            return served.health
        health = Health()
        health.looked(self._clock())
        return health

    async def _listed(self, http: aiohttp.ClientSession) -> tuple[list[Mapping[str, Any]], str]:
        try:
            said, header = await self._server.ask(http, f"{self._server.url}/models")
        except Trouble as trouble:
            # One that is being started answers so; what else it says will not mend itself.
            trouble.blame = "server" if trouble.status in (0, 429) or trouble.status >= 500 else "model"
            raise
        data = said.get("data")
        models = [model for model in data if isinstance(model, dict)] if isinstance(data, list) else []
        return [model for model in models if isinstance(name := model.get("id"), str) and _is_name(name)], header

    def _chosen(self, listed: Sequence[Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
        """The models to serve, by the names under which they are offered; raises `Trouble`."""
        serves = self._options.serves
        names = ", ".join(str(model["id"]) for model in listed[:20]) or "nothing"
        if serves not in ("", "*"):
            for model in listed:
                if model["id"] == serves:
                    return {self._model: model}
            raise _mistaken(f"it does not list {serves!r}; it lists {names}")
        able = [model for model in listed if self._options.kind == "image" or writes(model["id"])]
        if serves == "":
            if len(able) == 1:
                return {self._model: able[0]}
            raise _mistaken(f"wanted the server's name for the model, as in URL#MODEL; it lists {names}")
        if not able or len(able) > MAX_MODELS:
            raise _mistaken(f"wanted 1 to {MAX_MODELS} models; it lists {names}: name those to serve, as in URL#MODEL")
        if self._options.kind == "image" and len(able) > 1:
            raise _mistaken(f"wanted the name of a model that makes pictures, as in URL#MODEL; it lists {names}")
        found = {offered_name(model["id"]): model for model in reversed(able)}
        return {name: found[name] for name in reversed(found) if len(name) <= MAX_NAME}

    async def _offer_of(self, http: aiohttp.ClientSession, name: str, model: Mapping[str, Any]) -> Offer:
        options, engine = self._options, self._engine_class(model)
        if options.kind == "image":
            return Offer(
                kind="image", model=name, engine=engine, max_pixels=options.max_pixels, max_steps=options.max_steps
            )
        room = options.context or await self._room(http, model) or USUAL_CONTEXT
        return Offer(
            kind="text",
            model=name,
            engine=engine,
            max_tokens=min(options.max_tokens, room),
            max_context=room,
            continues=options.continues and self._dialect.going_on is not None,
        )

    def _engine_class(self, model: Mapping[str, Any]) -> str:
        """What can be known of what makes it. Its machine cannot: so that no two of them are taken for one class, the
        class ends with a mark of this machine and the server's address."""
        mark = hashlib.sha256(f"{platform.node()} {self._server.url}".encode()).hexdigest()[:8]
        meta = model.get("meta")
        weights = str(meta.get("ftype") or "")[:40] if isinstance(meta, dict) else ""
        weights = weights if _is_name(weights) else ""
        parts = ("openai", self._dialect.name, self._about, offered_name(str(model["id"]))[:150], weights)
        return f"{' '.join(filter(None, parts))} at {mark}"

    async def _room(self, http: aiohttp.ClientSession, model: Mapping[str, Any]) -> int:
        """Tokens of context, as the server says; 0 if it does not."""
        said: Any = model.get("max_model_len")
        if self._dialect.name == "llama.cpp":
            settings = (await self._maybe(http, "/props")).get("default_generation_settings")
            said = settings.get("n_ctx") if isinstance(settings, dict) else None
        elif self._dialect.name == "koboldcpp":
            said = (await self._maybe(http, "/api/extra/true_max_context_length")).get("value")
        return min(said, 1_048_576) if isinstance(said, int) and said >= 16 else 0

    async def _version(self, http: aiohttp.ClientSession) -> str:
        path, name = self._dialect.version
        said = str((await self._maybe(http, path)).get(name, ""))[:60] if path else ""
        return said if _is_name(said) else ""

    async def _maybe(self, http: aiohttp.ClientSession, path: str) -> Mapping[str, Any]:
        """What the server says beside OpenAI's API, if it does."""
        try:
            return (await self._server.ask(http, self._server.root + path))[0]
        except Trouble:
            return {}

    # Jobs

    def make(self, job: Job) -> Done:
        private = job.task.private
        if isinstance(private, TextPrivate) and private.repeat_penalty == 0:
            raise EngineError("unsupported", "a repeat penalty of 0: wanted 1000 for none, more against repetition")
        with self._lock:
            served = self._models.get(job.task.model)
        if served is None:
            raise EngineError("unavailable", "the back end does not list this model any more")
        if job.halted:
            return Done(0, finish="cancelled")
        try:
            done = asyncio.run(self._making(served, job).run(self._options.timeout_s))
        except Trouble as trouble:
            self._blame(served, trouble)
            raise
        if done.finish != "cancelled":
            with self._lock:
                served.health.worked()
        return done

    def _making(self, served: _Served, job: Job) -> Making:
        return Making(self._server, self._dialect, served.named, job, chat_only=self._options.api == "chat")


def _is_name(said: str) -> bool:
    """Whether it can be one: no marks that move a terminal's cursor, no halves of a character."""
    return bool(said.strip()) and said.isprintable()


def _mistaken(detail: str) -> Trouble:
    """What will not mend itself while the server stays as it is."""
    return Trouble("unavailable", "the back end does not list this model", "model", detail)
