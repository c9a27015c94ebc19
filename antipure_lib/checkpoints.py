"""Models by name. `nano` comes with the package; a local folder in diffusers' format works the same way."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from .data import data_path
from .devices import pick_device, pick_dtype

if TYPE_CHECKING:
    from diffusers import DDPMPipeline, StableDiffusionPipeline

DDPM = {"nano": ("models", "ddpm")}
STABLE_DIFFUSION = {"nano": ("models", "sd")}


def load_ddpm(
    name: str = "nano",
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
) -> "DDPMPipeline":
    """A pixel-space diffusion model, the purifier, as a `diffusers.DDPMPipeline` in evaluation mode.

    name: "nano", or a local folder written by `save_pretrained`. device: None chooses (see `pick_device`).
    dtype: None takes the device's fastest (see `pick_dtype`), float32 on a CPU.
    Raises ValueError for an unknown name (lists the known ones) or a folder that holds another kind of model.
    """
    from diffusers import DDPMPipeline

    device = pick_device(device)
    folder = _find(name, DDPM)
    with _quiet():
        pipe = DDPMPipeline.from_pretrained(
            folder, torch_dtype=dtype or pick_dtype(device), local_files_only=True
        )
    pipe.set_progress_bar_config(disable=True)
    return pipe.to(device)


def load_stable_diffusion(
    name: str = "nano",
    device: str | torch.device | None = None,
    dtype: torch.dtype = torch.float32,
) -> "StableDiffusionPipeline":
    """A text-to-image latent diffusion model as a `diffusers.StableDiffusionPipeline`, no safety checker.

    name: "nano", or a local folder written by `save_pretrained`. device: None chooses (see `pick_device`).
    dtype: float32 by default, because the model is going to be fine-tuned.
    Raises ValueError for an unknown name (lists the known ones) or a folder that holds another kind of model.
    """
    from diffusers import StableDiffusionPipeline

    folder = _find(name, STABLE_DIFFUSION)
    with _quiet():
        pipe = StableDiffusionPipeline.from_pretrained(
            folder,
            torch_dtype=dtype,
            local_files_only=True,
            safety_checker=None,
            requires_safety_checker=False,
        )
    pipe.set_progress_bar_config(disable=True)
    return pipe.to(pick_device(device))


def _find(name: str, known: dict[str, tuple[str, ...]]) -> Path:
    if name in known:
        return data_path(*known[name])
    if (Path(name) / "model_index.json").is_file():
        return Path(name)
    raise ValueError(
        f"unknown model '{name}'; the known names are {', '.join(known)}, "
        "or give a local folder that holds a model_index.json"
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """No loading bars: they end up in notebooks' stderr."""
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    switches = [
        logging for logging in (diffusers_logging, transformers_logging) if logging.is_progress_bar_enabled()
    ]
    for logging in switches:
        logging.disable_progress_bar()
    try:
        yield
    finally:
        for logging in switches:
            logging.enable_progress_bar()
