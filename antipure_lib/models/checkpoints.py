"""Models by name: `nano` comes with the package, full-size ones are read from this machine or downloaded."""

import os
import re
import warnings
from pathlib import Path
from typing import NamedTuple

import torch

from ..runtime.checks import check_path
from ..runtime.devices import check_dtype, pick_device, pick_dtype
from ..runtime.pipelines import DDPMPipeline, StableDiffusionPipeline
from . import folders
from .embedded import data_path
from .folders import LATENT, LOADERS, PIXEL, OtherKind
from .guided_diffusion import load_guided_diffusion

NANO = {PIXEL: ("models", "ddpm"), LATENT: ("models", "sd")}


class Repo(NamedTuple):
    """A diffusers folder on the Hugging Face hub. revision: a commit, which never changes, or a branch."""

    id: str
    revision: str = "main"


class WebFile(NamedTuple):
    """One file, kept in torch.hub's folder as `name`. id: its address. sha256: whoever serves it."""

    id: str
    name: str
    sha256: str


# 2.2 GB, 552,814,086 weights. The first address is the authors' (github.com/openai/guided-diffusion).
ADM = ("256x256_diffusion_uncond.pt", "a37c32fffd316cd494cf3f35b339936debdc1576dad13fe57c42399a5dbc78b1")
OPENAI = "https://openaipublic.blob.core.windows.net/diffusion/jul-2021"
DEEPINV = "https://huggingface.co/deepinv/diffunet/resolve/6b0a2cf45decab1f022d22eefe3787d9d515f32b"
GUIDED = (WebFile(f"{OPENAI}/{ADM[0]}", *ADM), WebFile(f"{DEEPINV}/diffusion_openai.pt", *ADM))
CELEBAHQ = (
    Repo("google/ddpm-ema-celebahq-256", "1e28fb7ec9c7be2ea82a2162df956a9809852ea4"),
    Repo("google/ddpm-celebahq-256", "cd5c944777ea2668051904ead6cc120739b86c4d"),
)
SD15 = Repo("stable-diffusion-v1-5/stable-diffusion-v1-5", "451f4fe16113bff5a5d2269ed5ad43b0592e9a14")
KNOWN: dict[str, dict[str, tuple[Repo | WebFile, ...]]] = {
    PIXEL: {"ddpm-celebahq-256": CELEBAHQ, "guided-diffusion-256-uncond": GUIDED},
    LATENT: {"sd15": (SD15,)},
}
# No commit of these is known. So they are named, not used, if the first one vanishes as runwayml's did.
MIRRORS = {"sd15": ("sd-legacy/stable-diffusion-v1-5", "benjamin-paine/stable-diffusion-v1-5")}


class ModelNotHere(FileNotFoundError):
    """A model that isn't on this machine, or that no source delivered.

    name: as asked for. sources: where it can come from. answers: (source, its answer) of each one asked.
    """

    def __init__(self, message: str, name: str = "", sources: tuple = (), answers: tuple = ()) -> None:
        super().__init__(message)
        self.name, self.sources, self.answers = name, sources, answers


class KnownCheckpoint(NamedTuple):
    """One row of `known_checkpoints`. path: where it is on this machine; None if it would be downloaded."""

    name: str
    loader: str  # the function that loads it
    sources: tuple[str, ...]  # in the order in which they are tried
    path: Path | None


def known_checkpoints() -> list[KnownCheckpoint]:
    """Every known name, its function, where it comes from, and where it is here. Asks no network."""
    rows = []
    for kind, names in KNOWN.items():
        rows.append(KnownCheckpoint("nano", LOADERS[kind], ("this package",), data_path(*NANO[kind])))
        for name, sources in names.items():
            ids = tuple(source.id for source in sources)
            rows.append(KnownCheckpoint(name, LOADERS[kind], ids, _cached(sources, kind)))
    return rows


def load_ddpm(
    name: str | os.PathLike = "nano",
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
    download: bool = False,
) -> DDPMPipeline:
    """A pixel-space diffusion model, the purifier, as a `diffusers.DDPMPipeline` in evaluation mode.

    name: "nano"; "ddpm-celebahq-256" or "guided-diffusion-256-uncond"; a folder written by `save_pretrained`;
    a guided-diffusion .pt file; or a hub id "owner/name".
    device, dtype: None chooses, see `pick_device` and `pick_dtype`. download: whether it may be fetched.
    Weights are read as plain tensors; nothing that a folder or file brings along is executed.
    Raises ModelNotHere, a FileNotFoundError, if the model isn't here or no source delivers it.
    Raises ValueError for an unknown name, another kind of model, a damaged file or a wrong argument.
    """
    return _load(name, PIXEL, device, dtype, download)


def load_stable_diffusion(
    name: str | os.PathLike = "nano",
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = torch.float32,
    download: bool = False,
) -> StableDiffusionPipeline:
    """A text-to-image model as a `diffusers.StableDiffusionPipeline` without a safety checker. No SDXL.

    name: "nano"; "sd15"; a folder written by `save_pretrained`; or a hub id "owner/name".
    dtype: float32, because the model is going to be fine-tuned. Weights are read from safetensors alone.
    Everything else is as in `load_ddpm`.
    """
    return _load(name, LATENT, device, dtype, download)


def _load(name, kind, device, dtype, download):
    if not isinstance(name, str | os.PathLike):
        raise ValueError(f"name must be a model's name or a path, got a {type(name).__name__}")
    if not isinstance(download, bool):
        raise ValueError(f"download must be True or False, got {download!r}")
    check_dtype(dtype)
    device = pick_device(device)
    path = _find(str(name), kind, download)
    # Weights that are made in torch.inference_mode() could never take part in a gradient.
    with torch.inference_mode(False), folders.quiet():
        one_file = kind == PIXEL and path.is_file() and path.suffix != ".safetensors"
        pipe = load_guided_diffusion(path) if one_file else folders.read_folder(path, kind)
        folders.check_fit(pipe, str(path))
        pipe = pipe.to(device, dtype or pick_dtype(device))
    if kind == LATENT:  # a tokenizer without tokenizer_config.json knows no limit
        limit = pipe.text_encoder.config.max_position_embeddings
        pipe.tokenizer.model_max_length = min(pipe.tokenizer.model_max_length, limit)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def _find(name, kind, download):
    """The folder or file that `name` means, downloaded if that is allowed."""
    known = ["nano", *KNOWN[kind]]
    if name == "nano":
        return data_path(*NANO[kind])
    if name in KNOWN[kind]:
        return _obtain(name, kind, KNOWN[kind][name], download)
    for other, names in KNOWN.items():
        if name in names:
            raise OtherKind(f"'{name}' is a {other}; load it with {LOADERS[other]}", LOADERS[other])
    if name and os.path.exists(path := check_path(name)):
        return path
    if _is_hub_id(name, kind, download):
        return _obtain(name, kind, (Repo(name),), download)
    file = ", a guided-diffusion .pt file" if kind == PIXEL else ""
    nothing = "; there is no such file or folder" if re.search(r"[/\\.]", name) else ""
    others = f"or give a local folder that holds a model_index.json{file} or a hub id 'owner/name'{nothing}"
    raise ValueError(f"unknown model '{name}'; the known names are {', '.join(known)}, {others}")


def _is_hub_id(name, kind, download):
    """Whether a name can be that of a model on the hub, rather than a mistyped path."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(name)
    except HFValidationError:  # such as ../folder
        return False
    owner, _, rest = name.partition("/")
    if not rest or re.search(r"\.(pth?|bin|ckpt|safetensors|json|zip|tar|gz)$", rest, re.IGNORECASE):
        return False
    return download or not os.path.isdir(owner) or bool(_cached((Repo(name),), kind))


def _cached(sources, kind):
    """The folder or file of the first source that is on this machine, whole; None if none is."""
    for source in sources:
        try:
            return _fetch(source, kind, local=True)
        except OSError:
            continue


def _fetch(source, kind, local=False):
    """A source's folder or file. Raises OSError if it can't be had; with `local`, if it isn't here."""
    if isinstance(source, WebFile):
        path = Path(torch.hub.get_dir()) / "checkpoints" / source.name
        if not path.is_file():
            if local:
                raise FileNotFoundError(path)
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(source.id, str(path), hash_prefix=source.sha256)
        return path
    from huggingface_hub import hf_hub_download, try_to_load_from_cache

    index = try_to_load_from_cache(source.id, "model_index.json", revision=source.revision)
    if not local:
        with folders.quiet():  # transformers remarks on optional image processors that nothing here uses
            import diffusers

            pipeline = getattr(diffusers, kind)
        index = hf_hub_download(source.id, "model_index.json", revision=source.revision)
        folders.check_index(Path(index), kind, source.id)  # before anything large is fetched
        options = folders.UNUSED[kind] | {"revision": source.revision}
        options |= {"use_safetensors": True} if kind == LATENT else {}
        index = f"{pipeline.download(source.id, **options)}/model_index.json"
    if not isinstance(index, str):
        raise FileNotFoundError(source.id)
    if missing := folders.lacking(Path(index).parent, kind):
        raise FileNotFoundError(f"it has no {missing}")
    return Path(index).parent


def _obtain(name, kind, sources, download):
    """A checkpoint's folder or file: from the cache, else, if asked, from the first source that delivers."""
    from huggingface_hub import constants
    from huggingface_hub.errors import HTTPError, LocalEntryNotFoundError

    if path := _cached(sources, kind):
        return path
    ids, answers = tuple(source.id for source in sources), []
    others = [f"'{other}'" for other in ("nano", *KNOWN[kind]) if other != name]
    others = ", ".join([*others, "a local folder or a hub id"])
    if not download:
        origin = "" if ids[0] == name else f" from {ids[0]}"
        if isinstance(sources[0], WebFile):
            origin += f", or fetch it yourself and give its path in place of '{name}'"
        told = f"{LOADERS[kind]}('{name}', download=True) downloads it{origin}; or use {others}"
        raise ModelNotHere(f"'{name}' isn't on this machine: {told}", name, ids)
    for source in sources:
        try:
            if constants.HF_HUB_OFFLINE:
                raise OSError("HF_HUB_OFFLINE says to stay offline; unset it and start Python again")
            path = _fetch(source, kind)
        except LocalEntryNotFoundError:
            answers.append((source.id, "can't be reached: this machine seems to be offline"))
            break  # after the half minute that the hub's client tries
        except (OSError, RuntimeError, HTTPError) as error:  # the hub's answers, a wrong hash, a full disk
            answers.append((source.id, " ".join(str(error).split()).rstrip(".") or type(error).__name__))
        else:
            if answers:
                warnings.warn(f"'{name}' comes from {source.id}, a mirror; {_told(answers)}", stacklevel=5)
            return path
    mirrors = "".join(f", its mirror '{mirror}'" for mirror in MIRRORS.get(name, ()))
    told = f"'{name}' couldn't be downloaded: {_told(answers)}. Use {others}{mirrors}"
    raise ModelNotHere(told, name, ids, tuple(answers))


def _told(answers):
    return "; ".join(": ".join(answer) for answer in answers)
