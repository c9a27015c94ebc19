"""What `protect` and `purify` of the command line do to one photo, and the settings that it depends on.

Everything heavy is imported where it is used: the command line starts without torch.
"""

import argparse
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from .photos_estimate import Estimate, Work, counted, duration, largest, model_runs, tell

if TYPE_CHECKING:
    import torch

    from .memory import MemoryPlan


def protection(
    args: argparse.Namespace, device: str, silent: bool | None
) -> tuple[dict[str, object], Work, Estimate | None]:
    """The settings that a protected photo depends on, what protects one, what tells of all."""
    import torch
    from tqdm import tqdm

    from .checkpoints import load_ddpm, load_stable_diffusion
    from .diffusion import sample_size
    from .digests import defaults
    from .images import quantise_within
    from .pgd import fast
    from .photos import at_least, kept_by_jpeg, save_photo
    from .protect import PROTECTIONS, needs, protect_steps
    from .tiles import tile_count

    if not 1 <= args.eta <= 255:
        raise ValueError(f"--eta must be 1 … 255 (steps of 1/255), got {args.eta:g}")
    steps = args.steps if args.steps is not None else 10 if args.fast else 100
    if steps < 1:
        raise ValueError(f"--steps must be at least 1, got {steps}")
    if args.fast and args.method != "antipure":
        raise ValueError(f"--fast is for --method antipure, not {args.method}; leave it out")
    if args.method == "none":
        raise ValueError("--method none would only copy the photos; name a protection")
    any_size = ", ".join(methods()[0])
    needed = needs(args.method)
    if "set_a" in needed:
        raise ValueError(
            f"--method {args.method} learns from other photos of the person, which this command "
            f"doesn't take; use {any_size}"
        )
    models, settings, side = {}, {}, 1
    if "ddpm" in needed:
        models["ddpm"] = load_named(load_ddpm, args.ddpm, device, args.download, dtype=_dtype(args))
        side = sample_size(models["ddpm"])
        settings |= _identity("ddpm", args.ddpm, models["ddpm"], ("unet",))
    if "pipe" in needed:
        models["pipe"] = load_named(load_stable_diffusion, args.pipe, device, args.download)
        settings |= _identity("pipe", args.pipe, models["pipe"], ("vae", "unet", "text_encoder"))
        latent_side = models["pipe"].unet.config.sample_size * models["pipe"].vae_scale_factor
    eta = args.eta / 255
    chosen = dict(eta=eta, seed=args.seed) | (fast(eta, steps) if args.fast else dict(steps=steps))
    settings |= chosen | dict(method=args.method, keep_metadata=args.keep_metadata, jpeg=args.jpeg)
    settings["defaults"] = defaults(PROTECTIONS[args.method])  # another version's photo is made again

    pace = {}  # pixels or tiles of all photos, until a step of the first has told their time

    def amount(height, width):
        return tile_count(height, width, side) if "ddpm" in needed else height * width

    def attack(x, check):
        began = time.perf_counter()
        # No setting: how many tiles go through the model at a time moves last bits alone.
        fitting = {"batch": check} if "ddpm" in needed else {}
        states = protect_steps(args.method, x, **models, **chosen, **fitting)
        bar = tqdm(states, total=steps, unit="step", leave=False, disable=silent)
        for number, state in enumerate(bar, 1):
            x_adv = state.x_adv
            if pace and number <= 2:
                x_adv.sum().item()  # the device has finished
                seconds, began = (time.perf_counter() - began) * steps, time.perf_counter()
                if number == min(2, steps):  # the first one also warms up
                    total = seconds / amount(*x.shape[-2:]) * pace.pop("all")
                    told = f"{duration(seconds)} for this photo, {duration(total)} for all"
                    tell(f"by its step {number} about {told}")
        return x_adv.to(x).view_as(x)

    def work(photo, path):
        size = tuple(photo.x.shape[-2:])
        if "pipe" in models and size != (latent_side, latent_side):
            raise ValueError(
                f"{args.method} works at the latent model's size alone, {latent_side}×{latent_side}, "
                f"and this photo has {size[1]}×{size[0]}; at any size work {any_size}"
            )
        if args.jpeg and photo.alpha is not None:
            raise ValueError("JPEG can't hold the photo's transparency; leave --jpeg out")
        check = _must_fit(photo.x)
        x_adv = quantise_within(at_least(side, photo.x, lambda x: attack(x, check)), photo.x, eta)
        save_photo(photo, x_adv, path, args.keep_metadata, args.jpeg)
        if not args.jpeg:
            return ""
        if x_adv.equal(photo.x):
            return "there is no perturbation that JPEG could destroy"
        return f"JPEG leaves {kept_by_jpeg(photo.x, x_adv):.0%} of the perturbation; PNG leaves all"

    def estimate(sizes):
        pace["all"], most, (height, width) = largest(sizes, side, amount)
        if "ddpm" not in needed:
            tell(f"largest photo {width}×{height}: {steps} steps")
            return
        tell(f"largest photo {width}×{height}: tiles of {side} px: {most}, {steps} steps")
        # Never run: plans are made before the first step.
        protect_steps(args.method, torch.zeros(()).expand(3, height, width), **models, **chosen, batch=tell)

    return settings, work, estimate


def purification(
    args: argparse.Namespace, device: str, silent: bool | None
) -> tuple[dict[str, object], Work, Estimate | None]:
    """The settings that a purified photo depends on, what purifies one, what tells of all."""
    import torch
    from tqdm import tqdm

    from .checkpoints import load_ddpm
    from .diffusion import predict, sample_size
    from .digests import defaults
    from .freqpure import freqpure_steps
    from .memory import memory_plan
    from .photos import at_least, save_photo
    from .purifiers import DIFFUSION, PURIFIERS, parse_purifier, purify
    from .tiles import tile_count

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


def methods() -> tuple[list[str], list[str]]:
    """The protections that take photos of any size, and those that take the latent model's alone."""
    from .protect import PROTECTIONS, needs

    offered = [name for name in PROTECTIONS if "set_a" not in needs(name)]  # other photos aren't taken here
    latent = [name for name in offered if "pipe" in needs(name)]
    return [name for name in offered if name not in (*latent, "none")], latent


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


def _check_numbers(name: str, kind: str, numbers: Mapping[str, int | float]) -> None:
    """Raises ValueError for numbers that would fail on every photo."""
    import torch

    from .purifiers import DIFFUSION, purify

    for number, value in numbers.items():
        if isinstance(value, int) and value < 1 or value <= 0:
            least = "at least 1" if isinstance(value, int) else "positive"
            raise ValueError(f"--purifier {name}: {number} must be {least}, got {value}")
    if numbers and kind not in (*DIFFUSION, "blur"):  # what is too much of a blur, a photo's size tells
        try:
            purify(name, torch.zeros(3, 64, 64))
        except ValueError as error:
            raise ValueError(f"--purifier {name}: {error}") from error


def _dtype(args: argparse.Namespace):
    import torch

    return args.precision and getattr(torch, args.precision)


def _identity(option: str, name: str, pipe: Any, parts: tuple[str, ...]) -> dict[str, str]:
    from .digests import weights_digest

    return {
        option: name,
        f"{option}_weights": weights_digest(pipe, parts),
        f"{option}_precision": str(pipe.dtype),
    }
