"""Random draws: explicit seeds, local generators, the same numbers on every device."""

from collections.abc import Sequence

import numpy as np
import torch

from .checks import check_seed


def image_generators(seed: int, n: int) -> list[torch.Generator]:
    """One generator per image of a batch, so that an image's noise depends on `seed` and its position alone.

    Image i gets the same noise whatever the other images are and however many follow it: purifying x and x+δ
    with one seed compares them under common random numbers.

    seed: 0 … 2⁶³−1; n: number of images. Raises ValueError for another seed.
    """
    seed = check_seed(seed)
    # SeedSequence mixes the pair into 32 bits, all that torch's CPU generator keeps of a seed.
    words = [np.random.SeedSequence((seed, i)).generate_state(1)[0] for i in range(n)]
    return [torch.Generator().manual_seed(int(word)) for word in words]


def randn(
    shape: Sequence[int],
    generator: torch.Generator | list[torch.Generator],
    device: torch.device | str = "cpu",
) -> torch.Tensor:
    """Standard normal float32 noise, drawn on the CPU and then moved: a seed means the same everywhere.

    generator: one for the whole tensor, or a list with one for each entry of the first dimension.
    """
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
    """Uniform integers in [low, high), drawn on the CPU and then moved."""
    return _moved(_empty(shape, torch.long, device).random_(low, high, generator=generator), device)


def stratified(n: int, generator: torch.Generator, device: torch.device | str = "cpu") -> torch.Tensor:
    """n float32 numbers in [0, 1), each of them uniform, a n-th apart: u_i = (u + i/n) mod 1, u uniform.

    Their mean scatters less than that of n separate draws, and n = 1 is one.  (Kingma et al. 2021, arXiv
    2107.00630, appendix I.1: the low-discrepancy sampler of timesteps)
    """
    first = _moved(_empty((1,), torch.float32, device).uniform_(generator=generator), device)
    return (first + torch.arange(n, device=device) / n) % 1


def _empty(shape, dtype, device):
    # From pinned memory the copy to a GPU doesn't make the host wait for the work queued there.
    return torch.empty(shape, dtype=dtype, pin_memory=torch.device(device).type == "cuda")


def _moved(drawn, device):
    # Other memory may be used anew before a copy that nobody waits for has read it (PyTorch issue 139550).
    return drawn.to(device, non_blocking=drawn.is_pinned())
