"""Controls that every protection is compared with: the photos as they are, three kinds of random signs."""

from collections.abc import Callable, Iterator

import torch

from ..core.images import check_image
from ..core.pgd import PGDState
from ..runtime.checks import check_counts, check_eta, check_number, check_positive, check_seed
from ..runtime.noise import randint, randn


def none_steps(x: torch.Tensor, **_) -> Iterator[PGDState]:
    """The photos as they are, for comparison; one state, step 0.  x: 3×H×W or N×3×H×W in [0, 1]."""
    return iter([PGDState(0, check_image(x).detach(), {}, {})])


def random_steps(
    x: torch.Tensor,  # 3×H×W or N×3×H×W in [0, 1]
    eta: float = 16 / 255,  # budget in (0, 1], [0, 1] units
    steps: int = 1,  # of no effect, as step_size: one step spends the whole budget
    step_size: float | None = None,
    seed: int = 0,
) -> Iterator[PGDState]:
    """x ± η with random signs, from no model; one state. Raises ValueError for values outside their range."""

    def draw(shape, generator, device):
        return 2 * randint(0, 2, shape, generator, device) - 1

    return _signs(draw, x, eta, steps, step_size, seed)


def random_grey_steps(
    x: torch.Tensor, eta: float = 16 / 255, steps: int = 1, step_size: float | None = None, seed: int = 0
) -> Iterator[PGDState]:
    """As `random_steps`, with one sign per pixel for all three channels: it changes no hue."""

    def draw(shape, generator, device):
        return 2 * randint(0, 2, (shape[0], 1, *shape[2:]), generator, device) - 1

    return _signs(draw, x, eta, steps, step_size, seed)


def random_lowpass_steps(
    x: torch.Tensor,
    eta: float = 16 / 255,
    steps: int = 1,
    step_size: float | None = None,
    seed: int = 0,
    cutoff: float = 0.24,  # cycles per pixel, positive; from √½ on nothing is removed
) -> Iterator[PGDState]:
    """As `random_steps`, with the signs of white noise whose frequencies above `cutoff` are removed.

    A sign isn't linear: it puts some power above the cutoff again. With the default, the power's mean
    frequency is that of AdvDM's and Mist's δ. AntiPure's has nearly that of `random_steps`, and peaks at its
    grid. (`python -m tools.study.spectrum`; data/results/spectrum.json)
    """
    check_positive(cutoff=cutoff)
    limit = check_number(cutoff, "cutoff")

    def draw(shape, generator, device):
        height, width = shape[-2:]
        v, u = torch.fft.fftfreq(height, device=device), torch.fft.rfftfreq(width, device=device)
        low = v[:, None].square() + u.square() <= limit**2
        return torch.fft.irfft2(torch.fft.rfft2(randn(shape, generator, device)) * low, s=(height, width))

    return _signs(draw, x, eta, steps, step_size, seed)


def _signs(draw: Callable, x, eta, steps, step_size, seed) -> Iterator[PGDState]:
    """x + η·sign of what `draw` draws."""
    images, eta = check_image(x).detach(), check_eta(eta)
    check_counts(steps=steps)
    check_positive(step_size=step_size)
    generator = torch.Generator().manual_seed(check_seed(seed))
    signs = draw(images.shape, generator, images.device).sign().to(images.dtype)
    return iter([PGDState(1, (images + eta * signs).clamp(0, 1), {}, {})])
