"""Notebooks: parameters of a run, the panel for a photo of one's own."""

import io
import os
import re
import warnings
from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path
from unittest import mock

import torch
from PIL import Image

import antipure_lib as ap
from tools.notebooks.walk import run_notebook

from .helpers import ROOT, command, ddpm, needs, photos, picture, pipe, walk
from .registry import check_message, situation


def notebook(parameters: str, body: str = "", name: str = "a.ipynb") -> Path:
    """A notebook with a parameters cell, which writes what arrives into seen.txt."""
    import nbformat.v4 as v4

    Path("books").mkdir(exist_ok=True)
    cells = [v4.new_code_cell(parameters, metadata={"tags": ["parameters"]}), v4.new_code_cell(body)]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    path = Path("books", name)
    path.write_text(_json(v4.new_notebook(cells=cells, metadata=kernel)), encoding="utf-8")
    return path


def _json(book) -> str:
    import nbformat

    return nbformat.writes(book)


def arrives(parameters: str, name: str, value: str) -> object:
    """What a run makes of a parameter."""
    body = f"from pathlib import Path\nPath('seen.txt').write_text(repr({name}))"
    run_notebook(notebook(parameters, body), Path("pages"), {name: value})
    return Path("books/seen.txt").read_text()


TEXTS = {
    "2024/05": "2024/05",
    "007": "007",
    "1e5": "1e5",
    "None": "None",
    "3": "3",
    "[a]": "[a]",
    "true": "true",
    "1_000": "1_000",
    "a path with spaces": "my photos/of me",
    "a quotation mark": "it's",
}


@situation("papermill 864", "parameters", fast=False, cases=TEXTS)
def text_stays_text(value):
    """A text parameter arrives as it was typed"""
    found = arrives('FOLDER = "photos"', "FOLDER", value)
    assert found == repr(value), f"{value} arrives as {found}"


NUMBERS = {
    "a whole number": ("SEED = 0", "SEED", "3", "3"),
    "a fraction": ("SHARE = 0.5", "SHARE", "1/4", "0.25"),
    "a truth": ("QUICK = True", "QUICK", "False", "False"),
    "a list": ("PEOPLE = ['p01']", "PEOPLE", "['p02']", "['p02']"),
    "papermill 55, whole for a float": ("LR = 2.5", "LR", "2", "2"),
    "a negative number": ("SHIFT = 1", "SHIFT", "-3", "-3"),
}


@situation("papermill 55", "parameters", fast=False, cases=NUMBERS)
def number_stays_a_number(case):
    """A parameter of another type arrives as a value of its type"""
    parameters, name, value, wanted = case
    assert float_or_text(arrives(parameters, name, value)) == float_or_text(wanted)


def float_or_text(text):
    """2 and 2.0 are one number."""
    try:
        return float(text)
    except ValueError:
        return text


DEFAULTS = {
    "a comment with an equals sign": "ETA = 8  # steps of 1/255: η = ETA/255\nSEED = 0  # 0 = the first",
    "a comment of several words": "SEED = 0  # any whole number (default = 0)",
    "an annotation": "SEED: int = 0  # the seed",
    "a text with a hash": 'NAME = "a#b"\nSEED = 0',
    "two on a line": "SEED = 0; ETA = 8",
    "over two lines": "SEED = (\n    0\n)",
    "a comment above": "# ETA = 3\nSEED = 0",
}


@situation("papermill 396", "parameters", fast=False, cases=DEFAULTS)
def parameter_is_known(parameters):
    """A parameter whose default stands in an unusual line"""
    assert arrives(parameters, "SEED", "3") == "3"


@situation("papermill 818", "parameters")
def unknown_parameter():
    """A name that the notebook doesn't define"""
    return check_message(
        walk(notebook("SEED = 0"), "--out", "pages", "-p", "SED", "3").error(), ["SED", "SEED"]
    )


@situation("papermill 55", "parameters", cases={"SEED": "many", "QUICK": "perhaps", "LR": "fast"})
def text_for_a_number(value):
    """A text in place of a number"""
    name = {"many": "SEED", "perhaps": "QUICK", "fast": "LR"}[value]
    book = notebook("SEED = 0\nQUICK = True\nLR = 0.5")
    return check_message(walk(book, "--out", "pages", "-p", name, value).error(), [name, value])


TILDE = {
    "save_image": lambda: ap.save_image(picture(8, 8), "~/compatibility/a.png"),
    "a Path": lambda: ap.save_image(picture(8, 8), Path("~/compatibility/a.png")),
    "save_lora": lambda: ap.save_lora(ap.lora(pipe(), photos(1), steps=1, batch=1), "~/compatibility"),
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


@situation("own", "units", fast=False)
def example_of_walks_help():
    """The example in walk's help fits the unit of the project's own notebooks"""
    found = re.search(r"-p ([A-Z_]+) ([0-9][0-9./]*)", " ".join(walk("--help").fine().out.split()))
    assert found, "there is no example"
    name, value = found[1], float(Fraction(found[2].rstrip("./")))
    sources = [path.read_text(encoding="utf-8") for path in sorted((ROOT / "notebooks").glob("*.ipynb"))]
    defaults = [float(text) for source in sources for text in re.findall(rf'"{name} = ([\d.]+)', source)]
    assert defaults, f"no notebook has {name}"
    assert 0.1 < value / defaults[0] < 10, (
        f"{name} is {defaults[0]:g} in the notebooks, {value:.2g} in the help"
    )


@situation("own", "command line", fast=False)
def cell_takes_too_long():
    """walk --timeout: one line"""
    book = notebook("SEED = 0", "import time\ntime.sleep(60)")
    done = walk(book, "--out", "pages", "--timeout", "2")
    assert done.status, "no error"
    told, *log = done.err.strip().splitlines()
    assert len(log) <= 1, f"{1 + len(log)} lines, such as: {log[0]}"  # where the full log is
    return check_message(told, ["--timeout"])


@situation("own", "command line", fast=False)
def cell_fails():
    """A cell of a notebook fails: the message names it"""
    book = notebook("SEED = 0", "1 / 0")
    done = walk(book, "--out", "pages")
    assert done.status and "ZeroDivisionError" in done.err and "code cell 2" in done.err, done.err


@situation(
    "own",
    "command line",
    cases={"no notebook": b"{}", "text": b"print(1)", "empty": b"", "Python": b"# %%\n"},
)
def not_a_notebook(content):
    """walk gets a file that isn't a notebook"""
    Path("a.ipynb").write_bytes(content)
    return check_message(walk("a.ipynb", "--out", "pages", "-p", "A", 1).error(), ["a.ipynb"])


class Panel:
    """The panel's widgets by what they are."""

    def __init__(self, photo=None, **options):
        import ipywidgets as w

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            photo = picture(20, 24) if photo is None else photo
            self.root = ap.photo_panel(ddpm(), photo, **{"steps": 2, "size": 24} | options)
        found = list(self._walk(self.root))
        self.upload = next(x for x in found if isinstance(x, w.FileUpload))
        self.budget = next(x for x in found if isinstance(x, w.IntSlider))
        self.purifier = next(x for x in found if isinstance(x, w.Dropdown))
        self.button = next(x for x in found if isinstance(x, w.Button) and not isinstance(x, w.FileUpload))

    def _walk(self, widget):
        yield widget
        for child in getattr(widget, "children", ()):
            yield from self._walk(child)

    def text(self) -> str:
        """All that the panel says."""
        import ipywidgets as w

        return " ".join(x.value for x in self._walk(self.root) if isinstance(x, w.HTML))

    def give(self, name: str, content: bytes) -> None:
        """Upload a file."""
        now = datetime(2024, 1, 1, tzinfo=UTC)
        file = {
            "name": name,
            "type": "image/png",
            "size": len(content),
            "content": content,
            "last_modified": now,
        }
        self.upload.value = (file,)


def png(height=30, width=30, mode="RGB") -> bytes:
    """A picture file's bytes."""
    file = io.BytesIO()
    ap.to_pil(picture(height, width)).convert(mode).save(file, format="PNG")
    return file.getvalue()


UPLOADS = {
    "100 Chinese letters": ("照" * 100 + ".png", png()),
    "300 letters": ("x" * 300 + ".png", png()),
    "no name": ("", png()),
    "a dot": (".", png()),
    "a folder's name": ("../../", png()),
    "a zero byte": ("a\0b.png", png()),
    "a path": ("/etc/passwd.png", png()),
    "markup": ("<img src=x onerror=alert(1)>.png", png()),
    "transparent": ("a.png", png(mode="RGBA")),
    "tiny": ("a.png", png(2, 2)),
}


def works_or_says(panel, act, *words) -> None:
    """The act shows a protected photo or says what failed; nothing is raised."""
    if not needs("ipywidgets"):
        return
    try:
        act(panel)
    except Exception as error:
        raise AssertionError(
            f"raises {type(error).__name__} in the callback; the status says {panel.text()[:60]!r}"
        ) from error
    said = panel.text()
    assert 'download="' in said or any(word in said for word in ("can't", "fail", *words)), (
        f"it says {said[:80]!r}"
    )


@situation("ipywidgets 3452", "panel", cases=UPLOADS)
def file_is_uploaded(file):
    """The panel gets a picture whose name or size is unusual"""
    works_or_says(Panel(), lambda panel: panel.give(*file))


@situation(
    "ipywidgets 3452",
    "panel",
    cases={"empty": b"", "text": b"hello", "half a picture": png()[:60], "PDF": b"%PDF-1.7"},
)
def other_file_is_uploaded(content):
    """The panel gets a file that isn't a picture"""
    panel = Panel()
    works_or_says(panel, lambda panel: panel.give("a.png", content))
    assert 'download="' not in panel.text() and "a.png" in panel.text(), panel.text()


FAILURES = {
    "memory runs out in the protection": ("button", MemoryError("out of memory")),
    "the model fails": ("button", RuntimeError("the model fails")),
    "an interrupt": ("button", ValueError("stopped")),
    "the purifier fails": ("purifier", RuntimeError("the purifier fails")),
    "a package is missing": ("purifier", ModuleNotFoundError("no such package")),
}


@situation("own", "panel", cases=FAILURES)
def computation_fails(case):
    """A computation fails inside the panel"""
    place, error = case
    panel = Panel()
    if place == "purifier":
        panel.button.click()
    with mock.patch.object(type(ddpm().unet), "forward", side_effect=error):
        if place == "button":
            panel.button.click()
        else:
            panel.purifier.value = "gridpure"
    assert str(error) in panel.text(), f"the status doesn't say it: {panel.text()[:90]!r}"


@situation("own", "panel")
def photo_smaller_than_the_model():
    """The panel begins with a photo that is smaller than the model's"""
    works_or_says(Panel(photo=picture(8, 8)), lambda panel: panel.button.click())


@situation("own", "panel")
def every_choice_works():
    """Each purifier that the panel offers works"""
    panel = Panel()
    panel.button.click()
    for name in panel.purifier.options:
        panel.purifier.value = name
        assert name in panel.text() and "done" in panel.text(), panel.text()


@situation("own", "everyday")
def upload_is_turned_upright():
    """The panel turns an uploaded photo upright"""
    file, block = io.BytesIO(), Image.Exif()
    block[0x0112] = 6
    ap.to_pil(picture(30, 40)).save(file, format="JPEG", exif=block)
    panel = Panel()
    panel.give("a.jpg", file.getvalue())
    assert 'download="' in panel.text()


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


@situation("own", "everyday", cases=["generate", "antipure", "lora"])
def global_seed_is_left_alone(use):
    """A call doesn't move the session's own random numbers, nor depends on them"""

    def run(seed):
        torch.manual_seed(seed)
        if use == "generate":
            found = ap.generate(pipe(), "a person", n=1, steps=2)
        elif use == "antipure":
            found = ap.antipure(ddpm(), picture(16, 16), eta=8 / 255, steps=2)
        else:
            found = next(iter(ap.lora_steps(pipe(), photos(2), steps=1, batch=1))).loss
        return found, torch.rand(1)

    (a, after), (b, _) = run(1), run(2)
    torch.manual_seed(1)
    assert a.equal(b) and after.equal(torch.rand(1))
