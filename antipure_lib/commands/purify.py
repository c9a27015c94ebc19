"""The work of `purify`: one photo purified."""

import argparse
import time
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING

from .estimate import Estimate, Work, counted, duration, largest, model_runs, tell
from .options import _dtype, _identity, _must_fit, load_named

if TYPE_CHECKING:
    pass


def purification(
    args: argparse.Namespace, device: str, silent: bool | None
) -> tuple[dict[str, object], Work, Estimate | None]:
    """The settings that a purified photo depends on, what purifies one, what tells of all."""
    import torch
    from tqdm import tqdm

    from ..core.diffusion import predict
    from ..core.tiles import at_least, tile_count
    from ..models.checkpoints import load_ddpm
    from ..photos.photo import save_photo
    from ..purifiers.freqpure import freqpure_steps
    from ..purifiers.registry import DIFFUSION, PURIFIERS, parse_purifier, purify
    from ..runtime.digests import defaults
    from ..runtime.memory import memory_plan
    from ..runtime.unet import sample_size

    kind, numbers = parse_purifier(args.purifier)
    settings: dict[str, object] = dict(purifier=args.purifier, keep_metadata=args.keep_metadata)
    # Another version's photo is made again; freqpure passes its options on.
    settings["defaults"] = defaults(PURIFIERS[kind], *([freqpure_steps] if kind == "freqpure" else []))
    _check_numbers(args.purifier, kind, numbers)
    ddpm, side, runs = None, 1, 0
    if kind in DIFFUSION:
        runs = model_runs(kind, numbers)
        ddpm = load_named(load_ddpm, args.ddpm, device, args.download, dtype=_dtype(args))
        side, levels = sample_size(ddpm), len(ddpm.scheduler.alphas_cumprod)
        if numbers.get("t", 1) > levels:
            raise ValueError(
                f"--purifier {args.purifier}: t must be 1 … {levels} of this model's noise steps"
            )
        settings |= _identity("ddpm", args.ddpm, ddpm, ("unet",)) | dict(seed=args.seed)

    amount = partial(tile_count, g=side)

    def wash(x, check):
        if not ddpm:
            return purify(args.purifier, x)
        bar = tqdm(total=runs * amount(*x.shape[-2:]), unit="tile", leave=False, disable=silent)
        with bar, counted(ddpm.unet, bar.update):
            return purify(args.purifier, x, ddpm=ddpm, seed=args.seed, batch=check)

    def work(photo, path):
        check = _must_fit(photo.x)
        washed = at_least(side, photo.x, lambda x: wash(x, check))
        save_photo(photo, washed, path, args.keep_metadata)
        return ""

    def estimate(sizes):
        total, most, (height, width) = largest(sizes, side, amount)
        plan = memory_plan(ddpm, most, gradients=False)
        noise, began = torch.zeros((plan.batch, 3, side, side), device=ddpm.unet.device), time.perf_counter()
        with torch.no_grad():
            predict(ddpm, noise, 0, plan.batch)[0].sum().item()  # the device has finished
        seconds = (time.perf_counter() - began) / plan.batch * runs * total
        tell(
            f"largest photo {width}×{height}: tiles of {side} px: {most}, {runs} times through the model; "
            f"about {duration(seconds)} for all photos"
        )
        tell(plan)

    return settings, work, estimate if ddpm else None


def _check_numbers(name: str, kind: str, numbers: Mapping[str, int | float]) -> None:
    """Raises ValueError for numbers that would fail on every photo."""
    import torch

    from ..purifiers.registry import DIFFUSION, purify

    for number, value in numbers.items():
        if isinstance(value, int) and value < 1 or value <= 0:
            least = "at least 1" if isinstance(value, int) else "positive"
            raise ValueError(f"--purifier {name}: {number} must be {least}, got {value}")
    if numbers and kind not in (*DIFFUSION, "blur"):  # what is too much of a blur, a photo's size tells
        try:
            purify(name, torch.zeros(3, 64, 64))
        except ValueError as error:
            raise ValueError(f"--purifier {name}: {error}") from error
