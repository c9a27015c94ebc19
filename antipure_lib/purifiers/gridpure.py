"""GrIDPure: many weak DiffPures on overlapping tiles.  (Zhao et al., CVPR 2024, arXiv 2312.00084)"""

from collections.abc import Iterator

import torch

from ..core.images import as_file
from ..runtime.checks import check_counts
from ..runtime.noise import image_generators
from ..runtime.pipelines import DDPMPipeline
from .diffpure import PurifyState, begin_chain, check_gamma, purify_tiles


def gridpure(
    ddpm: DDPMPipeline,
    x: torch.Tensor,
    t: int = 10,
    iterations: int = 20,
    rounds: int = 1,
    gamma: float = 0.1,
    seed: int = 0,
    batch: int | str | None = None,
) -> torch.Tensor:
    """The last picture of `gridpure_steps` in 8 bits, in x's shape; all else as there (2312.00084)."""
    for state in gridpure_steps(ddpm, x, t, iterations, rounds, gamma, seed, batch):
        purified = state.x
    return as_file(purified, x)


def gridpure_steps(
    ddpm: DDPMPipeline,
    x: torch.Tensor,  # 3×H×W or N×3×H×W in [0, 1], at least as large as a tile
    t: int = 10,  # noise steps of each small DiffPure
    iterations: int = 20,  # per round
    rounds: int = 1,
    gamma: float = 0.1,  # share of the current image that each iteration keeps, in [0, 1)
    seed: int = 0,  # the noise of image i depends on seed and i
    batch: int | str | None = None,  # tiles per UNet call; None: all; "auto": what fits in memory
) -> Iterator[PurifyState]:
    """GrIDPure, by iteration: x ← (1−γ)·mean of DiffPure(tiles, t) + γ·x.  (arXiv 2312.00084, alg. 1)

    The original truncates to 8 bits at every iteration. Here x is rounded before the first and, by
    `gridpure`, after the last. So 2 rounds of 20 iterations equal 1 round of 40.
    Raises ValueError for values outside their range.
    """
    check_counts(iterations=iterations, rounds=rounds)
    gamma = check_gamma(gamma)
    model, images = begin_chain(ddpm, x, t, batch)
    generators = image_generators(seed, len(images))

    @torch.no_grad()
    def run() -> Iterator[PurifyState]:
        x = images
        for r in range(rounds):
            for i in range(iterations):
                x = (1 - gamma) * purify_tiles(model, x, t, generators) + gamma * x
                yield PurifyState(r, i, x)

    return run()
