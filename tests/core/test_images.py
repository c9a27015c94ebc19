import os
import struct
import zlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch._subclasses.fake_tensor import FakeTensorMode

from antipure_lib.core.images import check_image, from_model, quantise, quantise_within, to_model
from antipure_lib.photos.pictures import atomic, load_image, save_image
from antipure_lib.runtime.devices import pick_device, pick_dtype

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


@pytest.fixture
def photo(tmp_path):
    """photo(image, name, **options): the image saved under that name."""

    def save(image, name="photo.png", **options):
        image.save(tmp_path / name, **options)
        return tmp_path / name

    return save


def gradient(height=6, width=9):
    rows, columns = np.mgrid[:height, :width]
    return Image.fromarray(np.stack([rows * 40, columns * 25, rows + columns], -1).astype(np.uint8))


def pixel(x, row=0, column=0):
    return tuple(round(v * 255) for v in x[:, row, column].tolist())


def test_rgb_comes_as_it_is(photo):
    x = load_image(photo(gradient()))
    assert x.shape == (3, 6, 9) and x.dtype == torch.float32
    np.testing.assert_array_equal((x * 255).round().permute(1, 2, 0), np.asarray(gradient()))


@pytest.mark.parametrize(
    ("image", "name", "expected"),
    [
        (Image.new("L", (4, 4), 200), "grey.png", (200, 200, 200)),
        (Image.new("1", (4, 4), 1), "bits.png", WHITE),
        (Image.new("LA", (4, 4), (0, 0)), "grey_alpha.png", WHITE),
        (Image.new("RGBA", (4, 4), (255, 0, 0, 0)), "clear.png", WHITE),
        (Image.new("RGBA", (4, 4), (0, 0, 0, 128)), "half.png", (127, 127, 127)),
        (Image.new("RGB", (4, 4), GREEN).quantize(4), "palette.png", GREEN),
        (Image.new("CMYK", (4, 4), (0, 255, 255, 0)), "cmyk.tif", RED),
        (Image.fromarray(np.full((4, 4), 65535, np.uint16)), "white16.png", WHITE),
        (Image.fromarray(np.full((4, 4), 257 * 100, np.uint16)), "grey16.png", (100, 100, 100)),
        (Image.fromarray(np.full((4, 4), 257 * 100, np.uint16)), "grey16.tif", (100, 100, 100)),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_other_modes_become_rgb(photo, image, name, expected):
    x = load_image(photo(image, name))
    assert x.shape == (3, 4, 4)
    assert pixel(x, 1, 2) == expected


def test_transparent_palette_colour_lies_on_white(photo):
    image = Image.new("P", (4, 4), 0)
    image.putpalette([*RED, *BLUE])
    image.putpixel((0, 0), 1)
    x = load_image(photo(image, transparency=0))
    assert pixel(x) == BLUE and pixel(x, 1, 1) == WHITE


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(photo, orientation):
    # What the camera stored, for a scene that is red at the top left and blue at the top right.
    scene = np.zeros((20, 30, 3), np.uint8)
    scene[:10, :15], scene[:10, 15:] = RED, BLUE
    undo = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.transpose(1, 0, 2),
        6: lambda a: np.rot90(a, 1),  # to be shown turned by 90° clockwise
        7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
        8: lambda a: np.rot90(a, -1),
    }
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = Image.fromarray(np.ascontiguousarray(undo[orientation](scene)))
    x = load_image(photo(stored, "rotated.png", exif=exif))
    np.testing.assert_array_equal((x * 255).round().permute(1, 2, 0), scene)


def test_animation_gives_its_first_frame(photo):
    frames = [Image.new("RGB", (4, 4), colour) for colour in (RED, BLUE)]
    assert pixel(load_image(photo(frames[0], "film.gif", save_all=True, append_images=frames[1:]))) == RED


def test_size_crops_around_the_centre_and_never_stretches(photo):
    wide = Image.new("RGB", (90, 30), BLUE)
    wide.paste(GREEN, (30, 0, 60, 30))
    x = load_image(photo(wide), size=12)
    assert x.shape == (3, 12, 12)
    assert pixel(x, 6, 6) == GREEN and pixel(x, 6, 1) == GREEN and pixel(x, 6, 10) == GREEN
    x = load_image(photo(wide), size=(10, 30))
    assert x.shape == (3, 10, 30)
    assert pixel(x, 5, 5) == BLUE and pixel(x, 5, 15) == GREEN and pixel(x, 5, 25) == BLUE
    stripes = Image.fromarray(np.tile(np.array([[[0] * 3, [255] * 3]], np.uint8), (64, 32, 1)))
    assert (load_image(photo(stripes), size=16)[:, 2:-2, 2:-2] - 0.5).abs().max() < 0.05  # antialiased
    with pytest.raises(ValueError, match="size must be at least 1"):
        load_image(photo(wide), size=0)


def _truncated(path):
    Image.effect_noise((64, 64), 50).convert("RGB").save(path)
    path.write_bytes(path.read_bytes()[:2000])


def _bomb(path):
    """A PNG of 70 bytes that claims 20,000×20,000 pixels."""
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", 20_000, 20_000, 8, 2, 0, 0, 0)), (b"IEND", b"")]
    body = b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)


BROKEN = {
    "text.png": (lambda path: path.write_text("not an image"), "isn't an image"),
    "empty.jpg": (lambda path: path.touch(), "is empty"),
    "folder.png": (lambda path: path.mkdir(), "is a folder"),
    "truncated.png": (_truncated, "can't be read"),
    "half.jpg": (_truncated, "can't be read"),
    "bomb.png": (_bomb, "can't be read.*pixels"),
    "float.tif": (lambda path: Image.new("F", (4, 4), 0.5).save(path), "floating-point"),
    "wide.tif": (lambda path: Image.new("I", (4, 4), 70_000).save(path), "32-bit"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_unreadable_files_are_named(tmp_path, name):
    make, problem = BROKEN[name]
    make(tmp_path / name)
    with pytest.raises(ValueError, match=problem) as caught:
        load_image(tmp_path / name)
    assert name in str(caught.value)


def test_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere\.png: no such file; check"):
        load_image(tmp_path / "nowhere.png")


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif", ".tiff", ".webp", ".PNG"])
def test_saving_is_lossless(tmp_path, suffix):
    x = quantise(torch.rand(3, 7, 5, generator=torch.Generator().manual_seed(0)))
    path = save_image(x, tmp_path / "new" / f"x{suffix}")
    assert torch.equal(load_image(path), x)
    assert os.listdir(path.parent) == [path.name]


@pytest.mark.parametrize("stem", ["x" * 251, "é" * 125])
def test_the_longest_names_that_a_disk_takes_are_written(tmp_path, stem):
    path = save_image(torch.rand(3, 4, 4), tmp_path / f"{stem}.png")
    assert load_image(path).shape == (3, 4, 4)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("path", [None, "", 3])
def test_no_path_at_all_is_named(path):
    with pytest.raises(ValueError, match="path must name a file or a folder, got"):
        load_image(path)
    with pytest.raises(ValueError, match="path must name a file or a folder, got"):
        save_image(torch.rand(3, 4, 4), path)


@pytest.mark.parametrize(
    ("size", "got"), [(2.5, "2.5"), ("a", "'a'"), ((4, 0), "0"), ((4, 4, 4), r"\(4, 4, 4\)")]
)
def test_bad_sizes_are_named(photo, size, got):
    with pytest.raises(ValueError, match=f"size must be .*got {got}"):
        load_image(photo(Image.new("RGB", (8, 8))), size=size)


def test_jpeg_only_on_request(tmp_path):
    x = torch.rand(3, 16, 16)
    with pytest.raises(ValueError, match="x.jpg: JPEG discards.*lossy=True"):
        save_image(x, tmp_path / "x.jpg")
    assert load_image(save_image(x, tmp_path / "x.jpg", lossy=True)).shape == x.shape


@pytest.mark.parametrize(
    ("x", "name", "message"),
    [
        (torch.rand(2, 3, 4, 4), "x.png", "writes one image, x holds 2"),
        (torch.rand(3, 4, 4), "x.xyz", "unknown format '.xyz'; use one of .png"),
        (torch.rand(3, 4, 4), "x", "unknown format"),
        (torch.rand(3, 4, 4), "folder.png", "folder.png is a folder; name a file in it"),
        (torch.rand(3, 4, 4) + 1, "x.png", "must lie in"),
    ],
)
def test_bad_saves_leave_nothing(tmp_path, x, name, message):
    folder = tmp_path / "folder.png"
    folder.mkdir()
    with pytest.raises(ValueError, match=message):
        save_image(x, tmp_path / name)
    assert list(tmp_path.iterdir()) == [folder] and not list(folder.iterdir())


def test_a_failed_write_keeps_the_old_file(tmp_path):
    path = tmp_path / "x.txt"
    path.write_text("old")
    with pytest.raises(KeyError), atomic(path) as temporary:
        temporary.write_text("half")
        raise KeyError
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]
    with atomic(path) as temporary:
        temporary.write_text("new")
    assert path.read_text() == "new" and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        ([[1.0]], TypeError, "delta must be a torch.Tensor, got list"),
        (np.zeros((3, 4, 4), np.float32), TypeError, "got ndarray"),
        (torch.zeros(3, 4, 4, dtype=torch.uint8), TypeError, r"delta.float\(\) / 255"),
        (torch.zeros(3, 4, 4).bfloat16(), TypeError, r"float32, got torch.bfloat16.*use delta.float\(\)"),
        (torch.zeros(3, 4, 4).half(), TypeError, "float32, got torch.float16"),
        (torch.zeros(4, 4), ValueError, r"got \(4, 4\)"),
        (torch.zeros(4, 4, 3), ValueError, "channels first"),
        (torch.zeros(0, 3, 4, 4), ValueError, "must be 3×H×W"),
        (torch.full((3, 4, 4), float("nan")), ValueError, "NaN"),
        (torch.full((3, 4, 4), float("inf")), ValueError, "infinite"),
        (torch.full((3, 4, 4), -0.5), ValueError, r"\[-0.5, -0.5\]"),
        (torch.full((3, 4, 4), 255.0), ValueError, "by /255"),
    ],
)
def test_check_image_names_argument_problem_and_remedy(x, error, message):
    with pytest.raises(error, match=message) as caught:
        check_image(x, "delta")
    assert str(caught.value).startswith("delta")


@pytest.mark.parametrize("over", [1.5e-7, 2e-6, 9.9e-6])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_what_rounding_leaves_is_clipped(tmp_path, over, dtype):
    x = torch.rand((3, 4, 5), dtype=dtype, generator=torch.Generator().manual_seed(0))
    x[0, 0, 0], x[1, 2, 3] = 1 + over, -over
    before = x.clone()
    assert torch.equal(check_image(x), x.clamp(0, 1)[None]) and torch.equal(x, before)
    assert torch.equal(load_image(save_image(x, tmp_path / "x.png")), quantise(x.clamp(0, 1)).float())


@settings(deadline=None)
@given(seed=st.integers(0, 10**6), height=st.integers(1, 40), mode=st.sampled_from(["bilinear", "bicubic"]))
def test_a_resized_picture_that_was_clamped_or_barely_left_the_range_is_taken(seed, height, mode):
    x = torch.rand((2, 3, 9, 7), generator=torch.Generator().manual_seed(seed)).round()
    resized = torch.nn.functional.interpolate(x, (height, 11), mode=mode, antialias=True)
    resized = resized.clamp(-9e-6, 1 + 9e-6)
    assert check_image(resized).aminmax() == resized.clamp(0, 1).aminmax()


@pytest.mark.parametrize(
    ("value", "printed"), [(1.00002, "1.0000"), (-2e-5, "-1.99|-2e-05"), (1.1, "1.1"), (-3.0, "-3, ")]
)
def test_what_lies_outside_is_printed_as_outside(value, printed):
    x = torch.full((3, 2, 2), 0.5)
    x[2, 1, 1] = value
    with pytest.raises(ValueError, match=rf"must lie in \[0, 1\], got \[.*({printed})") as caught:
        check_image(x)
    low, high = map(float, str(caught.value).split("got [")[1].split("]")[0].split(", "))
    assert low < 0 or high > 1


def test_check_image_finds_one_nan_among_many_values():
    x = torch.rand(2, 3, 64, 64)
    assert check_image(x) is x
    x[1, 2, 3, 4] = float("nan")
    with pytest.raises(ValueError, match="NaN"):
        check_image(x)


def test_model_range_and_back():
    x = torch.linspace(0, 1, 12).view(1, 3, 2, 2)
    assert to_model(x).aminmax() == (-1, 1)
    torch.testing.assert_close(from_model(to_model(x)), x)
    assert from_model(torch.tensor([-3.0, 3.0])).tolist() == [0, 1]


@settings(deadline=None)
@given(
    level=st.integers(0, 255),
    others=st.lists(st.floats(0, 1, width=32), min_size=20, max_size=20),
    eta=st.integers(1, 255),
)
def test_eight_bit_images_keep_their_whole_budget(level, others, eta):
    """On 8-bit images quantise_within is plain rounding: an integer budget costs no level."""
    x = torch.full((20,), level / 255)
    adv = torch.tensor(others).clamp(x - eta / 255, x + eta / 255)
    assert torch.equal(quantise_within(adv, x, eta / 255), quantise(adv))
    extreme = quantise_within(x + eta / 255, x, eta / 255)
    assert (extreme * 255).round()[0] == min(255, level + eta)


@settings(deadline=None)
@given(x=st.floats(0, 1, width=32), share=st.floats(-1, 1), eta=st.floats(1 / 255, 1))
def test_rounding_never_leaves_the_budget_and_is_nearest_inside(x, share, eta):
    adv = min(1.0, max(0.0, x + share * eta))
    q = quantise_within(torch.tensor([adv]), torch.tensor([x]), eta).item()
    allowed = [k / 255 for k in range(256) if abs(k / 255 - x) <= eta + 1e-6]
    assert abs(q - x) <= eta + 1e-6
    assert abs(q - adv) <= min(abs(k - adv) for k in allowed) + 2e-6


def test_an_image_made_on_another_device_is_rounded_where_the_photo_is():
    """Fake tensors have a device, and refuse to be mixed with those of another, where there is none."""
    with FakeTensorMode():
        x, adv = torch.empty(3, 4, 4), torch.empty((3, 4, 4), device="cuda")
        assert quantise_within(adv, x, 8 / 255).device.type == "cpu"


def test_budget_below_one_level_is_refused():
    x = torch.rand(3, 4, 4)
    with pytest.raises(ValueError, match="less than 1/255"):
        quantise_within(x, x, 0.5 / 255)
    quantise_within(x, x, 1 / 255)


def test_devices():
    assert pick_device("cpu") == torch.device("cpu")
    assert pick_device() in (torch.device("cpu"), torch.device("cuda"), torch.device("mps"))
    with pytest.raises(ValueError, match="cuda:99.*isn't available"):
        pick_device("cuda:99")


@pytest.mark.parametrize(("capability", "dtype"), [((7, 5), torch.float16), ((8, 0), torch.bfloat16)])
def test_a_t4_gets_float16(monkeypatch, capability, dtype):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert pick_dtype("cuda") == dtype


@pytest.mark.parametrize("capability", ["avx512_bf16", "amx_bf16", "avx512_f", None])
@pytest.mark.parametrize("name", ["Intel Xeon", "AMD EPYC"])
def test_a_cpu_gets_bfloat16_where_it_is_faster(monkeypatch, capability, name):
    found = {capability: True, "cpu_name": name}
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: found, raising=False)
    faster = capability == "amx_bf16" or (capability == "avx512_bf16" and name == "AMD EPYC")
    assert pick_dtype("cpu") == (torch.bfloat16 if faster else torch.float32)
    assert pick_dtype("mps") == torch.float32
