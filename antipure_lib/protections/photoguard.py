"""PhotoGuard's encoder attack.  (Salman et al. 2023, arXiv 2302.06588)"""

from collections.abc import Iterator

import torch

from ..core.pgd import PGDState, pgd
from ..customization.latent_diffusion import posterior
from ..runtime.checks import check_ascent
from ..runtime.pipelines import StableDiffusionPipeline
from ..runtime.unet import pipe_view
from .fixed_model import check_attacked, target_latent


def photoguard_steps(
    pipe: StableDiffusionPipeline,
    x: torch.Tensor,  # 3×H×W or N×3×H×W in [0, 1], of the model's size
    eta: float = 16 / 255,  # budget in (0, 1], [0, 1] units
    steps: int = 100,
    step_size: float = 1 / 255,  # [0, 1] units
    seed: int = 0,  # only a random start needs it
    target: torch.Tensor | None = None,  # image or one per image of x, [0, 1]; None: mid-grey
    momentum: float = 0.0,
    random_start: bool = False,
) -> Iterator[PGDState]:
    """PhotoGuard's encoder attack: minimise ‖E(x+δ) − E(target)‖², E the mean latent.  (arXiv 2302.06588)

    The grey target is the paper's own example (section 4.1). Term: "loss" = −‖·‖².
    Raises ValueError for values outside their range, and for a model in half precision.
    """
    images = check_attacked(pipe, x)
    check_ascent(eta, steps, step_size, seed, momentum)
    pipe = pipe_view(pipe)
    z_target = target_latent(pipe, images, torch.full_like(images[0], 0.5) if target is None else target)

    def loss(x_adv, generator):
        mean, _ = posterior(pipe, x_adv)
        return -(mean - z_target).square().mean((1, 2, 3))

    return pgd(loss, images, eta, steps, step_size, seed, momentum=momentum, random_start=random_start)
