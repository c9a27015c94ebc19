"""A diffusers folder, read part by part: of the right kind, whole, and fit for this library's formulas."""

import json
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import torch

from ..runtime.checks import check_scheduler
from ..runtime.pipelines import DDPMPipeline, StableDiffusionPipeline
from .guided_diffusion import read_tensors

PIXEL, LATENT = "DDPMPipeline", "StableDiffusionPipeline"
LOADERS = {PIXEL: "load_ddpm", LATENT: "load_stable_diffusion"}

# Every part's class. A folder that names another could bring its own code. "Scheduler": any of diffusers'.
PARTS = {
    PIXEL: {"unet": "UNet2DModel", "scheduler": "DDPMScheduler"},
    LATENT: {
        "unet": "UNet2DConditionModel",
        "vae": "AutoencoderKL",
        "text_encoder": "CLIPTextModel",
        "tokenizer": "CLIPTokenizer",
        "scheduler": "Scheduler",
    },
}

UNUSED = {PIXEL: {}, LATENT: {"safety_checker": None, "feature_extractor": None, "image_encoder": None}}
UNUSED[LATENT]["requires_safety_checker"] = False
OR_SAVE = "or save the pipeline again with save_pretrained"


class OtherKind(ValueError):
    """A model that another function loads. loader: that function's name."""

    def __init__(self, message: str, loader: str = "") -> None:
        super().__init__(message)
        self.loader = loader


def check_index(index: Path, kind: str, where: str) -> dict[str, str]:
    """{part: class} of a model_index.json, if it is of this kind and all classes are the libraries' own.

    Raises ValueError that begins with `where`; OtherKind if the other function loads it.
    """
    try:
        stored = dict(json.loads(index.read_text("utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise ValueError(f"{where}: its model_index.json is damaged ({error}); get this file again") from None
    found, classes = str(stored.get("_class_name")), {}
    if found != kind:
        told, loader = f"{where} holds a {found}; this function loads a {kind}", LOADERS.get(found)
        raise OtherKind(f"{told}; load it with {loader}", loader) if loader else ValueError(told)
    for part, expected in PARTS[kind].items():
        match stored.get(part):
            case ["diffusers" | "transformers", str(name)] if name in (expected, f"{expected}Fast") or (
                expected == "Scheduler" and name.endswith(expected)
            ):
                classes[part] = name
            case other:
                raise ValueError(f"{where}: its {part} is {other}; only diffusers' own {expected} will do")
    return classes


def lacking(folder: Path, kind: str) -> str | None:
    """The first file that a pipeline of this kind needs and the folder lacks, as "unet/config.json"."""
    weights = ("*model*.safetensors", "*model*.bin")[: 2 if kind == PIXEL else 1]
    needed = {"scheduler": [("scheduler_config.json",)], "tokenizer": [("tokenizer.json", "vocab.json")]}
    for part in PARTS[kind]:
        for group in needed.get(part, [("config.json",), weights]):
            files = [file for pattern in group for file in _home(folder, part, kind).glob(pattern)]
            if not any(file.is_file() for file in files):
                return f"{part}/{group[0]}"


def _home(folder, part, kind):
    """A part's folder. The oldest repositories of models of pixels have none."""
    return folder / part if kind == LATENT or (folder / part).is_dir() else folder


def read_folder(folder: Path, kind: str) -> DDPMPipeline | StableDiffusionPipeline:
    """The folder as a pipeline on the CPU. Raises ValueError with the file and the remedy."""
    import diffusers

    index = folder / "model_index.json"
    if not index.is_file():
        told = "give the folder of a whole pipeline; LoRA layers are added to one by its load_lora_weights"
        raise ValueError(f"{folder} has no {index.name}; {told}")
    classes = check_index(index, kind, str(folder))
    if missing := lacking(folder, kind):
        bins = any((folder / missing).parent.glob("*.bin"))
        told = "pickled weights aren't read" if bins else "copy it from where the folder comes from"
        raise ValueError(f"{folder} has no {missing}; {told}, {OR_SAVE}")
    parts = {part: _read_part(folder, part, name, kind) for part, name in classes.items()}
    return getattr(diffusers, kind)(**parts, **UNUSED[kind])


def _read_part(folder, part, name, kind):
    """One part, whose class is named `name`."""
    import diffusers
    import transformers

    home, options = _home(folder, part, kind), {"local_files_only": True}
    if part not in ("scheduler", "tokenizer"):
        # Some models of pixels only have pickled weights, which diffusers reads as plain tensors.
        safe = {"use_safetensors": True} if kind == LATENT else {}
        # Without it diffusers rounds weights to torch's default precision, which the user may have changed.
        precise = {"torch_dtype": torch.float32} if hasattr(diffusers, name) else {}
        options |= {"variant": _variant(home), "output_loading_info": True} | safe | precise
    try:
        known = getattr(diffusers, name, None) or getattr(transformers, name)
        found = known.from_pretrained(home, **options)
    except MemoryError:
        raise
    except Exception as error:  # damaged files can make the libraries raise nearly anything
        raise ValueError(f"{folder} can't be loaded: {_cause(home, part, error)}") from None
    model, info = found if isinstance(found, tuple) else (found, {})
    if any(".lora_" in key for key in info.get("unexpected_keys", ())):
        told = "save these alone with save_lora, and load the model that they were trained on"
        raise ValueError(f"{folder}: its {part} was saved with LoRA layers in it; {told}")
    if missing := sorted(info.get("missing_keys", ())):  # the libraries fill it with random numbers
        told = f"its {part} lacks {missing[0]}; take all its files from one place, {OR_SAVE}"
        raise ValueError(f"{folder} can't be loaded: {told}")
    return model


def _variant(home):
    """The name, such as "fp16", of the variant in which alone a part's weights are there; otherwise None."""
    files = [*home.glob("*model*.safetensors"), *home.glob("*model*.bin")]
    names = [re.sub(r"-\d+-of-\d+", "", file.name).split(".") for file in files]
    found = {name[1] if len(name) > 2 else "" for name in names}
    return None if "" in found or not found else "fp16" if "fp16" in found else min(found)


def _cause(home, part, error):
    """Why a part can't be loaded, and what helps."""
    from safetensors import safe_open

    for file in sorted(home.glob("*.*")):
        try:
            if file.suffix == ".json":
                dict(json.loads(file.read_text("utf-8")))
            elif file.suffix == ".safetensors":
                safe_open(file, "pt").keys()
            elif file.suffix == ".bin":
                read_tensors(file)
        except Exception as reason:
            told = f"{part}/{file.name} is damaged ({' '.join(str(reason).split())})"
            return f"{told}; delete {file.resolve()} and get this file again"
    told = f"the files of {part} don't fit each other or this version of diffusers"
    reason = " ".join(str(error).split())[:200]
    return f"{told} ({reason}); take all of them from one place, {OR_SAVE}"


def check_fit(pipe: DDPMPipeline | StableDiffusionPipeline, where: str) -> None:
    """Raises ValueError for a sound model that this library's formulas aren't made for."""
    config, latent = pipe.unet.config, hasattr(pipe, "vae")
    size, channels = config.sample_size, pipe.vae.config.latent_channels if latent else 3
    if not all(isinstance(side, int) and side > 0 for side in (size if isinstance(size, list) else [size])):
        raise ValueError(f"{where}: its unet has sample_size {size}; write the images' side into its config")
    if config.in_channels != channels or config.out_channels not in ((channels,) if latent else (3, 6)):
        told = f"{where}: its unet takes {config.in_channels} channels and gives {config.out_channels}"
        raise ValueError(f"{told}; use a {'text-to-image model' if latent else 'model of RGB images'}")
    if config.class_embed_type or config.num_class_embeds:
        raise ValueError(f"{where}: the model is class-conditional; use an unconditional one")
    try:
        check_scheduler(pipe.scheduler, latent)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None
    if latent and len(pipe.tokenizer) > pipe.text_encoder.config.vocab_size:
        told = f"{len(pipe.tokenizer)} tokens, its text_encoder {pipe.text_encoder.config.vocab_size}"
        raise ValueError(f"{where}: its tokenizer has {told}; take both from one model")


@contextmanager
def quiet() -> Iterator[None]:
    """No loading bars and no remarks about precision: they end up in notebooks' stderr."""
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    with ExitStack() as after:
        for log in (diffusers_logging, transformers_logging):
            after.callback(log.set_verbosity, log.get_verbosity())
            if log.is_progress_bar_enabled():
                after.callback(log.enable_progress_bar)
            log.set_verbosity_error()
            log.disable_progress_bar()
        yield
