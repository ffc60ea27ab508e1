"""Texts from any GGUF file, through llama.cpp's own server inside this process (the package `xllamacpp`).

That server does the chat template, the tokens and the sampling. Template and tokenizer can be asked for over HTTP
only, so it listens on loopback, behind a key that nobody else knows; the text itself comes through a callback.
"""

from __future__ import annotations

import json
import platform
import secrets
import sys
import urllib.error
import urllib.request
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any, Literal, cast

from peer.engines.base import Done, EngineError, StepsDone, TextMade
from peer.engines.maker import Job, Maker, cores
from peer.engines.spec import EngineMissing, EngineSpec, TextOptions, check, options_of
from peer.engines.stops import StopFilter
from protocol.messages import Offer
from protocol.work import TextPrivate, TextWork

#: A prompt is read in parts of so many tokens; between two of them the job can be stopped.
BATCH_TOKENS = 256
#: The server's seeds have 32 bits, and the highest of them means "any".
SEEDS = 2**32 - 1
#: What draws the next token, in this order; named, so that a model file's own wishes do not come in between.
SAMPLERS = ("penalties", "top_k", "top_p", "min_p", "temperature")
#: How many of the last tokens a repeat penalty looks at.
PENALTY_TOKENS = 64


def maker(spec: EngineSpec) -> Maker:
    """The maker for this spec."""
    check(spec)
    return Llama(spec.model, options_of(spec, TextOptions))


class Llama(Maker):
    """One GGUF file, loaded."""

    def __init__(self, model: str, options: TextOptions) -> None:
        self._model = model
        self._options = options
        self._server: Any = None
        self._key = secrets.token_hex(32)

    def load(self) -> Sequence[Offer]:
        try:
            import xllamacpp
        except ModuleNotFoundError as error:
            raise EngineMissing("texts need the package xllamacpp; it comes with potluck[worker]") from error
        options = self._options
        try:
            self._server = xllamacpp.Server(self._parameters(xllamacpp))
        except RuntimeError as error:
            raise EngineError("failed", f"llama.cpp cannot load {options.path}: its log says why ({error})") from error
        about = self._ask("/v1/models")["data"][0]["meta"]
        room = min(options.context, about["n_ctx_train"] or options.context)
        offer = Offer(
            kind="text",
            model=self._model,
            engine=self._engine_class(xllamacpp, about.get("ftype") or "unknown"),
            max_tokens=min(options.max_tokens, room),
            max_context=room,
            continues=True,
        )
        return (offer,)

    def _parameters(self, xllamacpp: Any) -> Any:
        options = self._options
        threads = cores(options.threads)
        parameters = xllamacpp.CommonParams()
        parameters.model.path = options.path
        # Room for the token that ends an answer, and rounded up to what the library would round up to.
        parameters.n_ctx = (options.context // 256 + 1) * 256
        parameters.n_batch = parameters.n_ubatch = BATCH_TOKENS
        parameters.cpuparams.n_threads = parameters.cpuparams_batch.n_threads = threads
        parameters.n_gpu_layers = options.gpu_layers
        parameters.fit_params = options.gpu_layers < 0 and self._device(xllamacpp) != "cpu"
        # One job at a time, each from a clean slate: what came before must not change how numbers are added up.
        parameters.n_parallel = 1
        parameters.cache_prompt = False
        parameters.cache_ram_mib = 0
        parameters.warmup = False
        parameters.hostnames = ["127.0.0.1"]
        parameters.port = 0
        parameters.api_keys = [self._key]
        parameters.cors_origins = ""
        parameters.ui = parameters.endpoint_slots = parameters.endpoint_metrics = False
        return parameters

    def _device(self, xllamacpp: Any) -> str:
        if self._options.gpu_layers == 0:
            return "cpu"
        devices = [device for device in xllamacpp.get_device_info() if "CPU" not in str(device["type"])]
        return "+".join(device["description"] for device in devices) or "cpu"

    def _engine_class(self, xllamacpp: Any, ftype: str) -> str:
        device = self._device(xllamacpp)
        layers = "" if device == "cpu" or self._options.gpu_layers < 0 else f" {self._options.gpu_layers} layers"
        built_for = f"{sys.platform} {platform.machine().lower()}"
        threads = cores(self._options.threads)
        return f"xllamacpp {version('xllamacpp')} {ftype} {device}{layers} {built_for} {threads} threads"[:300]

    def make(self, job: Job) -> Done:
        task = job.task
        work, private = cast("TextWork", task.work), cast("TextPrivate", task.private)
        if private.repeat_penalty == 0:
            raise EngineError("unsupported", "a repeat penalty of 0: wanted 1000 for none, more against repetition")
        prompt = self._prompt(private)
        asked = self._tokens(prompt)
        tokens = self._tokens(prompt + task.prefix) if task.prefix else asked
        if len(asked) + work.max_tokens > work.context_tokens:
            raise EngineError(
                "too_long",
                f"a prompt of {len(asked)} tokens and an answer of up to {work.max_tokens} do not fit into "
                f"{work.context_tokens} tokens: shorten the prompt, or ask for fewer tokens or more context",
            )
        # What was shown already counts towards the limit, so that continued and whole answers end alike.
        left = work.max_tokens - max(0, len(tokens) - len(asked))
        if left <= 0 or job.halted:
            return Done(0, len(tokens), "cancelled" if job.halted else "length")
        answer = _Answer(job, left, StopFilter(private.stop, task.prefix))
        self._server.handle_completions(_request(tokens, left, private, task.seed), answer.hear)
        return answer.end(len(tokens))

    def _prompt(self, private: TextPrivate) -> str:
        if private.prompt:
            return private.prompt
        messages = [{"role": message.role, "content": message.content} for message in private.messages]
        try:
            return str(self._ask("/apply-template", {"messages": messages})["prompt"])
        except urllib.error.HTTPError as error:
            roles = ", ".join(message.role for message in private.messages[:20])
            raise EngineError("unsupported", f"the model's chat template does not take these roles: {roles}") from error

    def _tokens(self, text: str) -> list[int]:
        asked = {"content": text, "add_special": True, "parse_special": True}
        return cast("list[int]", self._ask("/tokenize", asked)["tokens"])

    def _ask(self, path: str, body: object = None) -> Any:
        request = urllib.request.Request(  # noqa: S310 (our own server on loopback)
            self._server.listening_address + path,
            None if body is None else json.dumps(body).encode(),
            {"Authorization": f"Bearer {self._key}", "Content-Type": "application/json"},
        )
        # Whatever proxy the machine uses is not for loopback.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request) as response:
            return json.load(response)


def _request(tokens: list[int], most: int, private: TextPrivate, seed: int) -> dict[str, object]:
    return {
        "prompt": tokens,
        "max_tokens": most,
        "seed": seed % SEEDS,
        "samplers": list(SAMPLERS),
        "temperature": private.temperature / 1000,
        "top_k": private.top_k,
        "top_p": private.top_p / 1000,
        "min_p": private.min_p / 1000,
        "repeat_penalty": private.repeat_penalty / 1000,
        "repeat_last_n": PENALTY_TOKENS,
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
        "dynatemp_range": 0.0,
        "mirostat": 0,
        "cache_prompt": False,
        "stream": True,
        "timings_per_token": True,
        "return_progress": True,
    }


class _Answer:
    """What the server says of one job, passed on as events."""

    def __init__(self, job: Job, most: int, stops: StopFilter) -> None:
        self._job = job
        self._most = most
        self._stops = stops
        self._made = 0
        self._finish: Literal["stop", "length", "cancelled"] = "length"
        self._error: BaseException | None = None

    def hear(self, chunk: dict[str, Any]) -> bool:
        """Take one chunk; true ends the generation. Nothing may be raised through the library's code."""
        try:
            return self._take(chunk)
        except BaseException as error:  # noqa: BLE001 (raised again in `end`)
            self._error = error
            return True

    def _take(self, chunk: dict[str, Any]) -> bool:
        if "error" in chunk:
            # Its words could quote what was asked for; its kind cannot.
            raise EngineError("failed", f"llama.cpp refused the job: {chunk['error'].get('type', 'no reason given')}")
        choice = chunk["choices"][0]
        shown = self._stops.feed(choice["text"])
        if shown:
            self._job.say(TextMade(shown))
        made = int(chunk["timings"]["predicted_n"])
        # Also while the prompt is read, and nothing made: a sign of life.
        if made != self._made or not choice["finish_reason"]:
            self._made = made
            self._job.say(StepsDone(made, self._most))
        if choice["finish_reason"] == "stop" or self._stops.stopped:
            self._finish = "stop"
        elif not choice["finish_reason"] and self._job.halted:
            self._finish = "cancelled"
        else:
            return False
        return True

    def end(self, given: int) -> Done:
        """The last event, after `given` tokens of prompt and prefix."""
        if self._error is not None:
            raise self._error
        rest = self._stops.rest()
        if rest:
            self._job.say(TextMade(rest))
        return Done(self._made, given + self._made, self._finish)
