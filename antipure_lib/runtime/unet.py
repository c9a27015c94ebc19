"""Networks as the library runs them: views that share a model's weights, so the model never changes."""

import copy
import threading
from collections import OrderedDict

import torch

from .allocator import keep_freed_memory
from .pipelines import DDPMPipeline, StableDiffusionPipeline

TOKENIZING = threading.Lock()  # two threads can't use one tokenizer at a time ("Already borrowed")


def view(model: torch.nn.Module, channels_last: bool = False) -> torch.nn.Module:
    """A second module with the same weights, in evaluation mode; no weight asks for a gradient.

    A run switches checkpointing and the like on its own view, so other threads see no change. Training the
    model changes the view as well. Weights made in `torch.inference_mode()` are copied, for autograd's sake.

    channels_last: on a CPU, copy convolutions' weights into torch's channels-last order. Forward passes are
    faster, backward passes slower, and last bits differ. On a GPU it costs time (data/results/speed.md).
    """
    tensors: dict[int, torch.Tensor] = {}  # a weight that two layers share stays shared

    def same(tensor: torch.Tensor) -> torch.Tensor:
        if id(tensor) not in tensors:
            shared = tensor.clone() if tensor.is_inference() else tensor.detach()
            if channels_last and shared.ndim == 4 and shared.device.type == "cpu":
                shared = shared.contiguous(memory_format=torch.channels_last)
            weight = isinstance(tensor, torch.nn.Parameter)
            tensors[id(tensor)] = torch.nn.Parameter(shared, requires_grad=False) if weight else shared
        return tensors[id(tensor)]

    def copied(module: torch.nn.Module) -> torch.nn.Module:
        new = module.__new__(type(module))
        hooks = (dict, OrderedDict)  # a hook on the view is none on the model
        new.__dict__ = {k: v.copy() if type(v) in hooks else v for k, v in module.__dict__.items()}
        new._parameters = {key: p if p is None else same(p) for key, p in module._parameters.items()}
        new._buffers = {key: b if b is None else same(b) for key, b in module._buffers.items()}
        new._modules = {key: m if m is None else copied(m) for key, m in module._modules.items()}
        new.training = False
        return new

    with torch.inference_mode(False):
        seen = copied(model)
    keep_freed_memory(next((t.device for t in tensors.values()), torch.device("cpu")), seen)
    return seen


def pipe_view(pipe: StableDiffusionPipeline) -> StableDiffusionPipeline:
    """A latent model whose networks are `view`s. It has its own scheduler and tokenizer: both hold state."""
    seen = copy.copy(pipe)
    with TOKENIZING:
        seen.tokenizer = copy.deepcopy(pipe.tokenizer)
    for name in ("vae", "unet", "text_encoder"):
        setattr(seen, name, view(getattr(pipe, name)))
    seen.scheduler = copy.deepcopy(pipe.scheduler)
    return seen


def sample_size(ddpm: DDPMPipeline) -> int:
    """Side of the square images that the model was trained on, in pixels: the tile size of larger ones."""
    size = ddpm.unet.config.sample_size
    return size if isinstance(size, int) else min(size)


def autocast(pipe: StableDiffusionPipeline, dtype: torch.dtype | None) -> torch.autocast:
    """torch.autocast on the pipeline's device; for dtype=None only where weights of two precisions meet.

    `lora_steps` with a dtype leaves such a mixture, which is computed in the coarser precision.
    """
    kinds = {p.dtype for p in pipe.unet.parameters()}
    if dtype is None and len(kinds) > 1:
        dtype = min(kinds, key=lambda kind: torch.finfo(kind).bits)
    return torch.autocast(pipe.unet.device.type, dtype=dtype, enabled=dtype not in (None, torch.float32))
