"""Images in and out: float32 tensors 3×H×W or N×3×H×W, RGB, [0, 1]; files are 8-bit.

Diffusion models see [−1, 1]; `to_model` and `from_model` are the only place where the range changes.
"""

import numpy as np
import torch
from PIL import Image

from ..runtime.checks import check_eta

LEVELS = 255  # an 8-bit file holds k/255, k = 0..255
ROUNDING = 1e-5  # resampling may leave [0, 1] by so much; it is clipped


def check_image(x: torch.Tensor, name: str = "x") -> torch.Tensor:
    """An image or a batch of them as a batch, after checking its type, shape and range.

    x: 3×H×W or N×3×H×W, float32 or float64, RGB, [0, 1]. Returns N×3×H×W (a view; a copy if clipped).
    Raises TypeError or ValueError naming the argument, the problem and the remedy.
    """
    if not isinstance(x, torch.Tensor):
        raise TypeError(f"{name} must be a torch.Tensor, got {type(x).__name__}; load files with load_image")
    if not x.is_floating_point():
        raise TypeError(f"{name} must be floating point in [0, 1], got {x.dtype}; use {name}.float() / 255")
    if torch.finfo(x.dtype).bits < 32:  # between 128/255 and 1 they can't tell all 8-bit levels apart
        raise TypeError(f"{name} must be float32, got {x.dtype}, too coarse for a budget; use {name}.float()")
    if x.ndim not in (3, 4) or x.shape[-3] != 3 or x.numel() == 0:
        raise ValueError(f"{name} must be 3×H×W or N×3×H×W (RGB, channels first), got {tuple(x.shape)}")
    low, high = (bound.item() for bound in x.detach().aminmax())
    if not (np.isfinite(low) and np.isfinite(high)):
        raise ValueError(f"{name} holds NaN or infinite values; find out where they come from")
    if low < -ROUNDING or high > 1 + ROUNDING:
        raise ValueError(
            f"{name} must lie in [0, 1], got [{low:.6g}, {high:.6g}]; "
            f"map [0, 255] by /255 and [-1, 1] by (v+1)/2, or clamp what overshoots"
        )
    batch = x if x.ndim == 4 else x[None]
    return batch.clamp(0, 1) if low < 0 or high > 1 else batch


def to_model(x: torch.Tensor) -> torch.Tensor:
    """[0, 1] → [−1, 1], the range diffusion models are trained in."""
    return 2 * x - 1


def from_model(y: torch.Tensor) -> torch.Tensor:
    """[−1, 1] → [0, 1], clamped: models overshoot."""
    return ((y + 1) / 2).clamp(0, 1)


def quantise(x: torch.Tensor) -> torch.Tensor:
    """Round [0, 1] values to the 256 levels of an 8-bit file: exactly what saving and loading returns."""
    return (x * LEVELS).round() / LEVELS


def as_file(made: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """What was made from x, rounded to 8-bit levels, on x's device and in x's shape."""
    return quantise(made).to(x.device).view_as(x)


def quantise_within(x_adv: torch.Tensor, x: torch.Tensor, eta: float) -> torch.Tensor:
    """Round `x_adv` to 8-bit levels without leaving the budget: ‖q − x‖∞ ≤ η also holds for the saved file.

    Nearest level, except where it lies outside [x−η, x+η]: then the nearest level inside.
    x_adv, x: same shape, [0, 1]; eta: [0, 1] units. Returns it on x's device, wherever x_adv was made.
    Raises ValueError as `check_eight_bit`: below 1/255 the interval may hold no level but x itself, or none.
    """
    eta = check_eight_bit(eta)
    slack = 1e-4  # levels; float32 rounding of 255·(x±η) stays below half of it
    low = ((x - eta) * LEVELS - slack).ceil()
    high = ((x + eta) * LEVELS + slack).floor()
    level = (x_adv.to(x.device) * LEVELS).round()
    return level.clamp(low, high).clamp(0, LEVELS) / LEVELS


def check_eight_bit(eta: float) -> float:
    """The budget as a float. Raises ValueError outside (0, 1], or below 1/255, one level of an 8-bit file."""
    eta = check_eta(eta)
    if eta * LEVELS < 1 - 1e-6:
        raise ValueError(
            f"eta={eta:.3g} is less than 1/255, one level of an 8-bit file; give more, for example 8/255, or "
            "eight_bit=False where the function has it"
        )
    return eta


def to_pil(x: torch.Tensor) -> Image.Image:
    """3×H×W (or 1×3×H×W) in [0, 1] → an 8-bit PIL image."""
    pixels = (check_image(x)[0].detach() * LEVELS).round().to("cpu", torch.uint8)
    return Image.fromarray(pixels.permute(1, 2, 0).contiguous().numpy())


def from_pil(image: Image.Image) -> torch.Tensor:
    """An RGB PIL image → 3×H×W float32 in [0, 1]."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / LEVELS
