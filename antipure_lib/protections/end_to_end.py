"""The exact gradient through purification, which arXiv 2509.13922 calls intractable: a yardstick."""

from collections.abc import Iterator

import torch

from ..core.pgd import Loss, PGDState, pgd
from ..core.tiles import tile_count
from ..purifiers.chain import purify_chain, respaced
from ..purifiers.diffpure import check_chain, check_gamma
from ..runtime.checks import check_counts
from ..runtime.micro_batch import in_parts
from ..runtime.noise import randint
from ..runtime.pipelines import DDPMPipeline
from ..runtime.unet import sample_size


def end_to_end_steps(
    ddpm: DDPMPipeline,
    x: torch.Tensor,  # 3×H×W or N×3×H×W in [0, 1], at least as large as the model's images
    eta: float = 16 / 255,  # budget in (0, 1], [0, 1] units
    steps: int = 100,
    step_size: float = 1 / 255,  # [0, 1] units
    seed: int = 0,
    t: int = 10,  # noise steps of each DiffPure
    stride: int = 5,  # through them; 1: GrIDPure's own chain, at 5 times the cost
    iterations: int = 2,  # of GrIDPure; its own 20, at 10 times the cost
    gamma: float = 0.1,  # share of the current image that each iteration keeps
    noise_samples: int = 1,  # chains, each with its own noise, averaged in each step
    momentum: float = 0.0,
    checkpointing: bool = True,  # recompute activations: memory of one iteration, whatever their number
    batch: int | str | None = None,  # tiles per UNet call; None: all; "auto": what fits in memory
) -> Iterator[PGDState]:
    """Maximise E ‖Pure(x+δ) − Pure(x)‖², the same noise in both, through every step of GrIDPure.

    A δ that purification removes would raise the paper's ‖Pure(x+δ) − (x+δ)‖ (arXiv 2509.13922).
    ‖·‖² is a mean over channels and pixels. Each step draws new noise. δ starts uniform in ±η, because the
    gradient is 0 at δ = 0. The chain is shorter than GrIDPure's own (see `respaced`).
    A step costs about 5·(t/stride)·iterations·noise_samples runs of the UNet on every tile. Term: "loss".
    Raises ValueError for values outside their range, and for a stride that doesn't divide t.
    """
    check_counts(stride=stride, iterations=iterations, noise_samples=noise_samples)
    check_gamma(gamma)
    images = check_chain(ddpm, x, t)
    if t % stride:
        raise ValueError(f"stride must divide t={t}, so that the chain starts at t's noise, got {stride}")
    count = end_to_end_images(ddpm, (len(images), *images.shape[-2:]))
    calls = t // stride * (1 if checkpointing else iterations * noise_samples)
    model = in_parts(ddpm, batch, count, gradients=True, calls=calls)
    loss = end_to_end_loss(model, images, t, stride, iterations, gamma, noise_samples, checkpointing)
    options = {"random_start": True, "momentum": momentum, "repeat": model.unet.repeat}
    return pgd(loss, images, eta, steps, step_size, seed, **options)


def end_to_end_images(ddpm: DDPMPipeline, size: tuple[int, int, int], **_) -> int:
    """How many images go through the UNet at a time: the tiles of N images of H×W, size = (N, H, W)."""
    n, height, width = size
    return n * tile_count(height, width, sample_size(ddpm))


def end_to_end_loss(
    ddpm: DDPMPipeline,
    x: torch.Tensor,  # clean, N×3×H×W in [0, 1]
    t: int = 10,
    stride: int = 5,
    iterations: int = 2,
    gamma: float = 0.1,
    noise_samples: int = 1,
    checkpointing: bool = True,
) -> Loss:
    """‖Pure(x+δ) − Pure(x)‖² as a loss for `pgd`; arguments and errors as in `end_to_end_steps`."""
    check_counts(t=t, stride=stride, iterations=iterations, noise_samples=noise_samples)
    check_gamma(gamma)
    short, steps = respaced(ddpm, stride), t // stride

    def loss(x_adv, generator):
        total = torch.zeros(len(x_adv), device=x_adv.device, dtype=x_adv.dtype)
        for seeds in randint(0, 2**31, (noise_samples, iterations), generator).tolist():
            with torch.no_grad():
                clean = purify_chain(short, x, seeds, steps, gamma, False)
            purified = purify_chain(short, x_adv, seeds, steps, gamma, checkpointing)
            total = total + (purified - clean).square().mean((1, 2, 3))
        return total / noise_samples

    return loss
