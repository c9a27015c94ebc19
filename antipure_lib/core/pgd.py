"""Projected gradient ascent in an L∞ ball: the one optimiser behind every protection.

(Madry et al. 2018, arXiv 1706.06083.)
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import torch

from ..runtime.checks import check_ascent, check_counts, check_eta, check_gradients, check_seed
from .images import check_image

Objective = Callable[[torch.Tensor, torch.Generator], torch.Tensor]
Loss = Callable[[torch.Tensor, torch.Generator], torch.Tensor | dict[str, torch.Tensor]]


class PGDState(NamedTuple):
    """What `pgd` yields after each step."""

    step: int  # steps done: 1 … steps
    x_adv: torch.Tensor  # N×3×H×W in [0, 1], after this step; never changed later
    losses: dict[str, torch.Tensor]  # (N,) per term, where this step's gradient was taken: before the step
    grad_sizes: dict[str, torch.Tensor]  # (N,) mean |∂term/∂x|, as last measured; {"sum": …} of a plain sum
    objective: Objective | None = None  # what this step climbed: (x_adv, generator) → (N,), differentiable


def once(run: Callable[[], object], generator: torch.Generator) -> object:
    """run(): how `pgd` takes a gradient if memory doesn't run out (see `UNetInParts.repeat`)."""
    return run()


def pgd(
    loss: Loss,
    x: torch.Tensor,  # the clean images, [0, 1]
    eta: float = 16 / 255,  # budget: ‖x_adv − x‖∞ ≤ η, in (0, 1]
    steps: int = 100,  # at least 1
    step_size: float | Sequence[float] = 1 / 255,  # positive, [0, 1] units; one for all steps, or one each
    seed: int = 0,  # 0 … 2⁶³−1
    start: torch.Tensor | None = None,  # where to begin, projected into the ball; default x
    random_start: bool = False,  # add uniform noise in ±η to the beginning
    momentum: float = 0.0,  # in [0, 1); 0: the sign of the present gradient; 0.9: of a decaying average
    balance: str = "sum",  # how several terms are combined: "sum" or "equal"
    measure_every: int = 10,  # "equal" measures sizes in steps 1, 2, 4, 8, then in every tenth; 1: in each
    weights: Mapping[str, float] | None = None,  # of the terms, by name; default 1 each
    repeat: Callable = once,  # takes a step's gradient again when memory runs out
) -> Iterator[PGDState]:
    """Maximise `loss` over x_adv: x_adv ← Π( x_adv + step_size·sign(direction) ), yielding every step.

    loss(x_adv, generator): x_adv N×3×H×W in [0, 1] with a gradient; all its randomness from `generator`,
        which lives on the CPU (see `noise.randn`). Returns (N,), or a dict name → (N,) of terms.
    balance: "sum": direction = ∇ Σ w·term. "equal": direction = ∇ Σ w·term/size, with size = mean|∂term/∂x|
        per image. In a plain sum, a term whose gradient is 20 times larger decides every sign. A step that
        measures the sizes has a backward pass per term; the others carry the sizes and have one pass.
    momentum: direction ← momentum·direction + gradient/mean|gradient|, per image (MI-FGSM, arXiv
        1710.06081, eq. 6).

    Same seed, same device: same bits. The host never waits for the device inside the loop. The images of a
    batch share the generator. So an image alone gets other draws, and another perturbation.
    Raises ValueError for values outside their range, RuntimeError in `torch.inference_mode()`. After the last
    step, raises RuntimeError if a gradient was NaN or infinite: those images aren't protected.

    >>> for state in pgd(loss, x, eta=8 / 255, steps=40):
    ...     bar.set_postfix(loss=state.losses["loss"].mean().item())
    """
    sizes = check_ascent(eta, steps, step_size, seed, momentum, balance, weights)
    check_counts(measure_every=measure_every)
    eta, seed, momentum = check_eta(eta), check_seed(seed), float(momentum)
    weights = {name: float(weight) for name, weight in (weights or {}).items()}
    x = check_image(x).detach()
    begin = x if start is None else check_image(start, "start").detach().to(x)
    if begin.shape != x.shape:
        raise ValueError(f"start must have x's shape {tuple(x.shape)}, got {tuple(begin.shape)}")

    def ascent() -> Iterator[PGDState]:
        generator, direction = torch.Generator().manual_seed(seed), torch.zeros_like(x)
        low, high = (x - eta).clamp(0, 1), (x + eta).clamp(0, 1)
        draw = torch.rand(x.shape, generator=generator, dtype=torch.float32).to(x) if random_start else 0.5
        x_adv, finite, due, known = (begin + eta * (2 * draw - 1)).clamp(low, high), True, 1, None
        for step, size in enumerate(sizes, 1):
            if step == due:
                due, known = step + min(step, measure_every), None
            take = _gradient(loss, x_adv, generator, balance, weights, known)
            losses, gradient, grad_sizes = repeat(take, generator)
            known = grad_sizes
            length = _size(gradient)
            finite = finite & length.flatten().isfinite()
            direction = momentum * direction + gradient / length
            x_adv = (x_adv + size * direction.sign()).clamp(low, high)
            objective = _objective(loss, weights, grad_sizes if balance == "equal" else {})
            yield PGDState(step, x_adv, losses, grad_sizes, objective)
        check_gradients(finite)

    return ascent()


def fast(eta: float, steps: int = 10) -> dict[str, object]:
    """Few long steps for AntiPure: `steps` of η/4 with momentum, as arguments of a protection.

    Measured on tuning people: after purification, 5 to 10 such steps leave nearly as much as 20 to 100 steps
    of 1/255. Three leave more than the paper's 100 (`python -m tools.study.equal_effect table`).
    eta: the budget, [0, 1] units. Raises ValueError for values outside their range.

    >>> protected = antipure(ddpm, x, **fast(8 / 255))
    """
    eta = check_eta(eta)
    check_counts(steps=steps)
    return {"eta": eta, "steps": steps, "step_size": eta / 4, "momentum": 0.9}


def _gradient(loss, x_adv, generator, balance, weights, known):
    """What takes one step's gradient: () → the terms, the direction that raises them, gradient sizes.

    known: the sizes by which "equal" divides the terms; None measures them.
    """
    # A mean over pixels has gradients too small for float16. A power of two moves only the exponent: in every
    # precision the gradient's digits are those that it has without.
    scale = 2.0 ** round(math.log2(x_adv[0].numel()))

    @torch.enable_grad()
    def take():
        leaf = x_adv.detach().requires_grad_()
        terms = _terms(loss, leaf, generator)
        factor = _weights(terms, weights, len(leaf))
        losses = {name: term.detach() for name, term in terms.items()}
        if len(terms) == 1 or (balance == "equal" and known is None):
            *_, last = terms
            gradients = {
                name: torch.autograd.grad(scale * term.sum(), leaf, retain_graph=name != last)[0]
                for name, term in terms.items()
            }
            direction = sum(factor[name] * gradients[name] / _size(gradients[name]) for name in terms)
            return losses, direction, {name: _mean(g) / scale for name, g in gradients.items()}
        if balance == "equal":  # each term's gradient then has about size 1 by itself; a flat term has none
            factor = {n: (factor[n] / known[n]).where(known[n] > 0, 0) / scale for n in terms}
        total = scale * sum(factor[name] * terms[name] for name in terms)
        (direction,) = torch.autograd.grad(total.sum(), leaf)
        return losses, direction, known if balance == "equal" else {"sum": _mean(direction) / scale}

    return take


def _objective(loss, weights, sizes):
    """Σ w·term, or Σ w·term/size with the sizes by which "equal" divides the terms."""

    def objective(x_adv, generator):
        terms = _terms(loss, x_adv, generator)
        factor = _weights(terms, weights, len(x_adv))
        for name, size in sizes.items():
            factor[name] = (factor[name] / size).where(size > 0, 0)
        return sum(factor[name] * term for name, term in terms.items())

    return objective


def _terms(loss, x_adv, generator):
    terms = loss(x_adv, generator)
    return terms if isinstance(terms, dict) else {"loss": terms}


def _weights(terms, weights, n):
    for name, term in terms.items():
        if term.shape != (n,):
            raise ValueError(f"term '{name}' must hold one value per image, ({n},), got {tuple(term.shape)}")
    unknown = set(weights) - set(terms)
    if unknown:
        raise ValueError(f"weights of unknown terms {sorted(unknown)}; the loss has {sorted(terms)}")
    return {name: 1.0 for name in terms} | weights


def _size(gradient):
    smallest = torch.finfo(gradient.dtype).tiny  # a zero gradient stays zero
    return _mean(gradient).clamp_min(smallest).view(-1, 1, 1, 1)


def _mean(gradient):
    return gradient.abs().mean((1, 2, 3))
