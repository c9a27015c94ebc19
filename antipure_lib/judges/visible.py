"""How visible a change is: LPIPS, FLIP, SSIM and PSNR. All raise ValueError where shapes differ."""

import numpy as np
import torch

from ..core.images import check_image
from ..runtime.checks import optional_package
from .lpips import lpips_network


def lpips(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """LPIPS (AlexNet, version 0.1) between pairs of images, ≥ 0, larger is more visible; see `LPIPS`.

    x, y: N×3×H×W in [0, 1], sides ≥ 31 px; nothing is enlarged. Returns (N,) float32 on x's device.
    Raises ValueError for values outside their range.
    """
    x, y = _check_pair(x, y)
    return lpips_network().to(x.device)(x, y)


def ssim(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Structural similarity in [−1, 1], 1 for equal images (Wang et al. 2004, Gaussian window, σ 1.5).

    x, y: N×3×H×W in [0, 1], sides ≥ 11 px. Returns (N,) float32, the mean over the channels.
    """
    metrics = optional_package("skimage.metrics", "pip install scikit-image")
    x, y = _check_pair(x, y)
    if min(x.shape[-2:]) < 11:
        raise ValueError(f"x: SSIM needs sides of at least 11 px, not {tuple(x.shape[-2:])}; enlarge it")
    options = {"channel_axis": -1, "data_range": 1.0, "use_sample_covariance": False}
    options |= {"gaussian_weights": True, "sigma": 1.5}
    return _per_image(lambda a, b: metrics.structural_similarity(a, b, **options), x, y)


def psnr(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """PSNR −10 log₁₀ mean (x−y)² in dB, (N,); inf for equal images.  x, y: N×3×H×W in [0, 1]."""
    x, y = _check_pair(x, y)
    return -10 * (x - y).square().mean(dim=(1, 2, 3)).log10()


def flip(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Mean FLIP error in [0, 1] of test images y against references x (Andersson et al. 2020, LDR).

    x, y: N×3×H×W sRGB in [0, 1], seen at 67 pixels per degree. Returns (N,) float32.
    """
    flip = optional_package("flip_evaluator", "pip install flip-evaluator")
    x, y = _check_pair(x, y)
    return _per_image(lambda a, b: flip.evaluate(a, b, "LDR", applyMagma=False)[1], x, y)


def _check_pair(x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    x, y = check_image(x, "x"), check_image(y, "y")
    if x.shape != y.shape:
        raise ValueError(f"y: its shape {tuple(y.shape)} is not x's {tuple(x.shape)}; compare image by image")
    return x.float(), y.float().to(x.device)  # native code and networks take float32 alone


def _per_image(metric, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    a, b = (np.ascontiguousarray(z.detach().permute(0, 2, 3, 1).cpu().numpy()) for z in (x, y))
    found = [float(metric(a_i, b_i)) for a_i, b_i in zip(a, b, strict=True)]
    return torch.tensor(found, dtype=torch.float32)
