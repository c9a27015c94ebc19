"""What `protect` and `purify` share when they work on one photo: models, memory, grey photos, errors."""

import argparse
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from inspect import signature
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from ..core.tiles import at_least
from ..models.checkpoints import ModelNotHere, load_ddpm, load_stable_diffusion
from ..models.folders import OtherKind
from ..photos.photo import Photo, as_grey, made_grey, save_photo
from ..purifiers.filters import kept_by_jpeg
from ..runtime.digests import defaults, weights_digest
from ..runtime.memory import MemoryPlan
from ..runtime.unet import sample_size

OPTIONS = {"load_ddpm": "--ddpm", "load_stable_diffusion": "--pipe"}


class PhotoWork:
    """Work on photos, one per call. Making it checks the options and loads the models.

    settings: all that the results depend on, as JSON knows it. Raises ValueError in the words of the options.
    """

    def __init__(
        self,
        args: argparse.Namespace,
        needs: Sequence[str],  # "ddpm", "pipe"
        functions: Sequence[Callable],  # that do the work
        device: str,
        silent: bool | None,  # as tqdm's `disable`
    ):
        self.args, self.silent, self.models = args, silent, {}
        # Where another version has other defaults, its photos are made again.
        self.settings = {"keep_metadata": args.keep_metadata, "defaults": defaults(*functions)}
        self.settings |= {"grey": True} if args.grey else {}  # without it old results stay as they are
        for name in needs:
            load, parts, options = load_stable_diffusion, ("vae", "unet", "text_encoder"), {}
            if name == "ddpm":
                load, parts = load_ddpm, ("unet",)
                options["dtype"] = args.precision and getattr(torch, args.precision)
            wanted = getattr(args, name)
            with words_of_options():
                model = self.models[name] = load(wanted, device, download=args.download, **options)
            known = {"": wanted, "_weights": weights_digest(model, parts), "_precision": str(model.dtype)}
            self.settings |= {f"{name}{what}": value for what, value in known.items()}
        self.side = sample_size(self.models["ddpm"]) if "ddpm" in self.models else 1  # a tile's

    def plan(self, height: int, width: int) -> MemoryPlan | None:
        """What a photo of this size takes; None without a purifier's model."""
        size = max(height, self.side), max(width, self.side)
        return self.memory(*size) if "ddpm" in self.models else None

    def check(self, photo: Photo) -> None:
        """Raises ValueError for a photo that there isn't enough memory for."""
        height, width = photo.x.shape[-2:]
        plan = self.plan(height, width)
        if plan and not plan.fits:
            needed, free = (plan.total - plan.model) / 1e9, plan.free / 1e9
            raise ValueError(
                f"{width}×{height} pixels need about {needed:.1f} GB next to the model, and {free:.1f} GB "
                "are free; make the photo smaller, or cut out the part that matters"
            )

    def __call__(self, photo: Photo, path: Path) -> str:
        """Write the result, whole or not at all, and return what there is to say about it."""
        self.check(photo)
        said = ["grey, as the photo is"] if photo.grey else ["made grey"] if self.args.grey else []
        photo = made_grey(photo) if self.args.grey else photo
        x = at_least(self.side, photo.x, self.run)
        x = as_grey(x) if photo.grey else x
        save_photo(photo, x, path, self.args.keep_metadata, self.args.jpeg)
        if self.args.jpeg and x.equal(photo.x):
            said.append("there is no perturbation that JPEG could destroy")
        elif self.args.jpeg:
            kept = kept_by_jpeg(photo.x, x)
            said.append(f"JPEG leaves {kept:.0%} of the perturbation; PNG leaves all")
        return "; ".join(said)

    def last(self, states: Iterator, unit: str, total: int | None = None) -> Any:
        """The last of the states, with a progress bar."""
        bar = tqdm(states, total=total, unit=unit, leave=False, disable=self.silent)
        return deque(bar, maxlen=1).pop()


def batch_of(function: Callable) -> dict[str, str]:
    """The option that fits tiles into memory. It isn't a setting of a result: it changes last bits alone."""
    return {"batch": "auto"} if "batch" in signature(function).parameters else {}


@contextmanager
def words_of_options() -> Iterator[None]:
    """Around what loads models: their errors name options, not Python functions."""
    try:
        yield
    except OtherKind as error:
        what, option = str(error).partition(";")[0], OPTIONS[error.loader]
        raise ValueError(f"{what}; it is for {option}") from error
    except ModelNotHere as error:
        if error.answers:  # it was looked for
            raise
        fetch = f"--download (of protect and purify) fetches it from {error.sources[0]}"
        raise ValueError(f"'{error.name}' isn't on this machine: {fetch}") from error
