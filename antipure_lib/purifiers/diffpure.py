"""Purifiers: what an abuser does to remove a protective perturbation before learning from a photo.

All take 3×H×W or N×3×H×W in [0, 1] and return the same shape.
"""

from collections.abc import Iterator
from numbers import Integral
from typing import TYPE_CHECKING, NamedTuple

import torch

from ..core.diffusion import add_noise, alpha_bars, predict, reverse_step
from ..core.images import check_image, from_model, quantise, to_model
from ..core.tiles import extract, merge, tile_count
from ..runtime.allocator import kept_memory
from ..runtime.checks import check_counts, check_ddpm
from ..runtime.memory import micro_batch
from ..runtime.micro_batch import MicroBatch
from ..runtime.noise import image_generators, randn
from ..runtime.unet import channels_last, sample_size

if TYPE_CHECKING:
    from diffusers import DDPMPipeline


class PurifyState(NamedTuple):
    """What `gridpure_steps` yields. x: N×3×H×W in [0, 1], not yet rounded to 8 bits."""

    round: int
    iteration: int
    x: torch.Tensor


@torch.no_grad()
def diffpure(
    ddpm: "DDPMPipeline",
    x: torch.Tensor,
    t: int = 100,
    seed: int = 0,
    batch: int | str | None = None,  # tiles per UNet call; None: all; "auto": what fits; see `micro_batch`
) -> torch.Tensor:
    """DiffPure: add t steps' worth of noise, then run the reverse chain to 0.  (Nie et al. 2022, 2205.07460)

    Images larger than the model's sample size are cut into GrIDPure's tiles and the results averaged once at
    the end.
    x: [0, 1], at least as large as a tile. t: number of noise steps, 1 … T. seed: image i's noise depends on
    seed and i.
    Rounds to 8 bits before and after: an abuser has a file and wants one.
    Raises ValueError for bad values, a bad t, or an image smaller than a tile.
    """
    clean = quantise(check_chain(ddpm, x, t))
    batch = tiles_at_a_time(batch, ddpm, clean)
    with kept_memory(clean.device), channels_last(ddpm.unet):
        purified = purify_tiles(ddpm, clean, t, image_generators(seed, len(clean)), batch)
    return quantise(purified).to(x.device).view_as(x)


def gridpure(
    ddpm: "DDPMPipeline",
    x: torch.Tensor,
    t: int = 10,
    iterations: int = 20,
    rounds: int = 1,
    gamma: float = 0.1,
    seed: int = 0,
    batch: int | str | None = None,
) -> torch.Tensor:
    """GrIDPure: many weak DiffPures on overlapping tiles: `gridpure_steps` to its end, rounded to 8 bits.

    Arguments and errors as there. Returns x's shape, [0, 1].
    """
    for state in gridpure_steps(ddpm, x, t, iterations, rounds, gamma, seed, batch):
        purified = state.x
    return quantise(purified).to(x.device).view_as(x)


def gridpure_steps(
    ddpm: "DDPMPipeline",
    x: torch.Tensor,
    t: int = 10,  # noise steps of each small DiffPure
    iterations: int = 20,  # per round
    rounds: int = 1,
    gamma: float = 0.1,  # share of the current image that each iteration keeps
    seed: int = 0,
    batch: int | str | None = None,  # tiles per UNet call; None: all; "auto": what fits; see `micro_batch`
) -> Iterator[PurifyState]:
    """GrIDPure, by iteration: x ← (1−γ)·mean of DiffPure(tiles, t) + γ·x.  (CVPR 2024, arXiv 2312.00084)

    The original goes through 8-bit images, truncated, at every iteration; here x is rounded once before and
    once after (by `gridpure`) and stays in float between. So 2 rounds of 20 iterations equal 1 round of 40.
    x: [0, 1], at least as large as a tile. seed: image i's noise depends on seed and i alone.
    Raises ValueError for bad values, t, iterations, rounds or gamma, or an image smaller than a tile.
    """
    x = quantise(check_chain(ddpm, x, t))
    check_counts(iterations=iterations, rounds=rounds)
    if not 0 <= gamma < 1:
        raise ValueError(f"gamma must be in [0, 1), got {gamma}; 1 would purify nothing")
    return _gridpure(ddpm, x, t, iterations, rounds, gamma, seed, tiles_at_a_time(batch, ddpm, x))


@torch.no_grad()
def _gridpure(ddpm, x, t, iterations, rounds, gamma, seed, batch):
    generators = image_generators(seed, len(x))
    with kept_memory(x.device):
        for r in range(rounds):
            for i in range(iterations):
                with channels_last(ddpm.unet):  # not across yields: the caller may use the model meanwhile
                    purified = purify_tiles(ddpm, x, t, generators, batch)
                x = (1 - gamma) * purified + gamma * x
                yield PurifyState(r, i, x)


def purify_tiles(
    ddpm: "DDPMPipeline",
    x: torch.Tensor,
    t: int,
    generators: list[torch.Generator],  # one per image, advanced by the call
    batch: int | MicroBatch | None = None,
) -> torch.Tensor:
    """One DiffPure of every tile and the average of the overlaps: the part that DiffPure and GrIDPure share.

    Differentiable with respect to x; rounds nothing and checks nothing. x: N×3×H×W in [0, 1]. Returns the
    same shape.
    """
    g = sample_size(ddpm)
    n, c, h, w = x.shape
    count = tile_count(h, w, g)

    def noise():
        return randn((n, count, c, g, g), generators, x.device).flatten(0, 1).to(x.dtype)

    x_t = add_noise(extract(to_model(x), g), noise(), t - 1, alpha_bars(ddpm.scheduler))
    for s in reversed(range(t)):
        eps, v = predict(ddpm, x_t, s, batch)
        x_t = reverse_step(x_t, eps, s, ddpm.scheduler, noise() if s > 0 else None, v)
    return merge(from_model(x_t), x.shape, g)


def tiles_at_a_time(
    batch: int | str | MicroBatch | None, ddpm: "DDPMPipeline", x: torch.Tensor
) -> MicroBatch:
    """`micro_batch` for purifying x, N×3×H×W: every step sends all its tiles through the UNet."""
    images = len(x) * tile_count(*x.shape[-2:], sample_size(ddpm))
    return micro_batch(batch, ddpm, images, gradients=False)


def check_chain(ddpm: "DDPMPipeline", x: torch.Tensor, t: int) -> torch.Tensor:
    """Images as N×3×H×W on the model's device, if a chain of t noise steps can begin there.

    Raises ValueError for bad images, images smaller than a tile and a bad t; TypeError for another model.
    """
    check_ddpm(ddpm)
    images = check_image(x)
    steps = len(ddpm.scheduler.alphas_cumprod)
    if not (isinstance(t, Integral) and 1 <= t <= steps):
        raise ValueError(f"t must be 1 … {steps} noise steps, got {t}")
    tile_count(*images.shape[-2:], sample_size(ddpm))  # raises if the image is smaller than a tile
    return images.to(ddpm.unet.device)
