"""What a benchmark is going to cost, by running each of its stages once for one or two of its steps."""

import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import psutil
import torch

from ..customization.generate import generate
from ..customization.registry import CUSTOMIZER_STEPS, CUSTOMIZERS
from ..models.embedded import load_faces
from ..protections.anti_dreambooth import aspl_steps, fsmg_steps
from ..protections.registry import protect
from ..purifiers.diffpure import diffpure, gridpure
from ..purifiers.freqpure import freqpure
from ..purifiers.registry import parse_purifier, purify
from ..runtime.devices import pick_dtype
from ..runtime.digests import default
from .cells import PROMPTS, Cell, World

# The argument by which a purifier's cost grows, and the function whose default it has.
PURIFIER_STEPS = {
    "diffpure": (diffpure, "t"),
    "gridpure": (gridpure, "iterations"),
    "freqpure": (freqpure, "rounds"),
}


class Estimate(NamedTuple):
    """Seconds of each stage for one person and seed, of the whole plan, and the memory that was needed."""

    stages: dict[str, float]  # "protect antipure" → seconds
    seconds: float  # of the whole plan on one process
    memory: float  # bytes that this process holds after it (or the most of a GPU's, where one is used)


def estimate(cells: Sequence[Cell], world: World) -> Estimate:
    """Probe every stage of the plan on the first cell's person and add up, with each stage counted once for
    the cells that share it. A guess: first runs are slower, and so is a busy machine.
    """
    if not cells:
        return Estimate({}, 0.0, _memory(world))
    x = load_faces(cells[0].identity, "B")
    set_a = load_faces(cells[0].identity, "A")
    stages = {}
    for name in dict.fromkeys(cell.protect for cell in cells):
        stages[f"protect {name}"] = _protection(name, x, set_a, world)
    for name in dict.fromkeys(cell.purify for cell in cells):
        stages[f"purify {name}"] = _purifier(name, x, world)
    samples = len(PROMPTS) * world.samples
    for name in dict.fromkeys(cell.customize for cell in cells):
        stages[f"customize {name}"] = _customizer(name, x, samples, world)
    stages["judge"] = _seconds(lambda: world.judge.embed(x)) / len(x) * samples
    return Estimate(stages, sum(stages[s] * n for s, n in _count(cells).items()), _memory(world))


def _count(cells: Sequence[Cell]) -> dict[str, int]:
    """How often each stage runs: what cells share is made once."""
    protected = {(c.protect, c.identity, c.seed) for c in cells}
    purified = {(c.purify, *key) for c in cells for key in [(c.protect, c.identity, c.seed)]}
    purified |= {(c.purify, "none", c.identity, c.seed) for c in cells}  # for survival
    counts: dict[str, int] = {"judge": len(cells)}
    kinds = (("protect", protected), ("purify", purified), ("customize", {(c.customize, c) for c in cells}))
    for kind, runs in kinds:
        for name, *_ in runs:
            counts[f"{kind} {name}"] = counts.get(f"{kind} {name}", 0) + 1
    return counts


def _protection(name: str, x: torch.Tensor, set_a: torch.Tensor, world: World) -> float:
    given = dict(ddpm=world.ddpm, pipe=world.pipe, set_a=set_a, eta=world.eta) | world.options.get(name, {})
    steps = max(1, world.steps // given.get("noise_samples", 1))
    if name != "fsmg":
        # A surrogate that goes on learning does so once in a round of steps.
        more = default(aspl_steps, "round_steps") if name in ("aspl", "simac") else 1
        return _grown(lambda n: protect(name, x, steps=n, **given), steps, more)
    # Its surrogate is trained once, before the first step of the attack.
    attack = _grown(lambda n: protect(name, x, steps=n, surrogate_steps=1, **given), steps)
    surrogate_steps = default(fsmg_steps, "surrogate_steps")
    training = _grown(lambda n: protect(name, x, steps=1, surrogate_steps=n, **given), surrogate_steps)
    return attack + training


def _customizer(name: str, x: torch.Tensor, samples: int, world: World) -> float:
    dtype = pick_dtype(world.pipe.unet.device)
    options = {"dtype": dtype} | ({"prior_images": x} if name == "dreambooth" else {})
    steps = world.learning or default(CUSTOMIZER_STEPS[name], "steps")
    learning = _grown(lambda n: CUSTOMIZERS[name](world.pipe, x, steps=n, **options), steps)
    return learning + _seconds(lambda: generate(world.pipe, PROMPTS[0], n=4, dtype=dtype)) / 4 * samples


def _purifier(name: str, x: torch.Tensor, world: World) -> float:
    kind, numbers = parse_purifier(name)
    if kind not in PURIFIER_STEPS:
        return _seconds(lambda: purify(name, x, ddpm=world.ddpm))
    function, argument = PURIFIER_STEPS[kind]
    amount = numbers.pop(argument, default(function, argument)) * (
        numbers.pop("rounds", 1) if argument != "rounds" else 1
    )
    return _grown(lambda n: purify(kind, x, ddpm=world.ddpm, **numbers | {argument: n}), amount)


def _grown(run: Callable[[int], object], amount: int, more: int = 1) -> float:
    """Seconds of run(amount), from run(1) and run(1 + more): a fixed part and one that grows."""
    one, later = _seconds(lambda: run(1)), _seconds(lambda: run(1 + more))
    return one + max(0.0, later - one) / more * (amount - 1)


def _seconds(run: Callable[[], object]) -> float:
    began = time.perf_counter()
    run()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - began


def _memory(world: World) -> float:
    if world.pipe.unet.device.type == "cuda":
        return float(torch.cuda.max_memory_allocated())
    return float(psutil.Process().memory_info().rss)
