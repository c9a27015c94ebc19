"""Each stage's pictures in a folder, under a hash of everything that made them."""

import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock

from ..photos.pictures import atomic
from ..runtime.digests import digest


def _kept(folder: Path, made_from: tuple, make: Callable[[], torch.Tensor]) -> tuple[torch.Tensor, str]:
    """The images under the hash of `made_from`, made if they aren't there; as 8-bit files hold them.

    Processes that want the same images wait for the one that makes them.
    """
    key = digest(*made_from)
    path = folder / f"{made_from[0]}-{key[:32]}.npz"
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_suffix(".lock")):
        pixels = _stored(path)
        if pixels is None:
            pixels = (make() * 255).round().to("cpu", torch.uint8).numpy()
            with atomic(path) as temporary, temporary.open("wb") as file:
                np.savez_compressed(file, images=pixels)
    return torch.from_numpy(pixels).float() / 255, key


def _stored(path: Path) -> np.ndarray | None:
    """What a file of the cache holds; None where there is none or a broken one."""
    try:
        with np.load(path) as stored:
            return stored["images"]
    except (FileNotFoundError, EOFError, ValueError, KeyError, zipfile.BadZipFile):
        return None
