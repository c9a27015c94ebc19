"""All purifiers by name: 8-bit images in, 8-bit images out.

A name may end in numbers, with an `x` between them. They are the last of the purifier's `numbers`: jpeg75 is
quality 75, gridpure20 is 20 iterations, gridpure2x20 is 2 rounds of 20.
Names joined by `+` run one after the other, as jpeg75+resize0.5 does; the k-th part after the first has the
seed + k.
To add a purifier, write a function and enter it. Commands, the panel and the benchmark read the entry:

>>> import torch
>>> from antipure_lib import load_faces
>>> from antipure_lib.purifiers.registry import PURIFIERS, Purifier, purify
>>> def posterise(x: torch.Tensor, levels: int = 8) -> torch.Tensor:
...     return (x * levels).round() / levels
>>> PURIFIERS["posterise"] = Purifier(posterise, numbers=("levels",))
>>> x = load_faces("p01", "B")
>>> sorted({round(4 * value) for value in purify("posterise4", x).unique().tolist()})
[0, 1, 2, 3, 4]
>>> del PURIFIERS["posterise"]
"""

import re
from collections.abc import Callable, Iterator, Mapping
from inspect import signature
from typing import NamedTuple

import torch

from ..core.images import as_file, check_image, quantise
from ..runtime.checks import check_counts, check_positive, check_seed, check_text
from ..runtime.pipelines import DDPMPipeline, StableDiffusionPipeline
from .adversecleaner import adversecleaner
from .autoencoder import autoencoder
from .degrid import check_patch, degrid
from .diffpure import PurifyState, diffpure
from .filters import check_factor, check_quality, gaussian_blur, jpeg, resize_and_back
from .freqpure import freqpure, freqpure_steps
from .gridpure import gridpure, gridpure_steps
from .waifu2x import waifu2x

MODELS = {
    "ddpm": "a diffusion model; pass ddpm=load_ddpm()",
    "pipe": "a latent model; pass pipe=load_stable_diffusion()",
}


class Purifier(NamedTuple):
    """What is known about a purifier. Its own arguments come from the function's signature."""

    run: Callable[..., torch.Tensor]  # run(x, …), run(pipe, x, …), or run(ddpm, x, seed=…, batch=…, …)
    numbers: tuple[str, ...] = ()  # arguments that may follow the name; annotated int or float
    check: Callable[..., None] = check_positive  # refuses bad numbers; called with those of the name
    also: tuple[Callable, ...] = ()  # functions whose defaults decide the result as well
    along: Callable[..., Iterator[PurifyState]] | None = None  # same arguments, yields after each iteration
    quick: Mapping[str, object] = {}  # arguments that mean little work, for tests
    title: str = ""  # in every table and figure; by default its name

    @property
    def needs(self) -> tuple[str, ...]:
        """Which of "ddpm" and "pipe" it takes, in this order, before x."""
        return tuple(name for name in MODELS if name in signature(self.run).parameters)

    @property
    def seeded(self) -> bool:
        """Whether it takes a seed, for the noise of a diffusion model."""
        return "ddpm" in self.needs


class Part(NamedTuple):
    """One purifier of a name such as jpeg75+gridpure20."""

    name: str  # "gridpure20"
    kind: str  # "gridpure", a name in PURIFIERS
    numbers: dict[str, int | float]  # {"iterations": 20}
    seed: int  # of its noise


PURIFIERS: dict[str, Purifier] = {
    "none": Purifier(lambda x: x, title="as posted"),  # for comparison
    "jpeg": Purifier(jpeg, ("quality",), check_quality, title="JPEG"),
    "blur": Purifier(gaussian_blur, ("sigma",)),
    "resize": Purifier(resize_and_back, ("factor",), check_factor),
    "diffpure": Purifier(diffpure, ("t",), check_counts, quick={"t": 2}, title="DiffPure"),
    "gridpure": Purifier(
        gridpure,
        ("rounds", "iterations"),
        check_counts,
        along=gridpure_steps,
        quick={"t": 2, "iterations": 2},
        title="GrIDPure",
    ),
    "freqpure": Purifier(
        freqpure,
        ("rounds", "t"),
        check_counts,
        (freqpure_steps,),
        quick={"t": 2, "rounds": 1},
        title="FreqPure",
    ),
    "waifu2x": Purifier(waifu2x),
    "adversecleaner": Purifier(
        adversecleaner, ("iterations",), check_counts, quick={"iterations": 2}, title="AdverseCleaner"
    ),
    "autoencoder": Purifier(autoencoder),
    "degrid": Purifier(degrid, ("patch",), check_patch),
}


@torch.no_grad()
def purify(
    name: str,  # as in the module's docstring
    images: torch.Tensor,  # 3×H×W or N×3×H×W in [0, 1]
    *,
    ddpm: DDPMPipeline | None = None,  # of these two only what the purifier needs is used
    pipe: StableDiffusionPipeline | None = None,
    seed: int = 0,  # of their noise
    **options,  # the purifier's other arguments, if it is one; they win over the name's numbers
) -> torch.Tensor:
    """Purify images as an abuser would: from an 8-bit file to an 8-bit file, of the same shape and device.

    Raises ValueError for an unknown name, a missing model, values outside the purifier's ranges, and options
    with a name of several parts.

    >>> purify("jpeg75+resize0.5", x)
    >>> purify("gridpure2x20", x, ddpm=ddpm, seed=1)
    >>> purify("gridpure", x, ddpm=ddpm, rounds=2, iterations=20, seed=1)  # the same
    """
    parts, models = parts_of(name, seed), {"ddpm": ddpm, "pipe": pipe}
    for part in parts:
        for key in PURIFIERS[part.kind].needs:
            if models[key] is None:
                raise ValueError(f"purifier '{part.name}' needs {MODELS[key]}")
    if options and len(parts) > 1:
        raise ValueError(f"{', '.join(options)}: '{name}' has several parts; call purify for each of them")
    x = quantise(check_image(images, "images"))
    for part in parts:
        purifier = PURIFIERS[part.kind]
        needed = [models[key] for key in purifier.needs]
        seeded = {"seed": part.seed} if purifier.seeded else {}
        x = as_file(purifier.run(*needed, x, **seeded, **part.numbers | options), x)
    return x.view_as(images)


def parts_of(name: str, seed: int = 0) -> list[Part]:
    """A name's purifiers, in order: "jpeg75+gridpure20" has two. The k-th after the first has the seed + k.

    Raises ValueError as `parse_purifier`, and for another seed than 0 … 2⁶³−1.
    """
    seed, names = check_seed(seed), check_text(name, "name", "gridpure2x20").split("+")
    return [Part(part, *parse_purifier(part), (seed + k) % 2**63) for k, part in enumerate(names)]


def parse_purifier(name: str) -> tuple[str, dict[str, int | float]]:
    """One purifier's name and its numbers: "gridpure2x20" → ("gridpure", {"rounds": 2, "iterations": 20}).

    Raises ValueError for a name that isn't in `PURIFIERS`, and for numbers that its purifier doesn't take.
    """
    longest_first = "|".join(re.escape(known) for known in sorted(PURIFIERS, key=len, reverse=True))
    match = re.fullmatch(rf"({longest_first})([\d.]+(?:x[\d.]+)*)?", name)
    if not match:
        raise ValueError(f"unknown purifier '{name}'; known are {', '.join(PURIFIERS)}, as in gridpure2x20")
    kind, numbers = match[1], match[2].split("x") if match[2] else []
    purifier = PURIFIERS[kind]
    if len(numbers) > len(purifier.numbers):
        takes = " and ".join(purifier.numbers) or "no number"
        raise ValueError(f"purifier '{name}': '{kind}' takes {takes}, not {len(numbers)} numbers")
    found = {}
    for key, number in zip(purifier.numbers[len(purifier.numbers) - len(numbers) :], numbers, strict=True):
        to = signature(purifier.run).parameters[key].annotation
        try:
            found[key] = to(number)
        except ValueError as error:
            kinds = {int: "a whole number", float: "a number"}
            raise ValueError(f"purifier '{name}': {key} must be {kinds[to]}, got {number}") from error
    try:
        if found:
            purifier.check(**found)
    except ValueError as error:
        raise ValueError(f"purifier '{name}': {error}") from error
    return kind, found
