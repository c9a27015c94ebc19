"""What a protection did to a photo: how visible it is, and at which frequencies it lies."""

from collections.abc import Mapping

import torch

from .images import LEVELS, check_image
from .judge import Judge
from .show import COLOURS, amplify

UNITS = {"largest change": "/255", "PSNR": " dB"}
CROP = 256  # side of the part that is shown pixel by pixel


def radial_spectrum(delta: torch.Tensor, rings: int = 32) -> tuple[torch.Tensor, torch.Tensor]:
    """Root mean square of a perturbation's Fourier coefficients in rings of equal frequency.

    The transform is orthonormal: white noise of standard deviation σ has σ in every ring, and the mean
    square over all coefficients is the perturbation's mean square.
    delta: 3×H×W. rings: their number, fewer for small images. Returns frequencies (the rings' middles, from 0
    to √½ cycles a pixel) and amplitudes in the units of delta, both of one length; nan for an empty ring.
    """
    height, width = delta.shape[-2:]
    rings = max(1, min(rings, max(height, width) // 2))
    power = torch.fft.fft2(delta.double(), norm="ortho").abs().square().mean(0)
    v, u = torch.fft.fftfreq(height).abs()[:, None], torch.fft.fftfreq(width).abs()[None]
    top = 0.5**0.5
    ring = ((v.square() + u.square()).sqrt() / top * rings).long().clamp_max(rings - 1).flatten()
    total = torch.zeros(rings, dtype=power.dtype).index_add_(0, ring, power.flatten())
    frequencies = (torch.arange(rings) + 0.5) / rings * top
    return frequencies, (total / torch.bincount(ring, minlength=rings)).sqrt().float()


def compare_photos(x: torch.Tensor, x_protected: torch.Tensor) -> dict[str, float | str]:
    """How visible a change is: largest change (1/255), PSNR (dB), LPIPS and FLIP (0: none).

    x, x_protected: 3×H×W in [0, 1], same shape. Where a judge can't tell, its reason stands in its place.
    Raises ValueError for other shapes, and for equal photos.
    """
    a, b = check_image(x), check_image(x_protected, "x_protected")
    if a.shape != b.shape:
        sizes = [f"{image.shape[-1]}×{image.shape[-2]}" for image in (a, b)]
        raise ValueError(f"the photos have {sizes[0]} and {sizes[1]} pixels; compare one with its own result")
    if a.equal(b):
        raise ValueError("the photos are equal: there is no change to inspect")
    judge = Judge()
    figures: dict[str, float | str] = {"largest change": ((b - a).abs().max() * LEVELS).item()}
    for name in ("psnr", "lpips", "flip"):
        try:
            figures[name.upper()] = getattr(judge, name)(a, b).item()
        except (ValueError, ModuleNotFoundError) as error:
            figures[name.upper()] = str(error)
    return figures


def show_comparison(x: torch.Tensor, x_protected: torch.Tensor, figures: Mapping[str, float | str]):
    """Both photos, the middle of the change amplified around grey, its radial spectrum. Returns the figure.

    x, x_protected: 3×H×W in [0, 1]. figures: from `compare_photos`.
    """
    import matplotlib.pyplot as plt

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
    axis.set(xlabel="cycles a pixel", ylabel="amplitude in 1/255", title="radial spectrum", ylim=(0, None))
    axis.grid(alpha=0.3)
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(frameon=False)
    numbers = [name for name, value in figures.items() if not isinstance(value, str)]
    chart.suptitle(", ".join(f"{name} {with_unit(name, figures[name])}" for name in numbers), fontsize=11)
    return chart


def with_unit(name: str, value: float | str) -> str:
    """A figure of `compare_photos` as text; a reason stays as it is."""
    return value if isinstance(value, str) else f"{value:.3g}{UNITS.get(name, '')}"
