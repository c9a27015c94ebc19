"""Figures of the benchmark's rows: purification curve, Pareto plot, heat map."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import to_rgb

from ..notebook.show import COLOURS, tidy
from ..protections.registry import PROTECTIONS
from .intervals import Interval
from .rows import FIGURES
from .tables import Rows, interval_of, names_in, protection_name, purifier_name, select

MARKERS = "osD^vPX*<>hdp"


def label(figure: str) -> str:
    """The text at an axis: the figure's name, and an arrow to where the protector wants it."""
    wanted, name = FIGURES[figure]
    return f"{name} {'↑' if wanted > 0 else '↓'}"


def style(name: str) -> dict[str, object]:
    """A protection's colour and marker, the same in every figure."""
    known = list(PROTECTIONS)
    place = known.index(name) if name in known else sum(name.encode())
    colour = PROTECTIONS[name].colour if name in known else COLOURS[place % len(COLOURS)]
    return {"color": colour, "marker": MARKERS[place % len(MARKERS)]}


def show_means(groups: Mapping[str, Rows], figure: str = "ism", same_scale: bool = True):
    """A panel per group, a line per protection: the mean over people and its 95 % interval.

    groups: title → rows of one purifier and one customizer. same_scale: False if the panels' figures can't be
    compared. Returns the figure.
    """
    names = names_in([row for rows in groups.values() for row in rows], "protect")
    look = {"figsize": (1.4 + 2.6 * len(groups), 1.2 + 0.28 * len(names)), "layout": "constrained"}
    chart, axes = plt.subplots(1, len(groups), sharex=same_scale, sharey=True, squeeze=False, **look)
    for axis, (title, rows) in zip(axes[0], groups.items(), strict=True):
        for place, name in enumerate(names):
            found = interval_of(select(rows, protect=name), figure)
            axis.errorbar(found.mean, place, xerr=_bar(found), ls="", capsize=3, **style(name))
        axis.set_title(title, fontsize=10)
        axis.set(xlabel=label(figure), ylim=(len(names) - 0.5, -0.5))
        axis.locator_params(axis="x", nbins=4)
        tidy(axis)
    axes[0, 0].set_yticks(range(len(names)), map(protection_name, names))
    return chart


def show_slopes(
    rows: Rows, purifiers: Sequence[str], figure: str = "same_person", protections: Sequence[str] = ()
):
    """A line per protection from one purifier to the next: means over people, named at the last point.

    purifiers: names in the order of the axis, such as none and gridpure2x20. Returns the figure.
    """
    _, axis = plt.subplots(figsize=(2.2 + 1.9 * len(purifiers), 4.2), layout="constrained")
    _draw_lines(axis, rows, figure, purifiers, protections)
    axis.set(xlim=(-0.15, len(purifiers) - 0.2))
    return axis.figure


def show_iterations(
    rows: Rows, figure: str, purifiers: Sequence[str], protections: Sequence[str] = (), axis=None
):
    """As `show_slopes`, with 95 % intervals over people. axis: to draw on; default a new figure's."""
    axis = axis or plt.subplots(figsize=(6.4, 3.8), layout="constrained")[1]
    _draw_lines(axis, rows, figure, purifiers, protections, apart=0.06)  # intervals side by side
    axis.set(xlabel="purified with")
    return axis.figure


def _draw_lines(axis, rows, figure, purifiers, protections, apart=0.0):
    """A line of means per protection, its name at the end; if lines are apart, with intervals."""
    protections, ends = protections or names_in(rows, "protect"), {}
    for k, name in enumerate(protections):
        found = [interval_of(select(rows, protect=name, purify=p), figure) for p in purifiers]
        means = [interval.mean for interval in found]
        bars = np.hstack([_bar(interval) for interval in found]) if apart else None
        places = np.arange(len(purifiers)) + apart * (k - (len(protections) - 1) / 2)
        look = {"label": protection_name(name), "capsize": 3, "lw": 1.6, "ms": 5, "elinewidth": 0.7}
        axis.errorbar(places, means, bars, **look, **style(name))
        ends[name] = means[-1]
    axis.set_xticks(range(len(purifiers)), map(purifier_name, purifiers))
    axis.set(ylabel=label(figure))
    tidy(axis)
    low, high = axis.get_ylim()
    for name, height in _apart(ends, (high - low) / 22).items():
        shown = {"va": "center", "fontsize": 9, "color": style(name)["color"]}
        axis.text(len(purifiers) - 0.94 + 1.5 * apart, height, protection_name(name), **shown)


def show_pareto(rows: Rows, x: str = "lpips", y: str = "ism"):
    """Visible change against effect: a named point per protection, with 95 % intervals over people both ways.

    rows: of one purifier and one customizer. Returns the figure.
    """
    names, at = names_in(rows, "protect"), {}
    _, axis = plt.subplots(figsize=(7.4, 4.6), layout="constrained")
    for name in names:
        own = select(rows, protect=name)
        a, b = interval_of(own, x), interval_of(own, y)
        if np.isnan(a.mean):  # a protection that changes no photo has no LPIPS
            continue
        faint = (*to_rgb(style(name)["color"]), 0.35)
        look = {"label": protection_name(name), "ls": "", "ms": 7, "ecolor": faint}
        axis.errorbar(a.mean, b.mean, _bar(b), _bar(a), **look, **style(name))
        at[name] = a.mean, b.mean
    gap, near = np.ptp(axis.get_ylim()) / 20, np.ptp(axis.get_xlim()) / 5
    for name, (across, _) in at.items():  # names of points that are near each other keep apart
        heights = _apart({other: v for other, (u, v) in at.items() if abs(u - across) < near}, gap)
        shift = {"xytext": (7, 5), "textcoords": "offset points", "fontsize": 9}
        axis.annotate(protection_name(name), (across, heights[name]), **shift, color=style(name)["color"])
    axis.set(xlabel=label(x), ylabel=label(y))
    tidy(axis)
    return axis.figure


def _apart(places: Mapping[str, float], gap: float) -> dict[str, float]:
    """The heights nearest to these (least squares), no two closer than `gap`; nan are left out."""
    names = sorted((name for name in places if not np.isnan(places[name])), key=places.get)
    blocks: list[list[float]] = []  # names that touch each other; isotonic regression of place − k·gap
    for k, name in enumerate(names):
        blocks.append([places[name] - k * gap])
        while len(blocks) > 1 and np.mean(blocks[-2]) > np.mean(blocks[-1]):
            blocks[-2:] = [blocks[-2] + blocks[-1]]
    levels = [np.mean(block) for block in blocks for _ in block]
    return {name: level + k * gap for k, (name, level) in enumerate(zip(names, levels, strict=True))}


def show_grid(rows: Rows, figure: str = "ism"):
    """Every protection against every purifier: means in a heat map, darker is better for the protector.

    rows: of one customizer. Returns the figure.
    """
    protections, purifiers = names_in(rows, "protect"), names_in(rows, "purify")
    cells = [[select(rows, protect=a, purify=b) for b in purifiers] for a in protections]
    values = np.array([[interval_of(cell, figure).mean for cell in line] for line in cells])
    size = (1.8 + 0.85 * len(purifiers), 0.8 + 0.32 * len(protections))
    chart, axis = plt.subplots(figsize=size, layout="constrained")
    wanted = FIGURES[figure][0]
    image = axis.imshow(wanted * values, cmap="Blues", aspect="auto")
    for (i, j), value in np.ndenumerate(values):
        text = "–" if np.isnan(value) else f"{value:.3f}"
        colour = "white" if image.norm(wanted * value) > 0.6 else "black"
        axis.text(j, i, text, ha="center", va="center", fontsize=8, color=colour)
    axis.set_xticks(range(len(purifiers)), map(purifier_name, purifiers), fontsize=8)
    axis.set_yticks(range(len(protections)), map(protection_name, protections))
    axis.set_title(label(figure) + ", mean over people", fontsize=10)
    return chart


def _bar(interval: Interval) -> list[list[float]]:
    """An error bar, as `errorbar` takes the ways down and up."""
    return [[interval.mean - interval.low], [interval.high - interval.mean]]
