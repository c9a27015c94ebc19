"""AdvDM: raise a fixed latent model's own training loss.  (Liang et al. 2023, arXiv 2302.04578)

In every latent attack here, ‖·‖² is a mean over channels and pixels, one value per image.
Authors often give budgets in [−1, 1], where the same number is half as much as here, in [0, 1].
"""

from collections.abc import Callable, Iterator

import torch

from ..core.pgd import Loss, PGDState, pgd
from ..customization import latent_diffusion as latent
from ..runtime.checks import check_counts
from ..runtime.pipelines import StableDiffusionPipeline
from ..runtime.unet import pipe_view


def advdm_steps(
    pipe: StableDiffusionPipeline,
    x: torch.Tensor,  # 3×H×W or N×3×H×W in [0, 1], of the model's size
    eta: float = 16 / 255,  # budget in (0, 1], [0, 1] units
    steps: int = 100,
    step_size: float = 1 / 255,  # [0, 1] units
    seed: int = 0,
    prompt: str = latent.PROMPT,  # c
    momentum: float = 0.0,
    noise_samples: int = 1,  # draws of (t, ε) averaged in each step
    random_start: bool = False,
) -> Iterator[PGDState]:
    """AdvDM: maximise E_{t,ε} ‖ε_θ(z_t,t,c) − ε‖², z ~ q(z|x+δ), t ~ U{0 … T−1}.  (arXiv 2302.04578, eq. 7)

    This is the model's own training loss, so a model that predicts v is attacked in v. Term: "loss".
    Raises ValueError for values outside their range, and for a model in half precision.
    """
    images = latent.check_float32(pipe, x)
    check_counts(noise_samples=noise_samples)
    pipe = pipe_view(pipe)
    loss = advdm_loss(pipe, latent.text_embeddings(pipe, [prompt]), noise_samples)
    return pgd(loss, images, eta, steps, step_size, seed, momentum=momentum, random_start=random_start)


def advdm_loss(
    pipe: StableDiffusionPipeline, embedding: Callable[[], torch.Tensor], noise_samples: int = 1
) -> Loss:
    """AdvDM's loss for `pgd`; embedding: see `text_embeddings`.  (arXiv 2302.04578, eq. 7)"""

    def loss(x_adv, generator):
        z0 = latent.sample_latents(pipe, x_adv, generator)
        return latent.denoising_term(pipe, z0, embedding(), generator, noise_samples)

    return loss
