"""Picture files: read as tensors; written whole or not at all."""

import hashlib
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from PIL import Image, ImageOps

from ..core.images import check_image, from_pil, to_pil
from ..runtime.checks import check_count, check_path
from .decode import decode, writable

LOSSLESS = {".png": {}, ".bmp": {}, ".tif": {}, ".tiff": {}, ".webp": {"lossless": True, "exact": True}}

LOSSY = {".jpg": {"quality": 95}, ".jpeg": {"quality": 95}}


def load_image(path: str | os.PathLike, size: int | tuple[int, int] | None = None) -> torch.Tensor:
    """Read a photo as 3×H×W float32 RGB in [0, 1].

    size: None keeps the file's own; an int gives a square of that side; (H, W) that size. The photo is cut
    to the aspect around its centre and resampled (Lanczos, antialiased), never stretched.
    Applies the EXIF rotation. Converts palette, grey, 16-bit and CMYK to RGB, and colours of a profile to
    sRGB. Lays transparent images on white; takes the first frame of an animation.
    Warns of what is wrong with the file and is passed over. Errors: see `decode`; ValueError for a size that
    isn't one or two whole numbers of at least 1.
    """
    if size is not None:
        height, width = size if isinstance(size, tuple | list) and len(size) == 2 else (size, size)
        height, width = check_count(height, "size"), check_count(width, "size")
    found = decode(path)
    for note in found.notes:
        warnings.warn(f"{path}: {note}", stacklevel=2)
    image = found.rgb
    if found.alpha is not None:
        image = Image.composite(image, Image.new("RGB", image.size, "white"), found.alpha)
    if size is not None:
        image = ImageOps.fit(image, (width, height), Image.Resampling.LANCZOS)
    return from_pil(image)


def save_image(x: torch.Tensor, path: str | os.PathLike, lossy: bool = False) -> Path:
    """Write one image as an 8-bit file without metadata, whole or not at all, and return its path.

    x: 3×H×W in [0, 1]. path: .png, .bmp, .tif, .tiff or .webp (lossless); its folder is made if need be.
    JPEG only with lossy=True (quality 95): it discards the detail that a perturbation is made of.
    Raises ValueError for a batch, for bad values, and for an unknown or lossy format.
    """
    if check_image(x).shape[0] != 1:
        raise ValueError(f"save_image writes one image, x holds {x.shape[0]}; save x[0], x[1], … one by one")
    return write_picture(to_pil(x), path, lossy)


def write_picture(
    image: Image.Image, path: str | os.PathLike, lossy: bool = False, exif: bytes = b""
) -> Path:
    """Write a PIL image as `save_image` does, with these EXIF entries and no other metadata."""
    path = check_path(path)
    formats = LOSSLESS | LOSSY if lossy else LOSSLESS
    suffix = path.suffix.lower()
    if suffix in LOSSY and not lossy:
        raise ValueError(
            f"{path}: JPEG discards the fine detail that a perturbation is made of; "
            "save as .png, or pass lossy=True if you want that"
        )
    if suffix not in formats:
        raise ValueError(f"{path}: unknown format '{path.suffix}'; use one of {', '.join(formats)}")
    if path.is_dir():
        raise ValueError(f"{path} is a folder; name a file in it")
    with atomic(path) as temporary:
        options = formats[suffix] | ({"exif": writable(exif)} if exif else {})
        image.save(temporary, format=Image.registered_extensions()[suffix], **options)
    return path


@contextmanager
def atomic(path: str | os.PathLike) -> Iterator[Path]:
    """A temporary name in the same folder: becomes `path` if the block succeeds, vanishes if it fails."""
    path = check_path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{temporary_prefix(path)}{os.getpid()}.tmp")
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())  # the name must not be on the disk before the content
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def temporary_prefix(path: Path) -> str:
    """How the names begin that `atomic` gives this path's unfinished files; they end in ".tmp"."""
    return f".{short_name(path.name)}."


def short_name(name: str) -> str:
    """The name if file systems take it with 20 bytes more, otherwise its hash."""
    raw = os.fsencode(name)
    return name if len(raw) <= 235 else hashlib.sha256(raw).hexdigest()  # of 255 bytes
