"""Random draws: explicit seeds, local generators, the same numbers on every device."""

from collections.abc import Sequence

import numpy as np
import torch

from .checks import check_count, check_counts, check_seed


def image_generators(seed: int, n: int) -> list[torch.Generator]:
    """One generator for each of n images: an image's noise depends on the seed and its position alone.

    So purifying x and x+δ with one seed compares them under common random numbers.
    seed: 0 … 2⁶³−1. Raises ValueError for another seed, or an n below 0.
    """
    seed = check_seed(seed)
    check_counts(0, n=n)
    # SeedSequence mixes the pair into 32 bits, all that torch's CPU generator keeps of a seed.
    words = [np.random.SeedSequence((seed, i)).generate_state(1)[0] for i in range(n)]
    return [torch.Generator().manual_seed(int(word)) for word in words]


def randn(
    shape: Sequence[int],
    generator: torch.Generator | list[torch.Generator],  # one for all, or one per row of the first dimension
    device: torch.device | str = "cpu",
) -> torch.Tensor:
    """Standard normal float32 noise, drawn on the CPU and then moved: a seed means the same everywhere."""
    noise = _empty(shape, torch.float32, device)
    if isinstance(generator, list):
        for row, own in zip(noise, generator, strict=True):
            row.normal_(generator=own)
    else:
        noise.normal_(generator=generator)
    return _moved(noise, device)


def randint(
    low: int, high: int, shape: Sequence[int], generator: torch.Generator, device: torch.device | str = "cpu"
) -> torch.Tensor:
    """Uniform integers in [low, high), drawn on the CPU and then moved.

    Raises ValueError for bounds that aren't whole numbers, or between which there is none.
    """
    low, high = check_count(low, "low", None), check_count(high, "high", None)
    if high <= low:
        raise ValueError(f"high must be greater than low={low}, got {high}")
    return _moved(_empty(shape, torch.long, device).random_(low, high, generator=generator), device)


def stratified(n: int, generator: torch.Generator, device: torch.device | str = "cpu") -> torch.Tensor:
    """n uniform float32 numbers in [0, 1), an n-th apart: u_i = (u + i/n) mod 1, u uniform.

    Their mean scatters less than that of n separate draws.  (Kingma et al. 2021, arXiv 2107.00630, app. I.1)
    """
    first = _moved(_empty((1,), torch.float32, device).uniform_(generator=generator), device)
    return (first + torch.arange(n, dtype=torch.float32, device=device) / n) % 1


def _empty(shape, dtype, device):
    # The host doesn't wait for a copy from pinned memory to a GPU.
    return torch.empty(shape, dtype=dtype, pin_memory=torch.device(device).type == "cuda")


def _moved(drawn, device):
    # Other memory may be used again before a copy that nobody waits for has read it (PyTorch issue 139550).
    return drawn.to(device, non_blocking=drawn.is_pinned())
