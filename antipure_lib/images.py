"""Images in and out: float32 tensors 3×H×W or N×3×H×W, RGB, [0, 1]; files are 8-bit.

Diffusion models see [−1, 1]; `to_model` and `from_model` are the only place where the range changes.
"""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps

from .checks import check_counts, check_eta, check_path
from .decode import decode

LEVELS = 255  # an 8-bit file holds k/255, k = 0..255
LOSSLESS = {".png": {}, ".bmp": {}, ".tif": {}, ".tiff": {}, ".webp": {"lossless": True, "exact": True}}
LOSSY = {".jpg": {"quality": 95}, ".jpeg": {"quality": 95}}


def check_image(x: torch.Tensor, name: str = "x") -> torch.Tensor:
    """An image or a batch of them as a batch, after checking that it is what this library takes.

    x: 3×H×W or N×3×H×W, float32 or float64, RGB, [0, 1]. Returns N×3×H×W (a view).
    Raises TypeError or ValueError naming the argument, the problem and the remedy.
    """
    if not isinstance(x, torch.Tensor):
        raise TypeError(f"{name} must be a torch.Tensor, got {type(x).__name__}; load files with load_image")
    if not x.is_floating_point():
        raise TypeError(f"{name} must be floating point in [0, 1], got {x.dtype}; use {name}.float() / 255")
    if torch.finfo(x.dtype).bits < 32:  # between 128/255 and 1 they can't tell all 8-bit levels apart
        raise TypeError(f"{name} must be float32, got {x.dtype}, too coarse for a budget; use {name}.float()")
    if x.ndim not in (3, 4) or x.shape[-3] != 3 or x.numel() == 0:
        raise ValueError(f"{name} must be 3×H×W or N×3×H×W (RGB, channels first), got {tuple(x.shape)}")
    low, high = (bound.item() for bound in x.detach().aminmax())
    if not (np.isfinite(low) and np.isfinite(high)):
        raise ValueError(f"{name} holds NaN or infinite values; find out where they come from")
    if low < 0 or high > 1:
        raise ValueError(
            f"{name} must lie in [0, 1], got [{low:.4g}, {high:.4g}]; "
            f"map [0, 255] by /255 and [-1, 1] by (v+1)/2, or clamp what overshoots"
        )
    return x if x.ndim == 4 else x[None]


def to_model(x: torch.Tensor) -> torch.Tensor:
    """[0, 1] → [−1, 1], the range diffusion models are trained in."""
    return 2 * x - 1


def from_model(y: torch.Tensor) -> torch.Tensor:
    """[−1, 1] → [0, 1], clamped: models overshoot."""
    return ((y + 1) / 2).clamp(0, 1)


def quantise(x: torch.Tensor) -> torch.Tensor:
    """Round [0, 1] values to the 256 levels of an 8-bit file: exactly what saving and loading returns."""
    return (x * LEVELS).round() / LEVELS


def quantise_within(x_adv: torch.Tensor, x: torch.Tensor, eta: float) -> torch.Tensor:
    """Round `x_adv` to 8-bit levels without leaving the budget: ‖q − x‖∞ ≤ η also holds for the saved file.

    Nearest level, except where it lies outside [x−η, x+η]: then the nearest level inside.
    x_adv, x: same shape, [0, 1]; eta: [0, 1] units. Returns it on x's device, wherever x_adv was made.
    Raises ValueError as `check_eight_bit`: below 1/255 the interval may hold no level but x itself, or none.
    """
    check_eight_bit(eta)
    slack = 1e-4  # levels; float32 rounding of 255·(x±η) stays below half of it
    low = ((x - eta) * LEVELS - slack).ceil()
    high = ((x + eta) * LEVELS + slack).floor()
    level = (x_adv.to(x.device) * LEVELS).round()
    return level.clamp(low, high).clamp(0, LEVELS) / LEVELS


def check_eight_bit(eta: float) -> None:
    """Raises ValueError for a budget outside (0, 1], or below 1/255, one level of an 8-bit file."""
    check_eta(eta)
    if eta * LEVELS < 1 - 1e-6:
        raise ValueError(
            f"eta={eta:.3g} is less than 1/255, and an 8-bit file can't hold so small a change: give at "
            "least 1/255, for example 8/255, or eight_bit=False where the function has it"
        )


def load_image(path: str | os.PathLike, size: int | tuple[int, int] | None = None) -> torch.Tensor:
    """Read a photo as 3×H×W float32 RGB in [0, 1].

    size: None keeps the file's own; an int gives a square of that side; (H, W) that size. The photo is cut
    to the aspect around its centre and resampled (Lanczos, antialiased), never stretched.
    Applies the EXIF rotation; converts palette, grey, 16-bit and CMYK to RGB, and colours of a profile to
    sRGB; lays transparent images on white; takes the first frame of an animation.
    Errors: see `decode`; ValueError for a size that isn't one or two whole numbers of at least 1.
    """
    if size is not None:
        height, width = size if isinstance(size, tuple | list) and len(size) == 2 else (size, size)
        check_counts(size=height)
        check_counts(size=width)
    image, alpha, _, _ = decode(path)
    if alpha is not None:
        image = Image.composite(image, Image.new("RGB", image.size, "white"), alpha)
    if size is not None:
        image = ImageOps.fit(image, (width, height), Image.Resampling.LANCZOS)
    return from_pil(image)


def save_image(x: torch.Tensor, path: str | os.PathLike, lossy: bool = False) -> Path:
    """Write one image as an 8-bit file, whole or not at all, and return its path.

    x: 3×H×W in [0, 1]. path: .png, .bmp, .tif, .tiff or .webp (lossless).
    .jpg only with lossy=True (quality 95): JPEG discards the detail that a perturbation is made of.
    Raises ValueError for a batch, for bad values, and for an unknown or lossy format.
    Makes the folder if need be. Writes no metadata.
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
        options = formats[suffix] | ({"exif": exif} if exif else {})
        image.save(temporary, format=Image.registered_extensions()[suffix], **options)
    return path


@contextmanager
def atomic(path: str | os.PathLike) -> Iterator[Path]:
    """A temporary name in the same folder: becomes `path` if the block succeeds, vanishes if it fails."""
    path = Path(path)
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
    short = len(os.fsencode(path.name)) <= 235  # file systems take 255 bytes
    return f".{path.name if short else hashlib.sha256(os.fsencode(path.name)).hexdigest()[:16]}."


def to_pil(x: torch.Tensor) -> Image.Image:
    """3×H×W (or 1×3×H×W) in [0, 1] → an 8-bit PIL image."""
    pixels = (check_image(x)[0].detach() * LEVELS).round().to("cpu", torch.uint8)
    return Image.fromarray(pixels.permute(1, 2, 0).contiguous().numpy())


def from_pil(image: Image.Image) -> torch.Tensor:
    """An RGB PIL image → 3×H×W float32 in [0, 1]."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / LEVELS
