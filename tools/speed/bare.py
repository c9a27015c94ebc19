"""The work that bench.py's loops can't do without: the UNet's passes alone, on inputs that are ready."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch

from antipure_lib import randn, sample_size
from antipure_lib.runtime.unet import view

if TYPE_CHECKING:
    from diffusers import DDPMPipeline


def bare_step(ddpm: "DDPMPipeline", n: int, t_err: int) -> Callable[[], None]:
    """The passes of one plain AntiPure step on n tiles: (x_t, t) and (x_t, t_err), forward and backward."""
    unet, x, t = _inputs(ddpm, 2 * n, channels_last=False)
    t[n:] = t_err
    with torch.no_grad():
        out = unet(x[:1], t[:1]).sample  # any gradient of the output's shape

    def step():
        leaf = x.clone().requires_grad_()
        sample = unet(leaf, t).sample
        torch.autograd.grad(sample, leaf, out.expand_as(sample))

    return step


def bare_forwards(ddpm: "DDPMPipeline", n: int, t: int) -> Callable[[], None]:
    """The t forward passes of one GrIDPure iteration on n tiles."""
    unet, x, times = _inputs(ddpm, n, channels_last=True)

    @torch.no_grad()
    def iteration():
        for s in reversed(range(t)):
            unet(x, times + s)

    return iteration


def _inputs(ddpm, n, channels_last):
    """The UNet as the library runs it, n noisy tiles in its precision, and their timesteps, all 0."""
    unet, g = view(ddpm.unet, channels_last), sample_size(ddpm)
    x = randn((n, 3, g, g), torch.Generator().manual_seed(0), ddpm.unet.device).to(ddpm.unet.dtype)
    return unet, x, torch.zeros(n, dtype=torch.long, device=x.device)
