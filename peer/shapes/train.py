"""Train the small picture model from nothing but the drawing code.

    python -m peer.shapes.train --out FOLDER [--minutes N] [--seed N] [--resume]

Four parts, one after the other: a tokenizer from the captions, an autoencoder from the pictures, its decoder once
more by itself, then the UNet and the text encoder together on the autoencoder's latents. FOLDER/pipeline is the
model as it is shipped, written again every few minutes; FOLDER/training.pt is what --resume goes on from. All chance
in step n comes from the seed and n, so a run that was interrupted and resumed sees the same batches as one that was
not.
"""

import argparse
import copy
import logging
import math
import os
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderTiny, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from peer.shapes import draw

log = logging.getLogger("peer.shapes.train")

TOKENS = 24  # longest caption in tokens, with start and end; the longest phrasing takes 17
LATENT_CHANNELS = 8
LATENT_SIDE = draw.SIDE // 4
TEXT_WIDTH = 96
NOISE_LEVELS = 1000


@dataclass(frozen=True)
class Plan:
    """How long and how hard to train."""

    seed: int = 0
    pictures: int = 40_000
    autoencoder_steps: int = 4_000
    autoencoder_rate: float = 2e-3
    latent_noise: float = 0.15
    decoder_steps: int = 6_000
    decoder_rate: float = 1e-3
    denoiser_steps: int = 6_500
    denoiser_rate: float = 1.2e-3
    batch: int = 64
    caption_dropout: float = 0.1  # so that there is an unconditional answer for guidance to move away from
    average: float = 0.999  # share of the running mean that a step keeps
    save_every_s: float = 150.0


# --- the parts ---------------------------------------------------------------------------------------------------


def make_tokenizer() -> CLIPTokenizer:
    """A CLIP tokenizer in which every word of the captions is one token, and any other text still has tokens."""
    words = sorted({word for caption in _all_captions() for word in caption.replace(",", " ,").split()})
    learner = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    learner.pre_tokenizer = pre_tokenizers.Whitespace()
    # 10,000 is more than all the words need: the learner stops by itself when each of them is one token.
    rule = trainers.BpeTrainer(vocab_size=10_000, end_of_word_suffix="</w>", show_progress=False)
    learner.train_from_iterator(words, rule)
    merges = [line.split(" ") for line in _merges_of(learner)]
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    pieces = [*letters, *(letter + "</w>" for letter in letters), *("".join(pair) for pair in merges)]
    pieces = [*dict.fromkeys(pieces), "<|startoftext|>", "<|endoftext|>"]
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    pairs = [(first, second) for first, second in merges]
    tokenizer = CLIPTokenizer(vocab=vocabulary, merges=pairs, model_max_length=TOKENS)
    for word in words:
        if len(tokenizer(word)["input_ids"]) != 3:
            raise RuntimeError(f"the tokenizer splits {word!r}; each word of the captions must be one token")
    return tokenizer


def _merges_of(learner: Tokenizer) -> list[str]:
    import json

    merges = json.loads(learner.to_str())["model"]["merges"]
    return [merge if isinstance(merge, str) else " ".join(merge) for merge in merges]


def _all_captions() -> Iterable[str]:
    for shown in draw.combinations():
        for form, _ in draw.PHRASINGS:
            yield form.format(size=shown.size, colour=shown.colour, shape=shown.shape, background=shown.background)


def make_autoencoder() -> AutoencoderTiny:
    """Pictures of 32x32 to latents of 8x8; few blocks at full size, because those cost most."""
    return AutoencoderTiny(
        encoder_block_out_channels=(32, 32, 32),
        decoder_block_out_channels=(32, 32, 32),
        num_encoder_blocks=(0, 1, 2),
        num_decoder_blocks=(2, 2, 1),
        latent_channels=LATENT_CHANNELS,
        scaling_factor=1.0,
    )


def make_unet() -> UNet2DConditionModel:
    """Text is looked at in the coarse layers only; at 8x8 attention would take half the time and teach little."""
    return UNet2DConditionModel(
        sample_size=LATENT_SIDE,
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        block_out_channels=(64, 96),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        cross_attention_dim=TEXT_WIDTH,
        attention_head_dim=4,
        norm_num_groups=16,
    )


def make_text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """Two layers are enough to tell which word belongs to the shape and which to the background."""
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=TEXT_WIDTH,
            intermediate_size=2 * TEXT_WIDTH,
            projection_dim=TEXT_WIDTH,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=TOKENS,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def make_scheduler() -> DDIMScheduler:
    """The last level of the cosine schedule is all noise but for a few millionths, so flat colours come out true."""
    return DDIMScheduler(
        num_train_timesteps=NOISE_LEVELS,
        beta_schedule="squaredcos_cap_v2",
        prediction_type="v_prediction",
        timestep_spacing="trailing",
        clip_sample=False,
        set_alpha_to_one=True,
        steps_offset=1,  # of no effect with trailing spacing, but diffusers warns of 0
    )


class Model(nn.Module):
    """The parts that are trained, as one module, so that one state covers them."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.tokenizer = make_tokenizer()
        self.autoencoder = make_autoencoder()
        self.unet = make_unet()
        self.text_encoder = make_text_encoder(self.tokenizer)
        # All for speed: the fused attention is many times slower than the plain one in training at bfloat16 with
        # heads as narrow as these, and convolutions gain from channels last.
        self.unet.set_attn_processor(AttnProcessor())
        self.text_encoder.set_attn_implementation("eager")
        whole: Any = self  # torch's own types leave this form out
        whole.to(memory_format=torch.channels_last)

    def denoiser_parameters(self) -> list[nn.Parameter]:
        return [*self.unet.parameters(), *self.text_encoder.parameters()]


def save_pipeline(model: Model, folder: Path) -> None:
    """Write the model in half precision, with all that diffusers needs to load it."""
    pipeline = StableDiffusionPipeline(
        vae=copy.deepcopy(model.autoencoder).half(),
        unet=copy.deepcopy(model.unet).half(),
        text_encoder=copy.deepcopy(model.text_encoder).half(),
        tokenizer=model.tokenizer,
        scheduler=make_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.save_pretrained(folder, safe_serialization=True)


# --- what it learns from -----------------------------------------------------------------------------------------


class Pictures:
    """Pictures of the training combinations, each with what it shows; the held-out ones are not among them."""

    def __init__(self, count: int, seed: int) -> None:
        chance = draw.chance_of(f"{seed} pictures")
        choice = draw.training_combinations()
        self.shown = [choice[number % len(choice)] for number in range(count)]
        rows = (np.asarray(draw.draw(shown, chance), dtype=np.uint8) for shown in self.shown)
        self.pixels = torch.from_numpy(np.stack(list(rows))).permute(0, 3, 1, 2).contiguous()

    def batch(self, chosen: list[int]) -> Tensor:
        """Pictures as the autoencoder wants them: -1 to 1, channels first."""
        return self.pixels[chosen].float().div(127.5).sub(1).contiguous(memory_format=torch.channels_last)


def encode_all(autoencoder: Any, pictures: Pictures) -> Tensor:
    """The latents of all pictures, once: the denoiser then never waits for the encoder."""
    everything = range(len(pictures.shown))
    with torch.no_grad():
        parts = [
            autoencoder.encode(pictures.batch(list(everything[first : first + 500]))).latents
            for first in range(0, len(everything), 500)
        ]
    return torch.cat(parts).contiguous()


# --- the two trainings -------------------------------------------------------------------------------------------


def rate_at(step: int, steps: int, highest: float) -> float:
    """Up over the first steps, down to a fiftieth of the highest over the rest."""
    warm_up = min(1.0, (step + 1) / 200)
    return highest * warm_up * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(1.0, step / steps))))


def autoencoder_loss(autoencoder: Any, pictures: Tensor, noise: float, generator: torch.Generator) -> Tensor:
    """How far the picture that comes back is from the one that went in, and the latents from mean 0, spread 1."""
    with torch.autocast("cpu", torch.bfloat16):
        latents = autoencoder.encoder(pictures).float()
        # With noise on the latents, the decoder learns to forgive what the UNet will not get quite right.
        disturbed = latents + noise * torch.randn(latents.shape, generator=generator)
        error = autoencoder.decoder(disturbed).float() - pictures
    centre = latents.mean(dim=(0, 2, 3)).square().mean()
    spread = (latents.std(dim=(0, 2, 3)) - 1).square().mean()
    loss: Tensor = error.abs().mean() + error.square().mean() + 0.05 * (centre + spread)
    return loss


def decoder_loss(decoder: nn.Module, latents: Tensor, pictures: Tensor, noise: float, seed: int) -> Tensor:
    """How far the decoded picture is off, most of all where something changes within a pixel's neighbourhood.

    Told apart by a few pixels only, a small cross and a small diamond are lost in a plain mean over the picture.
    """
    generator = torch.Generator().manual_seed(seed)
    disturbed = latents + noise * torch.randn(latents.shape, generator=generator)
    with torch.autocast("cpu", torch.bfloat16):
        error = decoder(disturbed.contiguous(memory_format=torch.channels_last)).float() - pictures
    highest = nn.functional.max_pool2d(pictures, 3, stride=1, padding=1)
    lowest = -nn.functional.max_pool2d(-pictures, 3, stride=1, padding=1)
    weight = 1 + 3 * (highest - lowest).mean(dim=1, keepdim=True)
    loss: Tensor = (weight * (error.abs() + error.square())).mean()
    return loss


def denoiser_loss(model: Model, latents: Tensor, captions: list[str], schedule: Tensor, seed: int) -> Tensor:
    """Mean squared error of the predicted velocity, at noise levels spread evenly over the batch."""
    generator = torch.Generator().manual_seed(seed)
    count = len(captions)
    where = (torch.arange(count) + torch.rand(count, generator=generator)) / count
    levels = (where * NOISE_LEVELS).long().clamp(max=NOISE_LEVELS - 1)
    signal = schedule[levels].sqrt().view(-1, 1, 1, 1)
    dirt = (1 - schedule[levels]).sqrt().view(-1, 1, 1, 1)
    noise = torch.randn(latents.shape, generator=generator)
    tokens = model.tokenizer(
        captions, padding="max_length", max_length=TOKENS, truncation=True, return_tensors="pt"
    ).input_ids
    dirty = (signal * latents + dirt * noise).contiguous(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16):
        meaning = model.text_encoder(tokens).last_hidden_state
        velocity: Tensor = model.unet(dirty, levels, meaning).sample.float()
    error: Tensor = velocity - (signal * noise - dirt * latents)
    return error.square().mean()


class Training:
    """A run that can be put down and taken up again."""

    def __init__(self, plan: Plan, out: Path, deadline: float) -> None:
        self.plan = plan
        self.out = out
        self.deadline = deadline
        self.model = Model(plan.seed)
        self.averaged = copy.deepcopy(self.model)
        self.autoencoder_step = 0
        self.decoder_step = 0
        self.denoiser_step = 0
        self.autoencoder_optimizer = torch.optim.AdamW(
            self.model.autoencoder.parameters(), plan.autoencoder_rate, betas=(0.9, 0.99), weight_decay=0.0
        )
        self.decoder_optimizer = torch.optim.AdamW(
            self.model.autoencoder.decoder.parameters(), plan.decoder_rate, betas=(0.9, 0.99), weight_decay=0.0
        )
        self.denoiser_optimizer = torch.optim.AdamW(
            self.model.denoiser_parameters(), plan.denoiser_rate, betas=(0.9, 0.99), weight_decay=0.01
        )
        self._saved_at = time.monotonic()

    def out_of_time(self) -> bool:
        return time.monotonic() >= self.deadline

    def save(self) -> None:
        """Write the pipeline and the state; a crash while writing leaves the old state whole."""
        save_pipeline(self.averaged, self.out / "pipeline")
        state = {
            "plan": vars(self.plan),
            "model": self.model.state_dict(),
            "averaged": self.averaged.state_dict(),
            "autoencoder_step": self.autoencoder_step,
            "decoder_step": self.decoder_step,
            "denoiser_step": self.denoiser_step,
            "autoencoder_optimizer": self.autoencoder_optimizer.state_dict(),
            "decoder_optimizer": self.decoder_optimizer.state_dict(),
            "denoiser_optimizer": self.denoiser_optimizer.state_dict(),
        }
        torch.save(state, self.out / "training.pt.new")
        (self.out / "training.pt.new").replace(self.out / "training.pt")
        self._saved_at = time.monotonic()

    def load(self) -> None:
        """Go on from FOLDER/training.pt; the seed must be the one it was begun with."""
        state = torch.load(self.out / "training.pt", weights_only=True)
        if state["plan"]["seed"] != self.plan.seed:
            raise SystemExit(f"{self.out} was begun with --seed {state['plan']['seed']}, not {self.plan.seed}")
        self.model.load_state_dict(state["model"])
        self.averaged.load_state_dict(state["averaged"])
        self.autoencoder_step = state["autoencoder_step"]
        self.decoder_step = state["decoder_step"]
        self.denoiser_step = state["denoiser_step"]
        self.autoencoder_optimizer.load_state_dict(state["autoencoder_optimizer"])
        self.decoder_optimizer.load_state_dict(state["decoder_optimizer"])
        self.denoiser_optimizer.load_state_dict(state["denoiser_optimizer"])

    def run(self) -> None:
        log.info("drawing %d pictures", self.plan.pictures)
        pictures = Pictures(self.plan.pictures, self.plan.seed)
        self.train_autoencoder(pictures)
        self.save()
        if self.autoencoder_step >= self.plan.autoencoder_steps:
            latents = encode_all(self.averaged.autoencoder, pictures)
            log.info("latents: mean %.3f, spread %.3f", latents.mean(), latents.std())
            self.train_decoder(pictures, latents)
            self.save()
            self.train_denoiser(pictures, latents)
        self.save()

    def train_autoencoder(self, pictures: Pictures) -> None:
        began, plan = time.monotonic(), self.plan
        while self.autoencoder_step < plan.autoencoder_steps and not self.out_of_time():
            step = self.autoencoder_step
            chance = draw.chance_of(f"{plan.seed} autoencoder {step}")
            chosen = chance.choices(range(plan.pictures), k=plan.batch)
            generator = torch.Generator().manual_seed(chance.getrandbits(60))
            loss = autoencoder_loss(self.model.autoencoder, pictures.batch(chosen), plan.latent_noise, generator)
            rate = rate_at(step, plan.autoencoder_steps, plan.autoencoder_rate)
            self._descend(self.autoencoder_optimizer, rate, loss, list(self.model.autoencoder.parameters()))
            self.autoencoder_step += 1
            self._average(self.model.autoencoder, self.averaged.autoencoder, step)
            self._tell("autoencoder", self.autoencoder_step, plan.autoencoder_steps, loss, began)

    def train_decoder(self, pictures: Pictures, latents: Tensor) -> None:
        """Improve the decoder on latents that stay as they are."""
        began, plan = time.monotonic(), self.plan
        decoder, mean = self.model.autoencoder.decoder, self.averaged.autoencoder.decoder
        if self.decoder_step == 0:
            decoder.load_state_dict(mean.state_dict())
        while self.decoder_step < plan.decoder_steps and not self.out_of_time():
            step = self.decoder_step
            chance = draw.chance_of(f"{plan.seed} decoder {step}")
            chosen = chance.choices(range(plan.pictures), k=plan.batch)
            seed = chance.getrandbits(60)
            loss = decoder_loss(decoder, latents[chosen], pictures.batch(chosen), plan.latent_noise, seed)
            rate = rate_at(step, plan.decoder_steps, plan.decoder_rate)
            self._descend(self.decoder_optimizer, rate, loss, list(decoder.parameters()))
            self.decoder_step += 1
            self._average(decoder, mean, step)
            self._tell("decoder", self.decoder_step, plan.decoder_steps, loss, began)

    def train_denoiser(self, pictures: Pictures, latents: Tensor) -> None:
        began, plan = time.monotonic(), self.plan
        schedule = make_scheduler().alphas_cumprod
        emphasis = [2 if shown.size == "small" else 1 for shown in pictures.shown]
        while self.denoiser_step < plan.denoiser_steps and not self.out_of_time():
            step = self.denoiser_step
            chance = draw.chance_of(f"{plan.seed} denoiser {step}")
            # Large shapes are mostly right after a quarter of the steps; from then on the small ones come up more.
            weights = emphasis if step >= plan.denoiser_steps // 4 else None
            chosen = chance.choices(range(plan.pictures), weights, k=plan.batch)
            captions = [
                "" if chance.random() < plan.caption_dropout else draw.phrase(pictures.shown[number], chance)
                for number in chosen
            ]
            loss = denoiser_loss(self.model, latents[chosen], captions, schedule, chance.getrandbits(60))
            rate = rate_at(step, plan.denoiser_steps, plan.denoiser_rate)
            self._descend(self.denoiser_optimizer, rate, loss, self.model.denoiser_parameters())
            self.denoiser_step += 1
            self._average(self.model.unet, self.averaged.unet, step)
            self._average(self.model.text_encoder, self.averaged.text_encoder, step)
            self._tell("denoiser", self.denoiser_step, plan.denoiser_steps, loss, began)

    def _descend(
        self, optimizer: torch.optim.Optimizer, rate: float, loss: Tensor, parameters: list[nn.Parameter]
    ) -> None:
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()

    @torch.no_grad()
    def _average(self, newest: nn.Module, mean: nn.Module, step: int) -> None:
        keep = min(self.plan.average, (1 + step) / (10 + step))
        torch._foreach_lerp_(list(mean.parameters()), list(newest.parameters()), 1 - keep)

    def _tell(self, part: str, step: int, steps: int, loss: Tensor, began: float) -> None:
        if step % 100 == 0:
            log.info("%s %d of %d, loss %.4f, %.0f s", part, step, steps, loss.item(), time.monotonic() - began)
        if time.monotonic() - self._saved_at > self.plan.save_every_s:
            self.save()


def main(arguments: list[str]) -> int:
    """Train, from the start or from where an earlier run stopped."""
    parser = argparse.ArgumentParser(prog="python -m peer.shapes.train", description="Train the shapes model.")
    parser.add_argument("--out", type=Path, required=True, help="folder for the pipeline and the training state")
    parser.add_argument("--minutes", type=float, default=math.inf, help="stop after so long; --resume goes on")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=Plan.denoiser_steps, help="steps of the denoiser")
    parser.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1), help="more than 2 gain little")
    parser.add_argument("--resume", action="store_true", help="go on from what --out holds")
    chosen = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stderr)
    torch.set_num_threads(chosen.threads)
    chosen.out.mkdir(parents=True, exist_ok=True)
    plan = Plan(seed=chosen.seed, denoiser_steps=chosen.steps)
    training = Training(plan, chosen.out, time.monotonic() + 60 * chosen.minutes)
    if chosen.resume and (chosen.out / "training.pt").exists():
        training.load()
    training.run()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
