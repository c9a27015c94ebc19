"""Models by name. `nano` comes with the package; a local folder in diffusers' format works the same way."""

import json
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
    dtype: None takes the device's fastest (see `pick_dtype`).
    Raises ValueError for an unknown name (lists the known ones) or a folder that holds another kind of model.
    """
    from diffusers import DDPMPipeline

    device = pick_device(device)
    return _load(DDPMPipeline, _find(name, DDPM), device, dtype or pick_dtype(device))


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
    with _quiet():  # transformers remarks on optional image processors that nothing here uses
        from diffusers import StableDiffusionPipeline

    folder = _find(name, STABLE_DIFFUSION)
    unchecked = {"safety_checker": None, "requires_safety_checker": False}
    return _load(StableDiffusionPipeline, folder, pick_device(device), dtype, **unchecked)


def _find(name: str, known: dict[str, tuple[str, ...]]) -> Path:
    if name in known:
        return data_path(*known[name])
    if (Path(name) / "model_index.json").is_file():
        return Path(name)
    raise ValueError(
        f"unknown model '{name}'; the known names are {', '.join(known)}, "
        "or give a local folder that holds a model_index.json"
    )


def _load(kind, folder, device, dtype, **options):
    stored = json.loads((folder / "model_index.json").read_text())["_class_name"]
    if stored != kind.__name__:
        raise ValueError(f"{folder} holds a {stored}; this function loads a {kind.__name__}")
    with _quiet():
        # The precision is set by `to`: from_pretrained's argument for it changed its name in diffusers 0.40.
        pipe = kind.from_pretrained(folder, local_files_only=True, **options).to(device, dtype)
    pipe.set_progress_bar_config(disable=True)
    return pipe


@contextmanager
def _quiet() -> Iterator[None]:
    """No loading bars and no remarks about precision: they end up in notebooks' stderr."""
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    loggers = [diffusers_logging, transformers_logging]
    bars = [logging for logging in loggers if logging.is_progress_bar_enabled()]
    verbosity = [logging.get_verbosity() for logging in loggers]
    for logging in bars:
        logging.disable_progress_bar()
    for logging in loggers:
        logging.set_verbosity_error()
    try:
        yield
    finally:
        for logging in bars:
            logging.enable_progress_bar()
        for logging, level in zip(loggers, verbosity, strict=True):
            logging.set_verbosity(level)
