"""What `protect` does to one photo, and the settings that the result depends on."""

import argparse
from inspect import signature

import torch

from ..core.images import quantise_within
from ..core.pgd import PGDState, fast
from ..core.tiles import at_least
from ..photos.photo import Photo, made_grey
from ..protections.diagnose import Flag, diagnose
from ..protections.registry import PROTECTIONS, protect_steps, protection_plan
from ..runtime.memory import MemoryPlan
from .one_photo import PhotoWork, batch_of


class Protector(PhotoWork):
    """Protects photos, one per call."""

    def __init__(self, args: argparse.Namespace, device: str, silent: bool | None):
        _check_method(args.method, args.fast)
        method = PROTECTIONS[args.method]
        super().__init__(args, method.needs, (method.steps, *method.also), device, silent)
        self.eta = args.eta / 255
        plain = {"eta": self.eta, "steps": args.steps or 100}
        self.chosen = (fast(self.eta, args.steps or 10) if args.fast else plain) | {"seed": args.seed}
        self.settings |= self.chosen | dict(method=args.method, jpeg=args.jpeg)

    def memory(self, height: int, width: int) -> MemoryPlan | None:
        """What a photo of at least a tile takes."""
        return protection_plan(self.args.method, self.models["ddpm"], (1, height, width))

    def check(self, photo: Photo) -> None:
        """As `PhotoWork`, and for a photo that the method or the format can't take."""
        height, width = photo.x.shape[-2:]
        if "pipe" in self.models:
            side = self.models["pipe"].unet.config.sample_size * self.models["pipe"].vae_scale_factor
            if (height, width) != (side, side):
                raise ValueError(
                    f"{self.args.method} takes only the latent model's size, {side}×{side}, and this photo "
                    f"has {width}×{height}; any size is taken by {', '.join(methods()[0])}"
                )
        if self.args.jpeg and photo.alpha is not None:
            raise ValueError("JPEG can't hold the photo's transparency; leave --jpeg out")
        super().check(photo)

    def run(self, x: torch.Tensor) -> torch.Tensor:
        """Protect an image of at least a tile."""
        return quantise_within(self._last_state(x).x_adv.to(x).view_as(x), x, self.eta)

    def _last_state(self, x: torch.Tensor) -> PGDState:
        batch = batch_of(PROTECTIONS[self.args.method].steps)
        states = protect_steps(self.args.method, x, **self.models, **self.chosen, **batch)
        return self.last(states, "step", self.chosen["steps"])

    def diagnosed(self, photo: Photo) -> list[Flag]:
        """Protect a photo, write nothing, and return the flags of `diagnose`."""
        self.check(photo)
        flags, known = [], signature(PROTECTIONS[self.args.method].steps).parameters
        usual = known["momentum"].default if "momentum" in known else 0.0
        momentum = self.chosen.get("momentum", usual)

        def look(x: torch.Tensor) -> torch.Tensor:
            flags.extend(diagnose(self._last_state(x), x, self.eta, momentum, self.args.seed))
            return x

        at_least(self.side, (made_grey(photo) if self.args.grey else photo).x, look)
        return flags


def _check_method(name: str, fast: bool) -> None:
    any_size = ", ".join(methods()[0])
    if name not in PROTECTIONS:
        known = ", ".join(PROTECTIONS)
        raise ValueError(f"--method: unknown protection '{name}'; the known ones are {known}")
    if name == "none":
        raise ValueError("--method none would only copy the photos; name a protection")
    if "set_a" in PROTECTIONS[name].needs:
        raise ValueError(
            f"--method {name} learns from other photos of the person, which this command doesn't take; "
            f"use {any_size}, or protect('{name}', …, set_a=…) in Python"
        )
    if fast and name not in ("antipure", "workflow"):
        raise ValueError(f"--fast is for --method antipure and workflow, not {name}; leave it out")


def methods() -> tuple[list[str], list[str]]:
    """The methods for photos of any size, and those for photos of the latent model's size alone."""
    offered = [name for name, method in PROTECTIONS.items() if "set_a" not in method.needs and name != "none"]
    latent = [name for name in offered if "pipe" in PROTECTIONS[name].needs]
    return [name for name in offered if name not in latent], latent


def names() -> str:
    """The help's last paragraph."""
    any_size, own_size = map(", ".join, methods())
    return f"Methods for photos of any size: {any_size}. Only for the size of --pipe's model: {own_size}."
