"""DiffPure, and what all diffusion purifiers share: its tiles, its checks.  (arXiv 2205.07460)"""

from collections.abc import Callable
from typing import NamedTuple

import torch

from ..core.diffusion import add_noise, alpha_bars, predict, reverse_step
from ..core.images import as_file, check_image, from_model, quantise, to_model
from ..core.tiles import extract, merge, tile_count
from ..runtime.checks import check_count, check_ddpm, check_number, check_reverse_step
from ..runtime.micro_batch import in_parts
from ..runtime.noise import image_generators, randn
from ..runtime.pipelines import DDPMPipeline
from ..runtime.unet import sample_size


class PurifyState(NamedTuple):
    """What a purifier's steps yield."""

    round: int
    iteration: int
    x: torch.Tensor  # N×3×H×W in [0, 1], not yet rounded to 8 bits


@torch.no_grad()
def diffpure(
    ddpm: DDPMPipeline,
    x: torch.Tensor,  # 3×H×W or N×3×H×W in [0, 1], at least as large as a tile
    t: int = 100,  # noise steps, 1 … T
    seed: int = 0,  # the noise of image i depends on seed and i
    batch: int | str | None = None,  # tiles per UNet call; None: all; "auto": what fits in memory
) -> torch.Tensor:
    """DiffPure: add t steps' worth of noise, then run the reverse chain to 0.  (arXiv 2205.07460, alg. 1)

    Larger images than the model's are cut into GrIDPure's tiles, averaged once at the end. Rounds to 8 bits
    before and after, as files do. Returns x's shape. Raises ValueError for values outside their range.
    """
    model, images = begin_chain(ddpm, x, t, batch)
    return as_file(purify_tiles(model, images, t, image_generators(seed, len(images))), x)


def purify_tiles(
    ddpm: DDPMPipeline, x: torch.Tensor, t: int, generators: list[torch.Generator]
) -> torch.Tensor:
    """One DiffPure of every tile and the average of the overlaps.  (GrIDPure, arXiv 2312.00084, alg. 1)

    x: N×3×H×W in [0, 1]; differentiable, neither checked nor rounded. generators: one per image, advanced.
    """
    g, noise = sample_size(ddpm), tile_noise(ddpm, x, generators)
    x_t = add_noise(extract(to_model(x), g), noise(), t - 1, alpha_bars(ddpm.scheduler))
    for s in reversed(range(t)):
        eps, v = predict(ddpm, x_t, s)
        x_t = reverse_step(x_t, eps, s, ddpm.scheduler, noise() if s > 0 else None, v)
    return merge(from_model(x_t), x.shape, g)


def tile_noise(ddpm: DDPMPipeline, x: torch.Tensor, generators: list) -> Callable[[], torch.Tensor]:
    """A function that draws noise for all tiles of x, N×3×H×W: each image's from its own generator."""
    g = sample_size(ddpm)
    shape = (len(x), tile_count(*x.shape[-2:], g), x.shape[1], g, g)
    return lambda: randn(shape, generators, x.device).flatten(0, 1).to(x.dtype)


def begin_chain(
    ddpm: DDPMPipeline, x: torch.Tensor, t: int, batch: int | str | None
) -> tuple[DDPMPipeline, torch.Tensor]:
    """The model in parts (see `in_parts`), and the checked images as an 8-bit file holds them, N×3×H×W."""
    images = quantise(check_chain(ddpm, x, t))
    count = len(images) * tile_count(*images.shape[-2:], sample_size(ddpm))
    return in_parts(ddpm, batch, count, gradients=False), images


def check_gamma(gamma: float) -> float:
    """The share as a float. Raises ValueError for one outside [0, 1)."""
    number = check_number(gamma, "gamma")
    if not 0 <= number < 1:
        raise ValueError(f"gamma must be in [0, 1), got {gamma}; 1 would purify nothing")
    return number


def check_chain(ddpm: DDPMPipeline, x: torch.Tensor, t: int) -> torch.Tensor:
    """Images as N×3×H×W on the model's device. Raises as `diffpure` does, TypeError for another model."""
    check_ddpm(ddpm)
    check_reverse_step(ddpm.scheduler)
    images = check_image(x)
    check_count(t, "t", 1, len(ddpm.scheduler.alphas_cumprod))
    tile_count(*images.shape[-2:], sample_size(ddpm))  # raises if the image is smaller than a tile
    return images.detach().to(ddpm.unet.device)
