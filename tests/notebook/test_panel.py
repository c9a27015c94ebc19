"""The panel for one's own photo, used as a browser would: by its widgets' values and clicks."""

import base64
import html
import io
import re
from datetime import UTC, datetime

import pytest
from PIL import Image
from tiny import tiny_stable_diffusion

from antipure_lib import from_pil, load_image, photo_panel, save_image
from antipure_lib.notebook.panel import _uploaded
from antipure_lib.purifiers.registry import PURIFIERS, Purifier

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
    panel = Panel(tiny_ddpm, photo, eta=8, steps=2, size=18)
    panel.purifier.value = "jpeg"  # which is quick
    return panel


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
    assert 0 < (panel.download() - load_image(path, 18)).abs().max() <= 8 / 255 + 1e-6


@pytest.mark.parametrize("content", [b"no picture", b"", b"\x89PNG\r\n\x1a\n"])
def test_a_file_that_is_no_picture_is_reported(panel, content):
    upload(panel, "notes <b>1</b>.txt", content)
    assert "That failed:" in panel.status.value and "notes &lt;b&gt;1&lt;/b&gt;.txt" in panel.status.value
    assert panel.names() == ["photo"]
    assert panel.link.value == ""


@pytest.mark.parametrize("name", ["照" * 100 + ".png", "", ".", "../../a.png", "a\0b.png", "<img src=x>.png"])
def test_an_uploaded_photo_may_have_any_name(panel, pictures, tmp_path, name):
    upload(panel, name, save_image(pictures(1, 30, 50)[0], tmp_path / "me.png").read_bytes())
    assert "done" in panel.status.value and 'download="protected-8.png"' in panel.link.value
    assert [path.name for path in tmp_path.iterdir()] == ["me.png"]


@pytest.mark.parametrize(
    ("where", "error"),
    [
        ("antipure_steps", MemoryError()),
        ("quantise_within", RuntimeError("CUDA <out> of memory")),
        ("purify", KeyError("t")),
        ("amplify", TypeError("no")),
        ("_png", OSError(28, "full")),
    ],
)
def test_whatever_fails_in_a_callback_reaches_the_status_line(panel, monkeypatch, error, where):
    def fail(*words, **options):
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(f"antipure_lib.notebook.panel.{where}", fail)
        panel.button.click()
        told = html.escape(str(error) or type(error).__name__)
        assert panel.status.value == f"<b>That failed:</b> {told}"
        assert panel.names() == ["photo"]
    panel.button.click()
    assert "done" in panel.status.value and len(panel.names()) == 4


def test_an_interrupt_is_shown_and_goes_on(panel, monkeypatch):
    def interrupt(*words, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("antipure_lib.notebook.panel.purify", interrupt)
    with pytest.raises(KeyboardInterrupt):
        panel.button.click()
    assert panel.status.value == "<b>That failed:</b> KeyboardInterrupt"


def test_a_photo_that_fails_leaves_nothing_of_the_one_before(tiny_ddpm, photo, pictures, tmp_path):
    panel = Panel(tiny_ddpm, photo, steps=1, size=12)  # too small for the model
    panel.button.click()
    upload(panel, "small.png", save_image(pictures(1, 40, 40)[0], tmp_path / "me.png").read_bytes())
    panel.purifier.value = "blur"  # there is nothing to purify
    assert "That failed:" in panel.status.value and panel.link.value == ""


def test_purifiers_are_those_of_the_registry(tiny_ddpm, photo, monkeypatch):
    assert set(Panel(tiny_ddpm, photo).purifier.options) == set(PURIFIERS) - {"none", "autoencoder"}
    latent = Panel(tiny_ddpm, photo, steps=1, pipe=tiny_stable_diffusion())
    assert set(latent.purifier.options) == set(PURIFIERS) - {"none"}
    latent.purifier.value = "autoencoder"
    latent.button.click()
    assert "purifier autoencoder" in latent.status.value
    monkeypatch.setitem(PURIFIERS, "mirror", Purifier(lambda x: x.flip(-1)))
    panel = Panel(tiny_ddpm, photo, steps=2)
    panel.purifier.value = "mirror"
    panel.button.click()
    assert "purifier mirror" in panel.status.value


def test_both_generations_of_ipywidgets_are_read(pictures, tmp_path):
    path = save_image(pictures(1, 30, 50)[0], tmp_path / "me.png")
    content = path.read_bytes()
    seven, eight = {"me.png": {"content": content}}, ({"name": "me.png", "content": memoryview(content)},)
    assert _uploaded(seven, 24).equal(load_image(path, 24))
    assert _uploaded(eight, 24).equal(load_image(path, 24))
