"""The panel for one's own photo, used as a browser would: by its widgets' values and clicks."""

import base64
import io
import re
from datetime import UTC, datetime

import pytest
from PIL import Image

from antipure_lib import from_pil, load_image, photo_panel, save_image
from antipure_lib.notebook.panel import _uploaded

pytest.importorskip("ipywidgets")


class Panel:
    """The panel's widgets by what they do."""

    def __init__(self, ddpm, photo, **options):
        choose, go, self.status, self.pictures, self.link = photo_panel(ddpm, photo, **options).children
        (self.upload, self.budget), (self.purifier, self.button) = choose.children, go.children

    def download(self):
        data = re.search(r"base64,([^\"]+)", self.link.value)[1]
        return from_pil(Image.open(io.BytesIO(base64.b64decode(data))))

    def names(self):
        return [column.children[0].value for column in self.pictures.children]

    def last_picture(self):
        return self.pictures.children[-1].children[1].value


@pytest.fixture
def photo(pictures):
    return pictures(1, 18, 20)[0]


@pytest.fixture
def panel(tiny_ddpm, photo):
    return Panel(tiny_ddpm, photo, eta=8, steps=2, size=24)


def test_nothing_runs_before_the_first_click(panel):
    assert panel.names() == ["photo"]
    assert panel.link.value == ""
    panel.purifier.value = "blur"  # there is nothing to purify yet
    assert panel.names() == ["photo"]


def test_click_protects_within_the_budget_and_offers_the_file(panel, photo):
    panel.button.click()
    assert panel.names() == ["photo", "protected", "change × 16", "protected, purified"]
    change = (panel.download() - photo).abs()
    assert 0 < change.max() <= 8 / 255 + 1e-6
    assert 'download="protected-8.png"' in panel.link.value


def test_budget_protects_again_and_purifier_only_purifies_again(panel, photo):
    panel.button.click()
    first, picture = panel.download(), panel.last_picture()
    panel.purifier.value = "blur"
    assert panel.last_picture() != picture
    assert panel.download().equal(first)
    panel.budget.value = 1
    assert panel.names()[2] == "change × 128"
    assert 0 < (panel.download() - photo).abs().max() <= 1 / 255 + 1e-6


def upload(panel, name, content):
    size, now = len(content), datetime.now(UTC)
    entry = {"name": name, "type": "", "size": size, "content": memoryview(content), "last_modified": now}
    panel.upload.value = (entry,)


def test_an_uploaded_photo_is_protected(panel, pictures, tmp_path):
    path = save_image(pictures(1, 30, 50, seed=1)[0], tmp_path / "me.png")
    upload(panel, path.name, path.read_bytes())
    assert 0 < (panel.download() - load_image(path, 24)).abs().max() <= 8 / 255 + 1e-6


def test_a_file_that_is_no_picture_is_reported(panel):
    upload(panel, "notes.txt", b"no picture")
    assert "notes.txt isn't an image" in panel.status.value
    assert panel.names() == ["photo"]
    assert panel.link.value == ""


def test_both_generations_of_ipywidgets_are_read(pictures, tmp_path):
    path = save_image(pictures(1, 30, 50, seed=1)[0], tmp_path / "me.png")
    content = path.read_bytes()
    seven, eight = {"me.png": {"content": content}}, ({"name": "me.png", "content": memoryview(content)},)
    assert _uploaded(seven, 24).equal(load_image(path, 24))
    assert _uploaded(eight, 24).equal(load_image(path, 24))
