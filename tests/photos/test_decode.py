"""What files hold comes back as it was meant: texts, rotation, grey levels, opaque pixels, no colours."""

import struct

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image
from raw import exif, grey_tiff, noise

from antipure_lib.core.images import quantise
from antipure_lib.photos.photo import as_grey, read_photo, save_photo
from antipure_lib.photos.pictures import load_image

CAMERA = ExifTags.IFD.Exif
ORIENTATION = (0x0112, 3, struct.pack("<H", 6))
RAMP = np.add.outer(np.arange(24), np.arange(32)) / 54  # 0 … 1
TEXTS = [ExifTags.Base[name] for name in ("ImageDescription", "Make", "Software", "Artist", "Copyright")]
CAMERA_TEXTS = [ExifTags.Base[name] for name in ("LensModel", "CameraOwnerName", "BodySerialNumber")]


def grey_noise():
    return noise().convert("L")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """One folder for the many files of property tests."""
    return tmp_path_factory.mktemp("decoded")


@settings(deadline=None, max_examples=40)
@given(
    raw=st.binary(min_size=1, max_size=40).filter(lambda raw: raw[-1]),
    main=st.sampled_from(TEXTS),
    camera=st.sampled_from(CAMERA_TEXTS),
    order=st.sampled_from("<>"),
    kinds=st.sampled_from([("png", "jpg"), ("webp", "png"), ("jpg", "tif"), ("jpg", "webp")]),
)
def test_every_text_is_kept_byte_by_byte(folder, raw, main, camera, order, kinds):
    """Whatever its encoding: any bytes, with a NUL between two texts too."""
    block = exif([(main, 2, raw + b"\0")], [(camera, 2, raw + b"\0")], order)
    noise().save(folder / f"x.{kinds[0]}", exif=block)
    photo = read_photo(folder / f"x.{kinds[0]}")
    assert photo.notes == ()
    saved = save_photo(photo, photo.x, folder / f"y.{kinds[1]}", keep_metadata=True, lossy=kinds[1] == "jpg")
    with Image.open(saved) as file:
        found = file.getexif()
        texts = found[main], found.get_ifd(CAMERA)[camera]
    assert [text.encode("latin-1") for text in texts] == [raw, raw]  # Pillow reads texts as Latin-1


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1", "shift-jis", "utf-16"])
def test_a_text_of_a_tiff_is_kept_in_a_tiff(tmp_path, encoding):
    raw = ("夜の写真" if encoding == "shift-jis" else "© Zoë Müller").encode(encoding)
    content = grey_tiff(np.round(RAMP * 255).astype(int), 8, more=[(0x013B, 2, raw + b"\0")])
    (tmp_path / "x.tif").write_bytes(content)
    photo = read_photo(tmp_path / "x.tif")
    for name in ("y.tif", "y.png"):
        saved = Image.open(save_photo(photo, photo.x, tmp_path / name, keep_metadata=True))
        assert saved.getexif()[0x013B].encode("latin-1") == raw


RATIO = struct.pack("<2I", 72, 1)
ODD = {
    "ratio of nothing": (0x011A, 5, struct.pack("<2I", 0, 0)),
    "resolution as bytes": (0x011A, 7, b"\0\1\2"),
    "resolution as text": (0x011B, 2, b"72 dpi\0"),
    "width as text": (0x0100, 2, b"640 px\0"),
    "name as a ratio": (0x010D, 5, RATIO),
    "date as numbers": (0x0132, 3, struct.pack("<3H", 2024, 5, 1)),
    "copyright as a ratio": (0x8298, 5, RATIO),
    "bits beyond 16": (0x0102, 4, struct.pack("<I", 2**31)),
    "images' list as numbers": (0xB003, 3, struct.pack("<3H", 1, 2, 70)),
    "XMP as a ratio": (0x02BC, 5, struct.pack("<2I", 1, 0)),
    "pointer into nothing": (0x8825, 4, struct.pack("<I", 10**6)),
}


def stands(path, stored):
    wanted = np.asarray(stored.transpose(Image.Transpose.ROTATE_270)) / 255
    photo = read_photo(path)
    assert np.array_equal(photo.x.permute(1, 2, 0).numpy(), wanted.astype(np.float32))
    return photo


@pytest.mark.parametrize("name", ODD)
def test_an_odd_entry_costs_neither_the_rotation_nor_the_other_entries(tmp_path, name):
    block = exif([ORIENTATION, (0x010F, 2, b"Maker\0"), ODD[name]], [(0xA434, 2, b"Lens\0")])
    noise().save(tmp_path / "x.png", exif=block)
    photo = stands(tmp_path / "x.png", noise())
    assert b"Maker" in photo.exif and b"Lens" in photo.exif


@settings(deadline=None, max_examples=150)
@given(data=st.data())
def test_any_entry_of_any_type_costs_neither_the_rotation_nor_the_other_entries(folder, data):
    tag = data.draw(st.sampled_from(sorted(set(ExifTags.TAGS) - {0x010F, 0x0112, 0x8769, 0xA434})))
    kind, size = data.draw(st.sampled_from([(1, 1), (2, 1), (3, 2), (4, 4), (5, 8), (6, 1), (7, 1), (10, 8)]))
    number = data.draw(st.integers(1, 5))
    entry = (tag, kind, data.draw(st.binary(min_size=size * number, max_size=size * number)))
    in_camera = data.draw(st.booleans())
    main, camera = ([], [entry]) if in_camera else ([entry], [])
    block = exif([ORIENTATION, (0x010F, 2, b"Maker\0"), *main], [(0xA434, 2, b"Lens\0"), *camera])
    noise().save(folder / "x.png", exif=block)
    photo = stands(folder / "x.png", noise())
    assert b"Maker" in photo.exif and b"Lens" in photo.exif


def test_a_block_that_is_cut_off_is_told_by_load_image_too(tmp_path):
    block = exif([ORIENTATION, (0x010F, 2, b"Maker of cameras\0")])
    told = len(b"Exif\0\0") + 8 + 2 + 12 + 8 + 1  # the maker's entry comes first, and 6 fits into one byte
    for length in range(24, len(block) - 1):
        noise().save(tmp_path / "cut.png", exif=block[:length])
        photo = read_photo(tmp_path / "cut.png") if length < told else stands(tmp_path / "cut.png", noise())
        assert "its EXIF block is damaged in part" in photo.notes
    noise().save(tmp_path / "resolution.png", exif=exif([ODD["resolution as text"]]))
    noise().save(tmp_path / "profile.png", icc_profile=bytes(200))
    noise().save(tmp_path / "film.gif", save_all=True, append_images=[noise(seed=1)])
    expected = {"cut": "EXIF", "resolution": "YResolution", "profile": "profile", "film": "first of its 2"}
    for path in tmp_path.iterdir():
        assert any(expected[path.stem] in note for note in read_photo(path).notes)
        with pytest.warns(UserWarning, match=f"{path.name}: .*{expected[path.stem]}"):
            load_image(path)


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("white_is_zero", [False, True])
@pytest.mark.parametrize("bits", [1, 2, 4, 8, 12, 16])
def test_grey_levels_of_a_tiff_are_right_or_refused(tmp_path, bits, white_is_zero, order):
    top = 2**bits - 1
    levels = np.round(RAMP * top).astype(int)
    path = tmp_path / "x.tif"
    path.write_bytes(grey_tiff(top - levels if white_is_zero else levels, bits, white_is_zero, order))
    if bits > 8 and (order == ">" and (white_is_zero or bits == 12) or white_is_zero and bits == 12):
        with pytest.raises(ValueError, match="isn't an image of a kind that is read here.*convert"):
            read_photo(path)  # Pillow knows none of these
        return
    photo = read_photo(path)
    assert np.abs(photo.x.numpy() - levels / top).max() <= 0.5 / 255 + 1e-6
    assert photo.grey and photo.notes == ()


@pytest.mark.parametrize(
    ("bits", "signed", "order"), [(32, False, "<"), (32, True, ">"), (16, True, "<"), (16, True, ">")]
)
def test_sound_numbers_without_a_range_are_refused_as_such(tmp_path, bits, signed, order):
    levels = np.round(RAMP * 1000).astype(int)
    (tmp_path / "x.tif").write_bytes(grey_tiff(levels, bits, order=order, signed=signed))
    with pytest.raises(ValueError, match="x.tif can't be .*signed or 32-bit pixels have no .*; convert"):
        load_image(tmp_path / "x.tif")


@pytest.mark.parametrize(("bits", "used"), [(16, 255), (16, 1023), (16, 4095), (12, 255)])
def test_levels_that_use_little_of_their_range_are_told(tmp_path, bits, used):
    levels = np.round(RAMP * used).astype(int)
    for name, white_is_zero in (("x.tif", False), ("y.tif", bits == 16)):
        (tmp_path / name).write_bytes(grey_tiff(levels, bits, white_is_zero))
        (note,) = read_photo(tmp_path / name).notes
        assert f"{used} of {2**bits - 1}" in note and ("bright" if white_is_zero else "dark") in note


def test_a_pgm_of_few_levels_has_its_own_white(tmp_path):
    levels = np.round(RAMP * 1023).astype(int)
    rows = "\n".join(" ".join(map(str, row)) for row in levels)
    (tmp_path / "x.pgm").write_text(f"P2\n32 24\n1023\n{rows}\n")
    photo = read_photo(tmp_path / "x.pgm")
    assert np.abs(photo.x.numpy() - levels / 1023).max() <= 1 / 255 and photo.notes == ()


OPAQUE = {
    "RGBA.png": lambda path: noise().convert("RGBA").save(path),
    "LA.tif": lambda path: grey_noise().convert("LA").save(path),
    "RGBA.tif": lambda path: noise().convert("RGBA").save(path),
    "RGBA.tga": lambda path: noise().convert("RGBA").save(path),
    "RGBA.ico": lambda path: noise(32, 32).convert("RGBA").save(path, sizes=[(32, 32)]),
    "unused colour.png": lambda path: noise().quantize(16).save(path, transparency=bytes([255] * 16)),
    "unused grey.png": lambda path: grey_noise().point(lambda v: v | 1).save(path, transparency=0),
    "16 bits.png": lambda path: Image.fromarray(np.full((9, 9), 4e4, np.uint16)).save(path, transparency=7),
}


@pytest.mark.parametrize("name", OPAQUE)
def test_an_alpha_channel_of_an_opaque_photo_is_none(tmp_path, name):
    OPAQUE[name](tmp_path / name)
    with Image.open(tmp_path / name) as file:
        assert file.has_transparency_data
        colours = np.asarray(file.convert("RGBA").convert("RGB"))
    photo = read_photo(tmp_path / name)
    assert photo.alpha is None
    assert "16" in name or np.array_equal((photo.x * 255).round().permute(1, 2, 0).numpy(), colours)
    assert save_photo(photo, photo.x, tmp_path / "y.jpg", lossy=True).is_file()


def test_one_pixel_that_is_nearly_opaque_is_transparency(tmp_path):
    image = noise().convert("RGBA")
    image.putpixel((3, 4), (1, 2, 3, 254))
    image.save(tmp_path / "x.png")
    assert read_photo(tmp_path / "x.png").alpha.getextrema() == (254, 255)


GREY = {
    "L.png": lambda path: grey_noise().save(path),
    "L.jpg": lambda path: grey_noise().save(path, quality=95),
    "colour's JPEG.jpg": lambda path: grey_noise().convert("RGB").save(path, quality=75),
    "bits.png": lambda path: noise().convert("1").save(path),
    "palette.gif": lambda path: grey_noise().save(path),
    "16 bits.png": lambda path: Image.fromarray(np.uint16(RAMP * 65535)).save(path),
    "equal channels.webp": lambda path: grey_noise().convert("RGB").save(path, lossless=True),
    "profile.png": lambda path: grey_noise().save(path, icc_profile=grey_profile()),
}


def grey_profile():
    """A profile for grey pixels with gamma 1.8: header, tag table, white point, tone curve."""
    white = b"XYZ " + bytes(4) + struct.pack(">3i", 63190, 65536, 54061)
    curve = b"curv" + bytes(4) + struct.pack(">IH", 1, round(1.8 * 256)) + bytes(2)
    tags = struct.pack(">I4sII4sII", 2, b"wtpt", 156, 20, b"kTRC", 176, 16)
    names = (b"mntr", b"GRAY", b"XYZ ", b"acsp")
    head = struct.pack(">I4sI4s4s4s12x4s28x3i48x", 192, b"lcms", 0x02400000, *names, 63190, 65536, 54061)
    return head + tags + white + curve


@pytest.mark.parametrize("suffix", [".png", ".tif", ".bmp", ".webp", ".jpg"])
@pytest.mark.parametrize("name", GREY)
def test_a_grey_photo_comes_back_grey_and_within_its_budget(tmp_path, name, suffix):
    GREY[name](tmp_path / name)
    photo = read_photo(tmp_path / name)
    assert photo.grey and photo.notes == ()
    noise = torch.rand(photo.x.shape, generator=torch.Generator().manual_seed(0)) * 2 - 1
    coloured = quantise((photo.x + 8 / 255 * noise).clamp(0, 1))
    assert not torch.equal(coloured[0], coloured[1])
    x_adv = as_grey(coloured)
    assert x_adv.shape == photo.x.shape and torch.equal(x_adv, quantise(x_adv))
    assert 0 < (x_adv - photo.x).abs().max() <= 8 / 255 + 1e-6
    assert torch.equal(as_grey(coloured[None]), x_adv[None])
    path = save_photo(photo, x_adv, tmp_path / f"y{suffix}", lossy=suffix == ".jpg")
    assert read_photo(path).grey
    assert Image.open(path).mode == ("RGB" if suffix == ".webp" else "L")  # WebP has no grey
    assert suffix == ".jpg" or torch.equal(read_photo(path).x, x_adv)


def test_colours_stay_and_so_does_transparency_of_grey(tmp_path):
    one_pixel = grey_noise().convert("RGB")
    one_pixel.putpixel((5, 5), (100, 100, 101))
    one_pixel.save(tmp_path / "x.png")
    photo = read_photo(tmp_path / "x.png")
    assert not photo.grey
    assert Image.open(save_photo(photo, as_grey(photo.x), tmp_path / "y.png")).mode == "RGB"
    clear = grey_noise().convert("LA")
    clear.putalpha(100)
    clear.save(tmp_path / "x.png")
    photo = read_photo(tmp_path / "x.png")
    assert photo.grey
    for name in ("y.bmp", "y.jpg"):
        with pytest.raises(ValueError, match=f"{name}: this format can't hold.*; save it as .png"):
            save_photo(photo, photo.x, tmp_path / name, lossy=True)
    for name in ("y.png", "y.tif", "y.webp"):
        saved = read_photo(save_photo(photo, photo.x, tmp_path / name))
        assert saved.grey and saved.alpha.getextrema() == (100, 100)
