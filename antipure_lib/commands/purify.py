"""What `purify` does to one photo, and the settings that the result depends on."""

import argparse

import torch

from ..core.images import as_file
from ..core.tiles import tile_count
from ..purifiers.registry import MODELS, PURIFIERS, parts_of, purify
from ..runtime.memory import MemoryPlan, memory_plan
from .one_photo import PhotoWork, batch_of


class Washer(PhotoWork):
    """Purifies photos, one per call."""

    def __init__(self, args: argparse.Namespace, device: str, silent: bool | None):
        self.parts = parts_of(args.purifier, args.seed)
        found = [PURIFIERS[part.kind] for part in self.parts]
        needs = [key for key in MODELS if any(key in purifier.needs for purifier in found)]
        functions = [function for purifier in found for function in (purifier.run, *purifier.also)]
        super().__init__(args, needs, functions, device, silent)
        self.settings["purifier"] = args.purifier
        if "ddpm" in needs:
            self.settings["seed"] = args.seed
            levels = len(self.models["ddpm"].scheduler.alphas_cumprod)
            if max(part.numbers.get("t", 1) for part in self.parts) > levels:
                raise ValueError(f"--purifier {args.purifier}: t must be 1 … {levels}, the model's steps")

    def memory(self, height: int, width: int) -> MemoryPlan:
        """What a photo of at least a tile takes."""
        return memory_plan(self.models["ddpm"], tile_count(height, width, self.side), gradients=False)

    def run(self, x: torch.Tensor) -> torch.Tensor:
        """Purify one image of at least a tile."""
        for part in self.parts:
            purifier = PURIFIERS[part.kind]
            options = {key: self.models[key] for key in purifier.needs} | batch_of(purifier.run)
            options |= {"seed": part.seed} if purifier.seeded else {}
            if purifier.along:
                states = purifier.along(x=x, **options, **part.numbers)
                x = as_file(self.last(states, "iteration").x, x)
            else:
                x = purify(part.name, x, **options)
        return x


def names() -> str:
    """The help's last paragraph."""
    kinds = PURIFIERS.items()
    named = [f"{name} ({' x '.join(kind.numbers)})" if kind.numbers else name for name, kind in kinds]
    told = f"Purifiers, and the numbers that may follow the name: {', '.join(named)}."
    return f"{told} Several are joined by +, such as jpeg75+resize0.5."
