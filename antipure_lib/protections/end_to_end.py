"""The exact gradient through the whole purification chain: the yardstick for every cheaper protection.

The AntiPure paper (arXiv 2509.13922) calls this objective intractable; for a small model it isn't.
"""

from collections.abc import Callable, Iterator, Sequence
from types import SimpleNamespace
from typing import TYPE_CHECKING

import torch
from torch.utils.checkpoint import checkpoint

from ..core.images import check_image
from ..core.pgd import PGDState, pgd
from ..core.tiles import tile_count
from ..purifiers.diffpure import gridpure_steps, purify_tiles
from ..runtime.checks import check_counts
from ..runtime.memory import micro_batch
from ..runtime.micro_batch import MicroBatch
from ..runtime.noise import image_generators, randint
from ..runtime.unet import sample_size

if TYPE_CHECKING:
    from diffusers import DDPMPipeline


def end_to_end_steps(
    ddpm: "DDPMPipeline",
    x: torch.Tensor,
    eta: float = 16 / 255,  # budget, [0, 1] units
    steps: int = 100,
    step_size: float = 1 / 255,  # [0, 1] units
    seed: int = 0,
    t: int = 10,  # noise steps of each DiffPure
    stride: int = 5,  # through them; 1: GrIDPure's own chain, at 5 times the cost
    iterations: int = 2,  # of GrIDPure; its own 20, at 10 times the cost
    gamma: float = 0.1,  # share of the current image that each iteration keeps
    noise_samples: int = 1,  # chains, each with its own noise, averaged in each step
    momentum: float = 0.0,
    checkpointing: bool = True,  # recompute instead of keeping activations
    batch: int | str | None = None,  # tiles per UNet call; None: all; "auto": what fits; see `micro_batch`
) -> Iterator[PGDState]:
    """Maximise E ‖Pure(x+δ) − Pure(x)‖², the same noise in both, through every step of GrIDPure.

    Not the paper's ‖Pure(x+δ) − (x+δ)‖, which a perfectly removable δ would raise. ‖·‖² is a mean over
    channels and pixels. Each step draws new noise. δ starts uniform in ±η, for at δ = 0 the gradient is 0.
    The defaults are for a CPU: the gradient is exact, but that of a shorter chain, which starts at the same
    noise (see `respaced`). A step costs about 5·(t/stride)·iterations·noise_samples runs of the UNet on every
    tile; with checkpointing the memory is that of one iteration, whatever their number.

    x: 3×H×W or N×3×H×W in [0, 1], at least as large as the model's images. States: see `PGDState`, term
    "loss". Raises ValueError as `pgd` and `gridpure_steps` do, for noise_samples < 1 and for a stride that
    doesn't divide t.
    """
    check_counts(noise_samples=noise_samples, stride=stride)
    gridpure_steps(ddpm, x, t, iterations, gamma=gamma)  # never run: complains about bad arguments
    if t % stride:
        raise ValueError(f"stride must divide t={t}, so that the chain starts at t's noise, got {stride}")
    images = check_image(x).detach().to(ddpm.unet.device)
    tiles = len(images) * tile_count(*images.shape[-2:], sample_size(ddpm))
    calls = t // stride * (1 if checkpointing else iterations * noise_samples)
    batch = micro_batch(batch, ddpm, tiles, gradients=True, calls=calls)
    loss = end_to_end_loss(ddpm, images, t, stride, iterations, gamma, noise_samples, checkpointing, batch)
    options = {"random_start": True, "momentum": momentum, "models": (ddpm.unet,), "batch": batch}
    return pgd(loss, images, eta, steps, step_size, seed, **options)


def end_to_end_loss(
    ddpm: "DDPMPipeline",
    x: torch.Tensor,  # clean, N×3×H×W in [0, 1]
    t: int = 10,
    stride: int = 5,
    iterations: int = 2,
    gamma: float = 0.1,
    noise_samples: int = 1,
    checkpointing: bool = True,
    batch: int | MicroBatch | None = None,
) -> Callable[[torch.Tensor, torch.Generator], torch.Tensor]:
    """‖Pure(x+δ) − Pure(x)‖² as a loss for `pgd`: (x_adv N×3×H×W, generator) → (N,)."""
    short, steps = respaced(ddpm, stride), t // stride

    def loss(x_adv, generator):
        total = torch.zeros(len(x_adv), device=x_adv.device, dtype=x_adv.dtype)
        for seeds in randint(0, 2**31, (noise_samples, iterations), generator).tolist():
            with torch.no_grad():
                clean = purify_chain(short, x, seeds, steps, gamma, False, batch)
            purified = purify_chain(short, x_adv, seeds, steps, gamma, checkpointing, batch)
            total = total + (purified - clean).square().mean((1, 2, 3))
        return total / noise_samples

    return loss


def purify_chain(
    ddpm: "DDPMPipeline",
    x: torch.Tensor,
    seeds: Sequence[int],  # one per iteration
    t: int = 10,
    gamma: float = 0.1,
    checkpointing: bool = True,
    batch: int | MicroBatch | None = None,
) -> torch.Tensor:
    """GrIDPure without rounding, differentiable: x ← (1−γ)·mean of DiffPure(tiles, t) + γ·x for every seed.

    x: N×3×H×W in [0, 1]. Image i's noise depends on the seeds and i alone. Returns the same shape.
    """

    def iteration(x, seed):
        # The noise is drawn in here, from its seed, so that a recomputation sees the same.
        return (1 - gamma) * purify_tiles(ddpm, x, t, image_generators(seed, len(x)), batch) + gamma * x

    for seed in seeds:
        if checkpointing:
            x = checkpoint(iteration, x, seed, use_reentrant=False, preserve_rng_state=False)
        else:
            x = iteration(x, seed)
    return x


def respaced(ddpm: "DDPMPipeline", stride: int) -> SimpleNamespace:
    """Every stride-th noise level of a model, as a model of its own.  (Nichol and Dhariwal 2021, 2102.09672)

    Its index i is the model's stride·(i+1) − 1, so its t/stride noise steps end at the noise of the model's
    t. What this library's functions need of a DDPMPipeline: .unet and .scheduler.
    """

    def unet(x_t, i):
        return ddpm.unet(x_t, stride * (i + 1) - 1)

    unet.config, unet.dtype = ddpm.unet.config, ddpm.unet.dtype
    levels = ddpm.scheduler.alphas_cumprod[stride - 1 :: stride]
    scheduler = SimpleNamespace(alphas_cumprod=levels, config=ddpm.scheduler.config)
    return SimpleNamespace(unet=unet, scheduler=scheduler)
