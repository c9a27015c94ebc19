"""Figures of the benchmark's rows: purification curve, Pareto plot, heat map."""

from collections.abc import Mapping, Sequence

import numpy as np

from ..notebook.show import COLOURS
from .tables import WANTED, Rows, interval_of, protection_name, purifier_name, select

MARKERS = "osD^vPX*<>hdp"

NAMES = {
    "ism": "ISM (cosine)",
    "distance": "dlib distance to the person",
    "same_person": "share judged to be the person",
    "fdfr": "FDFR",
    "frechet": "Fréchet distance (AlexNet)",
    "brisque": "BRISQUE",
    "lpips": "LPIPS of the protected photo",
    "flip": "FLIP of the protected photo",
    "ssim": "SSIM of the protected photo",
    "psnr": "PSNR of the protected photo, dB",
    "psnr_learned": "PSNR of the learned photo, dB",
    "survival": "survival",
}


def label(figure: str) -> str:
    """What stands at the axis: the figure's name, and an arrow to where the protector wants it."""
    arrow = {1: " ↑", -1: " ↓"}.get(WANTED.get(figure, 0), "")
    return NAMES.get(figure, figure) + arrow


def style(names: Sequence[str], name: str) -> dict[str, object]:
    """A protection's colour and marker, the same in every figure that gets the same list of names."""
    k = list(names).index(name)
    return {"color": COLOURS[k % len(COLOURS)], "marker": MARKERS[k % len(MARKERS)]}


def show_means(groups: Mapping[str, Rows], figure: str = "ism", same_scale: bool = True):
    """A panel a group, a line a protection: the mean over people and its 95 % interval.

    groups: title → rows of one purifier and one customizer. same_scale: False where the panels' figures can't
    be compared. Protections stand in the order in which they first occur. Returns the figure.
    """
    import matplotlib.pyplot as plt

    names = list(dict.fromkeys(row["protect"] for rows in groups.values() for row in rows))
    size = (1.4 + 2.6 * len(groups), 1.2 + 0.28 * len(names))
    shared = {"sharex": same_scale, "sharey": True}
    chart, axes = plt.subplots(1, len(groups), figsize=size, squeeze=False, layout="constrained", **shared)
    for axis, (title, rows) in zip(axes[0], groups.items(), strict=True):
        for place, name in enumerate(names):
            found = interval_of(select(rows, protect=name), figure)
            bar = [[found.mean - found.low], [found.high - found.mean]]
            axis.errorbar(found.mean, place, xerr=bar, fmt="o", capsize=3, color=COLOURS[0])
        axis.set_title(title, fontsize=10)
        axis.set(xlabel=label(figure), ylim=(len(names) - 0.5, -0.5))
        axis.locator_params(axis="x", nbins=4)
        _tidy(axis)
    axes[0, 0].set_yticks(range(len(names)), map(protection_name, names))
    return chart


def show_iterations(
    rows: Rows, figure: str = "ism", purifiers: Sequence[str] = (), protections: Sequence[str] = ()
):
    """A figure against the strength of purification, a line a protection, 95 % intervals over people.

    purifiers: names in the order of the axis, such as gridpure10 … gridpure40. Lines are shifted sideways a
    little, so that their intervals can be told apart. Returns the figure.
    """
    import matplotlib.pyplot as plt

    protections = protections or _names(rows, "protect")
    purifiers = purifiers or _names(rows, "purify")
    chart, axis = plt.subplots(figsize=(6.4, 3.8), layout="constrained")
    for k, name in enumerate(protections):
        found = [interval_of(select(rows, protect=name, purify=p), figure) for p in purifiers]
        middle = np.array([i.mean for i in found])
        bars = np.abs(np.array([[i.low, i.high] for i in found]).T - middle)
        place = np.arange(len(purifiers)) + 0.06 * (k - (len(protections) - 1) / 2)
        look = {"label": protection_name(name), "capsize": 3, "lw": 1.5, "ms": 5}
        axis.errorbar(place, middle, bars, **look, **style(protections, name))
    axis.set_xticks(range(len(purifiers)), map(purifier_name, purifiers))
    axis.set(xlabel="purified with", ylabel=label(figure))
    _tidy(axis)
    axis.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    return chart


def show_pareto(rows: Rows, x: str = "lpips", y: str = "ism"):
    """Visible change against effect: a point a protection, with 95 % intervals over people both ways.

    rows: of one purifier and one customizer. Protections that change no photo have no LPIPS and are left
    out. Returns the figure.
    """
    import matplotlib.pyplot as plt

    names = _names(rows, "protect")
    chart, axis = plt.subplots(figsize=(6.4, 3.8), layout="constrained")
    for name in names:
        own = select(rows, protect=name)
        a, b = interval_of(own, x), interval_of(own, y)
        if np.isnan(a.mean):
            continue
        bars = [[[i.mean - i.low], [i.high - i.mean]] for i in (a, b)]
        axis.errorbar(
            a.mean,
            b.mean,
            *reversed(bars),
            label=protection_name(name),
            ls="",
            lw=1,
            capsize=2,
            **style(names, name),
        )
    axis.set(xlabel=label(x), ylabel=label(y))
    _tidy(axis)
    axis.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    return chart


def show_grid(rows: Rows, figure: str = "ism"):
    """Every protection against every purifier as a heat map with the means written in. Returns the figure.

    rows: of one customizer. Darker is better for the protector.
    """
    import matplotlib.pyplot as plt

    protections, purifiers = _names(rows, "protect"), _names(rows, "purify")
    values = np.array(
        [
            [interval_of(select(rows, protect=a, purify=b), figure).mean for b in purifiers]
            for a in protections
        ]
    )
    size = (1.8 + 0.85 * len(purifiers), 0.8 + 0.32 * len(protections))
    chart, axis = plt.subplots(figsize=size, layout="constrained")
    wanted = WANTED.get(figure, 1)
    image = axis.imshow(wanted * values, cmap="Blues", aspect="auto")
    for (i, j), value in np.ndenumerate(values):
        text = "–" if np.isnan(value) else f"{value:.3f}" if abs(value) < 10 else f"{value:.1f}"
        dark = image.norm(wanted * value) > 0.6
        axis.text(j, i, text, ha="center", va="center", fontsize=8, color="white" if dark else "black")
    axis.set_xticks(range(len(purifiers)), map(purifier_name, purifiers), fontsize=8)
    axis.set_yticks(range(len(protections)), map(protection_name, protections))
    axis.set_title(label(figure) + ", mean over people", fontsize=10)
    return chart


def _names(rows: Rows, column: str) -> list[str]:
    return list(dict.fromkeys(row[column] for row in rows))


def _tidy(axis) -> None:
    axis.grid(alpha=0.3)
    axis.spines[["top", "right"]].set_visible(False)
