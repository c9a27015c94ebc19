"""Every protection by its name, with one budget, one number of steps and one seed for all.

To add one: write a generator of `PGDState`s, `name_steps(x, eta, steps, seed, ...)`, which takes the models
it needs as `ddpm`, `pipe` or `set_a`, and enter it in PROTECTIONS.
"""

from collections.abc import Callable, Iterator
from functools import partial
from inspect import signature
from typing import TYPE_CHECKING

import torch

from ..core.antipure import antipure_steps
from ..core.images import check_eight_bit, quantise_within
from ..core.pgd import PGDState
from .advdm import advdm_steps
from .anti_dreambooth import aspl_steps, fsmg_steps
from .controls import none_steps, random_steps
from .end_to_end import end_to_end_steps
from .mist import mist_steps
from .photoguard import photoguard_steps
from .simac import simac_steps

if TYPE_CHECKING:
    from diffusers import DDPMPipeline, StableDiffusionPipeline

PROTECTIONS: dict[str, Callable[..., Iterator[PGDState]]] = {
    "none": none_steps,
    "random": random_steps,
    "advdm": advdm_steps,
    "photoguard": photoguard_steps,
    "mist": mist_steps,
    "fsmg": fsmg_steps,
    "aspl": aspl_steps,
    "simac": simac_steps,
    "pixel-ddpm": partial(antipure_steps, weights=(1, 0, 0)),
    "pfg": partial(antipure_steps, weights=(0, 1, 0)),
    "etg": partial(antipure_steps, weights=(0, 0, 1)),
    "antipure": antipure_steps,
    "antipure-paper": partial(antipure_steps, balance="sum", weights=(1, 0.5, 0.5), momentum=0.0),
    "antipure-pfg": partial(antipure_steps, weights=(0.1, 0, 0.5)),  # without PFG
    "antipure-etg": partial(antipure_steps, weights=(0.1, 0.5, 0)),  # without ETG
    "end-to-end": end_to_end_steps,
}

REMEDIES = {
    "ddpm": "the purifier's model, for example ddpm=load_ddpm()",
    "pipe": "the latent model, for example pipe=load_stable_diffusion()",
    "set_a": 'clean photos of the same person, for example set_a=load_faces("p01", "A")',
}


def protect(
    name: str,
    images: torch.Tensor,
    *,
    ddpm: "DDPMPipeline | None" = None,
    pipe: "StableDiffusionPipeline | None" = None,
    set_a: torch.Tensor | None = None,
    eta: float = 16 / 255,
    steps: int = 100,
    seed: int = 0,
    **options,
) -> torch.Tensor:
    """Protect images: the last state of `protect_steps`, rounded to 8 bits within the budget.

    images: 3×H×W or N×3×H×W in [0, 1]. Returns their shape and device: what a saved PNG holds, with
    ‖x_adv − x‖∞ ≤ η for that file. Arguments and errors as in `protect_steps`; ValueError for eta < 1/255.

    >>> protected = protect("mist", load_faces("p01", "B"), pipe=load_stable_diffusion(), eta=8 / 255)
    """
    check_eight_bit(eta)  # before the work, not after it
    for state in protect_steps(
        name, images, ddpm=ddpm, pipe=pipe, set_a=set_a, eta=eta, steps=steps, seed=seed, **options
    ):
        x_adv = state.x_adv
    return quantise_within(x_adv.to(images).view_as(images), images.detach(), eta)


def protect_steps(
    name: str,
    images: torch.Tensor,
    *,
    ddpm: "DDPMPipeline | None" = None,
    pipe: "StableDiffusionPipeline | None" = None,
    set_a: torch.Tensor | None = None,
    eta: float = 16 / 255,  # budget, [0, 1] units
    steps: int = 100,
    seed: int = 0,
    **options,
) -> Iterator[PGDState]:
    """The protection of that name in PROTECTIONS, step by step.

    images: 3×H×W or N×3×H×W in [0, 1]. ddpm, pipe, set_a (clean photos of the same person): only what the
    protection needs is used. options: its further arguments. States: see `PGDState`.
    Raises ValueError for an unknown name, a missing model or photos, and as the protection itself does.
    """
    given = {"ddpm": ddpm, "pipe": pipe, "set_a": set_a}
    needed = {key: given[key] for key in needs(name)}
    for key, value in needed.items():
        if value is None:
            raise ValueError(f"protection '{name}' needs {key}: pass {REMEDIES[key]}")
    return PROTECTIONS[name](x=images, eta=eta, steps=steps, seed=seed, **needed, **options)


def needs(name: str) -> tuple[str, ...]:
    """Which of "ddpm", "pipe" and "set_a" a protection takes. Raises ValueError for an unknown name."""
    if name not in PROTECTIONS:
        raise ValueError(f"unknown protection '{name}'; the known ones are {', '.join(PROTECTIONS)}")
    return tuple(key for key in REMEDIES if key in signature(PROTECTIONS[name]).parameters)
