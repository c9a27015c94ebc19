"""Networks as the library runs them: views that share a model's weights, so the model never changes."""

import copy
from typing import TYPE_CHECKING

import torch

from .allocator import keep_freed_memory

if TYPE_CHECKING:
    from diffusers import DDPMPipeline, StableDiffusionPipeline


def view(model: torch.nn.Module, channels_last: bool = False) -> torch.nn.Module:
    """Another module with the same weights, none of which asks for a gradient.

    A run switches gradients, memory formats and checkpointing on its own view. Other threads that use the
    model see no change, and an interrupted run leaves nothing behind. Training the model changes the view's
    weights as well, because they are the same memory. A model loaded in `torch.inference_mode()` is copied:
    autograd refuses its weights.

    channels_last: on a CPU, keep convolutions' weights in torch's channels-last order, in memory of the
    view's own. Forward passes are faster that way and backward passes slower, so it is for runs without
    gradients. Results differ in their last bits. On a GPU the order costs time (data/results/speed.md).
    """

    def shared(tensor: torch.Tensor) -> torch.Tensor:
        tensor = tensor.clone() if tensor.is_inference() else tensor.detach()
        if channels_last and tensor.ndim == 4 and tensor.device.type == "cpu":
            tensor = tensor.contiguous(memory_format=torch.channels_last)
        return tensor

    with torch.inference_mode(False):
        replaced = {id(p): torch.nn.Parameter(shared(p), requires_grad=False) for p in model.parameters()}
        replaced |= {id(buffer): shared(buffer) for buffer in model.buffers()}
        seen = copy.deepcopy(model, replaced)
    keep_freed_memory(next(model.parameters()).device, seen)
    return seen


def pipe_view(pipe: "StableDiffusionPipeline") -> "StableDiffusionPipeline":
    """A latent model whose networks are `view`s, with a scheduler of its own (schedulers hold state)."""
    seen = copy.copy(pipe)
    for name in ("vae", "unet", "text_encoder"):
        setattr(seen, name, view(getattr(pipe, name)))
    seen.scheduler = copy.deepcopy(pipe.scheduler)
    return seen


def sample_size(ddpm: "DDPMPipeline") -> int:
    """Side of the square images that the model was trained on, in pixels: the tile size of larger ones."""
    size = ddpm.unet.config.sample_size
    return size if isinstance(size, int) else min(size)


def autocast(pipe: "StableDiffusionPipeline", dtype: torch.dtype | None) -> torch.autocast:
    """torch.autocast on the pipeline's device; for dtype=None only where weights of two precisions meet.

    `lora_steps` with a dtype leaves such a mixture, which is computed in the coarser precision.
    """
    kinds = {p.dtype for p in pipe.unet.parameters()}
    if dtype is None and len(kinds) > 1:
        dtype = min(kinds, key=lambda kind: torch.finfo(kind).bits)
    return torch.autocast(pipe.unet.device.type, dtype=dtype, enabled=dtype is not None)
