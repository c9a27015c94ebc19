"""What `protect` and `purify` of the command line do to one photo, and the settings that it depends on.

Everything heavy is imported where it is used: the command line starts without torch.
"""

import argparse
import time
from typing import TYPE_CHECKING

from .estimate import Estimate, Work, duration, largest, tell
from .options import _dtype, _identity, _must_fit, load_named

if TYPE_CHECKING:
    pass


def protection(
    args: argparse.Namespace, device: str, silent: bool | None
) -> tuple[dict[str, object], Work, Estimate | None]:
    """The settings that a protected photo depends on, what protects one, what tells of all."""
    import torch
    from tqdm import tqdm

    from ..core.images import quantise_within
    from ..core.pgd import fast
    from ..core.tiles import at_least, tile_count
    from ..models.checkpoints import load_ddpm, load_stable_diffusion
    from ..photos.photo import save_photo
    from ..protections.registry import PROTECTIONS, needs, protect_steps
    from ..purifiers.filters import kept_by_jpeg
    from ..runtime.digests import defaults
    from ..runtime.unet import sample_size

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


def methods() -> tuple[list[str], list[str]]:
    """The protections that take photos of any size, and those that take the latent model's alone."""
    from ..protections.registry import PROTECTIONS, needs

    offered = [name for name in PROTECTIONS if "set_a" not in needs(name)]  # other photos aren't taken here
    latent = [name for name in offered if "pipe" in needs(name)]
    return [name for name in offered if name not in (*latent, "none")], latent
