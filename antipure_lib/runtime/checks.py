"""What an argument must be: plain errors that name it, the problem and the remedy."""

import importlib
import math
import operator
import os
from numbers import Real
from pathlib import Path
from types import ModuleType


def check_counts(least: int = 1, **counts: int) -> None:
    """Raises ValueError naming the first of the counts that isn't a whole number or is less than `least`."""
    for name, count in counts.items():
        try:
            count = operator.index(count)
        except TypeError:
            raise ValueError(f"{name} must be a whole number, got {count!r}") from None
        if count < least:
            raise ValueError(f"{name} must be at least {least}, got {count}")


def check_eta(eta: float) -> None:
    """Raises ValueError for a budget outside (0, 1]."""
    if not (isinstance(eta, Real) and 0 < eta <= 1):
        raise ValueError(
            f"eta must be in (0, 1], got {eta!r}; budgets are in [0, 1] units, for example 16/255"
        )


def check_finite(**numbers: float) -> None:
    """Raises ValueError naming the first that isn't a finite number."""
    for name, number in numbers.items():
        if not (isinstance(number, Real) and math.isfinite(number)):
            raise ValueError(f"{name} must be a finite number, got {number!r}")


def check_positive(**numbers: float | None) -> None:
    """Raises ValueError naming the first that isn't greater than 0; None passes."""
    for name, number in numbers.items():
        if number is not None and not number > 0:
            raise ValueError(f"{name} must be positive, got {number}")


def check_path(path: str | os.PathLike) -> Path:
    """The path, if it names anything. Raises ValueError for no path at all."""
    if not isinstance(path, str | os.PathLike) or not os.fspath(path):
        raise ValueError(f"path must name a file, got {path!r}; for example 'photos/me.png'")
    return Path(path)


def check_ddpm(ddpm: object) -> None:
    """Raises TypeError for what isn't a model of pixels."""
    if not hasattr(ddpm, "unet") or hasattr(ddpm, "vae"):
        kind = type(ddpm).__name__
        raise TypeError(f"ddpm must be a DDPMPipeline, got {kind}; for example ddpm=load_ddpm()")


def check_pipe(pipe: object) -> None:
    """Raises TypeError for what isn't a latent model."""
    if not hasattr(pipe, "vae"):
        kind = type(pipe).__name__
        raise TypeError(
            f"pipe must be a StableDiffusionPipeline, got {kind}; for example pipe=load_stable_diffusion()"
        )


def optional_package(module: str, command: str) -> ModuleType:
    """The module, imported. Raises ModuleNotFoundError with the command that installs it."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f"{module}: this function needs it ({error}); run: {command}") from error
