"""Loops as they are published, written on this library's formulas and the same weights, for bench.py.

They keep what published loops have in common. PGD: float32, one call of the network for each timestep, and
gradients of parameters that nobody uses. GrIDPure: tile after tile, and an 8-bit image after each iteration.
"""

import copy
from collections.abc import Callable

import torch
from diffusers import DDPMPipeline

import antipure_lib as ap


def peers_step(
    ddpm: DDPMPipeline,  # in float32
    x: torch.Tensor,  # N×3×H×W in [0, 1]
    t_err: int,
    eta: float = 16 / 255,
    step_size: float = 1 / 255,
    seed: int = 0,
) -> Callable[[], torch.Tensor]:
    """What makes one step of AntiPure's plain sum, as Anti-DreamBooth's `pgd_attack` climbs its own loss.

    Every call returns x_adv after one more step.
    """
    unet, g = copy.deepcopy(ddpm.unet).requires_grad_(True), ap.sample_size(ddpm)
    alpha_bar = ap.alpha_bars(ddpm.scheduler, unet.device)
    generator = torch.Generator().manual_seed(seed)
    x = x.to(unet.device)
    x_adv = x

    def step():
        nonlocal x_adv
        x_adv = x_adv.detach().requires_grad_()
        x0 = ap.extract(ap.to_model(x_adv), g)
        t = ap.randint(0, 10, (len(x0),), generator, x.device)
        eps = ap.randn(x0.shape, generator, x.device)
        x_t = ap.add_noise(x0, eps, t, alpha_bar)
        eps_right = unet(x_t, t).sample[:, :3]
        eps_wrong = unet(x_t, torch.full_like(t, t_err)).sample[:, :3]
        x0_hat = ap.predict_x0(x_t, eps_right, t, alpha_bar)
        loss = ap.denoising_loss(eps_right, eps)
        loss = loss + 0.5 * (alpha_bar[t] - 1).exp() * ap.patch_frequency_guidance(x0_hat)
        loss = loss + 0.5 * ap.erroneous_timestep_guidance(eps_wrong, eps_right)
        unet.zero_grad()
        loss.unflatten(0, (len(x), -1)).mean(1).sum().backward()
        moved = x_adv.detach() + step_size * x_adv.grad.sign()
        x_adv = (x + (moved - x).clamp(-eta, eta)).clamp(0, 1)
        return x_adv

    return step


def peers_gridpure(
    ddpm: DDPMPipeline,  # in float32
    x: torch.Tensor,  # N×3×H×W in [0, 1]
    t: int,
    gamma: float = 0.1,
    seed: int = 0,
) -> Callable[[], torch.Tensor]:
    """What makes one iteration of GrIDPure. Every call returns x after one more iteration."""
    unet, g = ddpm.unet, ap.sample_size(ddpm)
    alpha_bar = ap.alpha_bars(ddpm.scheduler)
    generators = ap.image_generators(seed, len(x))
    x = x.to(unet.device)

    def chain(tile, generator):
        x_t = ap.add_noise(tile, ap.randn(tile.shape, generator, tile.device), t - 1, alpha_bar)
        for s in reversed(range(t)):
            out = unet(x_t, s).sample
            noise = ap.randn(tile.shape, generator, tile.device)
            x_t = ap.reverse_step(x_t, out[:, :3], s, ddpm.scheduler, noise, out[:, 3:])
        return ap.from_model(x_t)

    @torch.no_grad()
    def iteration():
        nonlocal x
        images = []
        for image, generator in zip(x.split(1), generators, strict=True):
            pure = [chain(tile, generator) for tile in ap.extract(ap.to_model(image), g).split(1)]
            mixed = (1 - gamma) * ap.merge(torch.cat(pure), image.shape, g) + gamma * image
            images.append(ap.from_pil(ap.to_pil(mixed)))
        x = torch.stack(images).to(x.device)
        return x

    return iteration
