"""What an argument must be: plain errors that name it, the problem and the remedy."""

import importlib
import math
import os
from collections.abc import Mapping, Sequence
from itertools import pairwise
from numbers import Integral, Real
from pathlib import Path
from types import ModuleType
from typing import Any


def check_count(value: Any, name: str, least: int | None = 1, most: int | None = None) -> int:
    """A whole number as an int: Python's, NumPy's, or a tensor of one.

    least, most: its bounds; None for no bound. Raises ValueError for anything else, and outside the bounds.
    """
    plain = _plain(value)
    if isinstance(plain, bool) or not isinstance(plain, Integral):
        raise ValueError(f"{name} must be a whole number, got {value!r}")
    number = int(plain)
    if most is not None and not least <= number <= most:
        raise ValueError(f"{name} must be {least} … {most}, got {number}")
    if least is not None and number < least:
        raise ValueError(f"{name} must be at least {least}, got {number}")
    return number


def check_counts(least: int = 1, **counts: int) -> None:
    """Raises ValueError naming the first of the counts that isn't a whole number or is less than `least`."""
    for name, count in counts.items():
        check_count(count, name, least)


def check_seed(seed: int) -> int:
    """The seed as an int. Raises ValueError for one that isn't a whole number in 0 … 2⁶³−1."""
    number = check_count(seed, "seed", 0)
    if number >= 2**63:
        raise ValueError(f"seed must be 0 … 2⁶³−1, got {seed}")
    return number


def check_number(value: Any, name: str, infinite: bool = False) -> float:
    """A number as a float: Python's, NumPy's, or a tensor of one.

    infinite: ±∞ pass as well; NaN never does. Raises ValueError for anything else.
    """
    plain = _plain(value)
    real = isinstance(plain, Real) and not isinstance(plain, bool)
    if not (real and (math.isfinite(plain) or (infinite and plain == plain))):
        raise ValueError(f"{name} must be a {'' if infinite else 'finite '}number, got {value!r}")
    return float(plain)


def _plain(value: Any) -> Any:
    """The Python number of a NumPy scalar, or of a tensor or array without dimensions; others as they are."""
    return value.item() if hasattr(value, "item") and getattr(value, "ndim", 1) == 0 else value


def check_text(value: Any, name: str, example: str) -> str:
    """The text. Raises ValueError for anything but one text, with an example of what is meant."""
    if not isinstance(value, str):
        raise ValueError(f"{name} must be a text such as '{example}', got {value!r}")
    return value


def check_eta(eta: float) -> float:
    """The budget as a float. Raises ValueError for one outside (0, 1]."""
    number = check_number(eta, "eta")
    if not 0 < number <= 1:
        raise ValueError(f"eta must be in (0, 1], got {eta!r}; budgets are in [0, 1] units, such as 16/255")
    return number


def check_finite(**numbers: float) -> None:
    """Raises ValueError naming the first that isn't a finite number."""
    for name, number in numbers.items():
        check_number(number, name)


def check_positive(**numbers: float | None) -> None:
    """Raises ValueError naming the first that isn't a finite number greater than 0; None passes."""
    for name, number in numbers.items():
        if number is not None and not check_number(number, name) > 0:
            raise ValueError(f"{name} must be positive, got {number}")


def check_step_sizes(step_size: float | Sequence[float], steps: int) -> list[float]:
    """A size per step. Raises ValueError for others than one positive number, or one for each step."""
    text = isinstance(step_size, str)
    several = not text and getattr(step_size, "ndim", isinstance(step_size, Sequence))
    sizes = [check_number(size, "step_size") for size in (step_size if several else [step_size])]
    if several and len(sizes) != steps:
        raise ValueError(f"step_size must be one number, or one per step ({steps}); got {sizes}")
    if min(sizes) <= 0:
        raise ValueError(f"step_size must be positive, in [0, 1] units such as 1/255; got {min(sizes)}")
    return sizes if several else sizes * steps


def check_ascent(
    eta: float,
    steps: int,
    step_size: float | Sequence[float],
    seed: int = 0,
    momentum: float = 0.0,
    balance: str = "sum",
    weights: Mapping[str, float] | None = None,
) -> list[float]:
    """The size of every step, after checking `pgd`'s numbers. Raises as `pgd` does."""
    import torch  # not above: the command line's options are checked without it

    check_eta(eta)
    steps = check_count(steps, "steps")
    check_seed(seed)
    check_finite(momentum=momentum)
    if not isinstance(weights, Mapping | None):
        raise ValueError(f"weights must be numbers by the terms' names, got {weights!r}")
    check_finite(**{f"weights['{name}']": weight for name, weight in (weights or {}).items()})
    if torch.is_inference_mode_enabled():
        raise RuntimeError("torch.inference_mode() forbids the gradients that a protection needs; leave it")
    if not 0 <= momentum < 1:
        raise ValueError(f"momentum must be in [0, 1), got {momentum}")
    if balance not in ("sum", "equal"):
        raise ValueError(f"balance must be 'sum' or 'equal', got {balance!r}")
    return check_step_sizes(step_size, steps)


def check_timestep(t: Any, levels: int) -> Any:
    """An index of a noise level, or a tensor of whole numbers. Raises ValueError for anything else."""
    if not hasattr(t, "is_floating_point"):
        return check_count(t, "t", 0, levels - 1)
    if t.is_floating_point():
        raise ValueError(f"t must be whole numbers, got {t.dtype}; use t.long()")
    return t


def check_gradients(finite: Any) -> None:
    """Raises RuntimeError unless all images' gradients were finite, N booleans. The sign of NaN is 0."""
    which = (~finite).nonzero().flatten().tolist()
    if which:
        raise RuntimeError(
            f"NaN or infinite gradients of images {which} of the batch, which aren't protected; "
            "compute in float32 (dtype=torch.float32, --precision float32)"
        )


def check_path(path: str | os.PathLike) -> Path:
    """The path, if it names anything; "~" is the user's own folder. Raises ValueError for no path at all."""
    if not isinstance(path, str | os.PathLike) or not os.fspath(path):
        raise ValueError(f"path must name a file or a folder, got {path!r}; for example 'photos/me.png'")
    return Path(os.path.expanduser(path))


def check_ddpm(ddpm: object) -> None:
    """Raises TypeError for anything but a model of pixels."""
    if not hasattr(ddpm, "unet") or hasattr(ddpm, "vae"):
        kind = type(ddpm).__name__
        raise TypeError(f"ddpm must be a DDPMPipeline, got {kind}; for example ddpm=load_ddpm()")


def check_pipe(pipe: object) -> None:
    """Raises TypeError for anything but a latent model, ValueError for one whose scheduler has no ᾱ_t."""
    if not hasattr(pipe, "vae"):
        kind = type(pipe).__name__
        raise TypeError(
            f"pipe must be a StableDiffusionPipeline, got {kind}; for example pipe=load_stable_diffusion()"
        )
    check_discrete(pipe.scheduler)


def check_discrete(scheduler: Any) -> None:
    """Raises ValueError for a scheduler without ᾱ_t."""
    if not hasattr(scheduler, "alphas_cumprod"):
        kind = type(scheduler).__name__
        raise ValueError(f"{kind} has no alphas_cumprod (ᾱ_t); use a discrete one, for example DDPMScheduler")


def check_predicts_eps(scheduler: Any) -> None:
    """Raises ValueError for a scheduler without ᾱ_t, or of a model that doesn't predict ε."""
    check_discrete(scheduler)
    kind = scheduler.config.prediction_type
    if kind != "epsilon":
        raise ValueError(f"the model predicts '{kind}'; use one that predicts epsilon")


def check_reverse_step(scheduler: Any) -> None:
    """Raises ValueError for a configuration that `reverse_step` doesn't compute."""
    check_predicts_eps(scheduler)
    kinds = ("fixed_small", "fixed_small_log", "fixed_large", "learned_range")
    kind = getattr(scheduler.config, "variance_type", None)  # DDIM's has none
    if kind not in kinds:
        raise ValueError(f"variance_type '{kind}' isn't supported; use one of {', '.join(kinds)}")
    if getattr(scheduler.config, "thresholding", False):
        raise ValueError("the scheduler has thresholding=True, which isn't supported; set it to False")


def check_scheduler(scheduler: Any, latent: bool = False) -> None:
    """Refuses a loaded model's scheduler whose ᾱ or settings the formulas here don't follow.

    latent: whether it is a latent model's. That may also predict v, and its ᾱ may end at 0 (zero terminal
    SNR); its variance and clipping don't matter. Timestep spacing and the like only concern images that
    diffusers generates. Raises ValueError with the setting.
    """
    check_discrete(scheduler)
    levels, config = scheduler.alphas_cumprod.tolist(), scheduler.config
    falls = all(a >= b for a, b in pairwise([1.0, *levels, 0.0]))  # never for NaN
    if not falls or levels[0] == 1 or (levels[-1] == 0 and not latent):
        raise ValueError(
            "the scheduler's ᾱ don't fall within (0, 1); check its betas and rescale_betas_zero_snr"
        )
    if len(levels) != config.num_train_timesteps:
        raise ValueError(
            f"the scheduler has {len(levels)} ᾱ and num_train_timesteps {config.num_train_timesteps}"
        )
    if not latent:
        check_reverse_step(scheduler)
        check_positive(clip_sample_range=config.clip_sample_range if config.clip_sample else None)
    elif config.prediction_type not in ("epsilon", "v_prediction"):
        kind = config.prediction_type
        raise ValueError(f"the model predicts '{kind}'; use one that predicts epsilon or v_prediction")


def optional_package(module: str, command: str) -> ModuleType:
    """The module, imported. Raises ModuleNotFoundError with the command that installs it."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f"{module}: this function needs it ({error}); run: {command}") from error
