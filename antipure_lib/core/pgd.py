"""Projected gradient ascent in an L∞ ball: the one optimiser behind every protection.

(Madry et al. 2018, arXiv 1706.06083.)
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import repeat
from typing import NamedTuple

import torch

from ..runtime.allocator import kept_memory
from ..runtime.checks import check_counts, check_eta, check_finite
from ..runtime.micro_batch import MicroBatch
from ..runtime.unet import frozen
from .images import check_image

Losses = torch.Tensor | dict[str, torch.Tensor]


class PGDState(NamedTuple):
    """What `pgd` yields after each step."""

    step: int  # steps done: 1 … steps
    x_adv: torch.Tensor  # N×3×H×W in [0, 1], after this step; never changed later
    losses: dict[str, torch.Tensor]  # (N,) per term, where this step's gradient was taken: before the step
    grad_sizes: dict[
        str, torch.Tensor
    ]  # (N,) mean |∂term/∂x| per image; {"sum": …} where only the sum's is computed


def pgd(
    loss: Callable[[torch.Tensor, torch.Generator], Losses],
    x: torch.Tensor,  # the clean images, [0, 1]
    eta: float = 16 / 255,  # budget: ‖x_adv − x‖∞ ≤ η, [0, 1] units
    steps: int = 100,
    step_size: float | Sequence[float] = 1 / 255,  # [0, 1] units; one for all steps, or one each
    seed: int = 0,
    start: torch.Tensor | None = None,  # where to begin, projected into the ball; default x
    random_start: bool = False,  # add uniform noise in ±η to the beginning
    momentum: float = 0.0,  # 0: the sign of the present gradient; 0.9: of a decaying average
    balance: str = "sum",  # how several terms are combined: "sum" or "equal"
    weights: Mapping[str, float] | None = None,  # of the terms, by name; default 1 each
    models: Sequence[torch.nn.Module] = (),  # frozen while gradients are taken
    batch: MicroBatch | None = None,  # that the loss uses: halved when memory runs out, and the step repeated
) -> Iterator[PGDState]:
    """Maximise `loss` over x_adv: x_adv ← Π( x_adv + step_size·sign(direction) ), yielding every step.

    loss(x_adv, generator): x_adv N×3×H×W in [0, 1] with a gradient; all its randomness from `generator`,
        which lives on the CPU (see `noise.randn`). Returns (N,), or a dict name → (N,) of terms.
    step_size: see `halving` for sizes that shrink.
    balance: "sum": direction = ∇ Σ w·term, one backward pass. "equal": direction = Σ w·∇term/mean|∇term|,
        per image, one backward pass a term: without it a term whose gradient is 20 times larger decides
        every sign.
    momentum: direction ← momentum·direction + gradient/mean|gradient|, per image (MI-FGSM, arXiv
        1710.06081).

    Same seed, same device: same bits. The host never waits for the device inside the loop. Images of a batch
    share the generator: alone, an image gets other draws, and so another perturbation.
    Raises ValueError for bad images, eta outside (0, 1], steps < 1, a step_size ≤ 0 or as many as there
    aren't steps, seed < 0, momentum outside [0, 1), an unknown balance, weights that aren't finite; at the
    first step for weights of terms that the loss doesn't have. RuntimeError in torch.inference_mode, and
    after the last step for gradients that were NaN or infinite: what they touch isn't protected.

    >>> for state in pgd(loss, x, eta=8 / 255, steps=40):
    ...     bar.set_postfix(loss=state.losses["loss"].mean().item())
    """
    x = check_image(x).detach()
    check_eta(eta)
    check_counts(steps=steps)
    check_counts(0, seed=seed)
    check_finite(**{f"weights['{name}']": weight for name, weight in (weights or {}).items()})
    if torch.is_inference_mode_enabled():
        raise RuntimeError("torch.inference_mode() forbids the gradients that a protection needs; leave it")
    each = torch.as_tensor(step_size, dtype=torch.float64)
    if each.ndim and each.shape != (steps,):
        raise ValueError(
            f"step_size must be one number, or one for each of {steps} steps; got {each.tolist()}"
        )
    sizes = each.tolist() if each.ndim else repeat(each.item(), steps)
    smallest = each.min().item()
    if not smallest > 0:
        raise ValueError(
            f"step_size must be positive, got {smallest}; it is in [0, 1] units, for example 1/255"
        )
    if not 0 <= momentum < 1:
        raise ValueError(f"momentum must be in [0, 1), got {momentum}")
    if balance not in ("sum", "equal"):
        raise ValueError(f"balance must be 'sum' or 'equal', got '{balance}'")
    x_adv = x if start is None else check_image(start, "start").detach().to(x)
    if x_adv.shape != x.shape:
        raise ValueError(f"start must have x's shape {tuple(x.shape)}, got {tuple(x_adv.shape)}")
    batch = batch or MicroBatch(1)
    ascend = (balance, weights, models)
    return _pgd(loss, x, x_adv, eta, sizes, seed, random_start, momentum, ascend, batch)


def fast(eta: float, steps: int = 10) -> dict[str, object]:
    """Few long steps for AntiPure: `steps` of η/4 with momentum, as arguments of a protection.

    On tuning people 5 to 10 of them leave after purification nearly what 20 to 100 steps of 1/255 leave, and
    3 more than the paper's 100 (`python tools/equal_effect.py table`). eta: the budget, [0, 1] units.

    >>> protected = antipure(ddpm, x, eta=8 / 255, **fast(8 / 255))
    """
    return {"steps": steps, "step_size": eta / 4, "momentum": 0.9}


def halving(eta: float, steps: int) -> list[float]:
    """Step sizes for `pgd` that begin at 2η and are halved at APGD's checkpoints, [0, 1] units.

    (Croce & Hein 2020, arXiv 2003.01690, section 3.1.) APGD halves only where the loss has stopped to grow;
    here it always does, since a loss with new noise in each step can't tell.
    """
    checkpoints, percent, gap = [], 22, 22
    while percent < 100:
        checkpoints.append(-(-percent * steps // 100))  # rounded up
        gap = max(gap - 3, 6)
        percent += gap
    return [2 * eta / 2 ** sum(step >= w for w in checkpoints) for step in range(steps)]


def _pgd(loss, x, x_adv, eta, sizes, seed, random_start, momentum, ascend, batch):
    generator = torch.Generator().manual_seed(seed)
    low, high = (x - eta).clamp(0, 1), (x + eta).clamp(0, 1)
    if random_start:
        x_adv = x_adv + eta * (2 * torch.rand(x.shape, generator=generator).to(x) - 1)
    x_adv = x_adv.clamp(low, high)
    direction = torch.zeros_like(x)
    broken = torch.zeros(len(x), dtype=torch.bool, device=x.device)
    with kept_memory(x.device):
        for step, size in enumerate(sizes, 1):
            attempt = partial(_ascend, loss, x_adv, generator, *ascend)
            losses, gradient, grad_sizes = batch.retry(attempt, [generator], gradients=True)
            size_of_gradient = _size(gradient)
            broken |= ~size_of_gradient.flatten().isfinite()
            direction = momentum * direction + gradient / size_of_gradient
            x_adv = (x_adv + size * direction.sign()).clamp(low, high)
            yield PGDState(step, x_adv, losses, grad_sizes)
    if broken.any():  # the sign of NaN is 0: they would stay as they are and look finished
        which = broken.nonzero().flatten().tolist()
        raise RuntimeError(
            f"NaN or infinite gradients of images {which} of the batch, which aren't "
            "protected; compute in float32 (dtype=torch.float32, --precision float32)"
        )


@torch.enable_grad()
def _ascend(loss, x_adv, generator, balance, weights, models):
    """The terms, the direction that raises them (up to a positive factor), their gradients' sizes."""
    x_adv = x_adv.detach().requires_grad_()
    # A mean over pixels has gradients too small for float16. A power of two only moves the exponent: in every
    # precision, a GPU's TF32 too, the gradient's digits are those that it has without.
    scale = 2.0 ** round(math.log2(x_adv[0].numel()))
    with frozen(*models):
        terms = loss(x_adv, generator)
        terms = terms if isinstance(terms, dict) else {"loss": terms}
        weights = _weights(terms, weights, len(x_adv))
        summed = balance == "sum" and len(terms) > 1
        ascended = {"sum": sum(weights[name] * terms[name] for name in terms)} if summed else terms
        *_, last = ascended
        gradients = {
            name: torch.autograd.grad(scale * term.sum(), x_adv, retain_graph=name != last)[0]
            for name, term in ascended.items()
        }
    sizes = {name: _size(gradient) for name, gradient in gradients.items()}
    if summed:
        direction = gradients["sum"]
    else:
        direction = sum(weights[name] * gradients[name] / sizes[name] for name in terms)
    losses = {name: term.detach() for name, term in terms.items()}
    return losses, direction, {name: size.flatten() / scale for name, size in sizes.items()}


def _weights(terms, weights, n):
    for name, term in terms.items():
        if term.shape != (n,):
            raise ValueError(f"term '{name}' must hold one value per image, ({n},), got {tuple(term.shape)}")
    unknown = set(weights or ()) - set(terms)
    if unknown:
        raise ValueError(f"weights of unknown terms {sorted(unknown)}; the loss has {sorted(terms)}")
    return {name: 1.0 for name in terms} | dict(weights or {})


def _size(gradient):
    smallest = torch.finfo(gradient.dtype).tiny  # a zero gradient stays zero
    return gradient.abs().mean((1, 2, 3), keepdim=True).clamp_min(smallest)
