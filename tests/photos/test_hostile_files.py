"""Hostile files: a plain error of one line or a right result, no partial file, no other photo lost."""

import io
import os
import re
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from raw import noise, png

from antipure_lib.__main__ import main
from antipure_lib.photos.pictures import load_image


def saved(image, **options):
    """What to call with a path, to have the image there."""
    return lambda path: image.save(path, **options)


def cut(share, kind):
    def make(path):
        file = io.BytesIO()
        noise(64, 64).save(file, kind)
        path.write_bytes(file.getvalue()[: int(len(file.getvalue()) * share)])

    return make


def bomb(width, height):
    """A PNG of 70 bytes that claims a picture of this size."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return lambda path: path.write_bytes(png((b"IHDR", header)))


def link(to):
    return lambda path: path.symlink_to(to)


def unreadable(path):
    noise().save(path)
    path.chmod(0)


REFUSED = {
    "truncated.png": (cut(0.6, "PNG"), "can't be read as an image .*intact"),
    "truncated.webp": (cut(0.6, "WEBP"), "image.*(intact|convert)"),
    "header only.png": (cut(0.002, "PNG"), "can't be read as an image .*intact"),
    "bomb.png": (bomb(30_000, 30_000), "more pixels than Pillow's limit.*make it smaller"),
    "endless row.png": (bomb(2**31 - 1, 1), "can't be read|more pixels"),
    "no pixels.png": (bomb(0, 5), "can't be read|isn't an image"),
    "text.jpg": (lambda path: path.write_text("not a picture"), "isn't an image of a kind that is read here"),
    "empty.png": (lambda path: path.touch(), r"is empty \(0 bytes\); copy or download"),
    "folder.png": (lambda path: path.mkdir(), "is a folder, not an image; name one"),
    "gone.png": (lambda path: None, "no such file; check the path"),
    "dangling.png": (link("nowhere.png"), "is a link to a file that isn't there"),
    "link to a folder.png": (link("."), "is a folder"),
    "device.png": (link("/dev/zero"), "no ordinary file"),
    "pipe.png": (os.mkfifo, "no ordinary file"),
    "float.tif": (saved(Image.new("F", (20, 20), 0.5)), "floating-point pixels have no agreed range"),
    "two\nlines.png": (lambda path: path.write_text("x"), "isn't an image"),
    "unreadable.png": (unreadable, "mayn't be read; change its permissions"),
}

exif = Image.Exif()
exif[0x0112] = 8
ACCEPTED = {  # name: (how it is made, size as it is shown)
    "one pixel.png": (saved(noise(1, 1)), (1, 1)),
    "strip.png": (saved(noise(3, 20_000)), (3, 20_000)),
    "cmyk.jpg": (saved(noise().convert("CMYK")), (24, 32)),
    "grey 16.png": (saved(Image.fromarray(np.full((24, 32), 51 * 257, np.uint16))), (24, 32)),
    "bits.png": (saved(noise().convert("1")), (24, 32)),
    "palette.gif": (saved(noise().quantize(16)), (24, 32)),
    "film.gif": (saved(noise(), save_all=True, append_images=[noise(seed=1)]), (24, 32)),
    "png inside.jpg": (saved(noise(), format="PNG"), (24, 32)),
    "turned.jpg": (saved(noise(), exif=exif), (32, 24)),
    "mad profile.png": (saved(noise(), icc_profile=b"\xff" * 200), (24, 32)),
    "mad exif.jpg": (saved(noise(), exif=b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + b"\xff" * 60), (24, 32)),
    "häßliches 写真 🙂 .png": (saved(noise()), (24, 32)),
    "-leading 'dash' \"quotes\" $(x) ; %s {}.png": (saved(noise()), (24, 32)),
    "[a-z]*.png": (saved(noise()), (24, 32)),
    ".hidden.png": (saved(noise()), (24, 32)),
    "no suffix": (saved(noise(), format="PNG"), (24, 32)),
}


@pytest.fixture
def protect(tmp_path, monkeypatch, capfd):
    """protect(names…): (exit status, stdout, stderr), for files in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def call(*names):
        capfd.readouterr()
        status = main(["protect", "--out", "out", "--method", "random", "--steps", "1", "--", *names])
        return status, *capfd.readouterr()

    return call


def results():
    return sorted(p.name for p in Path("out").rglob("*") if p.is_file() and p.parent.name != ".manifest")


@pytest.mark.parametrize("name", REFUSED)
def test_a_bad_photo_is_told_in_one_line_and_the_others_are_done(protect, name, monkeypatch):
    make, problem = REFUSED[name]
    make(Path(name))
    # The tests' user may be one who may read everything.
    monkeypatch.setattr(os, "access", lambda path, mode: bool(os.stat(path).st_mode & 0o400))
    for photo, seed in (("a.png", 1), ("z.png", 2)):
        noise(seed=seed).save(photo)
    status, out, err = protect("a.png", name, "z.png")
    assert status == 1
    (line,) = err.splitlines()
    assert line.startswith("error: ") and name.replace("\n", " ") in line and re.search(problem, line)
    assert out.splitlines()[-1] == "out: 2 made, 0 kept, 1 failed"
    assert results() == ["a.png", "z.png"]
    assert sorted(p.name for p in Path("out/.manifest").iterdir()) == ["a.png.json", "z.png.json"]
    with pytest.raises((ValueError, OSError), match=problem):
        load_image(name)


@pytest.mark.filterwarnings("ignore:.*(EXIF|profile|first of)")
@pytest.mark.parametrize("name", ACCEPTED)
def test_a_strange_photo_is_protected_at_its_size_and_within_the_budget(protect, name):
    make, size = ACCEPTED[name]
    make(Path(name))
    before = Path(name).read_bytes()
    status, out, err = protect(name)
    assert (status, err) == (0, "")
    (result,) = results()
    assert result == Path(name).stem + ".png"
    x, x_adv = load_image(name), load_image(Path("out", result))
    assert x.shape == x_adv.shape == (3, *size)
    assert 0 < (x_adv - x).abs().max() <= 8 / 255 + 1e-6
    assert Path(name).read_bytes() == before


def test_links_are_followed_and_stay(protect):
    noise().save("real.png")
    Path("link.png").symlink_to("real.png")
    assert protect("link.png", "real.png")[0] == 0
    assert results() == ["link.png", "real.png"]
    assert Path("link.png").is_symlink() and not Path("out/link.png").is_symlink()
    assert Path("out/link.png").read_bytes() == Path("out/real.png").read_bytes()


def test_a_name_that_is_no_text_is_no_problem(protect):
    name = os.fsdecode(b"\xff\xfe.png")
    try:
        noise().save(name)
    except OSError:
        pytest.skip("this file system takes text names alone")
    status, out, err = protect(name)
    assert status == 0 and results() == [name] and r"\udcff" in out


def test_a_name_that_is_too_long_is_told(protect):
    status, out, err = protect("y" * 300 + ".png")
    assert status == 1 and len(err.splitlines()) == 1 and "too long" in err


def test_a_folder_that_cannot_be_made_is_told(protect, monkeypatch):
    noise().save("a.png")
    Path("out").write_text("a file")
    status, out, err = protect("a.png")
    assert status == 1 and err == "error: out is a file; --out takes a folder\n"
    Path("out").unlink()
    Path("out").symlink_to("/proc/nowhere/at/all")
    status, out, err = protect("a.png")
    assert status == 1 and len(err.splitlines()) == 1 and err.startswith("error: a.png: ")


def encoded(kind, **options):
    file = io.BytesIO()
    noise(16, 16).save(file, kind, **options)
    return file.getvalue()


WHOLE = {
    "PNG": encoded("PNG", exif=exif),
    "JPEG": encoded("JPEG", exif=exif, icc_profile=b"\xff" * 50),
    "GIF": encoded("GIF"),
    "TIFF": encoded("TIFF"),
    "BMP": encoded("BMP"),
    "WEBP": encoded("WEBP", exif=exif),
}


@settings(deadline=None, max_examples=150)
@given(data=st.data(), kind=st.sampled_from(sorted(WHOLE)))
def test_damaged_bytes_give_a_picture_or_a_plain_error(tmp_path_factory, data, kind):
    content = bytearray(WHOLE[kind])
    for _ in range(data.draw(st.integers(1, 8))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.mktemp("damaged") / f"x.{kind.lower()}"
    path.write_bytes(content[: data.draw(st.integers(1, len(content)))])
    try:
        x = load_image(path)
    except ValueError as error:
        assert str(error).startswith(str(path))
    else:
        assert x.ndim == 3 and x.shape[0] == 3 and 0 <= x.min() and x.max() <= 1


def test_no_program_is_run_for_a_picture_that_is_one(protect, tmp_path, monkeypatch):
    """EPS is PostScript, which Pillow gives to Ghostscript; here it is no picture, whatever its name."""
    ran = tmp_path / "ran"
    for name in ("gs", "gswin32c", "gswin64c"):
        program = tmp_path / "bin" / name
        program.parent.mkdir(exist_ok=True)
        program.write_text(f"#!/bin/sh\ntouch '{ran}'\n")
        program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    noise().save("e.eps")
    Path("e.eps").rename("photo.jpg")
    noise().save("a.png")
    status, out, err = protect("photo.jpg", "a.png")
    assert status == 1 and "photo.jpg isn't an image of a kind that is read here" in err
    assert "a.png" in out and not ran.exists()


def test_a_photo_too_large_for_the_memory_is_refused_before_it_is_read(protect, monkeypatch):
    noise().save("a.png")
    monkeypatch.setattr("antipure_lib.runtime.memory.free_memory", lambda device: 1000)
    monkeypatch.setattr("antipure_lib.photos.jobs.read_photo", lambda path: pytest.fail("it was read"))
    status, _, err = protect("a.png")
    assert status == 1 and re.search(r"a.png: \d+×\d+ pixels need about .* to be read.*make the photo", err)
