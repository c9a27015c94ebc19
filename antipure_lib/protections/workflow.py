"""The workflow attack: hurt what a latent model sees of the photo *after* purification.

It is this project's own and not a part of AntiPure. The paper (arXiv 2509.13922) states the ideal, a δ that
spoils learning from purified photos, and climbs a proxy. For a small model a short purification can be
differentiated, as adaptive attacks do (Athalye et al. 2018, arXiv 1802.00420).
"""

from collections.abc import Callable, Iterator, Sequence

import torch

from ..core.pgd import Loss, PGDState, pgd
from ..customization.latent_diffusion import check_float32, posterior
from ..purifiers.chain import purify_chain, respaced
from ..purifiers.diffpure import purify_tiles
from ..purifiers.filters import jpeg, resize_and_back
from ..runtime.checks import check_counts
from ..runtime.noise import image_generators, randint
from ..runtime.pipelines import DDPMPipeline, StableDiffusionPipeline
from ..runtime.unet import pipe_view
from .end_to_end import begin_attack, change_left

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

    ‖·‖² is a mean over the latent's numbers. δ's start and the short chain are as in `end_to_end_steps`.
    A step costs about 5·(t/stride)·iterations runs of the UNet on every tile; 4 with `draws`. Term: "loss".
    Raises ValueError for values outside their range, for a stride that doesn't divide t, and for a latent
    model in half precision.
    """
    check_counts(draws=1 if draws is None else draws)
    kept = 1 if checkpointing else iterations
    model, images = begin_attack(ddpm, x, t, stride, iterations, gamma, kept, batch)
    images = check_float32(pipe, images)
    if not purifiers or set(purifiers) - set(MIXED):
        raise ValueError(f"purifiers must name some of {', '.join(MIXED)}, got {purifiers!r}")
    known = short_purifiers(model, t, stride, iterations, gamma, checkpointing)
    encoder = pipe_view(pipe)
    chosen = [known[name] for name in purifiers]
    loss = workflow_loss(chosen, lambda y: posterior(encoder, y)[0], images, draws)
    options = {"random_start": True, "momentum": momentum, "repeat": model.unet.repeat}
    return pgd(loss, images, eta, steps, step_size, seed, **options)


def workflow_loss(
    purifiers: Sequence[Purify],
    see: Callable[[torch.Tensor], torch.Tensor],  # what the learner sees of images: N×3×H×W → N×…
    x: torch.Tensor,  # clean, N×3×H×W in [0, 1]
    draws: int | None = None,  # seeds per purifier, at least 1, whose clean half is kept; None: new seeds
) -> Loss:
    """‖see(Pure(x+δ)) − see(Pure(x))‖² as a loss for `pgd`: (x_adv N×3×H×W, generator) → (N,).

    Each call draws a purifier and its noise. ‖·‖² is a mean over all numbers that are seen of an image.
    """

    def seen(images, drawn):
        which, seed = drawn
        return see(purifiers[which](images, seed))

    change = change_left(seen, x, keep=draws is not None)

    def loss(x_adv, generator):
        (which,) = randint(0, len(purifiers), (1,), generator).tolist()
        (seed,) = randint(0, draws or 2**31, (1,), generator).tolist()
        return change(x_adv, (which, seed))

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
