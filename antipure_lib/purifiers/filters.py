"""Purifiers without a model: JPEG, blur, resizing. All raise ValueError for values outside their range."""

import io

import torch
from PIL import Image
from torch.nn import functional as F

from ..core.images import check_image, from_pil, to_pil
from ..runtime.checks import check_count, check_number, check_positive


def kept_by_jpeg(x: torch.Tensor, x_protected: torch.Tensor) -> float:
    """Share of a perturbation that `save_image`'s JPEG leaves: ⟨JPEG(x+δ) − JPEG(x), δ⟩ / ⟨δ, δ⟩.

    x, x_protected: 3×H×W in [0, 1]. nan for δ = 0.
    """
    delta = (x_protected - x).double()
    left = (jpeg(x_protected, 95) - jpeg(x, 95)).double()
    return ((left * delta).sum() / delta.square().sum()).item()


def jpeg(x: torch.Tensor, quality: int = 75) -> torch.Tensor:
    """JPEG (ITU-T T.81) and back, the colours at half the resolution (4:2:0). quality: 1 … 95."""
    images, quality = check_image(x), check_quality(quality)
    out = []
    for image in images:
        file = io.BytesIO()
        to_pil(image).save(file, format="JPEG", quality=quality, subsampling="4:2:0")
        out.append(from_pil(Image.open(file)))
    return torch.stack(out).to(x).view_as(x)


def check_quality(quality: int) -> int:
    """The quality as an int. Raises ValueError for one outside 1 … 95."""
    return check_count(quality, "quality", 1, 95)


def gaussian_blur(x: torch.Tensor, sigma: float = 1.0) -> torch.Tensor:
    """Gaussian blur with mirrored borders. sigma: in pixels; the kernel ends at 4·sigma, within the image."""
    check_positive(sigma=sigma)
    images, sigma = check_image(x), check_number(sigma, "sigma")
    radius = int(4 * sigma + 0.5)
    if radius >= min(images.shape[-2:]):
        raise ValueError(f"sigma must be so small that 4·sigma is less than the image's side, got {sigma}")
    offsets = torch.arange(-radius, radius + 1, device=x.device, dtype=x.dtype)
    kernel = (-0.5 * (offsets / sigma).square()).exp()
    kernel = (kernel / kernel.sum()).expand(3, 1, 1, -1)
    padded = F.pad(images, [radius] * 4, mode="reflect")
    blurred = F.conv2d(F.conv2d(padded, kernel, groups=3), kernel.mT, groups=3)
    return blurred.clamp(0, 1).view_as(x)


def resize_and_back(x: torch.Tensor, factor: float = 0.5) -> torch.Tensor:
    """Shrink by `factor` (0 < factor ≤ 1) and enlarge to the old size; bicubic, antialiased."""
    images, factor = check_image(x), check_factor(factor)
    size = images.shape[-2:]
    small = [max(1, round(side * factor)) for side in size]
    for target in (small, size):
        images = F.interpolate(images, target, mode="bicubic", antialias=True).clamp(0, 1)
    return images.view_as(x)


def check_factor(factor: float) -> float:
    """The factor as a float. Raises ValueError for one outside (0, 1]."""
    number = check_number(factor, "factor")
    if not 0 < number <= 1:
        raise ValueError(f"factor must be in (0, 1], got {factor}")
    return number
