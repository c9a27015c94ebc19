"""A learner that adapts its autoencoder to the photos before LoRA, and purifies nothing.

Protections of a latent model move the encoder's latents away from what the decoder undoes. A low-rank change
of the autoencoder, fitted to reconstruct the protected photos, takes part of that back. (The idea is CAT's,
arXiv 2502.07225; losses and adapter here are this project's own.)
"""

from collections.abc import Iterator

import torch

from ..core.images import to_model
from ..runtime.checks import check_counts, check_number, check_positive, check_seed
from ..runtime.pipelines import StableDiffusionPipeline
from .latent_diffusion import check_size, working_copy
from .lora import add_lora, lora_steps
from .training import CustomizeState

LAYERS = ("conv_in", "conv1", "conv2", "conv_shortcut", "conv_out", "quant_conv", "post_quant_conv")


def adapted_lora_steps(
    pipe: StableDiffusionPipeline,
    images: torch.Tensor,  # the subject's photos, at the model's size, [0, 1]
    fit_steps: int = 40,  # of the autoencoder
    fit_lr: float = 1e-3,
    fit_rank: int = 8,
    seed: int = 0,
    **options,  # every further argument of `lora_steps`
) -> Iterator[CustomizeState]:
    """Fit the autoencoder to the photos, then LoRA on its new latents; one state per step of both.

    Minimises ‖D(E(x)) − x‖² over A and B of W' = W + B·A in every convolution of E and D (arXiv 2106.09685,
    eq. 3). E(x) is the posterior's mean. The first states have the one loss "autoencoder".
    Raises ValueError for values outside their range, and as `lora_steps`.
    """
    check_counts(fit_steps=fit_steps, fit_rank=fit_rank)
    check_positive(fit_lr=check_number(fit_lr, "fit_lr"))
    seed, images = check_seed(seed), check_size(pipe, images, "images")
    adapted = working_copy(pipe)
    learning = lora_steps(adapted, images, seed=seed, **options)  # refuses bad options before the work

    def run() -> Iterator[CustomizeState]:
        losses = fit_autoencoder(adapted.vae, images, fit_steps, fit_lr, fit_rank, seed)
        for number, loss in enumerate(losses, 1):
            yield CustomizeState(number, loss, {"autoencoder": loss}, adapted)
        for state in learning:
            yield state._replace(step=state.step + fit_steps)

    return run()


def fit_autoencoder(
    vae: torch.nn.Module, images: torch.Tensor, steps: int, lr: float, rank: int, seed: int
) -> Iterator[torch.Tensor]:
    """Train a new adapter of the autoencoder to reconstruct images, N×3×H×W in [0, 1]; yields each loss."""
    add_lora(vae, rank, LAYERS, seed)
    learned = [parameter for parameter in vae.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(learned, lr=lr, weight_decay=0.0)
    x = to_model(images.to(vae.device))
    for _ in range(steps):
        with torch.enable_grad():
            loss = (vae.decode(vae.encode(x).latent_dist.mean).sample - x).square().mean()
            loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        yield loss.detach()
    vae.requires_grad_(False)
