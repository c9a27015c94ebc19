"""Models by name: `nano` comes with the package, full-size ones are read from this machine or downloaded."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch

from ..runtime.devices import pick_device, pick_dtype
from .embedded import data_path
from .folders import OtherKind
from .guided_diffusion import load_guided_diffusion
from .hub import LOADERS, NO_SDXL, HubRepo, Source, WebFile, cached, check_index, missing_files, obtain

if TYPE_CHECKING:
    from diffusers import DDPMPipeline, StableDiffusionPipeline

NANO = {"DDPMPipeline": ("models", "ddpm"), "StableDiffusionPipeline": ("models", "sd")}

# 2,211,383,297 bytes, 552,814,086 weights. The address is the authors' (github.com/openai/guided-diffusion).
GUIDED = ("256x256_diffusion_uncond.pt", "a37c32fffd316cd494cf3f35b339936debdc1576dad13fe57c42399a5dbc78b1")

# The weights of the commit below, 4.3 GB in float32.
SD15 = (
    (
        "unet/diffusion_pytorch_model.safetensors",
        "19da7aaa4b880e59d56843f1fcb4dd9b599c28a1d9d9af7c1143057c8ffae9f1",
    ),
    (
        "vae/diffusion_pytorch_model.safetensors",
        "a2b5134f4dbc140d9c11f11cba3233099e00af40f262f136c691fb7d38d2194c",
    ),
    (
        "text_encoder/model.safetensors",
        "d008943c017f0092921106440254dbbe00b6a285f7883ec8ba160c3faad88334",
    ),
)

KNOWN: dict[str, dict[str, tuple[Source, ...]]] = {
    "DDPMPipeline": {
        # Both repositories hold pickled weights alone (455 MB), which are read as plain tensors.
        "ddpm-celebahq-256": (
            HubRepo("google/ddpm-ema-celebahq-256", "1e28fb7ec9c7be2ea82a2162df956a9809852ea4"),
            HubRepo("google/ddpm-celebahq-256", "cd5c944777ea2668051904ead6cc120739b86c4d"),
        ),
        "guided-diffusion-256-uncond": (
            WebFile("https://openaipublic.blob.core.windows.net/diffusion/jul-2021/" + GUIDED[0], *GUIDED),
            WebFile(
                "https://huggingface.co/deepinv/diffunet/resolve/6b0a2cf45decab1f022d22eefe3787d9d515f32b/"
                "diffusion_openai.pt",
                *GUIDED,
            ),
        ),
    },
    "StableDiffusionPipeline": {
        "sd15": (
            HubRepo(
                "stable-diffusion-v1-5/stable-diffusion-v1-5", "451f4fe16113bff5a5d2269ed5ad43b0592e9a14"
            ),
            # Mirrors, should the first vanish as runwayml's did. Known are their weights, no commit.
            HubRepo("sd-legacy/stable-diffusion-v1-5", sha256=SD15),
            HubRepo("benjamin-paine/stable-diffusion-v1-5", sha256=SD15),
        ),
    },
}


class ModelNotHere(FileNotFoundError):
    """Stand-in."""

    def __init__(self, message, name="", sources=(), answers=()):
        super().__init__(message)
        self.name, self.sources, self.answers = name, sources, answers


class KnownCheckpoint(NamedTuple):
    """One row of `known_checkpoints`. path: where it is on this machine; None if it would be downloaded."""

    name: str
    kind: str  # "DDPMPipeline" or "StableDiffusionPipeline"
    loader: str  # the function that loads it
    sources: tuple[str, ...]  # in the order in which they are tried
    path: Path | None


def known_checkpoints() -> list[KnownCheckpoint]:
    """Every known name, what it is, where it comes from, and where it is here. Asks no network."""
    rows = []
    for kind, names in KNOWN.items():
        rows.append(KnownCheckpoint("nano", kind, LOADERS[kind], ("this package",), data_path(*NANO[kind])))
        for name, sources in names.items():
            origins = tuple(map(str, sources))
            rows.append(KnownCheckpoint(name, kind, LOADERS[kind], origins, cached(sources, kind)))
    return rows


def load_ddpm(
    name: str | os.PathLike = "nano",
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
    download: bool = False,
) -> "DDPMPipeline":
    """A pixel-space diffusion model, the purifier, as a `diffusers.DDPMPipeline` in evaluation mode.

    name: "nano"; "ddpm-celebahq-256" or "guided-diffusion-256-uncond"; a folder written by `save_pretrained`;
    a guided-diffusion .pt file; or a hub id "owner/name". device: None chooses (see `pick_device`).
    dtype: None takes the device's fastest (see `pick_dtype`).
    download: whether a known name or a hub id that isn't on this machine may be fetched.
    Weights are read as plain tensors; nothing that a folder or file brings along is executed.
    Raises ValueError for an unknown name (lists the known ones), another kind of model or a damaged file,
    FileNotFoundError for one that isn't here, or that no source delivers (says what to do).
    """
    device = pick_device(device)
    dtype = dtype or pick_dtype(device)
    path = _find(name, "DDPMPipeline", download)
    if path.is_file():
        with _quiet():  # diffusers remarks on every change of precision
            return load_guided_diffusion(path).to(device, dtype)
    from diffusers import DDPMPipeline

    # Pickled weights, which diffusers reads with weights_only=True, only where there are no others.
    safe = any(path.glob("unet/*.safetensors")) or any(path.glob("*.safetensors"))
    return _load(DDPMPipeline, path, device, dtype, use_safetensors=safe)


def load_stable_diffusion(
    name: str | os.PathLike = "nano",
    device: str | torch.device | None = None,
    dtype: torch.dtype = torch.float32,
    download: bool = False,
) -> "StableDiffusionPipeline":
    """A text-to-image latent diffusion model as a `diffusers.StableDiffusionPipeline`, no safety checker.

    name: "nano"; "sd15"; a folder written by `save_pretrained`; or a hub id "owner/name". SDXL isn't
    supported. device: None chooses (see `pick_device`). dtype: float32 by default, because the model is going
    to be fine-tuned.
    download: whether a known name or a hub id that isn't on this machine may be fetched.
    Weights are read from safetensors alone; nothing that a folder brings along is executed.
    Raises ValueError for an unknown name (lists the known ones), another kind of model or a damaged file,
    FileNotFoundError for one that isn't here, or that no source delivers (says what to do).
    """
    device = pick_device(device)
    folder = _find(name, "StableDiffusionPipeline", download)
    with _quiet():  # transformers remarks on optional image processors that nothing here uses
        from diffusers import StableDiffusionPipeline

    unused = {"safety_checker": None, "feature_extractor": None, "image_encoder": None}
    options = unused | {"requires_safety_checker": False, "use_safetensors": True}
    return _load(StableDiffusionPipeline, folder, device, dtype, **options)


def _find(name, kind, download):
    """The folder or file that `name` means, checked to be of this kind, downloaded if that is allowed."""
    name, path = str(name), Path(name)
    known = ["nano", *KNOWN[kind]]
    if name == "nano":
        return data_path(*NANO[kind])
    if name in KNOWN[kind]:
        others = [f"'{other}'" for other in known if other != name]
        if not download and not cached(KNOWN[kind][name], kind):
            raise ModelNotHere("", name, tuple(map(str, KNOWN[kind][name])))
        return _checked(obtain(name, kind, KNOWN[kind][name], download, ", ".join(others) + ELSE), kind)
    for other, names in KNOWN.items():
        if name in names:
            raise OtherKind(f"'{name}' is a {other}; load it with {LOADERS[other]}", LOADERS[other])
    if (path / "model_index.json").is_file() or (kind == "DDPMPipeline" and path.is_file()):
        return _checked(path, kind)
    if re.search(r"sdxl|stable-diffusion-xl", name, re.IGNORECASE):
        raise ValueError(f"'{name}': {NO_SDXL}")
    if not path.exists() and _is_hub_id(name):
        if not download and not HubRepo(name).cached(kind):
            raise ModelNotHere("", name, (name,))
        return _checked(obtain(name, kind, [HubRepo(name)], download, ", ".join(known) + ELSE), kind)
    file = ", a guided-diffusion .pt file" if kind == "DDPMPipeline" else ""
    raise ValueError(
        f"unknown model '{name}'; the known names are {', '.join(known)}, or give a local folder that holds "
        f"a model_index.json{file} or a hub id 'owner/name'"
    )


def _is_hub_id(name):
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(name)
    except HFValidationError:  # such as ../folder
        return False
    return name.count("/") == 1


ELSE = ", a local folder or a hub id"


def _checked(path, kind):
    if path.is_dir():
        check_index(path / "model_index.json", kind, str(path))
        if missing := missing_files(path, kind):
            raise ValueError(
                f"{path} has no {missing[0]}; get the folder again, whole, or save it as safetensors"
            )
    return path


# What diffusers, transformers and torch raise for folders that are damaged.
WRONG = (OSError, ValueError, TypeError, AttributeError, KeyError, RuntimeError)


def _load(kind, folder, device, dtype, **options):
    from safetensors import SafetensorError

    with _quiet():
        try:
            # `to` sets the precision: from_pretrained's argument for it changed its name in diffusers 0.40.
            pipe = kind.from_pretrained(folder, local_files_only=True, **options)
            _check_parts(pipe, folder)
            pipe = pipe.to(device, dtype)
        except torch.OutOfMemoryError:
            raise
        except (*WRONG, SafetensorError) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise ValueError(f"{folder} can't be loaded ({reason}); get the folder again") from error
    pipe.set_progress_bar_config(disable=True)
    return pipe


def _check_parts(pipe, folder):
    """Raises ValueError for what loads without an error and isn't what the folder should hold."""
    from safetensors import safe_open

    if hasattr(pipe, "text_encoder"):  # transformers fills what the file lacks with random numbers
        found = set()
        for file in Path(folder, "text_encoder").glob("*.safetensors"):
            with safe_open(file, "pt") as tensors:
                found |= {key.removeprefix("text_model.") for key in tensors.keys()}  # noqa: SIM118
        wanted = {key.removeprefix("text_model.") for key in pipe.text_encoder.state_dict()}
        if missing := sorted(wanted - found):
            raise ValueError(f"text_encoder lacks {missing[0]}")
        return
    config = pipe.unet.config
    if config.in_channels != 3 or not config.sample_size:
        size = f"{config.in_channels} channels, sample_size {config.sample_size}"
        raise ValueError(f"unet: {size}; a model of RGB images is needed")
    if config.class_embed_type or config.num_class_embeds:
        raise ValueError("unet: the model is class-conditional; use an unconditional one")


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
