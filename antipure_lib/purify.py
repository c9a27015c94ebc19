"""Purifiers: what an abuser does to remove a protective perturbation before learning from a photo.

All take 3×H×W or N×3×H×W in [0, 1] and return the same shape.
"""

import io
from collections.abc import Callable, Iterator
from numbers import Integral
from typing import TYPE_CHECKING, NamedTuple

import torch
from PIL import Image
from torch.nn import functional as F

from .allocator import kept_memory
from .checks import check_counts, check_ddpm
from .diffusion import add_noise, alpha_bars, channels_last, predict, reverse_step, sample_size
from .images import check_image, from_model, from_pil, quantise, to_model, to_pil
from .memory import micro_batch
from .micro_batch import MicroBatch
from .noise import image_generators, randn
from .tiles import extract, merge, tile_count

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


def survival(
    purify: Callable[[torch.Tensor, int], torch.Tensor],
    x: torch.Tensor,
    x_protected: torch.Tensor,
    seed: int = 0,
) -> torch.Tensor:
    """‖Pure(x+δ) − Pure(x)‖₂ / ‖δ‖₂ for each image, with the same noise in both.

    0: purification removes the perturbation; 1: it leaves as much as there was.
    purify: (images, seed) → images, such as `lambda images, seed: gridpure(ddpm, images, seed=seed)`.
    x, x_protected: same shape, [0, 1]. Returns (N,).
    Raises ValueError if the shapes differ or an image isn't perturbed at all.
    """
    clean, protected = check_image(x), check_image(x_protected, "x_protected")
    if clean.shape != protected.shape:
        raise ValueError(f"x and x_protected must have one shape, got {x.shape} and {x_protected.shape}")
    delta = (protected - clean).flatten(1).norm(dim=1)
    if (delta == 0).any():
        raise ValueError("x_protected equals x in at least one image: there is nothing that could survive")
    change = purify(protected, seed) - purify(clean, seed)
    return change.flatten(1).norm(dim=1) / delta


def jpeg(x: torch.Tensor, quality: int = 75, subsampling: str = "4:2:0") -> torch.Tensor:
    """JPEG and back. quality: 1 … 95. subsampling of the colours: "4:2:0", "4:2:2" or "4:4:4"."""
    images = check_image(x)
    if subsampling not in ("4:2:0", "4:2:2", "4:4:4"):
        raise ValueError(f"subsampling must be '4:2:0', '4:2:2' or '4:4:4', got {subsampling!r}")
    if not 1 <= quality <= 95:
        raise ValueError(f"quality must be 1 … 95, got {quality}")
    out = []
    for image in images:
        file = io.BytesIO()
        to_pil(image).save(file, format="JPEG", quality=quality, subsampling=subsampling)
        out.append(from_pil(Image.open(file)))
    return torch.stack(out).to(x).view_as(x)


def gaussian_blur(x: torch.Tensor, sigma: float = 1.0) -> torch.Tensor:
    """Gaussian blur with mirrored borders. sigma: in pixels; the kernel ends at 4·sigma, within the image."""
    images = check_image(x)
    radius = int(4 * sigma + 0.5)
    if sigma <= 0 or radius >= min(images.shape[-2:]):
        raise ValueError(f"sigma must be positive and 4·sigma smaller than the image, got {sigma}")
    offsets = torch.arange(-radius, radius + 1, device=x.device, dtype=x.dtype)
    kernel = (-0.5 * (offsets / sigma).square()).exp()
    kernel = (kernel / kernel.sum()).expand(3, 1, 1, -1)
    padded = F.pad(images, [radius] * 4, mode="reflect")
    blurred = F.conv2d(F.conv2d(padded, kernel, groups=3), kernel.mT, groups=3)
    return blurred.clamp(0, 1).view_as(x)


def resize_and_back(x: torch.Tensor, factor: float = 0.5) -> torch.Tensor:
    """Shrink by `factor` (0 < factor ≤ 1) and enlarge to the old size; bicubic, antialiased."""
    images = check_image(x)
    if not 0 < factor <= 1:
        raise ValueError(f"factor must be in (0, 1], got {factor}")
    size = images.shape[-2:]
    small = [max(1, round(side * factor)) for side in size]
    for target in (small, size):
        images = F.interpolate(images, target, mode="bicubic", antialias=True).clamp(0, 1)
    return images.view_as(x)


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
