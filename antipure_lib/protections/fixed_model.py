"""What AdvDM, PhotoGuard and Mist share: checks, a target's latent."""

import torch

from ..customization.latent_diffusion import check_size, latents
from ..runtime.pipelines import StableDiffusionPipeline


def check_attacked(pipe: StableDiffusionPipeline, x: torch.Tensor) -> torch.Tensor:
    """The images, N×3×H×W on the model's device. Raises as `check_size`, and for half precision."""
    images = check_size(pipe, x, "x")
    if torch.finfo(pipe.unet.dtype).bits < 32:
        kind = str(pipe.unet.dtype).removeprefix("torch.")
        raise ValueError(f"pipe computes in {kind}, too coarse for gradients; load it in torch.float32")
    return images.to(pipe.unet.device)


def target_latent(pipe: StableDiffusionPipeline, images: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """The mean latent of the target, one image or one per image. Raises ValueError for other numbers."""
    target = check_size(pipe, target, "target")
    if len(target) not in (1, len(images)):
        raise ValueError(f"target must be one image or one for each of x's {len(images)}, got {len(target)}")
    return latents(pipe, target, batch=len(target))[0]
