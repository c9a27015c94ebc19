"""Judges of generated images that need no original: a Fréchet distance between sets, BRISQUE per image.

Neither learns from this project's images, and no attack sees them.
"""

import math
from collections.abc import Callable
from functools import cache

import torch
from torch.nn import functional as F

from .data import data_path
from .images import check_image
from .lpips import LPIPS, MIN_SIDE

GREY = (0.299, 0.587, 0.114)  # BT.601, as in BRISQUE's releases
BRISQUE_SIDE = 32  # half of it, the second scale, still holds a few windows of 7 pixels
SHAPES = torch.arange(200, 10_001, dtype=torch.float64) / 1000  # generalised Gaussians' α that are tried


def frechet(
    images: torch.Tensor,
    reference: torch.Tensor,
    network: str | Callable[[torch.Tensor], torch.Tensor] = "lpips-alexnet",
) -> float:
    """Fréchet distance between two sets of images in features of AlexNet; 0 for equal sets, higher is worse.

    It isn't FID: that uses Inception's 2048 features at 299 px, these are 256 means of AlexNet's last
    convolution (`alexnet_features`), and the figures can't be compared. Compare only sets of one image size
    and of equal numbers of images. With few images the distance is too large: n images span n−1 of 256
    directions, two sets span different ones, and those count in full. What "no difference" measures is the
    distance between two sets of real images of these numbers.

    images, reference: N×3×H×W and M×3×H×W in [0, 1], at least two of each. network: "lpips-alexnet", or a
    function from such images to N×D features. Raises ValueError for bad images, sizes or an unknown network.
    """
    if network == "lpips-alexnet":
        network = alexnet_features
    elif not callable(network):
        raise ValueError(f"network must be 'lpips-alexnet' or a function to features, got {network!r}")
    images, reference = check_image(images, "images"), check_image(reference, "reference")
    if images.shape[1:] != reference.shape[1:]:
        raise ValueError(
            f"images and reference must be of one size, got {tuple(images.shape[-2:])} and "
            f"{tuple(reference.shape[-2:])}; resize one of them"
        )
    return frechet_distance(network(images), network(reference))


def frechet_distance(features_a: torch.Tensor, features_b: torch.Tensor) -> float:
    """‖μ_a − μ_b‖² + tr(Σ_a + Σ_b − 2·(Σ_a·Σ_b)^½), of two samples' means and covariances.

    The squared 2-Wasserstein distance of the Gaussians (Dowson & Landau 1982; FID: Heusel et al. 2017,
    arXiv 1706.08500, eq. 6). With Σ = AᵀA, A the centred features over √(n−1), the trace of the root is the
    sum of the singular values of A·Bᵀ: exact also where Σ lacks full rank, without the root of a matrix.

    features: N×D and M×D, N, M ≥ 2. Computed in float64. Raises ValueError for other shapes, NaN, infinity.
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
    """The mean, and a matrix A of no more than D rows with AᵀA = covariance."""
    mean = f.mean(0)
    return mean, torch.linalg.qr((f - mean) / math.sqrt(len(f) - 1), mode="r").R


@torch.no_grad()
def alexnet_features(images: torch.Tensor, batch: int = 64) -> torch.Tensor:
    """AlexNet's last convolution, averaged over the picture: N×3×H×W in [0, 1] → N×256.

    The trunk is ImageNet's, as it lies in LPIPS (data/judges). Raises ValueError for a side under 31 px.
    """
    images = check_image(images, "images")
    if min(images.shape[-2:]) < MIN_SIDE:
        raise ValueError(f"images: AlexNet needs sides of {MIN_SIDE} px, not {tuple(images.shape[-2:])}")
    network = _alexnet().to(images.device)
    return torch.cat([network.features(part.float())[-1].mean((2, 3)) for part in images.split(batch)])


@cache
def _alexnet() -> LPIPS:
    return LPIPS()


@torch.no_grad()
def brisque(images: torch.Tensor) -> torch.Tensor:
    """BRISQUE of every image: how unnatural its noise, blur or blocks look. About 0 … 100, higher is worse.

    (Mittal, Moorthy & Bovik, IEEE TIP 2012.) A support vector regression on `brisque_features`,
    Σ_k w_k·exp(−γ‖f − v_k‖²) − ρ with f scaled to −1 … 1, by the authors' own model: it learned people's
    scores of LIVE's distorted photos of some 500 × 750 px. So at 64 px it is a relative figure: compare it
    with that of clean pictures of the same size. The model is data/judges/brisque.safetensors;
    data/judges/README.md tells where it comes from.

    images: 3×H×W or N×3×H×W in [0, 1], sides ≥ 32 px. Returns (N,) float32 on the CPU, NaN for an image of
    one colour, which has no statistics. Raises ValueError for bad images, FileNotFoundError without the
    model.
    """
    svm = _svm()
    features = 2 * (brisque_features(images) - svm["low"]) / (svm["high"] - svm["low"]) - 1
    squared = (features[:, None] - svm["vectors"]).square().sum(-1)
    return ((-svm["gamma"] * squared).exp() @ svm["weights"] - svm["rho"]).float()


def brisque_features(images: torch.Tensor) -> torch.Tensor:
    """The 36 natural scene statistics of BRISQUE: N×3×H×W in [0, 1] → N×36 float64, on the CPU.

    At full and at half size: Î = (I − μ)/(σ + 1/255) with local μ, σ of a 7×7 Gaussian (eq. 1-3); then
    (α, (σ_l² + σ_r²)/2) of Î, and (α, η, σ_l², σ_r²) of the products of neighbours, horizontal, vertical and
    on both diagonals: see `fit_aggd`. Borders are mirrored and half size is bicubic without antialiasing, as
    OpenCV does it in the authors' C++ release; the package `brisque` pads with zeros instead.
    """
    images = check_image(images, "images").detach().cpu().double()
    if min(images.shape[-2:]) < BRISQUE_SIDE:
        raise ValueError(f"images: BRISQUE needs sides of {BRISQUE_SIDE} px, not {tuple(images.shape[-2:])}")
    grey = (images * torch.tensor(GREY, dtype=torch.float64).view(3, 1, 1)).sum(1, keepdim=True)
    half = F.interpolate(grey, scale_factor=0.5, mode="bicubic", recompute_scale_factor=True)
    features = torch.cat([_scale_features(grey), _scale_features(half)], dim=1)
    flat = grey.amax((1, 2, 3)) == grey.amin((1, 2, 3))
    return features.masked_fill(flat[:, None], torch.nan)


def _scale_features(grey):
    offsets = torch.arange(-3, 4, dtype=torch.float64)
    kernel = (-0.5 * (offsets / (7 / 6)).square()).exp()
    kernel = torch.outer(kernel, kernel)[None, None] / kernel.sum() ** 2

    def local_mean(x):
        return F.conv2d(F.pad(x, [3] * 4, mode="reflect"), kernel)

    mean = local_mean(grey)
    deviation = (local_mean(grey.square()) - mean.square()).clamp_min(0).sqrt()
    y = ((grey - mean) / (deviation + 1 / 255))[:, 0]
    alpha, _, left, right = fit_aggd(y)
    features = [alpha, (left + right) / 2]
    for a, b in (
        (y[:, :, :-1], y[:, :, 1:]),
        (y[:, :-1], y[:, 1:]),
        (y[:, :-1, :-1], y[:, 1:, 1:]),
        (y[:, 1:, :-1], y[:, :-1, 1:]),
    ):
        features += fit_aggd(a * b)
    return torch.stack(features, dim=1)


def fit_aggd(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Fit an asymmetric generalised Gaussian by its moments: α, η, σ_l², σ_r² of every row of x, N×….

    α solves Γ(2/α)²/(Γ(1/α)·Γ(3/α)) = R̂ (Lasmar et al. 2009; in BRISQUE's paper after eq. 8), to 0.001 in
    0.2 … 10; η is the distribution's mean; σ_l², σ_r² the mean squares of the negative and positive values.
    """
    x = x.flatten(1).double()
    left, right = ((x.square() * side).sum(1) / side.sum(1) for side in ((x < 0).double(), (x > 0).double()))
    g = (left / right).sqrt()
    r = x.abs().mean(1).square() / x.square().mean(1)
    r = r * (g**3 + 1) * (g + 1) / (g**2 + 1).square()
    ratio = (2 * (2 / SHAPES).lgamma() - (1 / SHAPES).lgamma() - (3 / SHAPES).lgamma()).exp()
    index = (ratio - r[:, None]).abs().argmin(1)
    alpha = SHAPES[index]
    return alpha, (right.sqrt() - left.sqrt()) * ratio[index].sqrt(), left, right


@cache
def _svm() -> dict[str, torch.Tensor]:
    """low, high (36,): the features' bounds; gamma, rho; weights (K,); vectors K×36. In float64."""
    from safetensors.torch import load_file

    model = load_file(data_path("judges", "brisque.safetensors"))
    return {name: tensor.double() for name, tensor in model.items()}
