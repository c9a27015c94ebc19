"""What `purify` does to one photo, and the settings that the result depends on."""

import argparse
from inspect import signature

import torch
from tqdm import tqdm

from ..core.images import as_file
from ..core.tiles import tile_count
from ..purifiers.registry import PURIFIERS, parse_purifier, purify
from ..runtime.digests import defaults
from ..runtime.memory import MemoryPlan, memory_plan
from .one_photo import PhotoWork

BLANK = 1024  # side of the picture that a purifier's numbers are tried on


class Washer(PhotoWork):
    """Purifies photos, one per call."""

    def __init__(self, args: argparse.Namespace, device: str | None = None, silent: bool | None = None):
        kind, self.numbers = check_purifier(args.purifier, "--purifier")
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
        for state in tqdm(states, unit="iteration", leave=False, disable=self.silent):
            purified = state.x
        return as_file(purified, x)


def check_purifier(name: str, option: str) -> tuple[str, dict[str, int | float]]:
    """`parse_purifier`. Raises ValueError also for numbers that would fail on every photo."""
    kind, numbers = parse_purifier(name)
    for number, value in numbers.items():
        if value <= 0:
            least = "at least 1" if isinstance(value, int) else "positive"
            raise ValueError(f"{option} {name}: {number} must be {least}, got {value}")
    if numbers and not PURIFIERS[kind].needs:
        try:
            purify(name, torch.zeros(3, BLANK, BLANK, dtype=torch.float32))
        except ValueError as error:
            raise ValueError(f"{option} {name}: {error}") from error
    return kind, numbers


def names() -> str:
    """The help's last paragraph."""
    kinds = PURIFIERS.items()
    named = [f"{name} ({' x '.join(kind.numbers)})" if kind.numbers else name for name, kind in kinds]
    return f"Purifiers, and the numbers that may follow the name: {', '.join(named)}."
