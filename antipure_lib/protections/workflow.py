"""The workflow attack: hurt what a latent model sees of the photo *after* purification.

It is this project's own and not a part of AntiPure. The paper (arXiv 2509.13922) states the ideal, a δ that
spoils learning from purified photos, and climbs a proxy. For a small model a short purification can be
differentiated, as adaptive attacks do (Athalye et al. 2018, arXiv 1802.00420).
"""

from collections.abc import Callable, Iterator, Sequence
from functools import cache

import torch

from ..core.pgd import Loss, PGDState, pgd
from ..customization.latent_diffusion import posterior
from ..purifiers.chain import purify_chain, respaced
from ..purifiers.diffpure import check_chain, check_gamma, purify_tiles
from ..purifiers.filters import jpeg, resize_and_back
from ..runtime.checks import check_ascent, check_counts
from ..runtime.micro_batch import in_parts
from ..runtime.noise import image_generators, randint
from ..runtime.pipelines import DDPMPipeline, StableDiffusionPipeline
from ..runtime.unet import pipe_view
from .end_to_end import end_to_end_images
from .fixed_model import check_attacked

Purify = Callable[[torch.Tensor, int], torch.Tensor]  # (N×3×H×W, seed) → N×3×H×W, differentiable
MIXED = ("gridpure", "diffpure", "jpeg", "resize")


def workflow_steps(
    ddpm: DDPMPipeline,
    pipe: StableDiffusionPipeline,
    x: torch.Tensor,  # 3×H×W or N×3×H×W in [0, 1], of the latent model's size
    eta: float = 16 / 255,  # budget in (0, 1], [0, 1] units
    steps: int = 100,
    step_size: float | Sequence[float] = 1 / 255,  # [0, 1] units; one for all steps, or one each
    seed: int = 0,
    purifiers: Sequence[str] = ("gridpure",),  # names in MIXED; each step draws one of them
    t: int = 10,  # noise steps of each DiffPure inside GrIDPure
    stride: int = 5,  # through them; 1: GrIDPure's own chain, at 5 times the cost
    iterations: int = 4,  # of GrIDPure; its own 20, at 5 times the cost
    gamma: float = 0.1,  # share of the current image that each iteration keeps
    draws: int | None = None,  # so many seeds, whose clean half is kept; None: a new seed in each step
    momentum: float = 0.9,
    checkpointing: bool = True,  # recompute activations: memory of one iteration, whatever their number
    batch: int | str | None = None,  # tiles per UNet call; None: all; "auto": what fits in memory
) -> Iterator[PGDState]:
    """Maximise E ‖E(Pure(x+δ)) − E(Pure(x))‖², the same noise in both. E: the latent model's encoder.

    ‖·‖² is a mean over the latent's numbers. δ starts uniform in ±η, because the gradient is 0 at δ = 0.
    The chain is shorter than the abuser's: `iterations` of t/stride noise steps (see `respaced`).
    A step costs about 5·(t/stride)·iterations runs of the UNet on every tile; 4 with `draws`. Term: "loss".
    Raises ValueError for values outside their range, for a stride that doesn't divide t, and for a latent
    model in half precision.
    """
    sizes = check_ascent(eta, steps, step_size, seed, momentum)
    check_counts(stride=stride, iterations=iterations, draws=1 if draws is None else draws)
    check_gamma(gamma)
    check_chain(ddpm, x, t)
    images = check_attacked(pipe, x)
    if t % stride:
        raise ValueError(f"stride must divide t={t}, so that the chain starts at t's noise, got {stride}")
    if not purifiers or set(purifiers) - set(MIXED):
        raise ValueError(f"purifiers must name some of {', '.join(MIXED)}, got {purifiers!r}")
    count = end_to_end_images(ddpm, (len(images), *images.shape[-2:]))
    calls = t // stride * (1 if checkpointing else iterations)
    model = in_parts(ddpm, batch, count, gradients=True, calls=calls)
    known = short_purifiers(model, t, stride, iterations, gamma, checkpointing)
    encoder = pipe_view(pipe)
    loss = workflow_loss(
        [known[name] for name in purifiers], lambda y: posterior(encoder, y)[0], images, draws
    )
    options = {"random_start": True, "momentum": momentum, "repeat": model.unet.repeat}
    return pgd(loss, images, eta, steps, sizes, seed, **options)


def workflow_loss(
    purifiers: Sequence[Purify],
    see: Callable[[torch.Tensor], torch.Tensor],  # what the learner sees of images: N×3×H×W → N×…
    x: torch.Tensor,  # clean, N×3×H×W in [0, 1]
    draws: int | None = None,  # seeds per purifier, at least 1, whose clean half is kept; None: new seeds
) -> Loss:
    """‖see(Pure(x+δ)) − see(Pure(x))‖² as a loss for `pgd`: (x_adv N×3×H×W, generator) → (N,).

    Each call draws a purifier and its noise. ‖·‖² is a mean over all numbers that are seen of an image.
    """

    @torch.no_grad()
    def clean(which: int, seed: int) -> torch.Tensor:
        return see(purifiers[which](x, seed))

    see_clean = cache(clean) if draws else clean

    def loss(x_adv, generator):
        (which,) = randint(0, len(purifiers), (1,), generator).tolist()
        (seed,) = randint(0, draws or 2**31, (1,), generator).tolist()
        seen = see(purifiers[which](x_adv, seed))
        return (seen - see_clean(which, seed)).square().flatten(1).mean(1)

    return loss


def short_purifiers(
    ddpm: DDPMPipeline,
    t: int = 10,
    stride: int = 5,
    iterations: int = 4,
    gamma: float = 0.1,
    checkpointing: bool = True,
) -> dict[str, Purify]:
    """Purifiers that can be differentiated, by the names in MIXED. Arguments as in `workflow_steps`.

    JPEG rounds, which has no gradient, so its backward pass is the identity (BPDA, arXiv 1802.00420).
    """

    def gridpure(x, seed):
        seeds = randint(0, 2**31, (iterations,), torch.Generator().manual_seed(seed)).tolist()
        return purify_chain(respaced(ddpm, stride), x, seeds, t // stride, gamma, checkpointing)

    def diffpure(x, seed):
        return purify_tiles(respaced(ddpm, 25), x, 4, image_generators(seed, len(x)))  # 100 noise steps

    def straight_through_jpeg(x, seed):
        return x + (jpeg(x.detach()) - x).detach()

    def resize(x, seed):
        return resize_and_back(x)

    return dict(zip(MIXED, (gridpure, diffpure, straight_through_jpeg, resize), strict=True))
