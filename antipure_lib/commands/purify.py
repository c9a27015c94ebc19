"""What `purify` does to one photo, and the settings that the result depends on."""

import argparse
from inspect import signature

import torch

from ..core.images import as_file
from ..core.tiles import tile_count
from ..purifiers.registry import PURIFIERS, parse_purifier, purify
from ..runtime.digests import defaults
from ..runtime.memory import MemoryPlan, memory_plan
from .one_photo import PhotoWork


class Washer(PhotoWork):
    """Purifies photos, one per call."""

    def __init__(self, args: argparse.Namespace, device: str, silent: bool | None):
        kind, self.numbers = parse_purifier(args.purifier)
        self.purifier = PURIFIERS[kind]
        super().__init__(args, self.purifier.needs, device, silent)
        # Where another version has other defaults, its photos are made again.
        changing = defaults(self.purifier.run, *self.purifier.also)
        self.settings |= dict(purifier=args.purifier, defaults=changing)
        if self.models:
            self.settings["seed"] = args.seed
            levels = len(self.models["ddpm"].scheduler.alphas_cumprod)
            if self.numbers.get("t", 1) > levels:
                raise ValueError(f"--purifier {args.purifier}: t must be 1 … {levels}, the model's steps")

    def memory(self, height: int, width: int) -> MemoryPlan:
        """What a photo of at least a tile takes."""
        return memory_plan(self.models["ddpm"], tile_count(height, width, self.side), gradients=False)

    def run(self, x: torch.Tensor) -> torch.Tensor:
        """Purify one image of at least a tile."""
        options = self.models | ({"seed": self.args.seed} if self.models else {})
        if "batch" in signature(self.purifier.run).parameters:
            options["batch"] = "auto"
        if not self.purifier.along:
            return purify(self.args.purifier, x, **options)
        states = self.purifier.along(x=x, **options, **self.numbers)
        return as_file(self.last(states, "iteration").x, x)


def names() -> str:
    """The help's last paragraph."""
    kinds = PURIFIERS.items()
    named = [f"{name} ({' x '.join(kind.numbers)})" if kind.numbers else name for name, kind in kinds]
    return f"Purifiers, and the numbers that may follow the name: {', '.join(named)}."
