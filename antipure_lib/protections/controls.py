"""Controls that every protection is compared with: the photos as they are, random signs."""

from collections.abc import Iterator

import torch

from ..core.images import check_image
from ..core.pgd import PGDState
from ..runtime.checks import check_counts, check_eta, check_positive, check_seed
from ..runtime.noise import randint


def none_steps(x: torch.Tensor, **_) -> Iterator[PGDState]:
    """The photos as they are, for comparison; one state, step 0.  x: 3×H×W or N×3×H×W in [0, 1]."""
    return iter([PGDState(0, check_image(x).detach(), {}, {})])


def random_steps(
    x: torch.Tensor,  # 3×H×W or N×3×H×W in [0, 1]
    eta: float = 16 / 255,  # budget in (0, 1], [0, 1] units
    steps: int = 1,  # of no effect, as step_size: one step spends the whole budget
    step_size: float | None = None,
    seed: int = 0,
) -> Iterator[PGDState]:
    """x ± η with random signs, from no model; one state. Raises ValueError for values outside their range."""
    images, eta = check_image(x).detach(), check_eta(eta)
    check_counts(steps=steps)
    check_positive(step_size=step_size)
    generator = torch.Generator().manual_seed(check_seed(seed))
    signs = 2 * randint(0, 2, images.shape, generator, images.device).to(images.dtype) - 1
    return iter([PGDState(1, (images + eta * signs).clamp(0, 1), {}, {})])
