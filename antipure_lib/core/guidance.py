"""The three terms of AntiPure, each one value per image, to be maximised.  (ICCV 2025, arXiv 2509.13922)

total = E_{ε,t}[ L_ddpm + λ1·e^{ᾱ_t−1}·L_fre + λ2·e^{L_err} ]

‖·‖² is the mean over channels and pixels: the paper doesn't say, but a sum would make e^{−‖·‖²} vanish.
"""

import math
from functools import lru_cache

import torch

from ..runtime.checks import check_count


def denoising_loss(eps_pred: torch.Tensor, eps: torch.Tensor) -> torch.Tensor:
    """L_ddpm = ‖ε_θ(x_t,t) − ε‖², the loss the model was trained with.  N×C×H×W twice → (N,)."""
    return _mean_square(eps_pred - eps)


def patch_frequency_guidance(x0_hat: torch.Tensor, patch: int = 8, absolute: bool = False) -> torch.Tensor:
    """PFG: L_fre = σ( mean_P (4/s²)·Σ_{m,n=s/2}^{s−1} PatchDCT(x̂0, s)_{m,n} ).

    The bottom-right quarter of every patch's DCT: its highest frequencies. Signed (the default), its gradient
    with respect to x̂0 is one fixed s×s kernel tiled over the image.
    absolute=True sums |DCT| instead; the paper doesn't say which.

    x0_hat: N×C×H×W in [−1, 1]. patch: s, even, divides H and W. Returns (N,) in (0, 1).
    Raises ValueError for an odd patch or one that doesn't divide the image.
    """
    patch = check_count(patch, "patch")
    if patch % 2:
        raise ValueError(f"patch must be even to have a high-frequency quarter, got {patch}")
    high = patch_dct(x0_hat, patch)[..., patch // 2 :, patch // 2 :]
    if absolute:
        high = high.abs()
    return high.mean((1, 2, 3, 4, 5)).sigmoid()  # a quarter has s²/4 coefficients: (4/s²)·Σ is their mean


def erroneous_timestep_guidance(eps_wrong: torch.Tensor, eps_right: torch.Tensor) -> torch.Tensor:
    """ETG: e^{L_err} with L_err = −‖ε_θ(x_t,t_err) − ε_θ(x_t,t)‖².

    1 when the model can't tell t from t_err, 0 when it can. The exponential is included: the total adds
    this value, times λ2. eps_wrong, eps_right: N×C×H×W, predictions at t_err and at t. Returns (N,) in (0,
    1].
    """
    return (-_mean_square(eps_wrong - eps_right)).exp()


def patch_dct(x: torch.Tensor, patch: int) -> torch.Tensor:
    """Orthonormal two-dimensional DCT-II of every non-overlapping patch, as one product D·P·Dᵀ.

    x: N×C×H×W. Returns N×C×(H/s)×(W/s)×s×s, frequencies rising to the bottom right.
    Raises ValueError for x without a batch dimension and if the patch doesn't divide the image.
    """
    n, c, h, w = _batch(x).shape
    patch = check_count(patch, "patch")
    if h % patch or w % patch:
        raise ValueError(f"patch={patch} doesn't divide the image's {h}×{w} pixels; choose one that does")
    patches = x.reshape(n, c, h // patch, patch, w // patch, patch).transpose(3, 4)
    d = dct_matrix(patch, x.device, x.dtype)
    return d @ patches @ d.mT


def _mean_square(difference: torch.Tensor) -> torch.Tensor:
    return _batch(difference).square().mean((1, 2, 3))


def _batch(x: torch.Tensor) -> torch.Tensor:
    if x.ndim != 4:
        raise ValueError(f"a batch N×C×H×W is needed, got {tuple(x.shape)}; for one image pass x[None]")
    return x


@lru_cache
@torch.inference_mode(False)
def dct_matrix(
    n: int, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
) -> torch.Tensor:
    """The orthonormal n×n DCT-II: D_{kj} = √(2/n)·cos(π(2j+1)k / 2n), first row divided by √2.

    Cached, so don't write to it. Raises ValueError for an n that isn't a whole number of at least 1.
    """
    n = check_count(n, "n")
    j = torch.arange(n, dtype=torch.float64)
    d = math.sqrt(2 / n) * torch.cos(math.pi / (2 * n) * torch.outer(j, 2 * j + 1))
    d[0] /= math.sqrt(2)
    return d.to(device, dtype)
