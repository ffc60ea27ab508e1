"""What servers with OpenAI's API are asked: which program takes what beyond that API, and the requests themselves. No
socket in it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath, PureWindowsPath
from types import MappingProxyType
from typing import Any

from peer.engines.base import Task
from protocol.work import ImagePrivate, ImageWork, TextPrivate

#: Some read a seed into 31 bits, and take 0 and what is below it for "any".
SEEDS = 2**31 - 2
#: OpenAI's own API takes so many stop texts. Those beyond are found here all the same.
STOPS = 4
#: What is seldom a model that writes, by its name: servers list these beside those that do.
_NO_WRITER = re.compile(
    r"embed|rerank|whisper|(^|[^a-z])(tts|stt|asr|vad|bge|e5|clip|vae|lora)([^a-z]|$)|moderation|"
    r"stable.?diffusion|sdxl|flux|dall-e|gpt-image|dreamshaper",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Dialect:
    """One program's ways.

    top_k, min_p, repeat_penalty: its names for these, empty where it takes none. no_top_k: what it takes for "off".
    stops: how many stop texts it takes, 0 for any number. always: what is said with every text. going_on: what makes it
    go on from an assistant's last message; None where it cannot. owners: by which it is known in its list of models.
    version: path and field at which it tells its version. image: its names for a picture's measures.
    """

    name: str
    top_k: str = ""
    min_p: str = ""
    repeat_penalty: str = ""
    no_top_k: int = 0
    stops: int = STOPS
    always: Mapping[str, object] = field(default_factory=dict)
    going_on: Mapping[str, object] | None = None
    owners: Sequence[str] = ()
    version: tuple[str, str] = ("", "")
    image: Mapping[str, str] = field(default_factory=dict)


_MEASURES = {"steps": "steps", "seed": "seed", "negative_prompt": "negative_prompt", "guidance": "guidance_scale"}

DIALECTS: Mapping[str, Dialect] = MappingProxyType(
    {
        dialect.name: dialect
        for dialect in (
            Dialect(
                "llama.cpp",
                top_k="top_k",
                min_p="min_p",
                repeat_penalty="repeat_penalty",
                stops=0,
                # Each job from a clean slate, for the seed's sake; counts with every token, for those that are stopped;
                # and signs of life while a long prompt is read.
                always={"cache_prompt": False, "timings_per_token": True, "return_progress": True},
                going_on={},
                owners=("llamacpp",),
                version=("/props", "build_info"),
            ),
            Dialect(
                "vllm",
                top_k="top_k",
                min_p="min_p",
                repeat_penalty="repetition_penalty",
                no_top_k=-1,
                stops=0,
                going_on={"continue_final_message": True, "add_generation_prompt": False},
                owners=("vllm",),
                version=("/version", "version"),
                image=_MEASURES | {"steps": "num_inference_steps"},
            ),
            Dialect("ollama", stops=0, owners=("library",), version=("/api/version", "version")),
            Dialect(
                "koboldcpp",
                top_k="top_k",
                min_p="min_p",
                repeat_penalty="rep_pen",
                stops=0,
                # Words in double braces are part of what was said, and no marks to be replaced.
                always={"replace_instruct_placeholders": False},
                going_on={"continue_assistant_turn": True},
                owners=("koboldcpp",),
                version=("/api/extra/version", "version"),
                image=_MEASURES | {"guidance": "cfg_scale"},
            ),
            Dialect(
                "localai",
                top_k="top_k",
                min_p="min_p",
                repeat_penalty="repeat_penalty",
                stops=0,
                owners=("localai",),
                version=("/version", "version"),
                image={"steps": "step", "seed": "seed"},
            ),
            Dialect("openai", owners=("openai", "system", "openai-internal")),
            Dialect("other", image=_MEASURES),
        )
    }
)


def dialect_of(listed: Sequence[Mapping[str, Any]], header: str) -> Dialect:
    """Which program it is, by the list of its models and the header `Server`."""
    owners = {str(model.get("owned_by") or "").lower() for model in listed}
    for dialect in DIALECTS.values():
        if owners & set(dialect.owners):
            return dialect
    if "llama.cpp" in header:
        return DIALECTS["llama.cpp"]
    if header.startswith("ConcedoLlama"):
        return DIALECTS["koboldcpp"]
    # LocalAI names no owner at all.
    return DIALECTS["localai" if listed and owners == {""} else "other"]


def offered_name(named: str) -> str:
    """Under which name a model is offered that a server calls so: of a path, where llama.cpp's lies, its last part."""
    if not named.lower().endswith(".gguf"):
        return named
    last = PureWindowsPath(named).name if "\\" in named else PurePosixPath(named).name
    return last[: -len(".gguf")].lower() or named


def writes(named: str) -> bool:
    """Whether a model that a server calls so may be one that writes."""
    return _NO_WRITER.search(named) is None


def seed_of(seed: int) -> int:
    """A seed that every server takes for one."""
    return 1 + seed % SEEDS


def text_request(
    dialect: Dialect, named: str, task: Task, most: int, *, chat_only: bool, templated: str = ""
) -> tuple[str, dict[str, Any]]:
    """Path and body for a text of at most so many tokens; with a prefix, for what follows on it. templated: the
    messages in the model's own template, where that is known."""
    private = task.private
    assert isinstance(private, TextPrivate)  # noqa: S101 (why_not saw to it)
    body: dict[str, Any] = {
        "model": named,
        "max_tokens": most,
        "seed": seed_of(task.seed),
        "temperature": private.temperature / 1000,
        "top_p": private.top_p / 1000,
        "stream": True,
        "stream_options": {"include_usage": True},
        **_beyond(dialect, private),
        **dialect.always,
    }
    if stops := private.stop[: dialect.stops or None]:
        body["stop"] = list(stops)
    raw = private.prompt or (templated if task.prefix else "")
    if raw and not chat_only:
        return "/completions", body | {"prompt": raw + task.prefix}
    messages = [{"role": message.role, "content": message.content} for message in private.messages]
    messages = messages or [{"role": "user", "content": private.prompt}]
    if task.prefix:
        body |= dialect.going_on or {}
        messages.append({"role": "assistant", "content": task.prefix})
    return "/chat/completions", body | {"messages": messages}


def _beyond(dialect: Dialect, private: TextPrivate) -> dict[str, Any]:
    """What OpenAI's API does not know, under the names that this program has for it."""
    named = {
        dialect.top_k: private.top_k or dialect.no_top_k,
        dialect.min_p: private.min_p / 1000,
        dialect.repeat_penalty: private.repeat_penalty / 1000,
    }
    return {name: value for name, value in named.items() if name}


def image_request(dialect: Dialect, named: str, task: Task) -> tuple[str, dict[str, Any]]:
    """Path and body for a picture."""
    work, private = task.work, task.private
    assert isinstance(work, ImageWork)  # noqa: S101 (why_not saw to it)
    assert isinstance(private, ImagePrivate)  # noqa: S101
    measures = {
        "steps": work.steps,
        "seed": seed_of(task.seed),
        "negative_prompt": private.negative_prompt,
        "guidance": private.guidance / 1000,
    }
    prompt = private.prompt
    if dialect.name == "localai" and private.negative_prompt:
        prompt = f"{prompt}|{private.negative_prompt}"
    body: dict[str, Any] = {
        "model": named,
        "prompt": prompt,
        "n": 1,
        "size": f"{work.width}x{work.height}",
        "response_format": "b64_json",
    }
    return "/images/generations", body | {
        name: measures[of] for of, name in dialect.image.items() if measures[of] not in ("", None)
    }
