"""A picture file's pixels: upright, sRGB, 8-bit RGB, with transparency and description kept apart.

Everything here is a PIL image. `pictures.load_image` and `photo.read_photo` both read through `decode`.
"""

import io
import os
import warnings
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import ExifTags, Image, ImageCms

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

# What turns a stored photo upright, for EXIF's orientations from 2 to 8.
TURNS = "FLIP_LEFT_RIGHT ROTATE_180 FLIP_TOP_BOTTOM TRANSPOSE ROTATE_270 TRANSVERSE ROTATE_90".split()


class Decoded(NamedTuple):
    """What a picture file holds."""

    rgb: Image.Image  # mode RGB, upright, sRGB; under transparent pixels the colours that are stored there
    alpha: Image.Image | None  # mode L, of the same size; None where every pixel is opaque
    exif: bytes  # descriptive entries, orientation 1, without preview images; empty where it has none
    notes: tuple[str, ...]  # what was wrong with the file and was passed over
    grey: bool  # no pixel has a colour


class NoRange(ValueError):
    """A sound file whose numbers don't say what is black and what is white."""


class _Stored(str):
    # Pillow reads any text as Latin-1 and writes it as ASCII; this gives back the bytes that were there.
    def encode(self, encoding: str = "latin-1", errors: str = "strict") -> bytes:
        return super().encode("latin-1")


def _stored(value: Any) -> Any:
    return _Stored(value) if isinstance(value, str) else value


def decode(path: str | os.PathLike) -> Decoded:
    """Read a picture file: EXIF rotation applied, colours in sRGB, 8 bits, an animation's first frame.

    A colour profile or an EXIF block that is damaged is ignored, with a note.
    Errors as `check_file`; ValueError for a file that isn't a readable image.
    """
    path, notes = check_file(path), []
    try:
        with warnings.catch_warnings(record=True) as warned:  # of size and of EXIF entries
            warnings.simplefilter("always")
            with open_picture(path) as file:
                file.load()
                image, exif = _upright(file, notes)
                # An MPO's other pictures are the same one for a 3D screen, or a preview.
                if file.format != "MPO" and getattr(file, "n_frames", 1) > 1:
                    notes.append(f"the first of its {file.n_frames} pictures")
                if image.mode.startswith("I"):
                    image = _eight_bits(image, getattr(file, "tag_v2", {}), notes)
                rgb, alpha = _to_srgb(image, notes)
    except MemoryError:
        raise
    except Exception as error:  # on damaged files decoders raise nearly anything
        raise ValueError(f"{path} {_problem(error)}") from error
    told = [str(warning.message) for warning in warned if "TiffImagePlugin" in warning.filename]
    if any("too many entries" not in words for words in told):  # Pillow warns of those as well
        notes.append("its EXIF block is damaged in part")
    if alpha is not None and alpha.getextrema()[0] == 255:
        alpha = None
    grey = not np.ptp(np.asarray(rgb), axis=2).any()
    return Decoded(rgb, alpha, exif, tuple(notes), grey)


def _problem(error: Exception) -> str:
    """What is wrong with a file that can't be read, and the remedy."""
    if isinstance(error, Image.UnidentifiedImageError):
        problem = "isn't an image of a kind that is read here, or only the beginning of one"
        return f"{problem}; copy it again or convert it to PNG or JPEG"
    if isinstance(error, Image.DecompressionBombError):
        limit = f"Pillow's limit of {2 * Image.MAX_IMAGE_PIXELS}"
        return f"can't be read as an image: it claims more pixels than {limit}; make it smaller first"
    if isinstance(error, NoRange):
        return f"can't be read as an image: {error}; convert it to 8 bits"
    return f"can't be read as an image ({error}); is it complete and intact?"


def open_picture(path: str | os.PathLike) -> Image.Image:
    """Pillow's `Image.open` for FORMATS alone, as far as this Pillow has them."""
    Image.init()
    return Image.open(path, formats=[name for name in FORMATS if name in Image.OPEN])


def check_file(path: str | os.PathLike) -> Path:
    """The path of what may be a picture file.

    Raises FileNotFoundError for a missing file, PermissionError for one that mayn't be read. ValueError: it
    is no path at all, or of nothing that can be a picture.
    """
    path = check_path(path)
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
    return path


def _upright(file: Image.Image, notes: list[str]) -> tuple[Image.Image, bytes]:
    """The picture, and the EXIF block to keep. What is wrong goes into `notes`, as in all functions below."""
    # Pillow's EXIF reader raises nearly anything, too; the pixels are already loaded.
    try:
        exif = file.getexif()
        orientation = exif.get(ExifTags.Base.Orientation, _orientation(file.info.get("exif", b"")))
    except Exception:
        notes.append("its EXIF block is damaged and was ignored, a rotation in it too")
        return file, b""
    # Not by Pillow's exif_transpose: it writes the whole block again, which one odd entry prevents.
    turned = orientation in range(2, 9)
    image = file.transpose(Image.Transpose[TURNS[int(orientation) - 2]]) if turned else file
    try:
        return image, _descriptive(exif, image.size, notes)
    except Exception:
        notes.append("its EXIF block is damaged in part and can't be kept")
        return image, b""


def _orientation(block: bytes) -> int:
    """EXIF's orientation without Pillow's reader, which stops at the first entry that is cut off."""
    tiff = block.removeprefix(b"Exif\0\0").removeprefix(b"Exif\0\0")  # some programs write it twice

    def number(at: int, size: int = 2) -> int:
        return int.from_bytes(tiff[at : at + size], "big" if tiff.startswith(b"MM") else "little")

    start = number(4, 4) + 2
    for entry in range(start, start + 12 * number(start - 2), 12):
        if (number(entry), number(entry + 2)) == (ExifTags.Base.Orientation, 3):  # 3: two bytes
            return number(entry + 8)
    return 1


def _descriptive(exif: Image.Exif, size: tuple[int, int], notes: list[str]) -> bytes:
    """The entries to keep as an EXIF block; empty if there is none."""
    base, ifd = ExifTags.Base, ExifTags.IFD
    kept, dropped = Image.Exif(), {base[name] for name in NOT_KEPT}
    for name in DESCRIPTIVE:
        if base[name] in exif and _is_sound(exif, base[name], None, notes):
            kept[base[name]] = _stored(exif[base[name]])
    for directory in (ifd.Exif, ifd.GPSInfo):
        entries = exif.get_ifd(directory)
        tags = [tag for tag in entries if tag not in dropped and _is_sound(entries, tag, directory, notes)]
        if tags:
            kept[directory] = {tag: _stored(entries[tag]) for tag in tags}
    if ifd.Exif in kept:
        kept[ifd.Exif] |= {base.ColorSpace: 1, base.ExifImageWidth: size[0], base.ExifImageHeight: size[1]}
    if not len(kept):
        return b""
    kept[base.Orientation] = 1
    return kept.tobytes()


def _is_sound(entries: Mapping[int, Any], tag: int, directory: int | None, notes: list[str]) -> bool:
    """Whether Pillow writes the entry as it was."""
    alone, again = Image.Exif(), Image.Exif()
    with suppress(Exception):  # Pillow's EXIF writer raises nearly anything, too
        value = _stored(entries[tag])
        alone[directory or tag] = {tag: value} if directory else value
        again.load(alone.tobytes())
        read = (again.get_ifd(directory) if directory else again)[tag]
        if read == value or repr(read) == repr(value):  # NaN equals itself only as a text
            return True
    names = ExifTags.GPSTAGS if directory == ExifTags.IFD.GPSInfo else ExifTags.TAGS
    notes.append(f"its EXIF entry {names.get(tag, tag)} can't be kept")
    return False


def writable(block: bytes) -> Image.Exif:
    """An EXIF block for Pillow's writers. Into a TIFF file they write the entries one by one, again."""
    exif, directories = Image.Exif(), (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo)
    exif.load(block)
    for entries in (exif, *(exif.get_ifd(directory) for directory in directories if directory in exif)):
        for tag, value in list(entries.items()):
            entries[tag] = _stored(value)
    return exif


def _eight_bits(image: Image.Image, tags: Mapping[int, Any], notes: list[str]) -> Image.Image:
    """Grey levels of up to 16 bits as 8, with a note where they use little of their range.

    tags: a TIFF's. Pillow passes over its BitsPerSample (of 12), and over levels where 0 is white.
    """
    base = ExifTags.Base
    levels = np.asarray(image).astype(np.int32)
    (bits, *_), (kind, *_) = tags.get(base.BitsPerSample, (16,)), tags.get(base.SampleFormat, (1,))
    if kind != 1 or bits > 16 or levels.min() < 0 or levels.max() > 65535:
        raise NoRange("signed or 32-bit pixels have no agreed range")
    top, used, negative = 2**bits - 1, levels.max(), tags.get(base.PhotometricInterpretation) == 0
    transparent = image.info.get("transparency")  # one of the levels; in 8 bits others equal it
    alpha = np.where(levels == transparent, 0, 255).astype(np.uint8)
    grey = ((top - levels if negative else levels) * (255 / top)).round().astype(np.uint8)
    small = Image.merge("LA", [Image.fromarray(grey), Image.fromarray(alpha)])
    small.info = {name: value for name, value in image.info.items() if name == "icc_profile"}
    if 0 < used < top / 15:
        look = "bright" if negative else "dark"
        notes.append(f"its levels end at {used} of {top}, so it is very {look}")
    return small


def _to_srgb(image: Image.Image, notes: list[str]) -> tuple[Image.Image, Image.Image | None]:
    """(RGB, alpha or None)."""
    if image.mode == "F":
        raise NoRange("floating-point pixels have no agreed range")
    alpha = image.convert("RGBA").getchannel("A") if image.has_transparency_data else None
    if image.mode in ("LA", "La", "1"):
        image = image.convert("L")
    elif image.mode not in ("L", "CMYK", "LAB"):
        image = image.convert("RGBA").convert("RGB") if alpha else image.convert("RGB")
    plain = image.convert("RGB")
    if not (profile := image.info.get("icc_profile")):
        return plain, alpha
    try:
        source, target = ImageCms.ImageCmsProfile(io.BytesIO(profile)), ImageCms.createProfile("sRGB")
        converted = ImageCms.profileToProfile(image, source, target, outputMode="RGB")
        if image.mode == "L":  # rounding gives no colour to a grey photo
            converted = converted.convert("L").convert("RGB")
    except (OSError, ImageCms.PyCMSError):
        notes.append("its colour profile is broken or of another kind and was ignored")
        return plain, alpha
    # Most profiles are sRGB under another name; rounding shouldn't touch those photos.
    change = np.abs(np.asarray(converted).astype(np.int16) - np.asarray(plain)).max()
    return (converted if change > 1 else plain), alpha
