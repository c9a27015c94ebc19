"""Figures of the notebooks, each one call: labels, units, stated amplification."""

import io
from base64 import b64encode
from collections.abc import Mapping, Sequence
from itertools import cycle

import matplotlib.pyplot as plt
import numpy as np
import PIL.Image
import PIL.ImageDraw
import PIL.ImageFont
import torch
from matplotlib.font_manager import findfont

from ..core.images import check_image
from ..runtime.checks import check_count, check_counts, check_number, check_positive

# Okabe and Ito's palette, made for colour-blind readers, and a line style for each colour.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
STYLES = ("-", "--", "-.", (0, (1, 1)), (0, (5, 1, 1, 1, 1, 1)), (0, (6, 3)), ":")


def amplify(x_adv: torch.Tensor, x: torch.Tensor, factor: float = 8) -> torch.Tensor:
    """The perturbation as a picture: 0.5 + factor·(x_adv − x), clipped to [0, 1]; grey means unchanged.

    x_adv, x: 3×H×W or N×3×H×W in [0, 1], same shape. State the factor next to the picture.
    Raises ValueError for a factor that isn't a number.
    """
    return (0.5 + check_number(factor, "factor") * (x_adv - x)).clamp(0, 1)


def show_rows(
    rows: Mapping[str, torch.Tensor],
    columns: int | None = None,  # images per row; default all
    title: str = "",
    scale: float = 0.8,  # inches per image
    column_titles: Sequence[str] = (),
):
    """Rows of images, each with its name on the left. rows: name → N×3×H×W in [0, 1]. Returns the figure.

    Raises ValueError for bad images and for numbers outside their range.
    """
    check_positive(scale=check_number(scale, "scale"))
    batches = {name: check_image(images, name).cpu() for name, images in rows.items()}
    columns = max(map(len, batches.values())) if columns is None else check_count(columns, "columns")
    titles = 0.35 if title or column_titles else 0  # inches, as the names' 1.5
    size = (1.5 + columns * scale, len(batches) * scale + titles)
    figure, axes = plt.subplots(len(batches), columns, figsize=size, squeeze=False, layout="compressed")
    for line, (name, images) in zip(axes, batches.items(), strict=True):
        for axis in line:
            axis.axis("off")
        for axis, image in zip(line, images, strict=False):
            axis.imshow(image.permute(1, 2, 0).numpy(), interpolation="nearest", vmin=0, vmax=1)
        line[0].text(-0.08, 0.5, name, transform=line[0].transAxes, ha="right", va="center", fontsize=10)
    for axis, text in zip(axes[0], column_titles, strict=False):
        axis.set_title(text, fontsize=10)
    if title:
        figure.suptitle(title, fontsize=11)
    return figure


def show_curves(
    curves: Mapping[str, Sequence[float] | torch.Tensor],
    x: Sequence[float] | None = None,
    xlabel: str = "step",
    ylabel: str = "loss",
):
    """Named curves over a common axis. Returns the figure."""
    figure, axis = plt.subplots(figsize=(6, 3.2), layout="constrained")
    for (name, values), colour, style in zip(curves.items(), cycle(COLOURS), cycle(STYLES), strict=False):
        values = np.asarray(values, float)
        places = np.arange(1, len(values) + 1) if x is None else x
        axis.plot(places, values, label=name, color=colour, ls=style, lw=1.8)
    axis.set(xlabel=xlabel, ylabel=ylabel)
    tidy(axis)
    axis.legend(frameon=False)
    return figure


def tidy(axis) -> None:
    """A light grid, and no frame at the top and at the right."""
    axis.grid(alpha=0.3)
    axis.spines[["top", "right"]].set_visible(False)


def show_maps(
    maps: Mapping[str, torch.Tensor],
    label: str = "",  # of the colour bar
    signed: bool = False,  # colours symmetric about zero
    xlabel: str = "",
    ylabel: str = "",
    scale: float = 2.4,  # inches per map
):
    """A row of number grids as heat maps with one colour scale. maps: name → h×w. Returns the figure.

    Raises ValueError for a scale that isn't a positive number.
    """
    check_positive(scale=check_number(scale, "scale"))
    arrays = {name: np.asarray(values.detach().cpu(), float) for name, values in maps.items()}
    high = max(np.nanmax(np.abs(a) if signed else a) for a in arrays.values())
    low = -high if signed else min(np.nanmin(a) for a in arrays.values())
    size = (len(arrays) * scale + 0.9, scale + 0.5)
    figure, axes = plt.subplots(1, len(arrays), figsize=size, squeeze=False, layout="compressed")
    for axis, (name, values) in zip(axes[0], arrays.items(), strict=True):
        picture = axis.imshow(values, cmap="cividis" if signed else "viridis", vmin=low, vmax=high)
        axis.set_title(name, fontsize=10)
        axis.set(xlabel=xlabel, ylabel=ylabel if axis is axes[0, 0] else "")
    figure.colorbar(picture, ax=axes[0], label=label)
    return figure


def to_png(figure) -> bytes:
    """A figure as the bytes of a PNG file, a frame for `scrub`. The figure is closed."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=100)
    plt.close(figure)
    return file.getvalue()


def scrub(frames: Mapping[object, bytes], name: str):
    """A slider over ready pictures; a page without a kernel shows five of them as a strip.

    frames: slider label → bytes from `to_png`. Returns the widget.
    """
    from ipywidgets import Image, SelectionSlider, VBox

    class Scrub(VBox):
        def _repr_mimebundle_(self, **options):
            return {
                **super()._repr_mimebundle_(**options),
                "image/png": b64encode(strip(frames, name)).decode(),
            }

    look = {"continuous_update": False, "layout": {"width": "26em"}}
    slider = SelectionSlider(options=list(frames), description=name, **look)
    own_width = {"align_self": "flex-start", "object_fit": "none"}  # by default the page's
    picture = Image(value=frames[slider.value], format="png", layout=own_width)
    slider.observe(lambda change: setattr(picture, "value", frames[change.new]), "value")
    return Scrub([slider, picture])


def strip(frames: Mapping[object, bytes], name: str) -> bytes:
    """Five evenly spaced frames with their labels as a PNG file, in rows of 900 pixels at most.

    frames: label → bytes from `to_png`; fewer than five are all shown, and a wider one has its own row.
    """
    labels = list(frames)
    chosen = [labels[round(k)] for k in np.linspace(0, len(labels) - 1, min(5, len(labels)))]
    pictures = [PIL.Image.open(io.BytesIO(frames[label])).convert("RGB") for label in chosen]
    w, h = (max(sizes) for sizes in zip(*(picture.size for picture in pictures), strict=True))
    columns, title = max(1, min(len(pictures), 900 // w)), 18
    font = PIL.ImageFont.truetype(findfont("DejaVu Sans"), 13)  # has Greek; Pillow's own hasn't
    sheet = PIL.Image.new("RGB", (columns * w, -(-len(pictures) // columns) * (h + title)), "white")
    for k, (label, picture) in enumerate(zip(chosen, pictures, strict=True)):
        x, y = k % columns * w, k // columns * (h + title)
        PIL.ImageDraw.Draw(sheet).text((x + 4, y + 3), f"{name} = {label}", fill="black", font=font)
        sheet.paste(picture, (x, y + title))
    file = io.BytesIO()
    sheet.save(file, "PNG", optimize=True)
    return file.getvalue()


def table(rows: Sequence[Mapping[str, object]], digits: int = 3) -> str:
    """Rows as a Markdown table; numbers to `digits` places, at least 0, nan as a dash."""
    check_counts(0, digits=digits)

    def cell(value):
        if isinstance(value, float):
            return "–" if np.isnan(value) else f"{value:.{digits}f}"
        return str(value)

    names = list(rows[0])
    lines = ["| " + " | ".join(names) + " |", "|" + " --- |" * len(names)]
    lines += ["| " + " | ".join(cell(row[name]) for name in names) + " |" for row in rows]
    return "\n".join(lines)
