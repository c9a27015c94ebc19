"""AntiPure: a protective perturbation that means to survive diffusion purification.

(Yang et al., ICCV 2025, arXiv 2509.13922.)
"""

from collections.abc import Callable, Iterator, Sequence

import torch

from ..runtime.checks import check_count, check_counts, check_ddpm, check_number, check_predicts_eps
from ..runtime.micro_batch import in_parts
from ..runtime.noise import randint, randn
from ..runtime.pipelines import DDPMPipeline
from ..runtime.unet import sample_size
from .diffusion import add_noise, alpha_bars, predict_eps, predict_x0
from .guidance import denoising_loss, erroneous_timestep_guidance, patch_frequency_guidance
from .images import check_eight_bit, check_image, quantise_within, to_model
from .pgd import PGDState, pgd
from .tiles import extract, tile_count

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

    x: 3×H×W or N×3×H×W in [0, 1], at least as large as the model's images. eta: budget in (0, 1].
    eight_bit: the result holds what a saved PNG holds, and ‖x_adv − x‖∞ ≤ η holds for that file. Then eta
    must be at least 1/255. options: every further argument of `antipure_steps`. Returns x's shape, device
    and range. Raises ValueError for values outside their range.

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
    eta: float = 16 / 255,  # budget in (0, 1], [0, 1] units
    steps: int = 100,
    step_size: float | Sequence[float] = 1 / 255,  # [0, 1] units; one for all steps, or one each
    seed: int = 0,
    weights: tuple[float, float, float] = (0.1, 0.5, 0.5),  # of L_ddpm, PFG (λ1), ETG (λ2); 0 drops a term
    patch: int = 8,  # s of PFG, even, divides the tile
    t_max: int = 10,  # t ~ U{0 … t_max−1}
    t_err: int = 500,  # the erroneous timestep of ETG
    balance: str = "equal",  # "sum": the paper's plain sum; "equal": each term's gradient scaled to one size
    absolute: bool = False,  # PFG of |DCT|
    momentum: float = 0.9,
    noise_samples: int = 1,  # draws of (t, ε) averaged in each step
    tiles: str | int = "all",  # "all": GrIDPure's tiles; k: k crops at random places in each step
    batch: int | str | None = None,  # images per UNet call; None: all; "auto": what fits in memory
) -> Iterator[PGDState]:
    """Maximise E_{ε,t}[ L_ddpm + λ1·e^{ᾱ_t−1}·L_fre + λ2·e^{L_err} ] by sign steps, yielding every one.

    The paper's recipe is balance="sum", weights=(1, 0.5, 0.5), momentum=0. In that sum L_ddpm's gradient is
    far larger than the others' and decides nearly every sign; "equal" gives the weights their meaning. The
    default weights and momentum left most after purification on tuning people (data/results/sweep.jsonl).
    PFG alone has the weights (0, 1, 0), ETG alone (0, 0, 1), the attack on the pixel DDPM (1, 0, 0).
    The paper's t ~ U(1, t_p) counts noise levels from 1; indices count from 0.

    x: 3×H×W or N×3×H×W in [0, 1], at least as large as the model's images. Larger images are attacked on all
    their tiles at once. An image's terms are means over its tiles, and where tiles overlap their gradients
    add up. States: see `PGDState`, terms "ddpm", "pfg", "etg".
    Raises ValueError for values outside their range, TypeError for a ddpm that isn't a model of pixels.
    """
    check_ddpm(ddpm)
    images = check_image(x).to(ddpm.unet.device)
    terms = _weighted(weights)
    how = {"patch": patch, "t_max": t_max, "t_err": t_err, "noise_samples": noise_samples, "tiles": tiles}
    size = tuple(images.shape[-2:])
    check_terms(ddpm, size, tuple(terms), **how)
    count = antipure_images(ddpm, (len(images), *size), weights, noise_samples, tiles)
    model = in_parts(ddpm, batch, count, gradients=True)
    one_call = balance == "sum" or len(terms) == 1
    loss = antipure_loss(model, size, tuple(terms), absolute=absolute, one_call=one_call, **how)
    options = {"momentum": momentum, "balance": balance, "weights": terms, "repeat": model.unet.repeat}
    return pgd(loss, images, eta, steps, step_size, seed, **options)


def antipure_images(
    ddpm: "DDPMPipeline",
    size: tuple[int, int, int],  # N, H, W of the images
    weights: tuple[float, float, float] = (0.1, 0.5, 0.5),
    noise_samples: int = 1,
    tiles: str | int = "all",
    **_,
) -> int:
    """How many images a step sends through the UNet: tiles × draws, twice with ETG (t and t_err)."""
    n, height, width = size
    count = tile_count(height, width, sample_size(ddpm)) if tiles == "all" else tiles
    return n * count * noise_samples * (2 if "etg" in _weighted(weights) else 1)


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
    one_call: bool = True,  # (x_t, t) and (x_t, t_err) go through the UNet in one batch
) -> Callable[[torch.Tensor, torch.Generator], dict[str, torch.Tensor]]:
    """The terms as a loss for `pgd`: (x_adv N×3×H×W, generator) → {name: (N,)}.

    PFG's factor e^{ᾱ_t−1} is in its term, λ1 and λ2 aren't. Arguments and errors as in `antipure_steps`.
    one_call is best where one backward pass serves all terms. With two calls, a term's own backward pass
    leaves out the call that it doesn't use.
    """
    check_terms(ddpm, size, terms, patch, t_max, t_err, noise_samples, tiles)
    alpha_bar, g = alpha_bars(ddpm.scheduler, ddpm.unet.device), sample_size(ddpm)

    def loss(x_adv, generator):
        y = to_model(x_adv)
        x0 = extract(y, g) if tiles == "all" else _random_crops(y, g, tiles, generator)
        x0 = x0.repeat_interleave(noise_samples, 0)
        t = randint(0, t_max, (len(x0),), generator, x0.device)
        eps = randn(x0.shape, generator, x0.device).to(x0.dtype)
        x_t = add_noise(x0, eps, t, alpha_bar)
        times = [t, torch.full_like(t, t_err)] if "etg" in terms else [t]
        if one_call:
            together = predict_eps(ddpm, x_t.repeat(len(times), 1, 1, 1), torch.cat(times))
            predicted = together.chunk(len(times))
        else:
            predicted = [predict_eps(ddpm, x_t, time) for time in times]
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


def check_terms(
    ddpm: "DDPMPipeline",
    size: tuple[int, int],
    terms: tuple[str, ...],
    patch: int = 8,
    t_max: int = 10,
    t_err: int = 500,
    noise_samples: int = 1,
    tiles: str | int = "all",
) -> None:
    """Raises ValueError for an image smaller than a tile, and for what the terms can't be computed with."""
    check_predicts_eps(ddpm.scheduler)
    g, timesteps = sample_size(ddpm), len(ddpm.scheduler.alphas_cumprod)
    tile_count(*size, g)  # raises if the image is smaller than a tile
    if not terms or set(terms) - set(TERMS):
        raise ValueError(f"give at least one of the terms {TERMS} a weight, got {terms}")
    check_count(t_max, "t_max", 1, timesteps)
    check_count(t_err, "t_err", 0, timesteps - 1)
    check_counts(patch=patch, noise_samples=noise_samples)
    if "pfg" in terms and (patch % 2 or g % patch):
        raise ValueError(f"patch must be even and divide the tile of {g} pixels, got {patch}")
    try:
        check_count(1 if isinstance(tiles, str) and tiles == "all" else tiles, "tiles")
    except ValueError:
        raise ValueError(f"tiles must be 'all' or a number of random crops, got {tiles!r}") from None


def _weighted(weights: tuple[float, float, float]) -> dict[str, float]:
    """The terms that have a weight. Raises ValueError for weights that aren't three finite numbers."""
    try:
        numbers = [check_number(weight, "weights") for weight in weights]
        return {name: weight for name, weight in zip(TERMS, numbers, strict=True) if weight}
    except (TypeError, ValueError):
        told = f"weights must be three finite numbers, of L_ddpm, PFG and ETG; got {weights!r}"
        raise ValueError(told) from None


def _random_crops(x, g, k, generator):
    """k g×g crops of every image, at the same k random places in all."""
    height, width = x.shape[-2:]
    rows = torch.randint(height - g + 1, (k,), generator=generator).tolist()
    columns = torch.randint(width - g + 1, (k,), generator=generator).tolist()
    crops = [x[..., i : i + g, j : j + g] for i, j in zip(rows, columns, strict=True)]
    return torch.stack(crops, 1).flatten(0, 1)
