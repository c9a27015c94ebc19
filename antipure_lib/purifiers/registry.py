"""All purifiers by name: 8-bit images in, 8-bit images out.

A name may end in numbers, with an `x` between them. They are the purifier's last parameters in `NUMBERS`:
jpeg75 is quality 75, gridpure20 is 20 iterations, gridpure2x20 is 2 rounds of 20.
"""

import re
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch

from ..core.images import check_image, quantise
from .diffpure import diffpure, gridpure
from .filters import gaussian_blur, jpeg, resize_and_back
from .freqpure import freqpure
from .waifu2x import waifu2x

if TYPE_CHECKING:
    from diffusers import DDPMPipeline


def none(x: torch.Tensor) -> torch.Tensor:
    """No purification: what every other purifier is compared with."""
    return x


PURIFIERS: dict[str, Callable[..., torch.Tensor]] = {
    "none": none,
    "jpeg": jpeg,
    "blur": gaussian_blur,
    "resize": resize_and_back,
    "diffpure": diffpure,
    "gridpure": gridpure,
    "freqpure": freqpure,
    "waifu2x": waifu2x,
}

DIFFUSION = ("diffpure", "gridpure", "freqpure")  # those that take a ddpm and a seed

NUMBERS: dict[str, dict[str, type]] = {
    "jpeg": {"quality": int},
    "blur": {"sigma": float},
    "resize": {"factor": float},
    "diffpure": {"t": int},
    "gridpure": {"rounds": int, "iterations": int},
    "freqpure": {"rounds": int, "t": int},
}


@torch.no_grad()
def purify(
    name: str,
    images: torch.Tensor,
    *,
    ddpm: "DDPMPipeline | None" = None,  # needed by diffpure, gridpure, freqpure
    seed: int = 0,  # of their noise
    **options,  # the purifier's other arguments; they win over the name's numbers
) -> torch.Tensor:
    """Purify images as an abuser would: from an 8-bit file to an 8-bit file.

    name: as in the module's docstring. images: 3×H×W or N×3×H×W in [0, 1]. Returns the same shape and device,
    rounded to 8 bits. Raises ValueError for an unknown name, a missing ddpm, and what the purifier refuses.

    >>> purify("jpeg75", x)
    >>> purify("gridpure2x20", x, ddpm=ddpm, seed=1)
    >>> purify("gridpure", x, ddpm=ddpm, rounds=2, iterations=20, seed=1)  # the same
    """
    kind, numbers = parse_purifier(name)
    x = quantise(check_image(images, "images"))
    if kind not in DIFFUSION:
        purified = PURIFIERS[kind](x, **numbers | options)
    elif ddpm is None:
        raise ValueError(f"purifier '{name}' needs a diffusion model; pass ddpm=load_ddpm()")
    else:
        purified = PURIFIERS[kind](ddpm, x, seed=seed, **numbers | options)
    return quantise(purified).view_as(images)


def parse_purifier(name: str) -> tuple[str, dict[str, int | float]]:
    """A purifier's name and its numbers: "gridpure2x20" → ("gridpure", {"rounds": 2, "iterations": 20}).

    Raises ValueError for a name that isn't in `PURIFIERS`, and for too many or malformed numbers.
    """
    match = re.fullmatch(rf"({'|'.join(PURIFIERS)})([\d.]+(?:x[\d.]+)*)?", name)
    if not match:
        raise ValueError(f"unknown purifier '{name}'; known are {', '.join(PURIFIERS)}, as in gridpure2x20")
    kind, numbers = match[1], match[2].split("x") if match[2] else []
    types = NUMBERS.get(kind, {})
    if len(numbers) > len(types):
        takes = " and ".join(types) or "no number"
        raise ValueError(f"purifier '{name}': '{kind}' takes {takes}, not {len(numbers)} numbers")
    last = list(types.items())[len(types) - len(numbers) :]
    found = {}
    for (key, to), number in zip(last, numbers, strict=True):
        try:
            found[key] = to(number)
        except ValueError as error:
            kinds = {int: "a whole number", float: "a number"}
            raise ValueError(f"purifier '{name}': {key} must be {kinds[to]}, got {number}") from error
    return kind, found
