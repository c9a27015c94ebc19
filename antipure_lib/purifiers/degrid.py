"""An abuser who knows AntiPure: PFG puts one pattern into every patch; it is found and subtracted."""

import torch
from torch.nn import functional as F

from ..core.guidance import dct_matrix
from ..core.images import check_image
from ..runtime.checks import check_count
from .filters import gaussian_blur


def degrid(x: torch.Tensor, patch: int = 8) -> torch.Tensor:
    """x − a·G: the grid G of PFG's kernel, at the shift that fits best, with a by least squares per colour.

    G tiles sign(q·qᵀ), q_j = Σ_{k ≥ s/2} D_kj of the DCT D: the sign of signed PFG's gradient (arXiv
    2509.13922). A photo has little fine detail, so a blur is taken away from x and from G before they are
    compared. The shift maximises ⟨h, G⟩/‖G‖ over all s² shifts and all colours together, h = x − blur(x).

    x: 3×H×W or N×3×H×W in [0, 1]; patch: s, even. An image smaller than a patch stays as it is.
    Returns x's shape, not rounded to 8 bits. Raises ValueError for another patch.
    """
    images, patch = check_image(x), check_patch(patch)
    height, width = images.shape[-2:]
    if min(height, width) < patch or min(height, width) < 5:
        return x
    q = dct_matrix(patch, x.device, x.dtype)[patch // 2 :].sum(0)
    sign = torch.outer(q, q).sign()
    shifts = [(i, j) for i in range(patch) for j in range(patch)]
    grids = torch.stack([sign.roll(shift, (0, 1)) for shift in shifts])  # s²×s×s, one period of each
    wide = grids[:, None].expand(-1, 3, -1, -1).tile(1, 1, 3, 3)  # with neighbours, which the blur sees
    fine = 4 * _detail(0.5 + wide / 4)[..., patch : 2 * patch, patch : 2 * patch]
    found, counts = _folded(_detail(images), patch), _folded(torch.ones_like(images[:1]), patch)
    product = torch.einsum("nchw,kchw->nkc", found, fine)
    square = (counts * fine.square()).sum((2, 3))  # k×c: ‖G‖² over the whole image
    best = (product.sum(2) / square.sum(1).sqrt()).argmax(1)
    amount = product[torch.arange(len(images)), best] / square[best]
    rows, columns = -(-height // patch), -(-width // patch)
    grid = grids[best].tile(1, rows, columns)[:, None, :height, :width]
    return (images - amount[:, :, None, None] * grid).clamp(0, 1).view_as(x)


def check_patch(patch: int) -> int:
    """The patch as an int. Raises ValueError for one that isn't an even number of at least 2."""
    number = check_count(patch, "patch", 2)
    if number % 2:
        raise ValueError(f"patch must be even, as PFG's is, got {patch}")
    return number


def _detail(images: torch.Tensor) -> torch.Tensor:
    return images - gaussian_blur(images, 1.0)


def _folded(images: torch.Tensor, patch: int) -> torch.Tensor:
    """The sum over all periods of s×s pixels, N×C×s×s: all that a product with a grid needs."""
    height, width = images.shape[-2:]
    padded = F.pad(images, [0, -width % patch, 0, -height % patch])
    return padded.unflatten(3, (-1, patch)).unflatten(2, (-1, patch)).sum((2, 4))
