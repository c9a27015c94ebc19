"""GrIDPure as a function that can be differentiated, and shortened by skipping noise levels."""

from collections.abc import Sequence
from types import SimpleNamespace

import torch
from torch.utils.checkpoint import checkpoint

from ..runtime.checks import check_count, check_counts
from ..runtime.noise import image_generators
from ..runtime.pipelines import DDPMPipeline
from .diffpure import check_gamma, purify_tiles


def purify_chain(
    ddpm: DDPMPipeline,
    x: torch.Tensor,  # N×3×H×W in [0, 1]
    seeds: Sequence[int],  # one per iteration; the noise of image i depends on them and i alone
    t: int = 10,  # noise steps of each DiffPure
    gamma: float = 0.1,  # share of the current image that each iteration keeps
    checkpointing: bool = True,  # recompute activations: memory of one iteration, whatever their number
) -> torch.Tensor:
    """GrIDPure, differentiable: `gridpure_steps` without rounding.  (arXiv 2312.00084, alg. 1)

    The images aren't checked. Raises ValueError for numbers outside their range.
    """
    check_counts(t=t)
    gamma = check_gamma(gamma)

    def iteration(x, seed):
        # The noise is drawn in here, from its seed, so a recomputation sees the same.
        return (1 - gamma) * purify_tiles(ddpm, x, t, image_generators(seed, len(x))) + gamma * x

    for seed in seeds:
        if checkpointing:
            x = checkpoint(iteration, x, seed, use_reentrant=False, preserve_rng_state=False)
        else:
            x = iteration(x, seed)
    return x


def respaced(ddpm: DDPMPipeline, stride: int) -> SimpleNamespace:
    """Every stride-th noise level of a model, as a model of its own.  (Nichol and Dhariwal 2021, 2102.09672)

    Its index i is the model's stride·(i+1) − 1. So its t/stride noise steps end at the noise of the
    model's t. It has what this library needs of a DDPMPipeline: .unet and .scheduler.
    Raises ValueError for a stride that isn't a whole number of at least 1.
    """
    stride = check_count(stride, "stride")

    def unet(x_t, i):
        return ddpm.unet(x_t, stride * (i + 1) - 1)

    unet.config, unet.dtype = ddpm.unet.config, ddpm.unet.dtype
    levels = ddpm.scheduler.alphas_cumprod[stride - 1 :: stride]
    scheduler = SimpleNamespace(alphas_cumprod=levels, config=ddpm.scheduler.config)
    return SimpleNamespace(unet=unet, scheduler=scheduler)
