"""AdverseCleaner: two filters that smooth and keep edges, as a purifier without a model.

(github.com/lllyasviel/AdverseCleaner: OpenCV's bilateral filter 64 times, then its guided filter 4 times.)
Windows end at the image's border, where OpenCV mirrors the image.
"""

import torch
from torch.nn import functional as F

from ..core.images import check_image
from ..runtime.checks import check_count, check_positive


def adversecleaner(x: torch.Tensor, iterations: int = 64) -> torch.Tensor:
    """The bilateral filter `iterations` times, then the guided filter four times, with x as the guide.

    x: 3×H×W or N×3×H×W in [0, 1], any size. Returns x's shape, not rounded to 8 bits. Nothing is random.
    Raises ValueError for iterations that aren't a whole number of at least 1.
    """
    images, iterations = check_image(x), check_count(iterations, "iterations")
    y = images
    for _ in range(iterations):
        y = bilateral_filter(y)
    for _ in range(4):
        y = guided_filter(images, y)
    return y.clamp(0, 1).view_as(x)


def bilateral_filter(
    x: torch.Tensor,  # N×3×H×W in [0, 1]
    radius: int = 2,  # of the window, a disc, in pixels
    sigma_colour: float = 8 / 255,  # σ_c, [0, 1] units
    sigma_space: float = 8.0,  # σ_s, pixels
) -> torch.Tensor:
    """y_p = Σ_q w·x_q / Σ_q w, w = e^{−‖p−q‖²/2σ_s²}·e^{−‖x_p−x_q‖₁²/2σ_c²}.  (Tomasi, Manduchi 1998, eq. 5)

    The distance of two colours is the sum over channels, as in OpenCV.
    Raises ValueError for values outside their range.
    """
    radius = check_count(radius, "radius", 0)
    check_positive(sigma_colour=sigma_colour, sigma_space=sigma_space)
    height, width = x.shape[-2:]
    padded = F.pad(x, [radius] * 4, value=torch.inf)  # infinitely far in colour, so of no weight
    total, weights = torch.zeros_like(x), torch.zeros_like(x[:, :1])
    for i in range(-radius, radius + 1):
        for j in range(-radius, radius + 1):
            if i**2 + j**2 <= radius**2:
                near = padded[..., radius + i :, radius + j :][..., :height, :width]
                colour = (near - x).abs().sum(1, keepdim=True)
                exponent = (i**2 + j**2) / sigma_space**2 + (colour / sigma_colour).square()
                weight = (-0.5 * exponent).exp()
                total += weight * near.nan_to_num(posinf=0)
                weights += weight
    return total / weights


def guided_filter(
    guide: torch.Tensor,  # I: N×3×H×W in [0, 1]
    x: torch.Tensor,  # p: of the same shape
    radius: int = 4,  # of the window, a square, in pixels
    smoothness: float = 16 / 255**2,  # ε: what varies by less than √ε is smoothed; [0, 1] units, squared
) -> torch.Tensor:
    """q = mean(a)ᵀ·I + mean(b), where aᵀ·I + b fits p in every window.  (He et al., ECCV 2010, eq. 14 to 16)

    a = (Σ + ε·1)⁻¹·cov(I, p), Σ = cov(I, I) of the three channels; b = mean(p) − aᵀ·mean(I).
    Raises ValueError for values outside their range.
    """
    radius = check_count(radius, "radius", 0)
    check_positive(smoothness=smoothness)

    def mean(z):  # over windows, of N×…×H×W
        side = 2 * radius + 1
        return F.avg_pool2d(z.flatten(1, -3), side, 1, radius, count_include_pad=False).view_as(z)

    def covariance(p):  # of the guide's channels with p's, N×H×W×3×3
        found = mean(guide[:, :, None] * p[:, None]) - mean(guide)[:, :, None] * mean(p)[:, None]
        return found.permute(0, 3, 4, 1, 2)

    ridge = float(smoothness) * torch.eye(3, dtype=x.dtype, device=x.device)
    a = torch.linalg.solve(covariance(guide) + ridge, covariance(x)).permute(0, 3, 4, 1, 2)
    b = mean(x) - (a * mean(guide)[:, :, None]).sum(1)
    return (mean(a) * guide[:, :, None]).sum(1) + mean(b)
