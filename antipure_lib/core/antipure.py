"""AntiPure: a protective perturbation that means to survive diffusion purification.

(Yang et al., ICCV 2025, arXiv 2509.13922.)
"""

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import torch

from ..runtime.checks import check_counts, check_ddpm, check_finite
from ..runtime.memory import micro_batch
from ..runtime.micro_batch import MicroBatch
from ..runtime.noise import randint, randn
from ..runtime.unet import sample_size
from .diffusion import add_noise, alpha_bars, predict_eps, predict_x0
from .guidance import denoising_loss, erroneous_timestep_guidance, patch_frequency_guidance
from .images import check_eight_bit, check_image, quantise_within, to_model
from .pgd import PGDState, pgd
from .tiles import extract, tile_count

if TYPE_CHECKING:
    from diffusers import DDPMPipeline

TERMS = ("ddpm", "pfg", "etg")


def antipure(
    ddpm: "DDPMPipeline",
    x: torch.Tensor,
    eta: float = 16 / 255,
    steps: int = 100,
    seed: int = 0,
    eight_bit: bool = True,
    **options,
) -> torch.Tensor:
    """Protect images: the last state of `antipure_steps`, rounded to 8 bits within the budget.

    x: 3×H×W or N×3×H×W in [0, 1], at least as large as the model's images. eta: budget, [0, 1] units.
    eight_bit: what is returned is what a saved PNG holds, and ‖x_adv − x‖∞ ≤ η holds for that file.
    options: every further argument of `antipure_steps`: weights, patch, t_max, t_err, balance, absolute,
    step_size, momentum, noise_samples, tiles, random_start, start, batch. Returns x's shape, device and
    range. Errors as there, and ValueError for eta < 1/255 with eight_bit.

    >>> protected = antipure(load_ddpm(), load_faces("p01"), eta=8 / 255, steps=40)
    """
    if eight_bit:
        check_eight_bit(eta)  # before the work, not after it
    for state in antipure_steps(ddpm, x, eta, steps, seed=seed, **options):
        x_adv = state.x_adv
    x_adv = x_adv.to(x).view_as(x)
    return quantise_within(x_adv, x.detach(), eta) if eight_bit else x_adv


def antipure_steps(
    ddpm: "DDPMPipeline",
    x: torch.Tensor,
    eta: float = 16 / 255,  # budget, [0, 1] units
    steps: int = 100,
    step_size: float | Sequence[float] = 1 / 255,  # [0, 1] units; one for all steps, or one each
    seed: int = 0,
    weights: tuple[float, float, float] = (0.1, 0.5, 0.5),  # of L_ddpm, PFG (λ1), ETG (λ2); 0 drops a term
    patch: int = 8,  # s of PFG
    t_max: int = 10,  # t ~ U{0 … t_max−1}
    t_err: int = 500,  # the erroneous timestep of ETG
    balance: str = "equal",  # "sum": the paper's plain sum; "equal": each term's gradient scaled to one size
    absolute: bool = False,  # PFG of |DCT|
    momentum: float = 0.9,
    noise_samples: int = 1,  # draws of (t, ε) averaged in each step
    tiles: str | int = "all",  # "all": GrIDPure's tiles; k: k crops at random places in each step
    random_start: bool = False,
    start: torch.Tensor | None = None,
    batch: int | str | None = None,  # images per UNet call; None: all; "auto": what fits; see `micro_batch`
) -> Iterator[PGDState]:
    """Maximise E_{ε,t}[ L_ddpm + λ1·e^{ᾱ_t−1}·L_fre + λ2·e^{L_err} ] by sign steps, yielding every one.

    The paper's recipe is balance="sum", weights=(1, 0.5, 0.5), momentum=0. In that sum L_ddpm's gradient is
    far larger than the others' and decides nearly every sign; "equal" gives the weights their meaning. The
    default weights and momentum are those that left most after purification on tuning people
    (data/results/sweep.jsonl). weights=(0, 1, 0) is PFG alone, (0, 0, 1) ETG alone, (1, 0, 0) the pixel DDPM
    attack. The paper's t ~ U(1, t_p) counts noise levels from 1; indices count from 0.

    x: 3×H×W or N×3×H×W in [0, 1]. Images larger than the model's are attacked on all their tiles at once; an
    image's terms are means over its tiles, and where tiles overlap their gradients add up. States: see
    `PGDState`, terms "ddpm", "pfg", "etg".
    Raises ValueError as `pgd` does, and for an image smaller than the model's, timesteps outside the model's,
    a patch that doesn't divide the tile, weights that aren't three finite numbers, or no weight at all;
    TypeError for a ddpm that is no model of pixels.
    """
    check_ddpm(ddpm)
    images = check_image(x).to(ddpm.unet.device)
    if len(weights) != len(TERMS):
        raise ValueError(f"weights must be three numbers, of L_ddpm, PFG and ETG; got {weights}")
    named = dict(zip(TERMS, weights, strict=True))
    check_finite(**{f"weight of {name}": weight for name, weight in named.items()})
    named = {name: weight for name, weight in named.items() if weight}
    one_call = balance == "sum" or len(named) == 1
    size = images.shape[-2:]
    what = (ddpm, size, tuple(named), patch, t_max, t_err, absolute, noise_samples, tiles)
    antipure_loss(*what)  # never run: complains about bad arguments before memory is asked for
    count = tile_count(*size, sample_size(ddpm)) if tiles == "all" else tiles
    count *= len(images) * noise_samples * (2 if "etg" in named else 1)
    batch = micro_batch(batch, ddpm, count, gradients=True)
    loss = antipure_loss(*what, batch, one_call)
    options = {"start": start, "random_start": random_start, "momentum": momentum, "balance": balance}
    options |= {"weights": named, "models": (ddpm.unet,), "batch": batch}
    return pgd(loss, images, eta, steps, step_size, seed, **options)


def antipure_loss(
    ddpm: "DDPMPipeline",
    size: tuple[int, int],  # H, W of the images
    terms: tuple[str, ...] = TERMS,
    patch: int = 8,
    t_max: int = 10,
    t_err: int = 500,
    absolute: bool = False,
    noise_samples: int = 1,
    tiles: str | int = "all",
    batch: int | MicroBatch | None = None,
    one_call: bool = True,
) -> Callable[[torch.Tensor, torch.Generator], dict[str, torch.Tensor]]:
    """The terms as a loss for `pgd`: (x_adv N×3×H×W, generator) → {name: (N,)}.

    PFG's factor e^{ᾱ_t−1} is in its term, λ1 and λ2 aren't. Arguments and errors as in `antipure_steps`.
    one_call: (x_t, t) and (x_t, t_err) go through the UNet in one batch, best where one backward pass serves
    all terms. False: in two calls, so that a term's own backward pass leaves out the call it doesn't use.
    """
    alpha_bar = alpha_bars(ddpm.scheduler, ddpm.unet.device)
    g = sample_size(ddpm)
    tile_count(*size, g)  # raises if the image is smaller than a tile
    if not terms or set(terms) - set(TERMS):
        raise ValueError(f"give at least one of the terms {TERMS} a weight, got {terms}")
    if not 1 <= t_max <= len(alpha_bar):
        raise ValueError(f"t_max must be 1 … {len(alpha_bar)}, got {t_max}")
    if not 0 <= t_err < len(alpha_bar):
        raise ValueError(f"t_err must be 0 … {len(alpha_bar) - 1}, got {t_err}")
    if "pfg" in terms and (patch < 2 or patch % 2 or g % patch):
        raise ValueError(f"patch must be even and divide the tile of {g} pixels, got {patch}")
    check_counts(noise_samples=noise_samples)
    if tiles != "all" and not (isinstance(tiles, int) and tiles >= 1):
        raise ValueError(f"tiles must be 'all' or a number of random crops, got {tiles!r}")

    def loss(x_adv, generator):
        if tiles == "all":
            x0 = extract(to_model(x_adv), g)
        else:
            x0 = _random_crops(to_model(x_adv), g, tiles, generator)
        x0 = x0.repeat_interleave(noise_samples, 0)
        t = randint(0, t_max, (len(x0),), generator, x0.device)
        eps = randn(x0.shape, generator, x0.device).to(x0.dtype)
        x_t = add_noise(x0, eps, t, alpha_bar)
        times = [t, torch.full_like(t, t_err)] if "etg" in terms else [t]
        if one_call:
            together = predict_eps(ddpm, x_t.repeat(len(times), 1, 1, 1), torch.cat(times), batch)
            predicted = together.chunk(len(times))
        else:
            predicted = [predict_eps(ddpm, x_t, time, batch) for time in times]
        eps_right, eps_wrong = predicted[0], predicted[-1]  # one and the same without ETG

        values = {}
        if "ddpm" in terms:
            values["ddpm"] = denoising_loss(eps_right, eps)
        if "pfg" in terms:
            x0_hat = predict_x0(x_t, eps_right, t, alpha_bar)
            values["pfg"] = (alpha_bar[t] - 1).exp() * patch_frequency_guidance(x0_hat, patch, absolute)
        if "etg" in terms:
            values["etg"] = erroneous_timestep_guidance(eps_wrong, eps_right)
        return {name: value.unflatten(0, (len(x_adv), -1)).mean(1) for name, value in values.items()}

    return loss


def _random_crops(x, g, k, generator):
    """k g×g crops of every image, at the same k random places in all."""
    height, width = x.shape[-2:]
    rows = torch.randint(height - g + 1, (k,), generator=generator).tolist()
    columns = torch.randint(width - g + 1, (k,), generator=generator).tolist()
    return torch.stack([x[..., i : i + g, j : j + g] for i, j in zip(rows, columns, strict=True)], 1).flatten(
        0, 1
    )
