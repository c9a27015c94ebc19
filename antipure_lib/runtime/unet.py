"""A UNet as it is run: frozen, channels-last, its tile size, its precision."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from diffusers import DDPMPipeline, StableDiffusionPipeline


@contextmanager
def frozen(*models: torch.nn.Module) -> Iterator[None]:
    """Inside the block no parameter asks for a gradient, which saves memory; after it all is as before."""
    parameters = [p for model in models for p in model.parameters() if p.requires_grad]
    for p in parameters:
        p.requires_grad_(False)
    try:
        yield
    finally:
        for p in parameters:
            p.requires_grad_(True)


@contextmanager
def channels_last(*models: torch.nn.Module) -> Iterator[None]:
    """Inside the block convolutions' weights lie in torch's channels-last order; after it all is as before.

    Forward passes on a CPU are faster so, the more the larger the images; backward passes are slower. So it
    is for loops without gradients. Results differ in their last bits. Weights on a GPU stay as they are: on
    an H100 the order costs time in both directions (data/results/speed.md).
    """
    weights = [
        p
        for model in models
        for p in model.parameters()
        if p.ndim == 4 and p.device.type == "cpu" and not p.is_contiguous(memory_format=torch.channels_last)
    ]
    for p in weights:
        p.data = p.data.contiguous(memory_format=torch.channels_last)
    try:
        yield
    finally:
        for p in weights:
            p.data = p.data.contiguous()


def sample_size(ddpm: "DDPMPipeline") -> int:
    """Side of the square images that the model was trained on, in pixels: the tile size of larger ones."""
    size = ddpm.unet.config.sample_size
    return size if isinstance(size, int) else min(size)


def autocast(pipe: "StableDiffusionPipeline", dtype: torch.dtype | None) -> torch.autocast:
    """torch.autocast on the pipeline's device; for dtype=None only where weights of two precisions meet.

    That is so after `lora_steps` with a dtype; they are computed with in the coarser one.
    """
    kinds = {p.dtype for p in pipe.unet.parameters()}
    if dtype is None and len(kinds) > 1:
        dtype = min(kinds, key=lambda kind: torch.finfo(kind).bits)
    return torch.autocast(pipe.unet.device.type, dtype=dtype, enabled=dtype is not None)
