"""A latent model's own autoencoder as a purifier.  (Rombach et al., arXiv 2112.10752, section 3.1)"""

import torch
from torch.nn import functional as F

from ..core.images import check_image, from_model, to_model
from ..runtime.checks import check_pipe
from ..runtime.pipelines import StableDiffusionPipeline
from ..runtime.unet import view


@torch.no_grad()
def autoencoder(pipe: StableDiffusionPipeline, x: torch.Tensor) -> torch.Tensor:
    """Encode, take the mean of the posterior, decode: D(E(x)).

    x: 3×H×W or N×3×H×W in [0, 1], any size. Returns x's shape, not rounded to 8 bits. Nothing is random.
    Images larger than the model's go through in diffusers' tiles, whose overlaps are blended.
    Raises TypeError for another model.
    """
    check_pipe(pipe)
    images, vae, side = check_image(x), view(pipe.vae), pipe.vae_scale_factor
    vae.enable_tiling()  # of the view alone; it bounds memory
    height, width = images.shape[-2:]
    padded = F.pad(images, [0, -width % side, 0, -height % side], mode="replicate")
    made = []
    for image in to_model(padded).to(vae.device, vae.dtype).split(1):
        decoded = vae.decode(vae.encode(image).latent_dist.mean).sample
        made.append(from_model(decoded)[..., :height, :width])
    return torch.cat(made).to(x).view_as(x)
