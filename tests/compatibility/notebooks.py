"""Notebooks: parameters of a run, the panel for a photo of one's own."""

import contextlib
import io
import os
from ast import literal_eval
from datetime import UTC, datetime
from pathlib import Path
from unittest import mock

import nbformat
import nbformat.v4 as v4
import torch

import antipure_lib as ap
from tools.notebooks import walk

from .helpers import command, ddpm, needs, photos, picture, pipe
from .registry import check_message, situation


def notebook(parameters: str, body: str = "", name: str = "a.ipynb") -> Path:
    """A notebook with a parameters cell, which writes what arrives into seen.txt."""
    Path("books").mkdir(exist_ok=True)
    cells = [v4.new_code_cell(parameters, metadata={"tags": ["parameters"]}), v4.new_code_cell(body)]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    path = Path("books", name)
    nbformat.write(v4.new_notebook(cells=cells, metadata=kernel), path)
    return path


def arrives(parameters: str, name: str, value: str) -> object:
    """What a run makes of a parameter."""
    body = f"from pathlib import Path\nPath('seen.txt').write_text(repr({name}))"
    walk.run_notebook(notebook(parameters, body), Path("pages"), {name: value})
    return Path("books/seen.txt").read_text()


TEXTS = {
    "2024/05": "2024/05",
    "007": "007",
    "1e5": "1e5",
    "a quotation mark": "it's",
}


@situation("papermill 864", "parameters", fast=False, cases=TEXTS)
def text_stays_text(value):
    """A text parameter arrives as it was typed"""
    found = arrives('FOLDER = "photos"', "FOLDER", value)
    assert found == repr(value), f"{value} arrives as {found}"


NUMBERS = {
    "a fraction": ("SHARE = 0.5", "SHARE", "1/4", 0.25),
    "a list": ("PEOPLE = ['p01']", "PEOPLE", "['p02']", ["p02"]),
    "papermill 55, whole for a float": ("LR = 2.5", "LR", "2", 2),
}


@situation("papermill 55", "parameters", fast=False, cases=NUMBERS)
def number_stays_a_number(case):
    """A parameter of another type arrives as a value of its type"""
    parameters, name, value, wanted = case
    assert literal_eval(arrives(parameters, name, value)) == wanted


DEFAULTS = {
    "a comment with an equals sign": "ETA = 8  # steps of 1/255: η = ETA/255\nSEED = 0  # 0 = the first",
    "an annotation": "SEED: int = 0  # the seed",
    "two on a line": "SEED = 0; ETA = 8",
    "over two lines": "SEED = (\n    0\n)",
}


@situation("papermill 396", "parameters", fast=False, cases=DEFAULTS)
def parameter_is_known(parameters):
    """A parameter whose default stands in an unusual line"""
    assert arrives(parameters, "SEED", "3") == "3"


@situation("papermill 818", "parameters")
def unknown_parameter():
    """A name that the notebook doesn't define"""
    with contextlib.redirect_stderr(io.StringIO()) as told:
        walk.main([str(notebook("SEED = 0")), "--out", "pages", "-p", "SED", "3"])
    return check_message(told.getvalue().strip(), ["SED", "SEED"])


TILDE = {
    "save_image": lambda: ap.save_image(picture(8, 8), "~/compatibility/a.png"),
    "protect --out": lambda: command(
        *("protect", ap.data_path("photos", "coffee.png"), "--method", "random", "--steps", 1),
        *("--out", "~/compatibility"),
    ).fine(),
}


@situation("DaCe 1578", "parameters", cases=TILDE)
def home_folder(save):
    """A path that begins with ~ means the home folder"""
    with mock.patch.dict(os.environ, {"HOME": str(Path.cwd() / "home")}):
        save()
    assert not Path("~").exists(), "a folder named ~ is made"
    assert Path("home/compatibility").is_dir()


UPLOADS = {  # name, sides, mode
    "300 letters": ("x" * 300 + ".png", 30, "RGB"),
    "markup": ("<img src=x onerror=alert(1)>.png", 30, "RGB"),
    "transparent": ("a.png", 30, "RGBA"),
    "tiny": ("a.png", 2, "RGB"),
}


@situation("ipywidgets 3452", "panel", cases=UPLOADS)
def file_is_uploaded(case):
    """The panel gets a picture whose name or size is unusual"""
    if not needs("ipywidgets"):
        return "not installed here"
    (name, side, mode), file = case, io.BytesIO()
    ap.to_pil(picture(side, side)).convert(mode).save(file, format="PNG")
    choose, _, status, _, link = ap.photo_panel(ddpm(), picture(20, 24), steps=2, size=24).children
    entry = {"name": name, "type": "image/png", "size": len(file.getvalue()), "content": file.getvalue()}
    choose.children[0].value = (entry | {"last_modified": datetime(2024, 1, 1, tzinfo=UTC)},)
    assert 'download="' in link.value or "That failed" in status.value, f"it says {status.value[:80]!r}"


@situation("PyTorch 137186", "everyday", cases=["float64", "bfloat16"])
def default_precision(name):
    """A session whose default precision the user has changed"""
    model, x, before = ddpm(), picture(16, 16), torch.get_default_dtype()

    def results():
        yield from (ap.antipure(model, x, eta=8 / 255, steps=2), ap.diffpure(model, x, t=2))
        yield from (ap.radial_spectrum(x - 0.5)[1].nan_to_num(), ap.load_ddpm().unet.conv_in.weight)

    right = list(results())
    torch.set_default_dtype(getattr(torch, name))
    try:
        found = list(results())
    finally:
        torch.set_default_dtype(before)
    assert all(a.equal(b) and a.dtype == b.dtype for a, b in zip(found, right, strict=True)), "other results"


@situation("gptorch 22", "everyday")
def default_precision_stays():
    """Loading, training and protecting leave the session's default precision as it is"""
    before = torch.get_default_dtype()
    ap.lora(ap.load_stable_diffusion(), photos(1), steps=1, batch=1, dtype=torch.bfloat16)
    ap.antipure(ap.load_ddpm(dtype=torch.bfloat16), photos(1)[..., :32, :32], eta=8 / 255, steps=1)
    assert torch.get_default_dtype() is before


@situation("MACE 877", "everyday")
def two_precisions_in_a_session():
    """Models of two precisions take turns"""
    single, double, x = ddpm(), ddpm(), picture(16, 16)
    double.unet.double()
    first, other, again = (ap.diffpure(model, x, t=2) for model in (single, double, single))
    assert again.equal(first) and other.dtype == first.dtype
    assert (other - first).abs().max() < 1.5 / 255


@situation("own", "everyday", cases=["generate"])
def global_seed_is_left_alone(_):
    """A call doesn't move the session's own random numbers, nor depends on them"""

    def run(seed):
        torch.manual_seed(seed)
        return ap.generate(pipe(), "a person", n=1, steps=2), torch.rand(1)

    (a, after), (b, _) = run(1), run(2)
    torch.manual_seed(1)
    assert a.equal(b) and after.equal(torch.rand(1))
