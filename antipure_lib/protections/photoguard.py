"""PhotoGuard's encoder attack.  (Salman et al. 2023, arXiv 2302.06588)"""

from collections.abc import Iterator

import torch

from ..core.pgd import PGDState, pgd
from ..customization.latent_diffusion import check_float32, latents, posterior
from ..runtime.pipelines import StableDiffusionPipeline
from ..runtime.unet import pipe_view


def photoguard_steps(
    pipe: StableDiffusionPipeline,
    x: torch.Tensor,  # 3×H×W or N×3×H×W in [0, 1], of the model's size
    eta: float = 16 / 255,  # budget in (0, 1], [0, 1] units
    steps: int = 100,
    step_size: float = 1 / 255,  # [0, 1] units
    seed: int = 0,  # only a random start needs it
    momentum: float = 0.0,
    random_start: bool = False,
) -> Iterator[PGDState]:
    """PhotoGuard's encoder attack: minimise ‖E(x+δ) − E(grey)‖², E the mean latent.  (arXiv 2302.06588)

    Mid-grey is the paper's own example of a target (section 4.1). Term: "loss" = −‖·‖².
    Raises ValueError for values outside their range, and for a model in half precision.
    """
    images = check_float32(pipe, x)
    pipe = pipe_view(pipe)
    z_grey, _ = latents(pipe, torch.full_like(images[:1], 0.5), batch=1)

    def loss(x_adv, generator):
        mean, _ = posterior(pipe, x_adv)
        return -(mean - z_grey).square().mean((1, 2, 3))

    return pgd(loss, images, eta, steps, step_size, seed, momentum=momentum, random_start=random_start)
