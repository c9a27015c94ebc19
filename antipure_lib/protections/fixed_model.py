"""What AdvDM, PhotoGuard and Mist share: checks, the prompt's embedding, a target's latent."""

from collections.abc import Callable

import torch

from ..customization.latent_diffusion import check_size, latents, text_embeddings
from ..runtime.checks import check_counts


def _check(pipe, x, **counts) -> torch.Tensor:
    check_counts(**counts)
    images = check_size(pipe, x, "x")
    if torch.finfo(pipe.unet.dtype).bits < 32:
        kind = str(pipe.unet.dtype).removeprefix("torch.")
        raise ValueError(f"pipe computes in {kind}, too coarse for gradients; load it in torch.float32")
    return images.to(pipe.unet.device)


@torch.no_grad()
def _embed(pipe, prompt) -> Callable[[], torch.Tensor]:
    """The prompt's embedding of a model that stays as it is: computed once."""
    embedding = text_embeddings(pipe, [prompt])()
    return lambda: embedding


def _target(pipe, images, target) -> torch.Tensor:
    target = check_size(pipe, target, "target")
    if len(target) not in (1, len(images)):
        raise ValueError(f"target must be one image or one for each of x's {len(images)}, got {len(target)}")
    mean, _ = latents(pipe, target, batch=len(target))
    return mean
