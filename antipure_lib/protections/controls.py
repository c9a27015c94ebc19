"""Controls that every protection is compared with: the photos as they are, random signs."""

from collections.abc import Iterator

import torch

from ..core.images import check_image
from ..core.pgd import PGDState, pgd
from ..runtime.noise import randint


def none_steps(x: torch.Tensor, **_) -> Iterator[PGDState]:
    """The photos as they are, for comparison; one state, step 0.  x: 3×H×W or N×3×H×W in [0, 1]."""
    return iter([PGDState(0, check_image(x).detach(), {}, {})])


def random_steps(
    x: torch.Tensor,
    eta: float = 16 / 255,  # budget, [0, 1] units
    steps: int = 100,
    step_size: float | None = None,  # [0, 1] units; None: η, so that the first step spends the whole budget
    seed: int = 0,
) -> Iterator[PGDState]:
    """x ± η with a random sign for each number: the control for every other protection.

    Of all perturbations within the budget these are the largest, and they know of no model. As a loss: the
    projection on random signs. x: 3×H×W or N×3×H×W in [0, 1]. States: see `PGDState`. Errors as in `pgd`.
    """
    images = check_image(x)
    generator = torch.Generator().manual_seed(seed)
    signs = 2 * randint(0, 2, images.shape, generator, images.device).to(images.dtype) - 1
    step_size = eta if step_size is None else step_size
    return pgd(lambda x_adv, _: (signs * x_adv).mean((1, 2, 3)), images, eta, steps, step_size, seed)
