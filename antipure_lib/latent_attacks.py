"""Protections that attack one fixed latent diffusion model: AdvDM, PhotoGuard's encoder attack, Mist.

Every loss goes through the VAE's encoder; every ‖·‖² is a mean over channels and pixels, one value per image.
Budgets are in [0, 1] units. Authors often give theirs in [−1, 1], where the same number is half as much.
"""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import torch

from .checks import check_counts
from .diffusion import add_noise, alpha_bars
from .fine_tune import check_size, latents, posterior, text_embeddings, training_target
from .noise import randint, randn
from .pgd import PGDState, pgd

if TYPE_CHECKING:
    from diffusers import StableDiffusionPipeline

PROMPT = "a photo of sks person"
# Mist's code weighs a mean by 1e4 against a sum over the 4·64·64 numbers of a 512 px image's latent.
MIST_WEIGHT = 1e4 / (4 * 64 * 64)


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


def photoguard_steps(
    pipe: "StableDiffusionPipeline",
    x: torch.Tensor,
    eta: float = 16 / 255,  # budget, [0, 1] units
    steps: int = 100,
    step_size: float = 1 / 255,  # [0, 1] units
    seed: int = 0,  # only a random start needs it
    target: torch.Tensor | None = None,  # image or one per image of x, [0, 1]; None: mid-grey
    momentum: float = 0.0,
    random_start: bool = False,
) -> Iterator[PGDState]:
    """PhotoGuard's encoder attack: minimise ‖E(x+δ) − E(target)‖², E the mean latent.  (arXiv 2302.06588)

    The grey target is the paper's own example: it holds nothing of the photo, nor of any other.
    x: 3×H×W or N×3×H×W in [0, 1], of the model's size. States: see `PGDState`, term "loss" = −‖·‖².
    Raises ValueError as `pgd` does, for images not of the model's size, a model in half precision.
    """
    images = _check(pipe, x)
    z_target = _target(pipe, images, torch.full_like(images[0], 0.5) if target is None else target)

    def loss(x_adv, generator):
        mean, _ = posterior(pipe, x_adv)
        return -(mean - z_target).square().mean((1, 2, 3))

    options = {"momentum": momentum, "random_start": random_start, "models": networks(pipe)}
    return pgd(loss, images, eta, steps, step_size, seed, **options)


def mist_steps(
    pipe: "StableDiffusionPipeline",
    x: torch.Tensor,
    eta: float = 16 / 255,  # budget, [0, 1] units
    steps: int = 100,
    step_size: float = 1 / 255,  # [0, 1] units
    seed: int = 0,
    prompt: str = PROMPT,  # c
    target: torch.Tensor | None = None,  # image or one per image of x, [0, 1]; None: `checkerboard`
    weight: float = MIST_WEIGHT,  # w, of the semantic term
    momentum: float = 0.0,
    noise_samples: int = 1,  # draws of (t, ε) averaged in each step
    random_start: bool = False,
) -> Iterator[PGDState]:
    """Mist, fused: minimise ‖z − E(target)‖² − w·E_{t,ε} ‖ε_θ(z_t,t,c) − ε‖², z ~ q(z|x+δ).  (2305.12683)

    The texture term draws the latent to the target's, the semantic term is AdvDM's. The authors' w = 1e4 goes
    with a sum in the first and a mean in the second; with means in both it is 1e4 / 16,384 ≈ 0.61.
    x: 3×H×W or N×3×H×W in [0, 1], of the model's size. States: see `PGDState`, terms "semantic" and "texture"
    = −‖·‖². Raises ValueError as `advdm_steps` does.
    """
    images = _check(pipe, x, noise_samples=noise_samples)
    z_target = _target(pipe, images, checkerboard(images.shape[-1]) if target is None else target)
    embed = _embed(pipe, prompt)

    def loss(x_adv, generator):
        z0 = sample_latents(pipe, x_adv, generator)
        semantic = denoising_term(pipe, z0, embed(), generator, noise_samples)
        return {"semantic": semantic, "texture": -(z0 - z_target).square().mean((1, 2, 3))}

    options = {"momentum": momentum, "random_start": random_start, "models": networks(pipe)}
    return pgd(loss, images, eta, steps, step_size, seed, weights={"semantic": weight}, **options)


def checkerboard(side: int, cells: int = 8) -> torch.Tensor:
    """A black and white checkerboard: dense and of high contrast, as Mist's own target is.

    Returns 3×side×side in {0, 1}, the top left cell black.
    """
    index = torch.arange(side) * cells // side
    return ((index[:, None] + index) % 2).float().expand(3, side, side)


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


def sample_latents(
    pipe: "StableDiffusionPipeline", x: torch.Tensor, generator: torch.Generator
) -> torch.Tensor:
    """z ~ q(z|x) = mean + std·noise, scaled as the UNet sees it; differentiable.  N×3×H×W → N×C×h×w."""
    mean, std = posterior(pipe, x)
    return mean + std * randn(mean.shape, generator, mean.device).to(mean.dtype)


def denoising_term(
    pipe: "StableDiffusionPipeline",
    z0: torch.Tensor,
    c: torch.Tensor,
    generator: torch.Generator,
    noise_samples: int = 1,
) -> torch.Tensor:
    """`denoising_error` for ε ~ N(0, I) and t ~ U{0 … T−1}, the mean over noise_samples draws.  → (N,)"""
    z0 = z0.repeat_interleave(noise_samples, 0)
    eps = randn(z0.shape, generator, z0.device).to(z0.dtype)
    t = randint(0, pipe.scheduler.config.num_train_timesteps, (len(z0),), generator, z0.device)
    return denoising_error(pipe, z0, eps, t, c).unflatten(0, (-1, noise_samples)).mean(1)


def denoising_error(
    pipe: "StableDiffusionPipeline", z0: torch.Tensor, eps: torch.Tensor, t: torch.Tensor, c: torch.Tensor
) -> torch.Tensor:
    """‖ε_θ(z_t,t,c) − ε‖², or ‖v_θ(z_t,t,c) − v‖² for a model that predicts v.

    z0, eps: N×C×h×w, scaled latents and noise. t: LongTensor of N. c: 1×L×D, one prompt for all. → (N,)
    """
    alpha_bar = alpha_bars(pipe.scheduler, z0.device)
    z_t = add_noise(z0, eps, t, alpha_bar)
    prediction = pipe.unet(z_t, t, c.expand(len(z0), -1, -1)).sample
    target = training_target(pipe.scheduler, z0, eps, alpha_bar[t])
    return (prediction - target).square().mean((1, 2, 3))


def networks(pipe: "StableDiffusionPipeline") -> tuple[torch.nn.Module, ...]:
    """The three networks, for `pgd` to freeze."""
    return pipe.vae, pipe.unet, pipe.text_encoder


def _check(pipe, x, **counts) -> torch.Tensor:
    check_counts(**counts)
    images = check_size(pipe, x, "x")
    if torch.finfo(pipe.unet.dtype).bits < 32:
        kind = str(pipe.unet.dtype).removeprefix("torch.")
        raise ValueError(f"pipe computes in {kind}, too coarse for gradients; load it in torch.float32")
    return images.to(pipe.unet.device)


@torch.no_grad()
def _embed(pipe, prompt) -> Callable[[], torch.Tensor]:
    """The prompt's embedding of a model that stays as it is: computed once."""
    embedding = text_embeddings(pipe, [prompt])()
    return lambda: embedding


def _target(pipe, images, target) -> torch.Tensor:
    target = check_size(pipe, target, "target")
    if len(target) not in (1, len(images)):
        raise ValueError(f"target must be one image or one for each of x's {len(images)}, got {len(target)}")
    mean, _ = latents(pipe, target, batch=len(target))
    return mean
