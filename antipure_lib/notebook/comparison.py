"""What a protection did to a photo: how visible it is, and at which frequencies it lies."""

from collections.abc import Mapping

import matplotlib.pyplot as plt
import torch

from ..core.images import LEVELS
from ..judges.perturbation import radial_spectrum
from .show import COLOURS, amplify, tidy

UNITS = {"largest change": "/255", "PSNR": " dB"}
CROP = 256  # side of the part that is shown pixel by pixel


def show_comparison(x: torch.Tensor, x_protected: torch.Tensor, figures: Mapping[str, float | str]):
    """Both photos, the middle of the change amplified around grey, its radial spectrum. Returns the figure.

    x, x_protected: 3×H×W in [0, 1]. figures: from `compare_photos`.
    """
    delta = (x_protected - x) * LEVELS
    factor = max(1, int(LEVELS / 2 / delta.abs().max()))  # the largest that clips nothing
    top, left = (max(0, side - CROP) // 2 for side in x.shape[-2:])
    change = amplify(x_protected, x, factor)[:, top : top + CROP, left : left + CROP]
    pictures = {
        "original": x,
        "protected": x_protected,
        f"change × {factor}, middle {change.shape[2]}×{change.shape[1]} pixels": change,
    }
    chart, axes = plt.subplots(2, 2, figsize=(9, 8.4), layout="constrained")
    for axis, (name, picture) in zip(axes.flat, pictures.items(), strict=False):
        axis.imshow(picture.permute(1, 2, 0).cpu().numpy(), vmin=0, vmax=1)
        axis.set_title(name, fontsize=10)
        axis.axis("off")
    axis = axes[1, 1]
    frequencies, amplitudes = radial_spectrum(delta)
    axis.plot(frequencies, amplitudes, color=COLOURS[0], marker="o", ms=3, label="this change")
    size = delta.square().mean().sqrt().item()
    axis.axhline(size, color=COLOURS[1], ls="--", label="white noise of the same size")
    axis.set(xlabel="cycles per pixel", ylabel="amplitude in 1/255", title="radial spectrum", ylim=(0, None))
    tidy(axis)
    axis.legend(frameon=False)
    numbers = [name for name, value in figures.items() if not isinstance(value, str)]
    chart.suptitle(", ".join(f"{name} {with_unit(name, figures[name])}" for name in numbers), fontsize=11)
    return chart


def with_unit(name: str, value: float | str) -> str:
    """A figure of `compare_photos` as text; a reason stays as it is."""
    return value if isinstance(value, str) else f"{value:.3g}{UNITS.get(name, '')}"
