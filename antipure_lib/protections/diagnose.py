"""An attack that looks at itself: no gradient, too much noise, no gain over random signs.

After AutoAttack's flags, which say when an evaluation isn't to be trusted. (Croce and Hein 2020, arXiv
2003.01690; github.com/fra31/auto-attack, flags_doc.md.) Here an attack is a protection, and the flags say
when it wasn't climbing.
"""

import math
from typing import NamedTuple

import torch

from ..core.images import check_image
from ..core.pgd import PGDState
from ..runtime.checks import check_count, check_eta, check_number, check_seed
from ..runtime.noise import randint

ZERO = 0.1  # flagged: a larger share of the colour values has no gradient in any draw
SIGNAL = 0.5  # flagged: a smaller share of the averaged gradient's power is the same in every draw


class Flag(NamedTuple):
    """A reason not to trust a protection; its `str` is a line to print."""

    name: str  # "zero gradient", "few draws" or "no gain"
    found: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.name}: {self.found}; {self.remedy}"


def diagnose(
    state: PGDState,  # the last one of a protection's steps
    x: torch.Tensor,  # the clean images, 3×H×W or N×3×H×W in [0, 1]
    eta: float = 16 / 255,  # the budget, in (0, 1]
    momentum: float = 0.0,  # that the protection had, in [0, 1)
    seed: int = 0,  # that the protection had; the draws here are others
    draws: int = 8,  # of noise, at least 2; each costs a step, and the two values of the objective
) -> list[Flag]:
    """What is wrong with a protection, measured at its result; an empty list if nothing is.

    zero gradient: a share above ZERO of the colour values has a gradient of exactly 0 in every draw.
    few draws: the gradients of two draws at the same x_adv have the mean cosine c. Then a mean over k draws
        has the share k·c/(1+(k−1)·c) of its power in common with others. A decaying average is worth
        k = (1+momentum)/(1−momentum) draws. Flagged if the share is below SIGNAL.
    no gain: over draws that the protection never saw, the objective isn't larger than with random signs of
        the same budget. It must be larger by two standard errors.
    Raises ValueError for values outside their range, and for a state without an objective.
    """
    eta, seed, draws = check_eta(eta), check_seed(seed), check_count(draws, "draws", 2)
    momentum = check_number(momentum, "momentum")
    if not 0 <= momentum < 1:
        raise ValueError(f"momentum must be in [0, 1), got {momentum}")
    if state.objective is None:
        raise ValueError("state holds no objective: its method climbs nothing; take one such as antipure")
    seeds = [(seed + 1 + k) % 2**63 for k in range(draws)]
    gradients = torch.stack([_gradient(state, own) for own in seeds])
    images = check_image(x).detach().to(state.x_adv)
    return [*_zero(gradients), *_noise(gradients, momentum), *_gain(state, images, eta, seeds)]


@torch.enable_grad()
def _gradient(state, seed):
    leaf = state.x_adv.detach().requires_grad_()
    value = state.objective(leaf, torch.Generator().manual_seed(seed)).sum()
    return torch.autograd.grad(leaf[0].numel() * value, leaf)[0]  # float16 would lose a smaller one


def _zero(gradients):
    share = (gradients == 0).all(0).double().mean().item()
    if share > ZERO:
        remedy = "look for a clamp, a rounding or a saturated function, or start elsewhere (random_start)"
        yield Flag("zero gradient", f"{share:.0%} of the colour values have none in any draw", remedy)


def _noise(gradients, momentum):
    n, flat = len(gradients), gradients.flatten(2).double()
    unit = flat / flat.norm(dim=2, keepdim=True).clamp_min(1e-300)  # a zero gradient stays zero
    if not unit.any():
        return
    cosine = ((unit.sum(0).square().sum(1) - unit.square().sum((0, 2))) / (n * (n - 1))).mean().item()
    held = (1 + momentum) / (1 - momentum)
    if held * cosine < SIGNAL * (1 + (held - 1) * cosine):
        found = f"the gradients of two draws have a cosine of {cosine:.3f}"
        wanted = SIGNAL / (1 - SIGNAL) * (1 - cosine) / max(cosine, 1e-3) / held
        yield Flag(
            "few draws", found, f"average more of them: noise_samples={math.ceil(wanted)}, or momentum"
        )


@torch.no_grad()
def _gain(state, x, eta, seeds):
    signs = 2 * randint(0, 2, x.shape, torch.Generator().manual_seed(seeds[0]), x.device).to(x) - 1
    both = (state.x_adv, (x + eta * signs).clamp(0, 1))

    def objective(images, seed):
        return state.objective(images, torch.Generator().manual_seed(seed)).double().mean()

    ours, random = torch.stack([torch.stack([objective(y, own) for y in both]) for own in seeds]).T
    gain = ours - random
    if gain.mean() <= 2 * gain.std() / len(seeds) ** 0.5:
        found = f"the objective is {ours.mean():.4g}, and {random.mean():.4g} with random signs"
        yield Flag("no gain", found, "take more or longer steps, or another loss")
