"""A pipeline of a few thousand random weights: it draws noise, and that is enough to see how an engine behaves."""

import sys
from pathlib import Path
from typing import Any

TOKENS = 16
WIDTH = 16
NOISE_LEVELS = 400
PROMPT = "a small red circle"

#: What the library itself draws of these arguments is saved beside the pipeline, for comparison.
DRAWN: dict[str, dict[str, Any]] = {
    "plain": {"guidance_scale": 3.0},
    "negative": {"guidance_scale": 3.0, "negative_prompt": "blue"},
    "unguided": {"guidance_scale": 1.0},
    "wide": {"guidance_scale": 3.0, "width": 64},
}


def save(folder: Path) -> None:
    """Write it as the library saves any pipeline, the same every time; and what it draws with seed 7 in 4 steps."""
    import torch

    torch.set_num_threads(1)
    torch.manual_seed(0)
    pipeline = a_pipeline()
    pipeline.save_pretrained(folder, safe_serialization=True)
    pipeline.set_progress_bar_config(disable=True)
    for name, settings in DRAWN.items():
        asked = {"width": 32, "height": 32, "num_inference_steps": 4} | settings
        generator = torch.Generator("cpu").manual_seed(7)
        pipeline(PROMPT, generator=generator, **asked).images[0].save(folder / f"{name}.png")


def a_pipeline():
    from diffusers import AutoencoderTiny, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    tokenizer = a_tokenizer()
    text_encoder = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=WIDTH,
            intermediate_size=WIDTH,
            projection_dim=WIDTH,
            num_hidden_layers=1,
            num_attention_heads=2,
            max_position_embeddings=TOKENS,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    unet = UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(8, 16),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        cross_attention_dim=WIDTH,
        attention_head_dim=4,
        norm_num_groups=4,
    )
    vae = AutoencoderTiny(
        encoder_block_out_channels=(8, 8, 8),
        decoder_block_out_channels=(8, 8, 8),
        num_encoder_blocks=(0, 1, 1),
        num_decoder_blocks=(1, 1, 1),
    )
    return StableDiffusionPipeline(
        vae=vae,
        unet=unet,
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        scheduler=DDIMScheduler(num_train_timesteps=NOISE_LEVELS, clip_sample=False, steps_offset=1),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def a_tokenizer():
    """Every letter is a token."""
    from tokenizers import pre_tokenizers
    from transformers import CLIPTokenizer

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    pieces = [*letters, *(letter + "</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    return CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=TOKENS)


if __name__ == "__main__":
    save(Path(sys.argv[1]))
