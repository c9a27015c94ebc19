"""A Stable Diffusion pipeline with all its parts and random weights, small enough to train in a test."""

import json
from pathlib import Path

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    PNDMScheduler,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

WORDS = "a photo of sks person with brown hair green background".split()

NOISE = dict(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012)  # Stable Diffusion's


def tiny_tokenizer(words: list[str] = WORDS, max_length: int = 12) -> CLIPTokenizer:
    """A CLIPTokenizer that knows the letters and, by merging them from left to right, these words."""
    vocab, merges = tiny_vocabulary(words)
    return CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=max_length)


def tiny_vocabulary(words: list[str] = WORDS) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """The tokens with their numbers, and the merges, of `tiny_tokenizer`."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    tokens = ["<|startoftext|>", "<|endoftext|>", *letters, *(letter + "</w>" for letter in letters)]
    merges = []
    for word in words:
        left, *rest = [*word[:-1], word[-1] + "</w>"]
        for right in rest:
            if (left, right) not in merges:
                merges.append((left, right))
                tokens.append(left + right)
            left += right
    return {token: index for index, token in enumerate(dict.fromkeys(tokens))}, merges


def tiny_stable_diffusion(
    seed: int = 0, prediction_type: str = "epsilon", side: int = 16, words: list[str] = WORDS
) -> StableDiffusionPipeline:
    """Images of side×side px, latents half as large, under 100,000 parameters; equal seeds, equal weights."""
    tokenizer = tiny_tokenizer(words)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        vae = AutoencoderKL(
            block_out_channels=(8, 8),
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            latent_channels=4,
            norm_num_groups=4,
            sample_size=side,
            scaling_factor=0.5,
        )
        unet = UNet2DConditionModel(
            sample_size=side // 2,
            in_channels=4,
            out_channels=4,
            block_out_channels=(8, 16),
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            layers_per_block=1,
            attention_head_dim=2,
            cross_attention_dim=16,
            norm_num_groups=4,
        )
        text_encoder = _text_encoder(tokenizer, width=16, inner=16, layers=1)
    scheduler = DDIMScheduler(
        **NOISE, clip_sample=False, set_alpha_to_one=False, steps_offset=1, prediction_type=prediction_type
    )
    pipe = _pipeline(vae, text_encoder, tokenizer, unet, scheduler)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def _text_encoder(tokenizer, width: int, inner: int, layers: int) -> CLIPTextModel:
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=inner,
        num_hidden_layers=layers,
        num_attention_heads=2,
        max_position_embeddings=12,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    return CLIPTextModel(config)


def _pipeline(vae, text_encoder, tokenizer, unet, scheduler) -> StableDiffusionPipeline:
    parts = (vae.eval(), text_encoder.eval(), tokenizer, unet.eval(), scheduler)
    return StableDiffusionPipeline(*parts, None, None, requires_safety_checker=False)


def sd15_folder(folder: Path) -> Path:
    """A folder laid out as Stable Diffusion 1.5's, with its configuration but for widths; random weights.

    64×64 px images, latents 4×8×8, PNDM, the tokenizer as vocab.json and merges.txt.
    """
    tokenizer = tiny_tokenizer()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        vae = AutoencoderKL(
            block_out_channels=(8, 16, 32, 32),
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            layers_per_block=2,
            latent_channels=4,
            norm_num_groups=8,
            sample_size=64,
        )
        unet = UNet2DConditionModel(
            sample_size=8,
            block_out_channels=(16, 32, 64, 64),
            attention_head_dim=8,
            cross_attention_dim=24,
            norm_num_groups=16,
        )
        text_encoder = _text_encoder(tokenizer, width=24, inner=32, layers=2)
    scheduler = PNDMScheduler(**NOISE, skip_prk_steps=True, set_alpha_to_one=False, steps_offset=1)
    _pipeline(vae, text_encoder, tokenizer, unet, scheduler).save_pretrained(folder)
    vocab, merges = tiny_vocabulary()
    words = folder / "tokenizer"
    (words / "tokenizer.json").unlink(missing_ok=True)  # newer versions write this one file in place of two
    (words / "vocab.json").write_text(json.dumps(vocab))
    (words / "merges.txt").write_text("#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in merges))
    return folder


def photos(n: int = 4, seed: int = 0) -> torch.Tensor:
    """Noise of the model's size."""
    return torch.rand((n, 3, 16, 16), generator=torch.Generator().manual_seed(seed))


def weights(pipe: StableDiffusionPipeline) -> dict[str, torch.Tensor]:
    """Copies of all weights, by network and name."""
    parts = {"vae": pipe.vae, "unet": pipe.unet, "text_encoder": pipe.text_encoder}
    return {f"{part}.{k}": v.clone() for part, model in parts.items() for k, v in model.state_dict().items()}


def changed(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> set[str]:
    """The networks in which some weight differs."""
    return {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}
