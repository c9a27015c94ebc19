"""BRISQUE: how natural one image is.  (Mittal, Moorthy and Bovik, IEEE TIP 2012)"""

from functools import cache

import torch
from safetensors.torch import load_file
from torch.nn import functional as F

from ..core.images import check_image
from ..models.embedded import data_path

GREY = (0.299, 0.587, 0.114)  # BT.601, as in BRISQUE's releases
BRISQUE_SIDE = 32  # half of it, the second scale, still holds a few windows of 7 pixels
SHAPES = torch.arange(200, 10_001, dtype=torch.float64) / 1000  # generalised Gaussians' α that are tried


@torch.no_grad()
def brisque(images: torch.Tensor) -> torch.Tensor:
    """BRISQUE of every image: how unnatural its noise, blur or blocks look. About 0 … 100, higher is worse.

    (IEEE TIP 2012.) A support vector regression, Σ_k w_k·exp(−γ‖f − v_k‖²) − ρ, on `brisque_features` scaled
    to −1 … 1. The authors' own model (data/judges) learned people's scores of photos of some 500 × 750 px.
    So at 64 px compare only with clean pictures of the same size.
    images: 3×H×W or N×3×H×W in [0, 1], sides ≥ 32 px. Returns (N,) float32 on the CPU, NaN for one colour.
    Raises ValueError for values outside their range.
    """
    svm = _svm()
    features = 2 * (brisque_features(images) - svm["low"]) / (svm["high"] - svm["low"]) - 1
    squared = (features[:, None] - svm["vectors"]).square().sum(-1)
    return ((-svm["gamma"] * squared).exp() @ svm["weights"] - svm["rho"]).float()


def brisque_features(images: torch.Tensor) -> torch.Tensor:
    """The 36 natural scene statistics of BRISQUE: N×3×H×W in [0, 1] → N×36 float64, on the CPU.

    (IEEE TIP 2012.) At full and at half size: Î = (I − μ)/(σ + 1/255), μ, σ of a 7×7 Gaussian (eq. 1-3). Then
    `fit_aggd`'s (α, (σ_l² + σ_r²)/2) of Î, and (α, η, σ_l², σ_r²) of products of neighbours in 4 directions.
    As in the authors' C++, borders are mirrored and half size is bicubic without antialiasing.
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
    straight = (y[:, :, :-1], y[:, :, 1:]), (y[:, :-1], y[:, 1:])
    diagonal = (y[:, :-1, :-1], y[:, 1:, 1:]), (y[:, 1:, :-1], y[:, :-1, 1:])
    for a, b in straight + diagonal:
        features += fit_aggd(a * b)
    return torch.stack(features, dim=1)


def fit_aggd(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Fit an asymmetric generalised Gaussian by its moments: α, η, σ_l², σ_r² of every row of x, N×….

    α in 0.2 … 10 solves Γ(2/α)²/(Γ(1/α)·Γ(3/α)) = R̂ to 0.001 (IEEE TIP 2012, after eq. 8). Mean: η.
    Mean squares of negative and positive values: σ_l², σ_r².
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
    model = load_file(data_path("judges", "brisque.safetensors"))
    return {name: tensor.double() for name, tensor in model.items()}
