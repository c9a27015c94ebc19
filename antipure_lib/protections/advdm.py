"""Protections that attack one fixed latent diffusion model: AdvDM, PhotoGuard's encoder attack, Mist.

Every loss goes through the VAE's encoder; every ‖·‖² is a mean over channels and pixels, one value per image.
Budgets are in [0, 1] units. Authors often give theirs in [−1, 1], where the same number is half as much.
"""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import torch

from ..core.pgd import PGDState, pgd
from ..customization.latent_diffusion import PROMPT, denoising_term, networks, sample_latents
from .fixed_model import _check, _embed

if TYPE_CHECKING:
    from diffusers import StableDiffusionPipeline


def advdm_steps(
    pipe: "StableDiffusionPipeline",
    x: torch.Tensor,
    eta: float = 16 / 255,  # budget, [0, 1] units
    steps: int = 100,
    step_size: float = 1 / 255,  # [0, 1] units
    seed: int = 0,
    prompt: str = PROMPT,  # c
    momentum: float = 0.0,
    noise_samples: int = 1,  # draws of (t, ε) averaged in each step
    random_start: bool = False,
) -> Iterator[PGDState]:
    """AdvDM: maximise E_{t,ε} ‖ε_θ(z_t,t,c) − ε‖², z ~ q(z|x+δ), t ~ U{0 … T−1}.  (arXiv 2302.04578)

    The model's own training loss, so a model that predicts v is attacked in v.
    x: 3×H×W or N×3×H×W in [0, 1], of the model's size. States: see `PGDState`, term "loss".
    Raises ValueError as `pgd` does, for images not of the model's size, noise_samples < 1, a model in half
    precision, one that predicts neither ε nor v.
    """
    images = _check(pipe, x, noise_samples=noise_samples)
    loss = advdm_loss(pipe, _embed(pipe, prompt), noise_samples)
    options = {"momentum": momentum, "random_start": random_start, "models": networks(pipe)}
    return pgd(loss, images, eta, steps, step_size, seed, **options)


def advdm_loss(
    pipe: "StableDiffusionPipeline",
    embed: Callable[[], torch.Tensor],  # the prompt's embedding, see `text_embeddings`
    noise_samples: int = 1,
) -> Callable[[torch.Tensor, torch.Generator], torch.Tensor]:
    """AdvDM's loss for `pgd`: (x_adv N×3×H×W, generator) → (N,)."""

    def loss(x_adv, generator):
        z0 = sample_latents(pipe, x_adv, generator)
        return denoising_term(pipe, z0, embed(), generator, noise_samples)

    return loss
