"""Figures as frames, and the slider over them."""

import io

import pytest
from PIL import Image

from antipure_lib.notebook.show import scrub, to_png

plt = pytest.importorskip("matplotlib.pyplot")
pytest.importorskip("ipywidgets")


def frame(level):
    figure = plt.figure(figsize=(0.4, 0.3), facecolor=(level, level, level))
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
