"""What a client of AI Horde wishes, as what a horde is asked: which values mean what, and what nobody here can do."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from types import MappingProxyType

from peer.gateway.aihorde.bodies import ImageInput, ImageParams, Number, TextInput, TextParams
from peer.gateway.aihorde.lenient import LenientAsk
from peer.gateway.aihorde.wrong import Wrong
from peer.gateway.asks import ImageAsk, TextAsk
from protocol.work import MAX_N, MAX_PROMPT_CHARACTERS, MAX_SEED

#: Between prompt and negative prompt.
PARTED = "###"
#: AI Horde's defaults.
USUAL_STEPS = 30
USUAL_SIZE = 512
USUAL_LENGTH = 80
#: Sizes are multiples of this there, and clients know no others.
SIZE_STEP = 64
MAX_SIZE = 4096
MAX_STEPS = 500
MAX_TOKENS = 32_768
MAX_CONTEXT = 1_048_576
#: A request carries so many stop texts, of so many characters.
MAX_STOPS = 16
MAX_STOP_CHARACTERS = 200
#: A seed that is no number stands for one of so many.
TEXT_SEEDS = 2**32

#: AI Horde's names of samplers, and ours.
SAMPLERS: MappingProxyType[str, str] = MappingProxyType(
    {
        "k_euler": "euler",
        "k_euler_a": "euler_a",
        "k_heun": "heun",
        "k_dpm_2": "dpm2",
        "k_dpm_2_a": "dpm2_a",
        "k_dpmpp_2m": "dpmpp_2m",
        "dpmsolver": "dpmpp_2m",
        "lcm": "lcm",
        "ddim": "ddim",
        "plms": "pndm",
        "uni_pc": "unipc",
        "uni_pc_bh2": "unipc",
    }
)
_KARRAS: MappingProxyType[str, str] = MappingProxyType({"dpmpp_2m": "dpmpp_2m_karras"})


@dataclass(frozen=True)
class Warned:
    """Something that is done in another way than was said, in one of AI Horde's words."""

    code: str
    message: str


@dataclass(frozen=True)
class Wish:
    """What a horde is asked, and what its client should know of it. cuts: stop texts that no request has room for, at
    which the gateway itself ends an answer."""

    ask: ImageAsk | TextAsk
    warnings: Sequence[Warned] = ()
    cuts: Sequence[str] = ()


def picture(said: ImageInput) -> Wish:
    """The pictures that are wished for; raises `Wrong`."""
    _check_common(said)
    _check_sources(said)
    params = said.params or ImageParams()
    _check_drawing(params)
    prompt, _, negative = _prompt(said.prompt).partition(PARTED)
    if not prompt.strip():
        raise Wrong("MissingPrompt", f"the prompt is empty before its {PARTED}: say what the picture shows", "prompt")
    warnings = _warnings(params)
    return Wish(
        LenientAsk(
            prompt=prompt.strip(),
            negative_prompt=negative.strip(),
            models=_models(said.models),
            width=_size("width", params.width),
            height=_size("height", params.height),
            steps=_steps(params.steps),
            guidance=_number("params.cfg_scale", params.cfg_scale, 7.5, 0, 100),
            seed=seed_of(params.seed),
            sampler=_sampler(params, warnings),
            n=_count(params.n),
        ),
        warnings,
    )


def text(said: TextInput) -> Wish:
    """The texts that are wished for; raises `Wrong`. The prompt is gone on from as it is, without a template."""
    _check_common(said)
    params = said.params or TextParams()
    length = _whole("params.max_length", params.max_length, USUAL_LENGTH, 1, MAX_TOKENS)
    room = _room(params, length)
    stops, cuts = _stops(params.stop_sequence or ())
    usual = TextAsk(prompt="x")
    return Wish(
        TextAsk(
            prompt=_prompt(said.prompt),
            models=_models(said.models),
            max_tokens=length,
            context=room,
            temperature=_number("params.temperature", params.temperature, usual.temperature, 0, 5),
            top_p=_number("params.top_p", params.top_p, usual.top_p, 0, 1),
            top_k=_whole("params.top_k", params.top_k, usual.top_k, 0, 1000),
            min_p=_number("params.min_p", params.min_p, usual.min_p, 0, 1),
            # A slider at 0 is one that is off: no engine takes that for a penalty.
            repeat_penalty=_number("params.rep_pen", params.rep_pen or None, usual.repeat_penalty, 0.001, 5),
            stop=stops,
            seed=seed_of(params.seed),
            n=_count(params.n),
        ),
        _left_out(params),
        cuts,
    )


def seed_of(said: int | float | str | None) -> int | None:
    """The number that a seed means; None for any. A text that is no number always means the same one."""
    if said is None or said == "" or isinstance(said, bool):
        return None
    try:
        number = abs(int(said))
    except (ValueError, OverflowError):
        return int.from_bytes(hashlib.sha256(str(said).encode("utf-8", "replace")).digest()[:4], "big")
    # The last of n results has to be a seed as well.
    return number if number <= MAX_SEED - MAX_N else number % TEXT_SEEDS


def cut(written: str, cuts: Sequence[str]) -> str:
    """The text up to the first of these."""
    ends = [place for stop in cuts if (place := written.find(stop)) >= 0]
    return written[: min(ends)] if ends else written


def _prompt(said: str | None) -> str:
    if not said or not said.strip():
        raise Wrong("MissingPrompt", "the prompt is empty: send a text in the field prompt", "prompt")
    if len(said) > MAX_PROMPT_CHARACTERS:
        raise Wrong(
            "InvalidPromptSize",
            f"a prompt of {len(said)} characters: at most {MAX_PROMPT_CHARACTERS} are carried",
            "prompt",
        )
    return said


def _models(said: Sequence[str] | None) -> tuple[str, ...]:
    # Some clients send an empty name for any model.
    return tuple(dict.fromkeys(name for name in said or () if name.strip()))


def _check_common(said: ImageInput | TextInput) -> None:
    if said.workers and not said.worker_blacklist:
        raise Wrong(
            "BadRequest",
            "a horde gives each job to whichever worker is free, so none can be named: leave workers empty",
            "workers",
        )
    if said.extra_source_images:
        raise Wrong(
            "InvalidExtraSourceImages",
            "a horde takes no pictures to begin from: leave extra_source_images out",
            "extra_source_images",
        )
    if said.webhook:
        raise Wrong("BadRequest", "the gateway calls no address: leave webhook out, and ask for the status", "webhook")


def _check_sources(said: ImageInput) -> None:
    if said.source_image:
        raise Wrong(
            "Img2ImgMismatch", "a horde draws from words only: leave source_image and source_mask out", "source_image"
        )
    if said.source_mask:
        raise Wrong("SourceMaskUnnecessary", "a source_mask without a source_image: leave it out", "source_mask")


#: Wishes for another picture than a horde can draw: one without them would be wrong, so they are refused.
_NOT_DRAWN: tuple[tuple[str, str, str], ...] = (
    ("control_type", "ControlNetUnsupported", "no ControlNet is offered here: leave control_type out"),
    ("tiling", "TilingMismatch", "seamless tiling is not offered here: leave tiling out"),
    ("transparent", "InvalidTransparencyModel", "transparent pictures are not offered here: leave transparent out"),
    ("workflow", "BadRequest", "no workflows are offered here: leave workflow out"),
    ("loras", "BadRequest", "no LoRas are offered here: leave loras empty"),
    ("tis", "BadRequest", "no textual inversions are offered here: leave tis empty"),
    ("post_processing", "BadRequest", "no post-processing is offered here: leave post_processing empty"),
)


def _check_drawing(params: ImageParams) -> None:
    for name, rc, message in _NOT_DRAWN:
        if getattr(params, name):
            raise Wrong(rc, message, f"params.{name}")


def _warnings(params: ImageParams) -> list[Warned]:
    found = []
    if params.hires_fix:
        found.append(Warned("HiResMismatch", "hires_fix is not offered here: the picture is drawn in one go"))
    if params.clip_skip is not None and params.clip_skip > 1:
        found.append(Warned("ClipSkipMismatch", "clip_skip is not offered here: each model goes by its own"))
    return found


def _sampler(params: ImageParams, warnings: list[Warned]) -> str:
    """Our name of the sampler; empty, the model's own, for one that we have not."""
    said = (params.sampler_name or "").strip()
    name = SAMPLERS.get(said.lower(), "")
    if said and not name:
        warnings.append(
            Warned("SamplerMismatch", f"sampler {said[:40]!r} is not known here: the model's own is taken instead")
        )
    return _KARRAS.get(name, name) if params.karras else name


_LEFT_OUT: tuple[tuple[str, float], ...] = (
    ("top_a", 0),
    ("tfs", 1),
    ("typical", 1),
    ("smoothing_factor", 0),
    ("dynatemp_range", 0),
    ("frmttriminc", 0),
    ("frmtrmblln", 0),
    ("frmtrmspch", 0),
    ("frmtadsnsp", 0),
    ("singleline", 0),
)


def _left_out(params: TextParams) -> list[Warned]:
    """Clients send all of them always; only those that would change something are worth a word."""
    names = [name for name, off in _LEFT_OUT if getattr(params, name) not in (None, off)]
    if not names:
        return []
    return [Warned("SettingIgnored", f"not known to a horde, and left out: {', '.join(names)}")]


def _size(name: str, said: Number) -> int:
    number = USUAL_SIZE if said is None else said
    if number != number or number % SIZE_STEP or not SIZE_STEP <= number <= MAX_SIZE:
        raise Wrong(
            "InvalidSize",
            f"{name} {number}: wanted a multiple of {SIZE_STEP} from {SIZE_STEP} to {MAX_SIZE}",
            f"params.{name}",
        )
    return int(number)


def _steps(said: Number) -> int:
    if said is not None and said > MAX_STEPS:
        raise Wrong("TooManySteps", f"{said} steps: at most {MAX_STEPS}", "params.steps")
    return _whole("params.steps", said, USUAL_STEPS, 1, MAX_STEPS)


def _count(said: Number) -> int:
    return _whole("params.n", said or None, 1, 1, MAX_N)


def _room(params: TextParams, length: int) -> int | None:
    """Tokens for prompt and answer together; None if the client leaves that to us."""
    if params.max_context_length is None:
        return None
    room = _whole("params.max_context_length", params.max_context_length, 0, 1, MAX_CONTEXT)
    if room <= length:
        raise Wrong(
            "TokenOverflow",
            f"max_context_length {room} has no room for a prompt beside an answer of max_length {length}: raise the"
            " one or lower the other",
            "params.max_length",
        )
    return max(room, 16)


def _stops(said: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What the request carries, and the rest."""
    stops = tuple(dict.fromkeys(stop for stop in said if stop))
    for stop in stops:
        if len(stop) > MAX_STOP_CHARACTERS:
            raise Wrong(
                "ExcessiveStopSequence",
                f"a stop sequence of {len(stop)} characters: at most {MAX_STOP_CHARACTERS}",
                "params.stop_sequence",
            )
    return stops[:MAX_STOPS], stops[MAX_STOPS:]


def _whole(name: str, said: Number, usual: int, least: int, most: int) -> int:
    if said is None:
        return usual
    # The bounds come first: a whole number may be larger than any that has a fraction, and NaN is within none.
    if not (least <= said <= most and said == int(said)):
        raise Wrong("BadRequest", f"{name} {said}: wanted a whole number from {least} to {most}", name)
    return int(said)


def _number(name: str, said: Number, usual: float, least: float, most: float) -> float:
    if said is None:
        return usual
    if not least <= said <= most:
        raise Wrong("BadRequest", f"{name} {said}: wanted a number from {least} to {most}", name)
    return said
