"""Figures as frames, and the slider over them."""

import io
from base64 import b64decode

import pytest
from PIL import Image

from antipure_lib.notebook.show import scrub, strip, to_png

plt = pytest.importorskip("matplotlib.pyplot")
pytest.importorskip("ipywidgets")


def frame(level, width=0.4):
    figure = plt.figure(figsize=(width, 0.3), facecolor=(level, level, level))
    return figure, to_png(figure)


def test_to_png_keeps_size_and_colour_and_closes_the_figure():
    figure, png = frame(0.2)
    image = Image.open(io.BytesIO(png)).convert("RGB")
    assert image.size == (40, 30)
    assert image.getextrema() == ((51, 51),) * 3
    assert not plt.fignum_exists(figure.number)


def test_slider_shows_the_frame_of_its_label():
    frames = {label: frame(level)[1] for label, level in (("dark", 0.1), ("light", 0.9))}
    slider, picture = scrub(frames, "light").children
    assert slider.options == ("dark", "light")
    assert picture.value == frames["dark"] != frames["light"]
    slider.value = "light"
    assert picture.value == frames["light"]


def test_slider_carries_a_strip_of_five_labelled_frames_for_pages_without_a_kernel():
    frames = {k: frame(k / 8)[1] for k in range(9)}  # 40 × 30 px each
    bundle = scrub(frames, "k")._repr_mimebundle_()
    assert "application/vnd.jupyter.widget-view+json" in bundle
    sheet = Image.open(io.BytesIO(b64decode(bundle["image/png"])))
    assert sheet.size == (5 * 40, 30 + 18)
    middle = [sheet.getpixel((40 * place + 20, 18 + 15))[0] for place in range(5)]
    assert middle == [round(255 * k / 8) for k in (0, 2, 4, 6, 8)]


def test_strip_breaks_into_rows_of_900_pixels():
    sheet = Image.open(io.BytesIO(strip({k: frame(k / 8, 4)[1] for k in range(4)}, "k")))
    assert sheet.size == (2 * 400, 2 * (30 + 18))
