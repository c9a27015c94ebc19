"""Photos keep size, colours and transparency; padding reflects; what JPEG leaves is measured."""

import io
import struct
import zlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image, ImageCms
from raw import noise, png

from antipure_lib.core.images import quantise
from antipure_lib.core.tiles import at_least
from antipure_lib.photos.photo import Photo, read_photo, save_photo
from antipure_lib.photos.pictures import load_image
from antipure_lib.purifiers.filters import kept_by_jpeg

BASE, IFD = ExifTags.Base, ExifTags.IFD
# Colorants adapted to D50, from the ICC profiles that bear these names.
SRGB = np.array([[0.4360, 0.3851, 0.1431], [0.2225, 0.7169, 0.0606], [0.0139, 0.0971, 0.7141]])
P3 = np.array([[0.5151, 0.2920, 0.1571], [0.2412, 0.6922, 0.0666], [-0.0011, 0.0419, 0.7841]])


def profile_with(colorants):
    """Pillow's sRGB profile with other primaries, column by column."""
    content = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    (count,) = struct.unpack_from(">I", content, 128)
    for entry in range(132, 132 + 12 * count, 12):
        tag, start, _ = struct.unpack_from(">4sII", content, entry)
        if tag in (b"rXYZ", b"gXYZ", b"bXYZ"):
            column = colorants[:, b"rgb".index(tag[0])]
            struct.pack_into(">3i", content, start + 8, *(round(value * 65536) for value in column))
    return bytes(content)


def pixels_of(x):
    return (x * 255).round().permute(1, 2, 0).numpy().astype(int)


@pytest.mark.parametrize("name", ["x.png", "x.jpg", "x.tif", "x.webp"])
def test_a_wide_gamut_photo_becomes_srgb(tmp_path, name):
    stored = noise(32, 32, 90, 160)  # greyish, so that sRGB can show it
    options = {"x.jpg": {"quality": 95}, "x.webp": {"lossless": True}}.get(name, {})
    stored.save(tmp_path / name, icc_profile=profile_with(P3), **options)
    v = np.asarray(Image.open(tmp_path / name).convert("RGB")) / 255
    linear = np.where(v <= 0.04045, v / 12.92, ((v + 0.055) / 1.055) ** 2.4)
    linear = (linear @ (np.linalg.inv(SRGB) @ P3).T).clip(0, 1)
    expected = np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055) * 255
    assert np.abs(expected - 255 * v).max() > 3  # the profile says something
    assert np.abs(pixels_of(load_image(tmp_path / name)) - expected).max() < 2
    assert torch.equal(read_photo(tmp_path / name).x, load_image(tmp_path / name))
    assert read_photo(tmp_path / name).notes == ()


def test_a_profile_that_is_srgb_changes_no_pixel(tmp_path):
    stored = noise()
    nearly = SRGB * (1 + 1e-4 * np.array([1, -1, 1]))
    for colorants in (SRGB, nearly):
        stored.save(tmp_path / "x.png", icc_profile=profile_with(colorants))
        assert (pixels_of(load_image(tmp_path / "x.png")) == np.asarray(stored)).all()


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_a_profile_that_cannot_be_used_is_ignored_and_told(tmp_path, mode):
    stored = noise().convert(mode)
    profile = b"nonsense" * 40 if mode == "RGB" else profile_with(P3)
    stored.save(tmp_path / "x.tif", icc_profile=profile)
    photo = read_photo(tmp_path / "x.tif")
    assert (pixels_of(photo.x) == np.asarray(stored.convert("RGB"))).all()
    assert ["profile" in note for note in photo.notes] == [True]


def test_a_damaged_exif_block_is_ignored_and_told(tmp_path):
    noise().save(tmp_path / "x.jpg", exif=b"Exif\0\0" + b"MM\0*\xff\xff\xff\xff" + b"garbage")
    noise().save(tmp_path / "y.png", exif=b"Exif\0\0" + b"nonsense")
    for name in ("x.jpg", "y.png"):
        photo = read_photo(tmp_path / name)
        assert photo.x.shape == (3, 24, 32) and photo.exif == b""
    assert "EXIF" in read_photo(tmp_path / "y.png").notes[0]


@pytest.mark.parametrize("name", ["x.gif", "x.png", "x.tif", "x.webp"])
def test_of_several_pictures_the_first_is_taken_and_told(tmp_path, name):
    first, second = (noise(low=low, high=low + 1) for low in (40, 200))
    first.save(tmp_path / name, save_all=True, append_images=[second])
    photo = read_photo(tmp_path / name)
    assert (photo.x * 255 - 40).abs().max() < 2
    assert photo.notes == ("the first of its 2 pictures",)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparency_is_kept_and_colours_under_it_too(tmp_path, mode):
    alpha = Image.fromarray((np.arange(768) % 256).astype(np.uint8).reshape(24, 32))
    stored = noise().convert("L" if mode == "LA" else "RGB")
    if mode == "P":
        stored = stored.quantize(16)
        stored.info["transparency"] = 3
        alpha = stored.convert("RGBA").getchannel("A")
    else:
        stored.putalpha(alpha)
    stored.save(tmp_path / "x.png")
    photo = read_photo(tmp_path / "x.png")
    colours = stored.convert("RGBA").convert("RGB")
    assert (pixels_of(photo.x) == np.asarray(colours)).all()
    changed = quantise((photo.x + 8 / 255).clamp(0, 1))
    saved = Image.open(save_photo(photo, changed, tmp_path / "y.png"))
    assert saved.mode == "RGBA"
    assert (np.asarray(saved.getchannel("A")) == np.asarray(alpha)).all()
    assert (np.asarray(saved)[..., :3] == pixels_of(changed)).all()


@pytest.mark.parametrize("level", [0, 300, 65535])
def test_sixteen_bit_grey_keeps_its_transparency(tmp_path, level):
    """One of 65,536 greys is transparent, not those that 8 bits no longer tell from it."""
    grey = np.array([[0, 1, 299, 300, 301, 65535]] * 2, np.uint16)
    header = struct.pack(">IIBBBBB", 6, 2, 16, 0, 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in grey)
    chunks = [(b"IHDR", header), (b"tRNS", struct.pack(">H", level)), (b"IDAT", zlib.compress(rows))]
    (tmp_path / "x.png").write_bytes(png(*chunks))
    photo = read_photo(tmp_path / "x.png")
    assert (np.asarray(photo.alpha) == np.where(grey == level, 0, 255)).all()
    assert (pixels_of(photo.x) == np.round(grey / 257)[..., None]).all()
    saved = Image.open(save_photo(photo, photo.x, tmp_path / "y.png"))
    assert saved.mode == "RGBA" and (np.asarray(saved.getchannel("A")) == np.asarray(photo.alpha)).all()


def camera_exif():
    exif = Image.Exif()
    exif[BASE.Model], exif[BASE.DateTime], exif[BASE.Orientation] = "Camera", "2026:01:02 03:04:05", 6
    exif[BASE.StripOffsets] = 77  # of the old file
    exif[IFD.Exif] = {BASE.ExposureTime: 0.02, BASE.MakerNote: b"preview", BASE.ColorSpace: 65535}
    exif[IFD.GPSInfo] = {1: "N", 2: (50.0, 30.0, 0.0)}
    return exif


def test_metadata_is_stripped_unless_asked_for(tmp_path):
    """Stripped by default; kept: camera, date and place, but no rotation, profile, preview or layout."""
    stored = noise(12, 16)
    stored.save(tmp_path / "x.jpg", exif=camera_exif(), icc_profile=profile_with(P3), comment="private")
    photo = read_photo(tmp_path / "x.jpg")
    assert photo.x.shape == (3, 16, 12)
    bare = Image.open(save_photo(photo, photo.x, tmp_path / "bare.png"))
    bare.load()
    assert not bare.info and not bare.getexif()

    kept = Image.open(save_photo(photo, photo.x, tmp_path / "kept.png", keep_metadata=True))
    kept.load()
    assert set(kept.info) == {"exif"} and kept.size == (12, 16)
    exif = kept.getexif()
    assert (exif[BASE.Model], exif[BASE.DateTime]) == ("Camera", "2026:01:02 03:04:05")
    assert exif[BASE.Orientation] == 1 and BASE.StripOffsets not in exif
    camera = exif.get_ifd(IFD.Exif)
    assert float(camera[BASE.ExposureTime]) == pytest.approx(0.02) and BASE.MakerNote not in camera
    assert (camera[BASE.ColorSpace], camera[BASE.ExifImageWidth], camera[BASE.ExifImageHeight]) == (1, 12, 16)
    assert exif.get_ifd(IFD.GPSInfo)[1] == "N"
    assert torch.equal(load_image(tmp_path / "kept.png"), photo.x)  # isn't turned once more


def test_the_preview_of_the_unprotected_photo_does_not_come_along(tmp_path):
    """Cameras put a small copy of the photo into EXIF's second directory."""
    preview = io.BytesIO()
    noise(8, 8).save(preview, "JPEG")
    exif = camera_exif().tobytes()[6:]  # a TIFF file whose first directory is followed by none
    order = "<" if exif[:2] == b"II" else ">"
    (first,) = struct.unpack_from(order + "I", exif, 4)
    (entries,) = struct.unpack_from(order + "H", exif, first)
    directory = struct.pack(order + "H", 2)
    data = len(exif) + 2 + 2 * 12 + 4
    for tag, value in ((BASE.JpegIFOffset, data), (BASE.JpegIFByteCount, len(preview.getvalue()))):
        directory += struct.pack(order + "HHII", tag, 4, 1, value)
    whole = bytearray(exif + directory + bytes(4) + preview.getvalue())
    struct.pack_into(order + "I", whole, first + 2 + 12 * entries, len(exif))
    noise().save(tmp_path / "x.jpg", exif=b"Exif\0\0" + bytes(whole))
    assert Image.open(tmp_path / "x.jpg").getexif().get_ifd(IFD.IFD1)
    photo = read_photo(tmp_path / "x.jpg")
    saved = save_photo(photo, photo.x, tmp_path / "y.png", keep_metadata=True)
    assert Image.open(saved).getexif()[BASE.Model] == "Camera"
    assert not Image.open(saved).getexif().get_ifd(IFD.IFD1)
    assert preview.getvalue()[20:] not in saved.read_bytes()


@settings(deadline=None, max_examples=40)
@given(height=st.integers(1, 40), width=st.integers(1, 40), side=st.integers(1, 33))
def test_reflection_continues_and_is_cut_off_again(height, width, side):
    x = torch.rand(3, height, width, generator=torch.Generator().manual_seed(height))
    seen = []
    assert torch.equal(at_least(side, x, lambda y: seen.append(y) or y), x)
    (padded,) = seen
    assert padded.shape == (3, max(height, side), max(width, side))
    assert set(padded.unique().tolist()) <= set(x.unique().tolist())
    top = (padded.shape[1] - height) // 2
    if 0 < top < height:
        row = at_least(side, x, lambda y: y.flip(1))[:, 0]  # work sees the whole padded image
        assert row.shape == (3, width)
        assert torch.equal(padded[:, top - 1], padded[:, top + 1])  # the border itself isn't repeated


def test_only_the_size_that_was_given_comes_back():
    x = torch.rand(2, 3, 5, 20)
    assert torch.equal(at_least(16, x, lambda y: y + 1), x + 1)


def test_what_jpeg_keeps_lies_between_nothing_and_all():
    """Flat changes of brightness pass, colour noise at every pixel doesn't: chroma has half the size."""
    x = torch.full((3, 64, 64), 0.5)
    signs = torch.randint(0, 2, (64, 64), generator=torch.Generator().manual_seed(0)) * 2.0 - 1
    colour = torch.stack([signs, torch.zeros_like(signs), -signs])
    assert kept_by_jpeg(x, x + 16 / 255) == pytest.approx(1, abs=0.05)
    assert kept_by_jpeg(x, quantise(x + 16 / 255 * colour)) < 0.4
    assert np.isnan(kept_by_jpeg(x, x))


def test_bad_saves_are_refused_and_leave_nothing(tmp_path):
    x = torch.rand(3, 4, 4)
    with pytest.raises(ValueError, match="photo's shape"):
        save_photo(Photo(x), x[:, :3], tmp_path / "x.png")
    with pytest.raises(ValueError, match="NaN"):
        save_photo(Photo(x), x * torch.nan, tmp_path / "x.png")
    assert not list(tmp_path.iterdir())
