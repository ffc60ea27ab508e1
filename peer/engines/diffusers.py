"""Pictures from any text-to-image pipeline of the diffusers library. Only this file imports torch."""

from __future__ import annotations

import copy
import functools
import inspect
import os
import platform
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from io import BytesIO
from types import MappingProxyType
from typing import Any, cast

from peer.engines.base import ArtifactMade, Done, EngineError, PreviewMade, StepsDone
from peer.engines.maker import Job, Maker, cores
from peer.engines.spec import DiffusersOptions, EngineMissing, EngineSpec, check, options_of
from protocol.messages import Offer
from protocol.work import ImagePrivate, ImageWork

#: What a request's `sampler` can name: the library's scheduler, and what differs from the model's own configuration.
#: Which of them a model can be drawn with, its own scheduler knows. An empty name is the model's own.
SAMPLERS: Mapping[str, tuple[str, Mapping[str, object]]] = MappingProxyType(
    {
        "ddim": ("DDIMScheduler", {}),
        "ddpm": ("DDPMScheduler", {}),
        "deis": ("DEISMultistepScheduler", {}),
        "dpm2": ("KDPM2DiscreteScheduler", {}),
        "dpm2_a": ("KDPM2AncestralDiscreteScheduler", {}),
        "dpmpp_2m": ("DPMSolverMultistepScheduler", {}),
        "dpmpp_2m_karras": ("DPMSolverMultistepScheduler", {"use_karras_sigmas": True}),
        "dpmpp_2m_sde": ("DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++"}),
        "dpmpp_2s": ("DPMSolverSinglestepScheduler", {}),
        "euler": ("EulerDiscreteScheduler", {}),
        "euler_a": ("EulerAncestralDiscreteScheduler", {}),
        "euler_flow": ("FlowMatchEulerDiscreteScheduler", {}),
        "heun": ("HeunDiscreteScheduler", {}),
        "heun_flow": ("FlowMatchHeunDiscreteScheduler", {}),
        "lcm": ("LCMScheduler", {}),
        "pndm": ("PNDMScheduler", {}),
        "unipc": ("UniPCMultistepScheduler", {}),
    }
)
#: A preview is drawn from so many latents a side at most: cheap with any model's own decoder.
PREVIEW_LATENTS = 32
PREVIEW_BYTES = 64 * 1024
PREVIEW_QUALITIES = (80, 50, 20)
#: Previews may take so much of a picture's time; only its first one is drawn whatever it takes.
PREVIEW_SHARE = 0.02


def maker(spec: EngineSpec) -> Maker:
    """The maker for this spec."""
    check(spec)
    return Diffusers(spec.model, options_of(spec, DiffusersOptions))


class Diffusers(Maker):
    """One pipeline, loaded."""

    def __init__(self, model: str, options: DiffusersOptions) -> None:
        self._model = model
        self._options = options
        self._pipeline: Any = None
        self._accepts: frozenset[str] = frozenset()
        #: Unused ones by the sampler's name: to make one can take as long as a step, or as several pictures.
        self._schedulers: dict[str, Any] = {}

    def load(self) -> Sequence[Offer]:
        # Some routines of CUDA are only repeatable with this, and it counts only before torch is there.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
        if self._options.path:
            os.environ["HF_HUB_OFFLINE"] = "1"
        try:
            import diffusers
            import torch
            import transformers
        except ModuleNotFoundError as error:
            raise EngineMissing(f"pictures need the package {error.name}; it comes with potluck[worker]") from error
        # Their warnings quote prompts; errors are raised to us anyhow.
        for library in (diffusers, transformers):
            library.utils.logging.set_verbosity(library.utils.logging.CRITICAL)
            library.utils.logging.disable_progress_bar()
        options = self._options
        torch.set_num_threads(cores(options.threads))
        torch.use_deterministic_algorithms(True, warn_only=True)
        device = _device(options.device)
        pipeline = self._read(diffusers, _dtype(options.dtype, device)).to(device)
        pipeline.set_progress_bar_config(disable=True)
        self._accept(pipeline)
        offer = Offer(
            kind="image",
            model=self._model,
            engine=_engine_class(pipeline, cores(options.threads)),
            max_pixels=options.max_pixels,
            max_steps=options.max_steps,
        )
        return (offer,)

    def _read(self, diffusers: Any, dtype: Any) -> Any:
        options = self._options
        return diffusers.DiffusionPipeline.from_pretrained(
            options.path or options.hub,
            revision=options.revision or None,
            variant=options.variant or None,
            dtype=dtype,
            local_files_only=bool(options.path),
            # Other files than these can hold code, which would run here.
            use_safetensors=True,
        )

    def _accept(self, pipeline: Any) -> None:
        accepts = inspect.signature(type(pipeline).__call__).parameters
        kind = type(pipeline).__name__
        needed = {"prompt", "width", "height", "num_inference_steps", "generator", "callback_on_step_end"}
        missing = sorted(needed - accepts.keys())
        required = sorted(
            name
            for name, parameter in accepts.items()
            if parameter.default is parameter.empty
            and parameter.kind not in {parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL}
            and name not in {"self", "prompt"}
        )
        if "image" in accepts and not required:
            from diffusers.pipelines.auto_pipeline import AUTO_TEXT2IMAGE_PIPELINES_MAPPING

            # Some draw with and without a picture to begin from; others say that they can do without, and cannot.
            required = [] if type(pipeline) in AUTO_TEXT2IMAGE_PIPELINES_MAPPING.values() else ["image"]
        if missing or required:
            why = f"wants {', '.join(required)}" if required else f"takes no {', '.join(missing)}"
            raise EngineError("unsupported", f"{kind} makes no pictures from text alone: it {why}")
        self._pipeline = pipeline
        self._accepts = frozenset(accepts)

    def make(self, job: Job) -> Done:
        work, private = cast("ImageWork", job.task.work), cast("ImagePrivate", job.task.private)
        if private.negative_prompt and "negative_prompt" not in self._accepts:
            raise EngineError("unsupported", f"{self._model!r} knows no negative prompt: leave it out")
        if job.halted:
            return Done(0, finish="cancelled")
        pipeline = self._pipeline
        original = pipeline.scheduler
        pipeline.scheduler = self._scheduler(private.sampler)
        drawing = _Drawing(job, pipeline)
        try:
            return drawing.draw(self._arguments(job, work, private, drawing))
        finally:
            pipeline.scheduler = original
            pipeline.maybe_free_model_hooks()

    def _scheduler(self, sampler: str) -> Any:
        """A fresh one for each job: they keep a state, and what a job left behind must not show in the next."""
        if sampler not in self._schedulers:
            self._schedulers[sampler] = _new_scheduler(self._pipeline.scheduler, sampler)
        return copy.deepcopy(self._schedulers[sampler])

    def _arguments(self, job: Job, work: ImageWork, private: ImagePrivate, drawing: _Drawing) -> dict[str, Any]:
        import torch

        arguments = {
            "prompt": private.prompt,
            "width": work.width,
            "height": work.height,
            "num_inference_steps": work.steps,
            # On the CPU, so that the noise is the same on every device.
            "generator": torch.Generator("cpu").manual_seed(job.task.seed),
            "callback_on_step_end": drawing.step,
            "output_type": "pil",
        }
        if "guidance_scale" in self._accepts:
            arguments["guidance_scale"] = private.guidance / 1000
        if private.negative_prompt:
            arguments["negative_prompt"] = private.negative_prompt
        return arguments


class Previews:
    """When to draw a preview of one picture. every: steps between two, 0 for none. began: by the clock, in seconds."""

    def __init__(self, every: int, steps: int, began: float) -> None:
        self._every = every
        self._steps = steps
        self._began = began
        self._taken = 0.0

    def is_due(self, done: int, now: float) -> bool:
        """Whether to draw one after this step: all those before it have taken little time, or there were none."""
        if not self._every or done % self._every or done >= self._steps:
            return False
        return self._taken <= PREVIEW_SHARE * (now - self._began)

    def took(self, seconds: float) -> None:
        """A preview was drawn."""
        self._taken += seconds


class _Enough(Exception):
    """The job is stopped, and this pipeline cannot finish early."""


class _Drawing:
    """One picture under way."""

    def __init__(self, job: Job, pipeline: Any) -> None:
        self._job = job
        self._pipeline = pipeline
        self._steps = cast("ImageWork", job.task.work).steps
        self._done = 0
        self._stopped = False
        self._estimate: Any = None
        self._previews = Previews(job.task.preview_every, self._steps, time.perf_counter())
        self._watch(pipeline.scheduler)

    def _watch(self, scheduler: Any) -> None:
        """Keep what the scheduler takes for the finished picture after each step, where it says so: it shows more than
        the latents, in which there is still the noise of the steps to come."""
        original = scheduler.step

        @functools.wraps(original)
        def step(*args: Any, **named: Any) -> Any:
            result = original(*args, **named)
            self._estimate = result[1] if isinstance(result, tuple) and len(result) > 1 else None
            return result

        scheduler.step = step

    def draw(self, arguments: dict[str, Any]) -> Done:
        """Draw it and say so; raises `EngineError`, and `Dropped` if nobody wants it any more."""
        work = cast("ImageWork", self._job.task.work)
        try:
            result = self._pipeline(**arguments)
        except _Enough:
            return Done(0, finish="cancelled")
        except (ValueError, IndexError) as error:  # what the libraries raise for measures that they cannot do
            if self._done:
                raise
            # Its words may quote the prompt.
            raise EngineError(
                "unsupported",
                f"{self._model} cannot draw {work.width}x{work.height} in {work.steps} steps with this sampler",
            ) from error
        if any(getattr(result, "nsfw_content_detected", None) or ()):
            raise EngineError("failed", "the model's own safety checker held the picture back")
        image = result.images[0]
        if image.size != (work.width, work.height):
            raise EngineError(
                "unsupported",
                f"{self._model} made {image.width}x{image.height} of {work.width}x{work.height}: "
                "ask for a width and height that it can make",
            )
        self._job.say(ArtifactMade("image/png", _png(image)))
        return Done(self._done, finish="cancelled" if self._stopped else "stop")

    @property
    def _model(self) -> str:
        return repr(self._job.task.model)

    def step(self, pipeline: Any, index: int, _: object, tensors: dict[str, Any]) -> dict[str, Any]:
        """Called by the library after every pass; some schedulers need two passes for a step."""
        passes = len(pipeline.scheduler.timesteps)
        done = min(self._steps, self._steps * (index + 1) // passes)
        if done > self._done:
            self._done = done
            self._job.say(StepsDone(done, self._steps))
            began = time.perf_counter()
            if self._previews.is_due(done, began):
                self._preview(tensors["latents"] if self._estimate is None else self._estimate)
                self._previews.took(time.perf_counter() - began)
        if self._job.halted and self._done < self._steps:
            self._job.check()
            if not self._done or not hasattr(type(pipeline), "interrupt"):
                raise _Enough
            # The pipeline skips the steps that are left and decodes what it has.
            pipeline._interrupt = True
            self._stopped = True
            if self._estimate is not None:
                return tensors | {"latents": self._estimate}
        return tensors

    def _preview(self, latents: Any) -> None:
        """Show the picture so far, if the model is of the usual kind. A preview never changes the picture: nothing is
        drawn by lot here."""
        vae: Any = getattr(self._pipeline, "vae", None)
        scale = getattr(getattr(vae, "config", None), "scaling_factor", None)
        if scale is None or latents.ndim != 4:
            return
        import torch

        shrink = PREVIEW_LATENTS / max(latents.shape[2:])
        if shrink < 1:
            latents = torch.nn.functional.interpolate(latents, scale_factor=shrink, mode="area")
        shift = getattr(vae.config, "shift_factor", None) or 0.0
        with torch.no_grad():
            decoded = vae.decode((latents / scale + shift).to(vae.dtype), return_dict=False)[0]
        if bool(torch.isfinite(decoded).all()):
            [image] = self._pipeline.image_processor.postprocess(decoded.float(), output_type="pil")
            self._show(image)

    def _show(self, image: Any) -> None:
        for quality in PREVIEW_QUALITIES:
            jpeg = BytesIO()
            image.convert("RGB").save(jpeg, "JPEG", quality=quality)
            if jpeg.tell() <= PREVIEW_BYTES:
                self._job.say(PreviewMade(jpeg.getvalue()))
                return


def _png(image: Any) -> bytes:
    """The file, with nothing in it but the picture."""
    image = image.convert("RGB")
    image.info = {}
    file = BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def _new_scheduler(original: Any, sampler: str) -> Any:
    """What this name means for the model whose own scheduler is given."""
    if not sampler:
        return type(original).from_config(original.config)
    import diffusers

    fitting = {kind.__name__ for kind in original.compatibles} | {type(original).__name__}
    usable = sorted(name for name, (kind, _) in SAMPLERS.items() if kind in fitting)
    if sampler not in usable:
        raise EngineError("unsupported", f"no sampler {sampler[:40]!r} for this model; it has {', '.join(usable)}")
    kind, changes = SAMPLERS[sampler]
    return getattr(diffusers, kind).from_config(original.config, **changes)


def _device(wanted: str) -> str:
    import torch

    if wanted != "auto":
        return wanted
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def _dtype(wanted: str, device: str) -> Any:
    import torch

    if wanted == "auto":
        return torch.float32 if device == "cpu" else torch.float16
    return getattr(torch, wanted)


def _engine_class(pipeline: Any, threads: int) -> str:
    """Everything that a seed's picture depends on, down to the bytes of its file: as it is, not as it was asked for."""
    import torch

    device = str(pipeline.device)
    if pipeline.device.type == "cuda":
        device = torch.cuda.get_device_name(pipeline.device)
    elif pipeline.device.type == "cpu":
        device = f"cpu {platform.machine().lower()} {torch.backends.cpu.get_cpu_capability()}"
    versions = " ".join(f"{name} {version(name)}" for name in ("diffusers", "transformers", "pillow"))
    dtype = str(pipeline.dtype).removeprefix("torch.")
    return f"{versions} torch {torch.__version__} {dtype} {device} {threads} threads"[:300]
