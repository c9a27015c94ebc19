"""The work that bench.py's loops can't do without: the networks' passes alone, on inputs that are ready."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch

from antipure_lib import frozen, randn, sample_size
from antipure_lib.customization.latent_diffusion import text_embeddings
from antipure_lib.runtime.unet import autocast

if TYPE_CHECKING:
    from diffusers import DDPMPipeline, StableDiffusionPipeline

T_ERR = 500  # of ETG


def bare_step(ddpm: "DDPMPipeline", n: int, balance: str) -> Callable[[], None]:
    """The UNet's passes of one AntiPure step on n tiles, in the UNet's precision, gradients of inputs only.

    "sum": one forward and one backward pass of (x_t, t) and (x_t, t_err) in one batch. "equal" needs every
    term's own gradient: forward passes of both, three backward passes of the first (L_ddpm, PFG, ETG) and one
    of the second (ETG).
    """
    unet, g = ddpm.unet, sample_size(ddpm)
    generator = torch.Generator().manual_seed(0)
    x_t = randn((n, 3, g, g), generator, unet.device).to(unet.dtype)
    right = torch.zeros(n, dtype=torch.long, device=unet.device)
    wrong = right + T_ERR
    with torch.no_grad():
        out = randn(unet(x_t[:1], right[:1]).sample.shape[1:], generator, unet.device).to(unet.dtype)

    def passes(x, t, backward):
        leaf = x.clone().requires_grad_()
        sample = unet(leaf, t).sample
        for left in reversed(range(backward)):
            torch.autograd.grad(sample, leaf, out.expand_as(sample), retain_graph=left > 0)

    def step():
        with frozen(unet):
            if balance == "sum":
                passes(torch.cat([x_t, x_t]), torch.cat([right, wrong]), 1)
            else:
                passes(x_t, right, 3)
                passes(x_t, wrong, 1)

    return step


def bare_forwards(ddpm: "DDPMPipeline", n: int, t: int) -> Callable[[], None]:
    """The UNet's t forward passes of one GrIDPure iteration on n tiles."""
    unet, g = ddpm.unet, sample_size(ddpm)
    x = randn((n, 3, g, g), torch.Generator().manual_seed(0), unet.device).to(unet.dtype)
    times = [torch.full((n,), s, device=unet.device) for s in reversed(range(t))]

    @torch.no_grad()
    def iteration():
        for time_of_all in times:
            unet(x, time_of_all)

    return iteration


def bare_training(
    pipe: "StableDiffusionPipeline", prompts: list[str], n: int, dtype: torch.dtype | None
) -> Callable[[], None]:
    """Forward and backward pass of n images of each prompt through what asks for gradients in `pipe`."""
    models = (pipe.unet, pipe.text_encoder)
    learned = [p for model in models for p in model.parameters() if p.requires_grad]
    config, device = pipe.unet.config, pipe.unet.device
    count = n * len(prompts)
    shape = (count, config.in_channels, config.sample_size, config.sample_size)
    z_t = randn(shape, torch.Generator().manual_seed(0), device)
    t = torch.linspace(0, 999, count, device=device).long()
    text = text_embeddings(pipe, prompts, dtype)

    def step():
        with autocast(pipe, dtype):
            prediction = pipe.unet(z_t, t, text().repeat_interleave(n, 0)).sample
        prediction.float().square().mean().backward()
        for parameter in learned:
            parameter.grad = None

    return step
