"""The exact gradient through purification, which arXiv 2509.13922 calls intractable: a yardstick."""

from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import torch

from ..core.pgd import Loss, PGDState, pgd
from ..core.tiles import tile_count
from ..purifiers.chain import purify_chain, respaced
from ..purifiers.diffpure import check_chain, check_gamma
from ..runtime.checks import check_counts
from ..runtime.micro_batch import in_parts
from ..runtime.noise import randint
from ..runtime.pipelines import DDPMPipeline
from ..runtime.unet import sample_size


def end_to_end_steps(
    ddpm: DDPMPipeline,
    x: torch.Tensor,  # 3×H×W or N×3×H×W in [0, 1], at least as large as the model's images
    eta: float = 16 / 255,  # budget in (0, 1], [0, 1] units
    steps: int = 100,
    step_size: float = 1 / 255,  # [0, 1] units
    seed: int = 0,
    t: int = 10,  # noise steps of each DiffPure
    stride: int = 5,  # through them; 1: GrIDPure's own chain, at 5 times the cost
    iterations: int = 2,  # of GrIDPure; its own 20, at 10 times the cost
    gamma: float = 0.1,  # share of the current image that each iteration keeps
    noise_samples: int = 1,  # chains, each with its own noise, averaged in each step
    momentum: float = 0.0,
    checkpointing: bool = True,  # recompute activations: memory of one iteration, whatever their number
    batch: int | str | None = None,  # tiles per UNet call; None: all; "auto": what fits in memory
) -> Iterator[PGDState]:
    """Maximise E ‖Pure(x+δ) − Pure(x)‖², the same noise in both, through every step of GrIDPure.

    A δ that purification removes would raise the paper's ‖Pure(x+δ) − (x+δ)‖ (arXiv 2509.13922).
    ‖·‖² is a mean over channels and pixels. Each step draws new noise. δ starts uniform in ±η, because the
    gradient is 0 at δ = 0. The chain is shorter than GrIDPure's own (see `respaced`).
    A step costs about 5·(t/stride)·iterations·noise_samples runs of the UNet on every tile. Term: "loss".
    Raises ValueError for values outside their range, and for a stride that doesn't divide t.
    """
    check_counts(noise_samples=noise_samples)
    kept = 1 if checkpointing else iterations * noise_samples
    model, images = begin_attack(ddpm, x, t, stride, iterations, gamma, kept, batch)
    loss = end_to_end_loss(model, images, t, stride, iterations, gamma, noise_samples, checkpointing)
    options = {"random_start": True, "momentum": momentum, "repeat": model.unet.repeat}
    return pgd(loss, images, eta, steps, step_size, seed, **options)


def begin_attack(
    ddpm: DDPMPipeline,
    x: torch.Tensor,  # 3×H×W or N×3×H×W in [0, 1]
    t: int,
    stride: int,
    iterations: int,
    gamma: float,
    kept: int,  # iterations whose activations stay until the backward pass
    batch: int | str | None,
) -> tuple[DDPMPipeline, torch.Tensor]:
    """The model in parts (see `in_parts`), and the images as N×3×H×W. Raises as `end_to_end_steps`."""
    check_counts(stride=stride, iterations=iterations)
    check_gamma(gamma)
    images = check_chain(ddpm, x, t)
    if t % stride:
        raise ValueError(f"stride must divide t={t}, so that the chain starts at t's noise, got {stride}")
    count = end_to_end_images(ddpm, (len(images), *images.shape[-2:]))
    return in_parts(ddpm, batch, count, gradients=True, calls=t // stride * kept), images


def end_to_end_images(ddpm: DDPMPipeline, size: tuple[int, int, int], **_) -> int:
    """How many images go through the UNet at a time: the tiles of N images of H×W, size = (N, H, W)."""
    n, height, width = size
    return n * tile_count(height, width, sample_size(ddpm))


def end_to_end_loss(
    ddpm: DDPMPipeline,
    x: torch.Tensor,  # clean, N×3×H×W in [0, 1]
    t: int = 10,
    stride: int = 5,
    iterations: int = 2,
    gamma: float = 0.1,
    noise_samples: int = 1,
    checkpointing: bool = True,
) -> Loss:
    """‖Pure(x+δ) − Pure(x)‖² as a loss for `pgd`; arguments and errors as in `end_to_end_steps`."""
    check_counts(t=t, stride=stride, iterations=iterations, noise_samples=noise_samples)
    check_gamma(gamma)
    short = respaced(ddpm, stride)

    def purify(images, seeds):
        return purify_chain(short, images, seeds, t // stride, gamma, checkpointing)

    change = change_left(purify, x)

    def loss(x_adv, generator):
        draws = randint(0, 2**31, (noise_samples, iterations), generator).tolist()
        return sum(change(x_adv, seeds) for seeds in draws) / noise_samples

    return loss


def change_left(
    see: Callable[[torch.Tensor, Any], torch.Tensor],  # what is seen of images after purification with noise
    x: torch.Tensor,  # clean, N×3×H×W in [0, 1]
    keep: bool = False,  # the clean half, for each noise
) -> Callable[[torch.Tensor, Any], torch.Tensor]:
    """(x_adv, noise) → ‖see(x+δ) − see(x)‖², (N,): a mean over all numbers that are seen of an image.

    noise: what decides the noise of both halves, such as a seed.
    """

    @torch.no_grad()
    def clean(noise):
        return see(x, noise)

    clean = cache(clean) if keep else clean
    return lambda x_adv, noise: (see(x_adv, noise) - clean(noise)).square().flatten(1).mean(1)
