"""A picture file's pixels: upright, sRGB, 8-bit RGB, with transparency and description kept apart.

Everything here is a PIL image. `images.load_image` and `photos.read_photo` both read through `decode`.
"""

import io
import os
import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import ExifTags, Image, ImageCms, ImageOps

from ..runtime.checks import check_path

# What --keep-metadata keeps of the main directory. The rest describes how the old file stored its pixels.
DESCRIPTIVE = (
    *("ImageDescription", "Make", "Model", "Software", "DateTime", "Artist", "Copyright", "HostComputer"),
    *("XResolution", "YResolution", "ResolutionUnit", "Rating"),
    *("XPTitle", "XPComment", "XPAuthor", "XPKeywords", "XPSubject"),
)

# Left out of the camera's directory: maker notes may hold a small copy of the unprotected photo.
NOT_KEPT = ("MakerNote", "ExifInteroperabilityOffset", "ExifImageWidth", "ExifImageHeight", "ColorSpace")

# What cameras and editors write. Of others some are programs: Pillow hands EPS to Ghostscript.
FORMATS = (
    *("PNG", "JPEG", "MPO", "WEBP", "AVIF", "HEIF", "GIF", "BMP", "DIB", "TIFF", "PPM", "JPEG2000"),
    *("TGA", "ICO"),
)


class Decoded(NamedTuple):
    """What a picture file holds."""

    rgb: Image.Image  # mode RGB, upright, sRGB; under transparent pixels the colours that are stored there
    alpha: Image.Image | None  # mode L, of the same size; None for a file without transparency
    exif: (
        bytes  # its descriptive EXIF entries, orientation 1, without preview images; empty where it has none
    )
    notes: tuple[str, ...]  # what was wrong with the file and was passed over


def decode(path: str | os.PathLike) -> Decoded:
    """Read a picture file: EXIF rotation applied, colours in sRGB, 8 bits, an animation's first frame.

    A colour profile or an EXIF block that is damaged is ignored, with a note.
    Raises FileNotFoundError for a missing file, PermissionError for one that mayn't be read, ValueError for
    one that isn't a readable image, or for no path at all; all name it and the remedy.
    """
    path = check_path(path)
    check_file(path)
    try:
        with warnings.catch_warnings():
            # Of size, no problem up to Pillow's limit, and of damaged metadata, which the notes tell.
            warnings.simplefilter("ignore")
            with open_picture(path) as file:
                file.load()
                image, exif, notes = _upright(file)
                notes += _left_out(file)
                rgb, alpha, note = _to_srgb(image)
    except Image.UnidentifiedImageError as error:
        raise ValueError(
            f"{path} isn't an image of a kind that is read here, or only the beginning of one; "
            "copy it again or convert it to PNG or JPEG"
        ) from error
    except Image.DecompressionBombError as error:
        raise ValueError(
            f"{path} can't be read as an image: it claims more pixels than Pillow's limit of "
            f"{2 * Image.MAX_IMAGE_PIXELS}; make it smaller first"
        ) from error
    except Exception as error:  # on damaged files decoders raise nearly anything
        raise ValueError(f"{path} can't be read as an image ({error}); is it complete and intact?") from error
    return Decoded(rgb, alpha, exif, tuple(filter(None, (*notes, note))))


def open_picture(path: str | os.PathLike) -> Image.Image:
    """Pillow's `Image.open` for FORMATS alone, as far as this Pillow has them."""
    Image.init()
    return Image.open(path, formats=[name for name in FORMATS if name in Image.OPEN])


def check_file(path: Path) -> None:
    """Raises FileNotFoundError, PermissionError or ValueError for what can't be a picture file."""
    if not path.exists():
        if path.is_symlink():
            raise FileNotFoundError(f"{path} is a link to a file that isn't there; name the file itself")
        raise FileNotFoundError(f"{path}: no such file; check the path (now in {Path.cwd()})")
    if path.is_dir():
        raise ValueError(f"{path} is a folder, not an image; name one of the files in it")
    if not path.is_file():
        raise ValueError(f"{path} is no ordinary file (a pipe or a device); name a picture file")
    if not os.access(path, os.R_OK):
        raise PermissionError(f"{path} mayn't be read; change its permissions")
    if path.stat().st_size == 0:
        raise ValueError(f"{path} is empty (0 bytes); copy or download it again")


def _left_out(file: Image.Image) -> list[str]:
    # An MPO's other pictures are the same one for a 3D screen, or a preview.
    if file.format == "MPO" or getattr(file, "n_frames", 1) == 1:
        return []
    return [f"the first of its {file.n_frames} pictures"]


def _upright(file: Image.Image) -> tuple[Image.Image, bytes, list[str]]:
    # Pillow's EXIF reader raises nearly anything, too; the pixels are already loaded.
    try:
        image = ImageOps.exif_transpose(file)
    except Exception:
        return file, b"", ["its EXIF block is damaged and was ignored, a rotation in it too"]
    try:
        return image, _descriptive(file.getexif(), image.size), []
    except Exception:
        return image, b"", ["its EXIF block is damaged in part and can't be kept"]


def _descriptive(exif: Image.Exif, size: tuple[int, int]) -> bytes:
    base, ifd = ExifTags.Base, ExifTags.IFD
    kept = Image.Exif()
    for name in DESCRIPTIVE:
        if base[name] in exif:
            kept[base[name]] = exif[base[name]]
    dropped = {base[name] for name in NOT_KEPT}
    camera = {tag: value for tag, value in exif.get_ifd(ifd.Exif).items() if tag not in dropped}
    if camera:
        kept[ifd.Exif] = camera | {
            base.ColorSpace: 1,
            base.ExifImageWidth: size[0],
            base.ExifImageHeight: size[1],
        }
    place = exif.get_ifd(ifd.GPSInfo)
    if place:
        kept[ifd.GPSInfo] = dict(place)
    if not len(kept):
        return b""
    kept[base.Orientation] = 1
    return kept.tobytes()


def _to_srgb(image: Image.Image) -> tuple[Image.Image, Image.Image | None, str | None]:
    """(RGB, alpha or None, note or None)."""
    profile = image.info.get("icc_profile")
    alpha = None
    if image.mode == "F":
        raise ValueError("floating-point pixels have no agreed range")
    if image.mode.startswith("I"):  # Pillow would clip 16 bits at 255; 65535 is white
        grey = np.asarray(image).astype(np.float64)
        if grey.min() < 0 or grey.max() > 65535:
            raise ValueError("32-bit pixels have no agreed range")
        transparent = image.info.get("transparency")  # one of the 65536 greys, no longer told from its like
        if transparent is not None:
            alpha = Image.fromarray(np.where(grey == transparent, 0, 255).astype(np.uint8))
        image = Image.fromarray((grey / 257).round().astype(np.uint8))
    elif image.has_transparency_data:
        alpha = image.convert("RGBA").getchannel("A")
    if image.mode in ("LA", "La", "1"):
        image = image.convert("L")
    elif image.mode not in ("L", "CMYK", "LAB"):
        image = image.convert("RGBA").convert("RGB") if alpha else image.convert("RGB")
    plain = image.convert("RGB")
    if not profile:
        return plain, alpha, None
    try:
        source, target = ImageCms.ImageCmsProfile(io.BytesIO(profile)), ImageCms.createProfile("sRGB")
        converted = ImageCms.profileToProfile(image, source, target, outputMode="RGB")
    except (OSError, ImageCms.PyCMSError):
        return plain, alpha, "its colour profile is broken or of another kind and was ignored"
    # Most profiles are sRGB under another name; rounding shouldn't touch those photos.
    change = np.abs(np.asarray(converted).astype(np.int16) - np.asarray(plain)).max()
    return (converted if change > 1 else plain), alpha, None
