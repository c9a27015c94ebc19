"""Loops as they are published, written anew on this library's formulas and the same weights, for bench.py.

What they have in common with each other is kept: float32, one call of the network for each timestep,
gradients of the parameters that nobody uses (PGD); tile after tile and an 8-bit image after every iteration
(GrIDPure).
"""

import copy
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch

from antipure_lib import (
    add_noise,
    alpha_bars,
    denoising_loss,
    erroneous_timestep_guidance,
    extract,
    from_model,
    from_pil,
    image_generators,
    merge,
    patch_frequency_guidance,
    predict_x0,
    randint,
    randn,
    reverse_step,
    sample_size,
    to_model,
    to_pil,
)

if TYPE_CHECKING:
    from diffusers import DDPMPipeline


def peers_step(
    ddpm: "DDPMPipeline",  # in float32
    x: torch.Tensor,  # N×3×H×W in [0, 1]
    t_err: int,
    eta: float = 16 / 255,
    step_size: float = 1 / 255,
    seed: int = 0,
) -> Callable[[], torch.Tensor]:
    """One step of AntiPure's plain sum a call, as Anti-DreamBooth's `pgd_attack` does its own loss's.

    Returns a function that returns x_adv after one more step.
    """
    unet, g = copy.deepcopy(ddpm.unet).requires_grad_(True), sample_size(ddpm)
    alpha_bar = alpha_bars(ddpm.scheduler, unet.device)
    generator = torch.Generator().manual_seed(seed)
    x = x.to(unet.device)
    x_adv = x

    def step():
        nonlocal x_adv
        x_adv = x_adv.detach().requires_grad_()
        x0 = extract(to_model(x_adv), g)
        t = randint(0, 10, (len(x0),), generator, x.device)
        eps = randn(x0.shape, generator, x.device)
        x_t = add_noise(x0, eps, t, alpha_bar)
        eps_right = unet(x_t, t).sample[:, :3]
        eps_wrong = unet(x_t, torch.full_like(t, t_err)).sample[:, :3]
        x0_hat = predict_x0(x_t, eps_right, t, alpha_bar)
        loss = denoising_loss(eps_right, eps)
        loss = loss + 0.5 * (alpha_bar[t] - 1).exp() * patch_frequency_guidance(x0_hat)
        loss = loss + 0.5 * erroneous_timestep_guidance(eps_wrong, eps_right)
        unet.zero_grad()
        loss.unflatten(0, (len(x), -1)).mean(1).sum().backward()
        moved = x_adv.detach() + step_size * x_adv.grad.sign()
        x_adv = (x + (moved - x).clamp(-eta, eta)).clamp(0, 1)
        return x_adv

    return step


def peers_gridpure(
    ddpm: "DDPMPipeline",  # in float32
    x: torch.Tensor,  # N×3×H×W in [0, 1]
    t: int,
    gamma: float = 0.1,
    seed: int = 0,
) -> Callable[[], torch.Tensor]:
    """One iteration of GrIDPure a call: every tile goes through its own chain, and the image through 8 bits.

    Returns a function that returns x after one more iteration.
    """
    unet, g = ddpm.unet, sample_size(ddpm)
    alpha_bar = alpha_bars(ddpm.scheduler)
    generators = image_generators(seed, len(x))
    x = x.to(unet.device)

    def chain(tile, generator):
        x_t = add_noise(tile, randn(tile.shape, generator, tile.device), t - 1, alpha_bar)
        for s in reversed(range(t)):
            out = unet(x_t, s).sample
            noise = randn(tile.shape, generator, tile.device)
            x_t = reverse_step(x_t, out[:, :3], s, ddpm.scheduler, noise, out[:, 3:])
        return from_model(x_t)

    @torch.no_grad()
    def iteration():
        nonlocal x
        images = []
        for image, generator in zip(x.split(1), generators, strict=True):
            pure = [chain(tile, generator) for tile in extract(to_model(image), g).split(1)]
            mixed = (1 - gamma) * merge(torch.cat(pure), image.shape, g) + gamma * image
            images.append(from_pil(to_pil(mixed)))
        x = torch.stack(images).to(x.device)
        return x

    return iteration
