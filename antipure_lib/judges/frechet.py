"""A Fréchet distance between sets of images, in features that this project neither trains nor attacks."""

import math

import torch

from ..core.images import check_image
from .lpips import MIN_SIDE, lpips_network


def frechet(images: torch.Tensor, reference: torch.Tensor) -> float:
    """Fréchet distance between two sets of images in features of AlexNet; 0 for equal sets, higher is worse.

    FID (Heusel et al. 2017, arXiv 1706.08500) has Inception's 2048 features; these are the 256 of
    `alexnet_features`. Compare only sets of one image size and of equal numbers of images. With few images
    the distance is too large: two sets of real images show the value of "no difference".
    images, reference: N×3×H×W and M×3×H×W in [0, 1], N, M ≥ 2, of one size.
    Raises ValueError for values outside their range.
    """
    images, reference = check_image(images, "images"), check_image(reference, "reference")
    if images.shape[1:] != reference.shape[1:]:
        sizes = " and ".join(str(tuple(x.shape[-2:])) for x in (images, reference))
        raise ValueError(f"images and reference must be of one size, got {sizes}; resize one of them")
    return frechet_distance(alexnet_features(images), alexnet_features(reference))


def frechet_distance(features_a: torch.Tensor, features_b: torch.Tensor) -> float:
    """‖μ_a − μ_b‖² + tr(Σ_a + Σ_b − 2·(Σ_a·Σ_b)^½), of two samples' means and covariances.

    With Σ = AᵀA, A the centred features over √(n−1), the root's trace is the sum of the singular values of
    A·Bᵀ. That holds without full rank as well.  (Dowson & Landau 1982; arXiv 1706.08500, eq. 6)
    features_a, features_b: N×D and M×D, N, M ≥ 2, finite.
    Raises ValueError for values outside their range.
    """
    a, b = (_features(f, name) for f, name in ((features_a, "features_a"), (features_b, "features_b")))
    if a.shape[1] != b.shape[1]:
        raise ValueError(f"features_a and features_b must have one length, got {a.shape[1]} and {b.shape[1]}")
    (mean_a, a), (mean_b, b) = (_centre(f) for f in (a, b))
    overlap = torch.linalg.svdvals(a @ b.T).sum()
    distance = (mean_a - mean_b).square().sum() + a.square().sum() + b.square().sum() - 2 * overlap
    return max(0.0, distance.item())  # rounding can leave −1e-16


def _features(f, name):
    if f.ndim != 2 or len(f) < 2:
        raise ValueError(f"{name} must be N×D with at least two rows, got {tuple(f.shape)}")
    if not f.isfinite().all():
        raise ValueError(f"{name} holds NaN or infinite values; find out where they come from")
    return f.detach().cpu().double()


def _centre(f):
    """The mean, and a matrix A of at most D rows with AᵀA = covariance."""
    mean = f.mean(0)
    return mean, torch.linalg.qr((f - mean) / math.sqrt(len(f) - 1), mode="r").R


@torch.no_grad()
def alexnet_features(images: torch.Tensor, batch: int = 64) -> torch.Tensor:
    """ImageNet's AlexNet, its last convolution averaged over the picture (from `LPIPS`).  → N×256

    images: N×3×H×W in [0, 1], sides ≥ 31 px. Raises ValueError for values outside their range.
    """
    images = check_image(images, "images")
    if min(images.shape[-2:]) < MIN_SIDE:
        raise ValueError(f"images: AlexNet needs sides of {MIN_SIDE} px, not {tuple(images.shape[-2:])}")
    network = lpips_network().to(images.device)
    return torch.cat([network.features(part.float())[-1].mean((2, 3)) for part in images.split(batch)])
