"""Pictures in notebooks get smaller and stay what they show."""

import base64
import io

import numpy as np
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from PIL import Image

from tools.notebooks.shrink import PNG, WIDGET, shrink, shrink_picture


def png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def pixels_of(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


@pytest.fixture
def few_colours():
    """A picture of 200 colours, much repeated."""
    generator = np.random.default_rng(0)
    colours = generator.integers(0, 256, (200, 3), dtype=np.uint8)
    return colours[generator.integers(0, 200, (60, 80))]


def test_few_colours_are_kept_exactly_and_need_less(few_colours):
    small = shrink_picture(png(few_colours))
    assert np.array_equal(pixels_of(small), few_colours)
    assert len(small) < len(png(few_colours))


def test_many_colours_stay_close():
    y, x = np.mgrid[0:64, 0:64].astype(np.uint8)
    smooth = np.stack([4 * x, 4 * y, 255 - 2 * x - 2 * y], -1).astype(np.uint8)
    difference = pixels_of(shrink_picture(png(smooth))).astype(int) - smooth
    assert np.sqrt((difference**2).mean()) < 8  # 4096 colours by 256


def test_transparency_becomes_white(few_colours):
    alpha = np.full((*few_colours.shape[:2], 1), 255, np.uint8)
    alpha[:10] = 0
    small = pixels_of(shrink_picture(png(np.concatenate([few_colours, alpha], -1))))
    assert (small[:10] == 255).all() and np.array_equal(small[10:], few_colours[10:])


def test_a_second_time_changes_nothing(few_colours):
    once = shrink_picture(png(few_colours))
    assert shrink_picture(once) == once


def test_only_pictures_of_a_notebook_change(few_colours):
    def notebook(picture):
        shown = new_output("display_data", {"image/png": picture, "text/plain": "<Figure>"})
        cells = [new_markdown_cell("# 1", id="a"), new_code_cell("x", id="b", outputs=[shown])]
        return new_notebook(cells=cells)

    before = base64.b64encode(png(few_colours)).decode()
    found = notebook(before)
    shrink(found)
    after = found.cells[1].outputs[0].data["image/png"]
    assert len(after) < len(before)
    assert found == notebook(after)


def test_a_widget_gives_way_to_its_picture_alone(few_colours):
    picture = base64.b64encode(png(few_colours)).decode()
    outputs = [
        new_output("display_data", {WIDGET: {"model_id": "0"}, **more}) for more in ({PNG: picture}, {})
    ]
    notebook = new_notebook(cells=[new_code_cell("x", outputs=outputs)])
    shrink(notebook)
    assert [WIDGET in output.data for output in notebook.cells[0].outputs] == [False, True]
