"""Protect a photo of one's own in a notebook: upload, budget, purifier, before and after, download."""

import base64
import io
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from html import escape
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from ..core.antipure import antipure_steps
from ..core.images import quantise_within, to_pil
from ..core.pgd import fast
from ..photos.pictures import load_image
from ..purifiers.registry import PURIFIERS, purify
from ..runtime.checks import check_count, check_counts, check_seed
from ..runtime.pipelines import DDPMPipeline, StableDiffusionPipeline
from .show import amplify


def photo_panel(
    ddpm: "DDPMPipeline",
    photo: torch.Tensor,  # shown until one is uploaded
    eta: int = 8,  # budget, in steps of 1/255, 1 … 16
    steps: int = 10,  # of AntiPure, each a quarter of the budget
    size: int = 128,  # an uploaded photo is cut to a square around its middle and scaled to this side
    seed: int = 0,
    pipe: "StableDiffusionPipeline | None" = None,  # for the purifiers that need a latent model
):
    """A panel that protects `photo` or an uploaded one, purifies the result, and offers it as a PNG.

    photo: 3×H×W in [0, 1], at least as large as the model's images. Nothing is computed before the first
    click or change. A new purifier only purifies again. Without a `pipe`, purifiers that need one aren't
    offered. The panel reports errors. Returns the widget.
    Raises ValueError for numbers outside their range.
    """
    import ipywidgets as w

    eta = check_count(eta, "eta", 1, 16)
    check_counts(steps=steps, size=size)
    check_seed(seed)

    upload = w.FileUpload(accept="image/*", multiple=False, description="Your photo")
    budget = w.IntSlider(eta, 1, 16, description="η in 1/255", continuous_update=False)
    models = {"ddpm": ddpm} | ({} if pipe is None else {"pipe": pipe})
    offered = [name for name, p in PURIFIERS.items() if name != "none" and models.keys() >= set(p.needs)]
    purifier = w.Dropdown(options=offered, description="purifier")
    button = w.Button(description="Protect", button_style="primary")
    status, link = w.HTML("Press <b>Protect</b>, or upload a photo first."), w.HTML()
    pictures, shown, now = w.HBox(), _errors_in(status), {"photo": photo, "protected": None}

    def show(named: Mapping[str, torch.Tensor]) -> None:
        drawn = {name: w.Image(value=_png(image, 192), width=192) for name, image in named.items()}
        pictures.children = [w.VBox([w.HTML(name), image]) for name, image in drawn.items()]

    @shown
    def protect(_=None) -> None:
        clean, within = now["photo"], budget.value / 255
        now["protected"], link.value = None, ""
        for state in antipure_steps(ddpm, clean, seed=seed, **fast(within, steps)):
            status.value = f"protecting: step {state.step} of {steps}"
        now["protected"] = quantise_within(state.x_adv.view_as(clean).to(clean), clean, within)
        link.value = _link(f"protected-{budget.value}.png", _png(now["protected"]))
        wash()

    @shown
    def wash(_=None) -> None:
        clean, protected = now["photo"], now["protected"]
        if protected is None:
            return
        status.value = f"purifying with {purifier.value}"
        washed = purify(purifier.value, protected, seed=seed, **models)
        factor = round(0.5 * 255 / budget.value)
        change = {f"change × {factor}": amplify(protected, clean, factor)}
        show({"photo": clean, "protected": protected} | change | {"protected, purified": washed})
        status.value = f"done: budget {budget.value}/255, {steps} steps, purifier {purifier.value}"

    @shown
    def receive(_) -> None:
        if upload.value:
            now["photo"] = _uploaded(upload.value, size)
            protect()

    upload.observe(receive, "value")
    budget.observe(protect, "value")
    purifier.observe(wash, "value")
    button.on_click(protect)
    show({"photo": photo})
    return w.VBox([w.HBox([upload, budget]), w.HBox([purifier, button]), status, pictures, link])


@contextmanager
def _errors_in(status) -> Iterator[None]:
    """A decorator of callbacks: their errors end in the status line, where the reader looks."""
    try:
        yield
    except BaseException as error:
        status.value = f"<b>That failed:</b> {escape(str(error) or type(error).__name__)}"
        if not isinstance(error, Exception):
            raise  # an interrupt


def _uploaded(files: dict | tuple, size: int) -> torch.Tensor:
    """The newest file as an image; ipywidgets 7 keeps a dict by name, ipywidgets 8 a tuple of dicts."""
    if isinstance(files, dict):
        files = [{"name": name} | file for name, file in files.items()]
    name, content = files[-1]["name"], files[-1]["content"]
    with TemporaryDirectory() as folder:
        path = Path(folder) / "photo"  # its own name may be too long for a file, or lead elsewhere
        path.write_bytes(content)
        try:
            return load_image(path, size)
        except ValueError as error:
            raise ValueError(str(error).replace(str(path), name or "the file")) from error


def _link(name: str, content: bytes) -> str:
    """HTML that offers a PNG file's bytes for download."""
    data = f"data:image/png;base64,{base64.b64encode(content).decode()}"
    return f'<a style="text-decoration: underline" download="{name}" href="{data}">download {name}</a>'


def _png(image: torch.Tensor, side: int | None = None) -> bytes:
    """A PNG file's bytes; with `side`, pixels are enlarged to a picture of that width."""
    picture, file = to_pil(image), io.BytesIO()
    if side:
        picture = picture.resize((side, side * picture.height // picture.width), 0)
    picture.save(file, format="PNG")
    return file.getvalue()
