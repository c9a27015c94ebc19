"""Models and errors in the words of the command line's options."""

import argparse
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from ..runtime.memory import MemoryPlan


def load_named(
    load: Callable[..., Any], name: str, device: str | None = None, download: bool = False, **options: object
) -> Any:
    """load(name, …), whose errors speak of options rather than of Python."""
    try:
        return load(name, device, download=download, **options)
    except (ValueError, FileNotFoundError) as error:
        told = str(error).replace(f"{load.__name__}('{name}', download=True) downloads", "--download fetches")
        for loader, option in (("load_ddpm", "--ddpm"), ("load_stable_diffusion", "protect's --pipe")):
            told = told.replace(f"load it with {loader}", f"it is for {option}")
        raise type(error)(told) from error


def _must_fit(x: "torch.Tensor") -> Callable[["MemoryPlan"], None]:
    """What refuses a plan for this photo, 3×H×W, that needs more memory than there is."""

    def check(plan: "MemoryPlan") -> None:
        if not plan.fits:
            needed, free = ((size / 1e9) for size in (plan.total - plan.model, plan.free))
            raise ValueError(
                f"{x.shape[2]}×{x.shape[1]} pixels need about {needed:.1f} GB beside the model, and "
                f"{free:.1f} GB are free; make the photo smaller, or cut out the part that matters"
            )

    return check


def _dtype(args: argparse.Namespace):
    import torch

    return args.precision and getattr(torch, args.precision)


def _identity(option: str, name: str, pipe: Any, parts: tuple[str, ...]) -> dict[str, str]:
    from ..runtime.digests import weights_digest

    return {
        option: name,
        f"{option}_weights": weights_digest(pipe, parts),
        f"{option}_precision": str(pipe.dtype),
    }
