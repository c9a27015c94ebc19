"""LoRA: a low-rank change of the UNet's layers.  (Hu et al. 2022, arXiv 2106.09685)"""

import os
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from ..photos.pictures import atomic
from ..runtime.checks import check_path, check_seed
from ..runtime.noise import randn
from ..runtime.pipelines import StableDiffusionPipeline
from .latent_diffusion import PROMPT, latents, working_copy
from .training import CustomizeState, check_training, last_pipe, train_steps

ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")  # the projections of every attention block, self and cross
# With the convolutions and feed-forward layers, for a UNet with attention at its coarsest level only.
CONVOLUTIONS = ("conv1", "conv2", "conv_shortcut", "proj_in", "proj_out", "ff.net.0.proj", "ff.net.2")
EVERY_LAYER = (*ATTENTION, *CONVOLUTIONS)


def lora_steps(
    pipe: StableDiffusionPipeline,
    images: torch.Tensor,  # the subject's photos, at the model's size, [0, 1]
    prompt: str = PROMPT,
    steps: int = 200,
    lr: float = 7e-3,
    decay: bool = True,  # the learning rate falls to 0 along a cosine; False: constant
    rank: int = 16,
    layers: Sequence[str] = EVERY_LAYER,  # that are changed; ATTENTION: the usual ones of Stable Diffusion
    batch: int = 4,  # photos per step
    seed: int = 0,
    dtype: torch.dtype | None = None,  # autocast to it and keep frozen weights in it; None: float32
    snr_gamma: float | None = 5.0,  # of min-SNR (see `timestep_weights`); None: weight 1 for every timestep
    gradient_checkpointing: bool = False,  # the UNet's: less memory, the same bits, a third more time
) -> Iterator[CustomizeState]:
    """Learn a low-rank change of the UNet's layers; one state per step.

    W' = W + B·A with A rank × in, B out × rank (LoRA eq. 3, α = rank), for every layer whose name ends in one
    of `layers`. AdamW trains A, from N(0, 1/rank²), and B, from zero, on DreamBooth's first term. Adapters of
    the pipeline stay as they are and active. For Stable Diffusion: `FULL_SIZE["lora"]`.

    With a dtype the UNet's frozen convolutions and linear layers are kept in it: autocast would round them at
    every use. A and B stay float32. Use it with `generate`, or load what `save_lora` wrote.
    Same seed, same device: same bits.
    Raises ValueError for values outside their range; RuntimeError for a training that diverged.
    """
    counts, seed = {"steps": steps, "batch": batch, "rank": rank}, check_seed(seed)
    images = check_training(pipe, images, "images", prompt, lr, snr_gamma, **counts)
    check_layers(pipe.unet, layers)

    def run() -> Iterator[CustomizeState]:
        trained = working_copy(pipe)
        trained.unet.requires_grad_(False)
        trained.text_encoder.requires_grad_(False)
        add_lora(trained.unet, rank, layers, seed, dtype)
        if gradient_checkpointing:
            trained.unet.enable_gradient_checkpointing()
        groups = {"instance": (latents(trained, images, batch), prompt)}
        generator = torch.Generator().manual_seed(seed)
        options = {"dtype": dtype, "decay": decay, "snr_gamma": snr_gamma}
        yield from train_steps(trained, groups, {}, steps, lr, batch, generator, **options)

    return run()


def check_layers(unet: torch.nn.Module, layers: Sequence[str]) -> None:
    """Raises ValueError unless each of the names ends that of a linear layer or a convolution of the UNet."""
    if isinstance(layers, str) or not isinstance(layers, Sequence) or not layers:
        raise ValueError(f"layers must be several names, got {layers!r}; one is written ['to_q']")
    kinds = (torch.nn.Linear, torch.nn.Conv2d)  # also within the layers of an adapter that is there
    plain = {key: getattr(module, "base_layer", module) for key, module in unet.named_modules()}
    known = [f".{key}" for key, module in plain.items() if isinstance(module, kinds)]
    for name in layers:
        if not (isinstance(name, str) and any(key.endswith(f".{name}") for key in known)):
            remedy = f"such as {', '.join(ATTENTION)}"
            raise ValueError(f"layers must name linear layers or convolutions, {remedy}; {name!r} is none")


def lora(pipe: StableDiffusionPipeline, images: torch.Tensor, **options) -> StableDiffusionPipeline:
    """A copy of `pipe` with a trained LoRA adapter; arguments and errors are those of `lora_steps`."""
    return last_pipe(lora_steps(pipe, images, **options))


def save_lora(pipe: StableDiffusionPipeline, folder: str | os.PathLike) -> Path:
    """Write the newest adapter of `pipe`, after `lora` the trained one, for diffusers' `load_lora_weights`.

    Returns the file's path; it is written whole or not at all.
    Raises ValueError for a pipeline without an adapter, and for weights that are NaN or infinite.

    >>> save_lora(lora(pipe, photos), "me")
    >>> other.load_lora_weights("me")  # elsewhere, on the unchanged model
    """
    from peft import get_peft_model_state_dict

    adapters = list(getattr(pipe.unet, "peft_config", {}))
    if not adapters:
        raise ValueError("pipe has no LoRA adapter to save; pass what lora() returned")
    # Not through diffusers' convert_state_dict_to_diffusers: it renames attention layers only, and what it
    # doesn't know is lost when the file is read.
    learned = get_peft_model_state_dict(pipe.unet, adapter_name=adapters[-1])
    if not all(value.isfinite().all() for value in learned.values()):
        raise ValueError("pipe's adapter holds NaN or infinite weights; train it again with a lower lr")
    path = check_path(folder) / "pytorch_lora_weights.safetensors"
    with atomic(path) as temporary:
        pipe.save_lora_weights(temporary.parent, unet_lora_layers=learned, weight_name=temporary.name)
    return path


def add_lora(
    model: torch.nn.Module, rank: int, layers: Sequence[str], seed: int = 0, dtype: torch.dtype | None = None
) -> None:
    """Give a network a LoRA adapter, the one thing in it that is trained; see `lora_steps` for dtype.

    Adapters that are active stay so. Fused ones are part of the weights by now, and leave the list.
    """
    from peft import LoraConfig

    if any(getattr(module, "merged", False) for module in model.modules()):
        model.unload_lora()
    known = list(getattr(model, "peft_config", {}))
    off = any(getattr(module, "disable_adapters", False) is True for module in model.modules())
    active = model.active_adapters() if known and not off else []
    name = next(n for n in ("default", *(f"trained_{i}" for i in range(len(known)))) if n not in known)
    # peft draws A from the global generator, which is put back; the draw is replaced by one from `seed`.
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Already found a `peft_config`")  # several adapters are meant
        model.add_adapter(LoraConfig(r=rank, lora_alpha=rank, target_modules=list(layers)), adapter_name=name)
    model.enable_adapters()
    model.set_adapter([*active, name])  # unlike set_adapters this keeps their scales
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            parameter.requires_grad_(f".{name}." in key)
            if f"lora_A.{name}." in key:
                parameter.copy_(randn(parameter.shape, generator, parameter.device) / rank)
    for module in model.modules() if dtype else ():
        # What autocast rounds anyway. Norms stay float32: it computes them so.
        if isinstance(module, torch.nn.Linear | torch.nn.Conv2d) and not module.weight.requires_grad:
            module.to(dtype)
