"""Mist: a texture term and a semantic term, fused.  (Liang and Wu 2023, arXiv 2305.12683)"""

from collections.abc import Iterator

import torch

from ..core.pgd import PGDState, pgd
from ..customization import latent_diffusion as latent
from ..runtime.checks import check_count, check_counts, check_finite
from ..runtime.pipelines import StableDiffusionPipeline
from ..runtime.unet import pipe_view

# Mist's code weighs a mean by 1e4 against a sum over the 4·64·64 numbers of a 512 px image's latent: 0.61.
MIST_WEIGHT = 1e4 / (4 * 64 * 64)


def mist_steps(
    pipe: StableDiffusionPipeline,
    x: torch.Tensor,  # 3×H×W or N×3×H×W in [0, 1], of the model's size
    eta: float = 16 / 255,  # budget in (0, 1], [0, 1] units
    steps: int = 100,
    step_size: float = 1 / 255,  # [0, 1] units
    seed: int = 0,
    prompt: str = latent.PROMPT,  # c
    weight: float = MIST_WEIGHT,  # w, of the semantic term
    momentum: float = 0.0,
    noise_samples: int = 1,  # draws of (t, ε) averaged in each step
    random_start: bool = False,
) -> Iterator[PGDState]:
    """Mist, fused: minimise ‖z − E(board)‖² − w·E_{t,ε} ‖ε_θ(z_t,t,c) − ε‖², z ~ q(z|x+δ).  (2305.12683)

    The board is a `checkerboard`; the semantic term is AdvDM's. Terms: "semantic" and "texture" = −‖·‖².
    Raises ValueError for values outside their range, and for a model in half precision.
    """
    images = latent.check_float32(pipe, x)
    check_counts(noise_samples=noise_samples)
    check_finite(weight=weight)
    pipe = pipe_view(pipe)
    z_board, _ = latent.latents(pipe, checkerboard(images.shape[-1])[None], batch=1)
    embedding = latent.text_embeddings(pipe, [prompt])

    def loss(x_adv, generator):
        z0 = latent.sample_latents(pipe, x_adv, generator)
        semantic = latent.denoising_term(pipe, z0, embedding(), generator, noise_samples)
        return {"semantic": semantic, "texture": -(z0 - z_board).square().mean((1, 2, 3))}

    options = {"momentum": momentum, "random_start": random_start}
    return pgd(loss, images, eta, steps, step_size, seed, weights={"semantic": weight}, **options)


def checkerboard(side: int, cells: int = 8) -> torch.Tensor:
    """A checkerboard, 3×side×side in {0, 1}, dense and of high contrast as Mist's own.  (2305.12683)"""
    side, cells = check_count(side, "side"), check_count(cells, "cells")
    index = torch.arange(side) * cells // side
    return ((index[:, None] + index) % 2).float().expand(3, side, side)
