"""What a perturbation is: what purification leaves of it, its spectrum, how visible it is."""

from collections.abc import Callable

import torch

from ..core.images import LEVELS, check_image
from ..runtime.checks import check_count, check_seed
from .faces import Judge


def radial_spectrum(delta: torch.Tensor, rings: int = 32) -> tuple[torch.Tensor, torch.Tensor]:
    """Root mean square of a perturbation's Fourier coefficients in rings of equal frequency.

    The transform is orthonormal (Parseval): white noise of standard deviation σ has σ in every ring.
    delta: 3×H×W. rings: their number, fewer for small images. Returns frequencies, 0 … √½ cycles per pixel at
    the rings' middles, and amplitudes in delta's units; nan for an empty ring.
    Raises ValueError for another shape.
    """
    if delta.ndim != 3 or delta.numel() == 0:
        raise ValueError(f"delta must be 3×H×W, got {tuple(delta.shape)}; give the images one by one")
    height, width = delta.shape[-2:]
    rings = max(1, min(check_count(rings, "rings"), max(height, width) // 2))
    # MKL's transform writes past the end of some other layouts (github.com/pytorch/pytorch/issues/71321).
    delta = delta.detach().cpu().double().contiguous()
    power = torch.fft.fft2(delta, norm="ortho").abs().square().mean(0)
    v, u = (torch.fft.fftfreq(side, dtype=torch.float32).abs() for side in (height, width))
    top = 0.5**0.5
    ring = ((v.square()[:, None] + u.square()).sqrt() / top * rings).long().clamp_max(rings - 1).flatten()
    total = torch.zeros(rings, dtype=power.dtype).index_add_(0, ring, power.flatten())
    frequencies = (torch.arange(rings, dtype=torch.float32) + 0.5) / rings * top
    return frequencies, (total / torch.bincount(ring, minlength=rings)).sqrt().float()


def compare_photos(x: torch.Tensor, x_protected: torch.Tensor) -> dict[str, float | str]:
    """How visible a change is: largest change (1/255), PSNR (dB), LPIPS and FLIP (0: none).

    x, x_protected: 3×H×W in [0, 1], same shape. A judge that fails gives its reason in place of a number.
    Raises ValueError for other shapes, and for equal photos.
    """
    a, b = check_image(x), check_image(x_protected, "x_protected")
    if a.shape != b.shape:
        sizes = [f"{image.shape[-1]}×{image.shape[-2]}" for image in (a, b)]
        raise ValueError(f"the photos have {sizes[0]} and {sizes[1]} pixels; compare one with its own result")
    if a.equal(b):
        raise ValueError("the photos are equal: there is no change to inspect")
    judge = Judge()
    figures: dict[str, float | str] = {"largest change": ((b - a).abs().max() * LEVELS).item()}
    for name in ("psnr", "lpips", "flip"):
        try:
            figures[name.upper()] = getattr(judge, name)(a, b).item()
        except (ValueError, ModuleNotFoundError) as error:
            figures[name.upper()] = str(error)
    return figures


def survival(
    purify: Callable[[torch.Tensor, int], torch.Tensor],  # (images, seed) → images
    x: torch.Tensor,  # 3×H×W or N×3×H×W in [0, 1]
    x_protected: torch.Tensor,  # of the same shape
    seed: int = 0,
) -> torch.Tensor:
    """‖Pure(x+δ) − Pure(x)‖₂ / ‖δ‖₂ per image, (N,), with the same noise in both.  0: nothing is left.

    Raises ValueError if the shapes differ or an image isn't perturbed at all.

    >>> survival(lambda images, seed: gridpure(ddpm, images, seed=seed), x, x_protected)
    """
    seed = check_seed(seed)
    clean, protected = check_image(x), check_image(x_protected, "x_protected")
    if clean.shape != protected.shape:
        raise ValueError(f"x and x_protected must have one shape, got {x.shape} and {x_protected.shape}")
    delta = (protected - clean).flatten(1).norm(dim=1)
    if (delta == 0).any():
        raise ValueError("x_protected equals x in at least one image: there is nothing that could survive")
    change = purify(protected, seed) - purify(clean, seed)
    return change.flatten(1).norm(dim=1) / delta
