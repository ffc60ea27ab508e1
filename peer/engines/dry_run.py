"""An engine without a model: paints the seed into pixels, or tells it in words.

For operators who try a horde out, and for tests. It needs none of the engines' libraries.
"""

from __future__ import annotations

import hashlib
import os
import struct
import time
import zlib
from collections.abc import Sequence
from io import BytesIO

import msgspec

from peer.engines.base import ArtifactMade, Done, EngineError, PreviewMade, StepsDone, Task, TextMade
from peer.engines.maker import Job, Maker
from peer.engines.spec import DryRunOptions, EngineSpec, options_of
from peer.engines.stops import StopFilter
from protocol.messages import Offer
from protocol.work import ImageWork, TextPrivate, TextWork, texts_of

#: Higher when the same seed gives something else than before.
VERSION = 1
TILE = 8
WORDS = str.split(
    "apple bread butter carrot cheese cherry chutney dumpling fig garlic ginger honey lemon lentil mango mint noodle "
    "olive onion orange pancake pear pepper pie plum potato pudding pumpkin quince rice saffron salad salt soup "
    "spinach stew tea thyme tomato turnip walnut yoghurt"
)


def maker(spec: EngineSpec) -> Maker:
    """The maker for this spec."""
    return DryRun(spec.model, options_of(spec, DryRunOptions))


class DryRun(Maker):
    """Makes the same of the same task, at the pace that was asked for."""

    def __init__(self, model: str, options: DryRunOptions) -> None:
        self._model = model
        self._options = options

    def load(self) -> Sequence[Offer]:
        options = self._options
        engine = f"dry-run {VERSION} {options.suffix}".strip()
        if options.kind == "image":
            offer = Offer(
                kind="image",
                model=self._model,
                engine=engine,
                max_pixels=options.max_pixels,
                max_steps=options.max_steps,
            )
        else:
            offer = Offer(
                kind="text",
                model=self._model,
                engine=engine,
                max_tokens=options.max_tokens,
                max_context=options.max_context,
                continues=options.continues,
            )
        return (offer,)

    def make(self, job: Job) -> Done:
        work = job.task.work
        return self._picture(job, work) if isinstance(work, ImageWork) else self._text(job, work)

    def _picture(self, job: Job, work: ImageWork) -> Done:
        chance = _Chance(job.task)
        done = 0
        while done < work.steps and not job.halted:
            self._step(job, done + 1, chance)
            done += 1
            job.say(StepsDone(done, work.steps))
            if job.task.preview_every and done % job.task.preview_every == 0 and done < work.steps:
                _preview(job, chance.picture(64, 64, done / work.steps))
        if done:
            pixels = chance.picture(work.width, work.height, done / work.steps)
            job.say(ArtifactMade("image/png", png(pixels, work.width, work.height)))
        return Done(done, finish="stop" if done == work.steps else "cancelled")

    def _text(self, job: Job, work: TextWork) -> Done:
        task = job.task
        assert isinstance(task.private, TextPrivate)  # noqa: S101 (why_not saw to it)
        chance = _Chance(task)
        begun = len(task.prefix.split())
        asked = sum(len(text.split()) for text in (task.private.prompt, *(m.content for m in task.private.messages)))
        if asked + work.max_tokens > work.context_tokens:
            raise EngineError(
                "too_long", f"{asked} words and {work.max_tokens} tokens to make exceed {work.context_tokens}"
            )
        total = max(0, work.max_tokens - begun)
        stops = StopFilter(task.private.stop, task.prefix)
        made = 0
        finish = "length"
        while made < total:
            if job.halted:
                finish = "cancelled"
                break
            if self._options.length and begun + made >= self._options.length:
                finish = "stop"
                break
            self._step(job, made + 1, chance)
            word = chance.word(begun + made)
            made += 1
            shown = stops.feed(word if begun + made == 1 else f" {word}")
            if shown:
                job.say(TextMade(shown))
            job.say(StepsDone(made, total))
            if stops.stopped:
                finish = "stop"
                break
        if rest := stops.rest():
            job.say(TextMade(rest))
        return Done(made, asked + begun + made, finish)  # type: ignore[arg-type]

    def _step(self, job: Job, number: int, chance: _Chance) -> None:
        options = self._options
        if number == options.fail_at:
            raise EngineError("failed", f"told to fail at step {number}")
        if number == options.crash_at:
            os._exit(70)
        while number == options.hang_at:
            time.sleep(3600)
        job.wait(options.step_ms * chance.pace(number) / 1000)


class _Chance:
    """Whatever looks random in a result: a function of the seed, the private part and a place, and of nothing else."""

    def __init__(self, task: Task) -> None:
        # Not by the stop texts: they end an answer and do not make it another one.
        private = (
            msgspec.structs.replace(task.private, stop=()) if isinstance(task.private, TextPrivate) else task.private
        )
        parts = [str(task.seed), task.model, *texts_of(private)]
        self._key = hashlib.sha256(b"".join(_behind_length(part.encode()) for part in parts)).digest()

    def _draw(self, what: str) -> bytes:
        return hashlib.sha256(self._key + what.encode()).digest()

    def word(self, place: int) -> str:
        return WORDS[int.from_bytes(self._draw(f"word {place}")[:4], "big") % len(WORDS)]

    def pace(self, step: int) -> float:
        """From half the usual time to one and a half times of it."""
        return 0.5 + self._draw(f"pace {step}")[0] / 255

    def picture(self, width: int, height: int, share: float) -> bytes:
        """Coloured tiles, red, green and blue a byte each, black below the share that is done."""
        rows = bytearray()
        across = -(-width // TILE)
        for top in range(0, height, TILE):
            tiles = b"".join(self._draw(f"tiles {top} {at}") for at in range(-(-across * 3 // 32)))
            row = b"".join(tiles[at * 3 : at * 3 + 3] * TILE for at in range(across))[: width * 3]
            for y in range(top, min(top + TILE, height)):
                rows += row if y < height * share else bytes(width * 3)
        return bytes(rows)


def _behind_length(part: bytes) -> bytes:
    return len(part).to_bytes(8, "big") + part


def png(pixels: bytes, width: int, height: int) -> bytes:
    """A PNG file of 8-bit red, green and blue, with nothing in it but the picture."""
    lines = b"".join(b"\0" + pixels[y * width * 3 : (y + 1) * width * 3] for y in range(height))
    chunks = (
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(lines, 6)),
        (b"IEND", b""),
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    )


def _preview(job: Job, pixels: bytes) -> None:
    try:
        from PIL import Image
    except ModuleNotFoundError:  # it comes with the extra that this engine does without; so do its previews
        return
    jpeg = BytesIO()
    Image.frombytes("RGB", (64, 64), pixels).save(jpeg, "JPEG")
    job.say(PreviewMade(jpeg.getvalue()))
