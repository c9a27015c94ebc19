"""Each stage's pictures in a folder, under a hash of everything that made them."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock

from ..photos.pictures import atomic
from ..runtime.digests import digest


def kept(folder: Path, made_from: tuple, make: Callable[[], torch.Tensor]) -> tuple[torch.Tensor, str]:
    """The images made from `made_from`, as 8-bit files hold them, and its hash.

    made_from: a name, then all that decides the result. make: gives the images, N×3×H×W in [0, 1]. It is
    called if there is no good file yet. Other processes that want the same images wait meanwhile.
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
    """N×3×H×W, uint8; None if there is no file or a broken one."""
    try:
        with np.load(path) as stored:
            pixels = stored["images"]
    except Exception:  # zip, zlib and NumPy each have their own errors for broken content
        return None
    return pixels if pixels.dtype == np.uint8 and pixels.ndim == 4 and pixels.shape[1] == 3 else None
