"""Photos of one's own: read at their own size with what belongs to them, and written back losslessly."""

import os
import warnings
from pathlib import Path
from typing import NamedTuple

import torch
from PIL import Image

from ..core.images import from_pil, to_pil
from ..runtime.checks import check_path
from .decode import check_file, decode, open_picture
from .pictures import write_picture


class Photo(NamedTuple):
    """A photo and what `save_photo` puts back."""

    x: torch.Tensor  # 3×H×W float32 RGB in [0, 1], upright, sRGB; under transparent pixels the stored colours
    alpha: Image.Image | None = None  # mode L, W×H; None for an opaque photo
    exif: bytes = b""  # descriptive entries, see `decode`
    notes: tuple[str, ...] = ()  # what was wrong with the file and was passed over
    grey: bool = False  # no pixel has a colour; see `as_grey`


def read_photo(path: str | os.PathLike) -> Photo:
    """Read a photo at its own size.

    Unlike `load_image`, transparency isn't laid on white but kept: colours under it are protected, too,
    because whoever drops the transparency sees them. Errors: see `decode`.
    """
    rgb, *rest = decode(path)
    return Photo(from_pil(rgb), *rest)


def as_grey(x: torch.Tensor) -> torch.Tensor:
    """A grey photo's result without the colours that it was given: each pixel's median over the channels.

    x: 3×H×W or N×3×H×W, as is the result. Being one of the three values, it keeps 8-bit levels and budgets.
    On two rendered people, 3.0/255 of it are left after 5 iterations of GrIDPure, and 2.5/255 of the mean.
    """
    return x.median(-3, keepdim=True).values.expand_as(x)


def made_grey(photo: Photo) -> Photo:
    """The photo without its colours, on 8-bit levels: the luma of ITU-R BT.601, as in Pillow's mode L."""
    if photo.grey:
        return photo
    return photo._replace(x=from_pil(to_pil(photo.x).convert("L").convert("RGB")), grey=True)


def photo_size(path: str | os.PathLike) -> tuple[int, int] | None:
    """Height and width as they are stored, from the file's header alone; None if that can't be read."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of size: whoever reads the photo says so
            with open_picture(check_file(path)) as file:  # a pipe would be waited for
                return file.height, file.width
    except Exception:  # on damaged files decoders raise nearly anything
        return None


def save_photo(
    photo: Photo, x: torch.Tensor, path: str | os.PathLike, keep_metadata: bool = False, lossy: bool = False
) -> Path:
    """Write `x`, made from `photo`, whole or not at all, with the photo's transparency. Returns the path.

    x: 3×H×W in [0, 1], of the photo's size. keep_metadata: write its EXIF entries; otherwise no metadata.
    A colour profile is never written: the pixels are sRGB. path and lossy: as in `save_image`. A grey
    result of a grey photo without transparency is written with one channel (mode L).
    Raises ValueError as `save_image` does, for another size, and for a JPEG or BMP of a transparent photo.
    """
    image = to_pil(x)
    if x.shape != photo.x.shape:
        raise ValueError(f"x must have the photo's shape {tuple(photo.x.shape)}, got {tuple(x.shape)}")
    if photo.alpha is not None:
        if check_path(path).suffix.lower() in (".jpg", ".jpeg", ".bmp"):
            raise ValueError(f"{path}: this format can't hold the photo's transparency; save it as .png")
        image.putalpha(photo.alpha)
    elif photo.grey and (x == x[:1]).all():
        image = image.getchannel(0)
    return write_picture(image, path, lossy, photo.exif if keep_metadata else b"")
