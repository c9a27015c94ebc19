"""Where full-size checkpoints come from: what is on this machine already, and downloads on request alone."""

import hashlib
import json
import urllib.error
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch

LOADERS = {"DDPMPipeline": "load_ddpm", "StableDiffusionPipeline": "load_stable_diffusion"}

# The class of every part that is loaded; a folder that names another could bring its own code. "": any.
PARTS = {
    "DDPMPipeline": {"unet": "UNet2DModel", "scheduler": "DDPMScheduler"},
    "StableDiffusionPipeline": {
        "unet": "UNet2DConditionModel",
        "vae": "AutoencoderKL",
        "text_encoder": "CLIPTextModel",
        "tokenizer": "CLIPTokenizer",
        "scheduler": "",
    },
}

# The files that a pipeline is read from; one of each group will do.
NEEDED = {
    "DDPMPipeline": (
        ("unet/config.json", "config.json"),
        (
            "scheduler/scheduler_config.json",
            "scheduler_config.json",
        ),  # the oldest repositories have no folders
        (
            "unet/diffusion_pytorch_model*.safetensors",
            "diffusion_pytorch_model*.safetensors",
            "unet/diffusion_pytorch_model.bin",
            "diffusion_pytorch_model.bin",
        ),
    ),
    "StableDiffusionPipeline": (
        ("scheduler/scheduler_config.json",),
        ("tokenizer/vocab.json", "tokenizer/tokenizer.json"),
        ("tokenizer/merges.txt", "tokenizer/tokenizer.json"),
        ("text_encoder/config.json",),
        ("unet/config.json",),
        ("vae/config.json",),
        ("text_encoder/model*.safetensors",),
        ("unet/diffusion_pytorch_model*.safetensors",),
        ("vae/diffusion_pytorch_model*.safetensors",),
    ),
}

WANTED = [
    "*.json",
    "tokenizer/*",
    "text_encoder/model*.safetensors",
    "unet/diffusion_pytorch_model*.safetensors",
    "vae/diffusion_pytorch_model*.safetensors",
    "diffusion_pytorch_model*.safetensors",
]

UNWANTED = ["*.fp16.*", "*.bf16.*", "*.non_ema.*", "safety_checker/*", "feature_extractor/*"]

OFFLINE = "can't be reached: this machine seems to be offline"

NO_SDXL = "SDXL isn't supported: it has two text encoders and this library knows one; use sd15"


class HubRepo(NamedTuple):
    """A diffusers folder on the Hugging Face hub.

    revision: a commit, which never changes, or a branch. sha256: (file, hash) of weights that must be the
    ones that are known, whatever the branch holds.
    """

    id: str
    revision: str = "main"
    sha256: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        return self.id

    def cached(self, kind: str) -> Path | None:
        """The folder in the hub's local cache, if everything that such a pipeline needs is there."""
        from huggingface_hub.errors import LocalEntryNotFoundError

        try:
            folder = self._snapshot(WANTED, local_files_only=True)
        except LocalEntryNotFoundError:
            return None
        return None if missing_files(folder, kind) else folder

    def download(self, kind: str) -> Path:
        """The folder, after fetching what isn't cached. Its index comes first: a wrong kind costs nothing."""
        from huggingface_hub import hf_hub_download

        check_index(Path(hf_hub_download(self.id, "model_index.json", revision=self.revision)), kind, self.id)
        folder = self._snapshot(WANTED)
        if kind == "DDPMPipeline" and missing_files(folder, kind):
            folder = self._snapshot([*WANTED, "*diffusion_pytorch_model.bin"])
        if missing := missing_files(folder, kind):
            raise FileNotFoundError(f"has no {missing[0]}")
        for name, known in self.sha256:
            with (folder / name).open("rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
            if found != known:
                (folder / name).resolve().unlink()  # or the cache would hand it out next time
                (folder / name).unlink(missing_ok=True)
                raise OSError(f"holds another {name} than the known one (sha256 {found[:12]}…)")
        return folder

    def _snapshot(self, patterns, **options):
        from huggingface_hub import snapshot_download

        options |= {"allow_patterns": patterns, "ignore_patterns": UNWANTED}
        return Path(snapshot_download(self.id, revision=self.revision, **options))


class WebFile(NamedTuple):
    """One file at an address, kept in torch.hub's folder as `name`. sha256: its hash, whoever serves it."""

    url: str
    name: str
    sha256: str

    def __str__(self) -> str:
        return self.url

    def cached(self, kind: str) -> Path | None:
        """The file, if it is there; a download moves it there once it is whole and its hash is right."""
        path = self._path()
        return path if path.is_file() else None

    def download(self, kind: str) -> Path:
        """The file, after fetching it."""
        path = self._path()
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(self.url, str(path), hash_prefix=self.sha256)
        return path

    def _path(self):
        return Path(torch.hub.get_dir()) / "checkpoints" / self.name


Source = HubRepo | WebFile


def cached(sources: Sequence[Source], kind: str) -> Path | None:
    """The first of the sources that is on this machine, whole; None if there is none. Asks no network."""
    return next((path for source in sources if (path := source.cached(kind))), None)


def obtain(name: str, kind: str, sources: Sequence[Source], download: bool, others: str) -> Path:
    """A checkpoint's folder or file: from the cache, else, if asked, from the first source that delivers.

    kind: the pipeline class that it has to be. others: what else could be used, for the messages.
    Raises FileNotFoundError that says how to download it, or what came of each source.
    """
    from huggingface_hub import constants

    if path := cached(sources, kind):
        return path
    if not download:
        origin = "" if str(sources[0]) == name else f" from {sources[0]}"
        by_hand = ""
        if isinstance(sources[0], WebFile):
            by_hand = f", or fetch it yourself and give its path in place of '{name}'"
        call = f"{LOADERS[kind]}('{name}', download=True)"
        raise FileNotFoundError(
            f"'{name}' isn't on this machine: {call} downloads it{origin}{by_hand}; or use {others}"
        )
    if constants.HF_HUB_OFFLINE:
        raise FileNotFoundError(
            f"'{name}' isn't on this machine, and HF_HUB_OFFLINE says to stay offline: unset it and start "
            f"Python again, or use {others}"
        )
    problems = []
    for source in sources:
        try:
            path = source.download(kind)
            if problems:
                warnings.warn(_fallback(name, source, problems), stacklevel=2)
            return path
        except Exception as error:
            problems.append(f"{source} {_problem(error)}")
            if isinstance(source, HubRepo) and problems[-1].endswith(OFFLINE):
                break  # the hub itself is out of reach, and to find that out takes it half a minute each time
    raise FileNotFoundError(f"'{name}' couldn't be downloaded: {'; '.join(problems)}. Use {others}")


def _fallback(name, source, problems):
    return f"'{name}' comes from {source}, a mirror; {'; '.join(problems)}"


def _problem(error):
    """What a failed download means; raises again what isn't one."""
    from huggingface_hub import errors

    said = (str(error).splitlines() or [type(error).__name__])[0]
    if "client has been closed" in said:  # what the hub's client before 2.0 makes of a second attempt
        return OFFLINE
    meanings = {  # a class before those that it descends from
        errors.GatedRepoError: "is gated: accept its conditions on its page and log in with `hf auth login`",
        errors.RepositoryNotFoundError: "is gone from the hub, or private",
        errors.RevisionNotFoundError: "no longer has the revision asked for",
        errors.RemoteEntryNotFoundError: "has no model_index.json, so it isn't a diffusers folder",
        urllib.error.HTTPError: f"answered {error}",
        (urllib.error.URLError, errors.LocalEntryNotFoundError, ConnectionError, TimeoutError): OFFLINE,
        (OSError, RuntimeError): said,  # a wrong hash, a full disk
        errors.HTTPError: OFFLINE,  # the transport's own; the hub's answers are OSErrors
    }
    for kind, meaning in meanings.items():
        if isinstance(error, kind):
            return meaning
    raise error


def missing_files(folder: Path, kind: str) -> list[str]:
    """What a pipeline of this kind needs and the folder lacks; empty if it is complete."""
    return [group[0] for group in NEEDED[kind] if not any(any(folder.glob(pattern)) for pattern in group)]


def check_index(index: Path, kind: str, where: str) -> None:
    """Refuses a model_index.json of another pipeline, or with parts that aren't the libraries' own.

    Raises ValueError, naming `where`.
    """
    try:
        stored = dict(json.loads(index.read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise ValueError(f"{where}: its model_index.json can't be read ({error}); get it again") from error
    found = stored.get("_class_name")
    if found == "StableDiffusionXLPipeline":
        raise ValueError(f"{where} holds a {found}. {NO_SDXL}")
    if found != kind:
        hint = next((f"; load it with {loader}" for name, loader in LOADERS.items() if name == found), "")
        raise ValueError(f"{where} holds a {found}; this function loads a {kind}{hint}")
    for part, expected in PARTS[kind].items():
        match stored.get(part):
            case ["diffusers" | "transformers", str(name)] if name.startswith(expected):
                continue
            case other:
                raise ValueError(
                    f"{where}: its {part} is {other}; only {expected or 'classes'} of diffusers will do"
                )
