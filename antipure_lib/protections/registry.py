"""Every protection by its name, with one budget, one number of steps and one seed for all.

To add a protection, write a generator of `PGDState`s and enter it. It takes the models and photos that it
needs as `ddpm`, `pipe` or `set_a`. The command line, the benchmark and the tests read the entry:

>>> import torch
>>> from antipure_lib import PGDState, load_faces, pgd, protect
>>> from antipure_lib.protections.registry import PROTECTIONS, Protection
>>> def brighter_steps(x, eta=16 / 255, steps=100, seed=0):
...     return pgd(lambda x_adv, generator: x_adv.mean((1, 2, 3)), x, eta, steps, 1 / 255, seed)
>>> PROTECTIONS["brighter"] = Protection(brighter_steps, quick={"steps": 2})
>>> x = load_faces("p01", "B")
>>> round(255 * (protect("brighter", x, eta=8 / 255, steps=10) - x).max().item())
8
>>> del PROTECTIONS["brighter"]
"""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from inspect import signature
from typing import NamedTuple

import torch

from ..core.antipure import antipure_images, antipure_steps
from ..core.images import check_eight_bit, quantise_within
from ..core.pgd import PGDState
from ..customization.dreambooth import dreambooth_steps
from ..runtime.checks import check_counts, check_eta, check_seed, check_text
from ..runtime.memory import MemoryPlan, memory_plan
from ..runtime.pipelines import DDPMPipeline, StableDiffusionPipeline
from .advdm import advdm_steps
from .anti_dreambooth import Surrogate, aspl_steps, fsmg_steps
from .controls import none_steps, random_grey_steps, random_lowpass_steps, random_steps
from .end_to_end import end_to_end_images, end_to_end_steps
from .mist import mist_steps
from .photoguard import photoguard_steps
from .simac import simac_steps
from .workflow import workflow_steps

REMEDIES = {
    "ddpm": "the purifier's model, for example ddpm=load_ddpm()",
    "pipe": "the latent model, for example pipe=load_stable_diffusion()",
    "set_a": 'clean photos of the same person, for example set_a=load_faces("p01", "A")',
}


class Protection(NamedTuple):
    """What is known about a protection. Its own arguments come from the generator's signature."""

    steps: Callable[..., Iterator[PGDState]]  # steps(x=…, eta=…, steps=…, seed=…, and what it needs)
    images: Callable[..., int] | None = None  # (ddpm, (N, H, W), **options) → images per step for the UNet
    also: tuple[Callable, ...] = ()  # functions whose defaults decide the result as well
    quick: Mapping[str, object] = {}  # arguments that mean little work, for tests
    title: str = ""  # in every table and figure; by default its name
    colour: str = "#666666"  # in every figure

    @property
    def needs(self) -> tuple[str, ...]:
        """Which of "ddpm", "pipe" and "set_a" it takes."""
        return tuple(key for key in REMEDIES if key in signature(self.steps).parameters)


def _antipure(title: str, colour: str, **options) -> Protection:
    """AntiPure with other defaults."""
    made = (partial(function, **options) for function in (antipure_steps, antipure_images))
    return Protection(*made, title=title, colour=colour)


_SELECTION = {"candidates": 2, "radius": 200, "keep": 600}
_LEARNING = {"surrogate_steps": 1, "prior_weight": 0}
_SHORT = {"iterations": 1}
_PAPER = {"balance": "sum", "weights": (1, 0.5, 0.5), "momentum": 0.0}

# Colours: Okabe and Ito's for the methods that the course compares most, others between them.
PROTECTIONS: dict[str, Protection] = {
    "none": Protection(none_steps, title="clean photos", colour="#000000"),
    "random": Protection(random_steps, title="random signs", colour="#888888"),
    "random-grey": Protection(random_grey_steps, title="random grey signs", colour="#AAAAAA"),
    "random-lowpass": Protection(random_lowpass_steps, title="random smooth signs", colour="#BBBBBB"),
    "advdm": Protection(advdm_steps, title="AdvDM", colour="#0072B2"),
    "photoguard": Protection(photoguard_steps, title="PhotoGuard", colour="#E69F00"),
    "mist": Protection(mist_steps, title="Mist", colour="#56B4E9"),
    "fsmg": Protection(fsmg_steps, None, (dreambooth_steps,), _LEARNING, "FSMG", "#8C564B"),
    "aspl": Protection(aspl_steps, None, (Surrogate,), _LEARNING, "ASPL", "#5B3A8C"),
    "simac": Protection(simac_steps, None, (Surrogate,), _LEARNING | _SELECTION, "SimAC", "#CC79A7"),
    "pixel-ddpm": _antipure("L_ddpm alone", "#999933", weights=(1, 0, 0)),
    "pfg": _antipure("PFG alone", "#882255", weights=(0, 1, 0)),
    "etg": _antipure("ETG alone", "#44AA99", weights=(0, 0, 1)),
    "antipure": _antipure("AntiPure (balanced)", "#D55E00"),
    "antipure-paper": _antipure("AntiPure (paper)", "#F0A070", **_PAPER),
    "antipure-pfg": _antipure("AntiPure without PFG", "#A04000", weights=(0.1, 0, 0.5)),
    "antipure-etg": _antipure("AntiPure without ETG", "#702000", weights=(0.1, 0.5, 0)),
    "end-to-end": Protection(end_to_end_steps, end_to_end_images, (), _SHORT, "exact gradient", "#66A61E"),
    "workflow": Protection(workflow_steps, end_to_end_images, (), _SHORT, "workflow attack", "#009E73"),
}


def protect(
    name: str,
    images: torch.Tensor,
    *,
    eta: float = 16 / 255,  # budget in [1/255, 1], [0, 1] units
    **options,  # every further argument of `protect_steps`
) -> torch.Tensor:
    """Protect images: the last state of `protect_steps`, rounded to 8 bits within the budget.

    Returns what a saved PNG holds, with ‖x_adv − x‖∞ ≤ η, in the images' shape and on their device.
    Raises ValueError for values outside their range, and as `protect_steps`.

    >>> protected = protect("mist", load_faces("p01", "B"), pipe=load_stable_diffusion(), eta=8 / 255)
    """
    eta = check_eight_bit(eta)  # before the work, not after it
    for state in protect_steps(name, images, eta=eta, **options):
        x_adv = state.x_adv
    return quantise_within(x_adv.to(images).view_as(images), images.detach(), eta)


def protect_steps(
    name: str,
    images: torch.Tensor,  # 3×H×W or N×3×H×W in [0, 1]
    *,
    ddpm: DDPMPipeline | None = None,  # of these three only what the protection needs is used
    pipe: StableDiffusionPipeline | None = None,
    set_a: torch.Tensor | None = None,  # clean photos of the same person, [0, 1]
    eta: float = 16 / 255,  # budget in (0, 1], [0, 1] units
    steps: int = 100,
    seed: int = 0,
    **options,  # the protection's other arguments
) -> Iterator[PGDState]:
    """The named protection, step by step. Raises ValueError for unknown names and whatever is missing."""
    protection, given = _known(name), {"ddpm": ddpm, "pipe": pipe, "set_a": set_a}
    check_eta(eta)
    check_counts(steps=steps)
    check_seed(seed)
    needed = {key: given[key] for key in protection.needs}
    for key, value in needed.items():
        if value is None:
            raise ValueError(f"protection '{name}' needs {key}: pass {REMEDIES[key]}")
    return protection.steps(x=images, eta=eta, steps=steps, seed=seed, **needed, **options)


def protection_plan(name: str, ddpm: DDPMPipeline, size: tuple[int, ...], **options) -> MemoryPlan | None:
    """What a protection of N images of H×W needs of memory, size = (N, H, W); None for one without a ddpm."""
    images = _known(name).images
    return None if images is None else memory_plan(ddpm, images(ddpm, size, **options), gradients=True)


def _known(name: str) -> Protection:
    if check_text(name, "name", "antipure") not in PROTECTIONS:
        raise ValueError(f"unknown protection '{name}'; the known ones are {', '.join(PROTECTIONS)}")
    return PROTECTIONS[name]
