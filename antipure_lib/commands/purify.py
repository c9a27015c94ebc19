"""What `purify` does to one photo, and the settings that the result depends on."""

import argparse

import torch

from ..core.images import as_file
from ..core.tiles import tile_count
from ..purifiers.registry import PURIFIERS, parse_purifier, purify
from ..runtime.memory import MemoryPlan, memory_plan
from .one_photo import PhotoWork


class Washer(PhotoWork):
    """Purifies photos, one per call."""

    def __init__(self, args: argparse.Namespace, device: str, silent: bool | None):
        kind, self.numbers = parse_purifier(args.purifier)
        self.purifier = found = PURIFIERS[kind]
        super().__init__(args, found.needs, (found.run, *found.also), device, silent)
        self.settings["purifier"] = args.purifier
        if found.seeded:
            self.settings["seed"] = args.seed
            levels = len(self.models["ddpm"].scheduler.alphas_cumprod)
            if self.numbers.get("t", 1) > levels:
                raise ValueError(f"--purifier {args.purifier}: t must be 1 … {levels}, the model's steps")

    def memory(self, height: int, width: int) -> MemoryPlan:
        """What a photo of at least a tile takes."""
        return memory_plan(self.models["ddpm"], tile_count(height, width, self.side), gradients=False)

    def run(self, x: torch.Tensor) -> torch.Tensor:
        """Purify one image of at least a tile."""
        options = self.models | self.batch | ({"seed": self.args.seed} if self.purifier.seeded else {})
        if not self.purifier.along:
            return purify(self.args.purifier, x, **options)
        states = self.purifier.along(x=x, **options, **self.numbers)
        return as_file(self.last(states, "iteration").x, x)


def names() -> str:
    """The help's last paragraph."""
    kinds = PURIFIERS.items()
    named = [f"{name} ({' x '.join(kind.numbers)})" if kind.numbers else name for name, kind in kinds]
    return f"Purifiers, and the numbers that may follow the name: {', '.join(named)}."
