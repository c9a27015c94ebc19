"""FreqPure: purification that keeps the low frequencies, which a perturbation hardly touches.

(Pei et al., ICML 2025, arXiv 2505.01267.) Rounds of DiffPure. In every reverse step the estimate x̂0 gives up
its low frequencies: their amplitude becomes a reference's, their phase is projected to within a slack of the
reference's. High frequencies are the model's own.

From the paper: the exchange of amplitudes and the projection of phases at every step.
From its authors' code (github.com/GaozhengPei/FreqPure): the rounds, eight of t = 50 at 256 px; the
reference, a one-step denoise of the round's input at t = 20; radius 3 at 32 px and 10 at 256 px; slack 0.3.
The code replaces phases outright, so its clipping to the slack does nothing: that is phase_slack=0.
Our choice: every reverse step is run (theirs runs 5 of 50); the reference is drawn once a round rather than
at every step; estimates are neither clipped nor rounded before the exchange; images larger than the model's
go tile by tile.
"""

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch

from ..core.diffusion import add_noise, alpha_bars, predict, predict_eps, predict_x0, reverse_step
from ..core.images import from_model, quantise, to_model
from ..core.tiles import extract, merge, tile_count
from ..runtime.allocator import kept_memory
from ..runtime.checks import check_counts
from ..runtime.noise import image_generators, randn
from ..runtime.unet import channels_last, sample_size
from .diffpure import PurifyState, check_chain, tiles_at_a_time

if TYPE_CHECKING:
    from diffusers import DDPMPipeline


def freqpure(ddpm: "DDPMPipeline", x: torch.Tensor, t: int = 50, rounds: int = 8, **options) -> torch.Tensor:
    """FreqPure: `freqpure_steps` to its end, rounded to 8 bits.

    Arguments and errors as there. Returns x's shape, [0, 1].
    """
    for state in freqpure_steps(ddpm, x, t, rounds, **options):
        purified = state.x
    return quantise(purified).to(x.device).view_as(x)


def freqpure_steps(
    ddpm: "DDPMPipeline",
    x: torch.Tensor,
    t: int = 50,  # noise steps of each round
    rounds: int = 8,
    radius: float = 3,  # of the kept disc, in cycles per tile; math.inf keeps all, −1 nothing
    phase_slack: float = 0.3,  # δ: how far a kept phase may turn, in radians; 0: not at all, π: freely
    t_ref: int = 20,  # noise steps of the reference's one-step denoise; 0: the round's input as it is
    seed: int = 0,
    batch: int | str | None = None,  # tiles per UNet call; None: all; "auto": what fits; see `micro_batch`
) -> Iterator[PurifyState]:
    """FreqPure, by round: rounds of DiffPure whose x̂0 keeps the low frequencies of what the round began with.

    States hold x before rounding; their iteration is always 0. x: 3×H×W or N×3×H×W in [0, 1], at least as
    large as the model's images; rounded to 8 bits at the start. seed: image i's noise depends on seed and i.
    Raises ValueError for bad values, t, rounds, t_ref or phase_slack, or an image smaller than a tile.
    """
    images = quantise(check_chain(ddpm, x, t).detach())
    steps = len(ddpm.scheduler.alphas_cumprod)
    if not 0 <= t_ref <= steps:
        raise ValueError(f"t_ref must be 0 … {steps} noise steps, got {t_ref}; 0 takes the input as it is")
    check_counts(rounds=rounds)
    if not 0 <= phase_slack <= math.pi + 1e-6:
        raise ValueError(f"phase_slack must be in [0, π] radians, got {phase_slack}")
    batch = tiles_at_a_time(batch, ddpm, images)
    return _freqpure(ddpm, images, t, rounds, radius, phase_slack, t_ref, seed, batch)


@torch.no_grad()
def _freqpure(ddpm, x, t, rounds, radius, phase_slack, t_ref, seed, batch):
    generators = image_generators(seed, len(x))
    with kept_memory(x.device):
        for r in range(rounds):
            with channels_last(ddpm.unet):
                x = _round(ddpm, x, t, generators, radius, phase_slack, t_ref, batch)
            yield PurifyState(r, 0, x)


def _round(ddpm, x, t, generators, radius, phase_slack, t_ref, batch):
    g = sample_size(ddpm)
    n, c, h, w = x.shape
    count = tile_count(h, w, g)
    alpha_bar = alpha_bars(ddpm.scheduler)

    def noise():
        return randn((n, count, c, g, g), generators, x.device).flatten(0, 1).to(x.dtype)

    reference = extract(x, g)
    x0 = to_model(reference)
    if t_ref > 0:
        x_ref = add_noise(x0, noise(), t_ref - 1, alpha_bar)
        eps = predict_eps(ddpm, x_ref, t_ref - 1, batch)
        reference = from_model(predict_x0(x_ref, eps, t_ref - 1, alpha_bar))

    x_t = add_noise(x0, noise(), t - 1, alpha_bar)
    for s in reversed(range(t)):
        eps, v = predict(ddpm, x_t, s, batch)
        # Spectra are taken in [0, 1], where the mean is positive: around 0 its phase could flip the sign.
        estimate = (predict_x0(x_t, eps, s, alpha_bar) + 1) / 2
        x0_hat = to_model(keep_low_frequencies(estimate, reference, radius, phase_slack))
        a = alpha_bar[s]
        eps = (x_t - a.sqrt() * x0_hat) / (1 - a).sqrt()  # the noise that the new x̂0 implies
        x_t = reverse_step(x_t, eps, s, ddpm.scheduler, noise() if s > 0 else None, v)
    return merge(from_model(x_t), x.shape, g)


def keep_low_frequencies(
    x: torch.Tensor, reference: torch.Tensor, radius: float = 3, phase_slack: float = 0.0
) -> torch.Tensor:
    """x with the low frequencies of `reference`, those with √(u²+v²) ≤ radius cycles per image.

    There |X| ← |R| and ∠X ← ∠R + clip(∠X − ∠R, ±phase_slack), the difference taken in (−π, π]; X and R are
    the channels' two-dimensional Fourier transforms. x, reference: N×C×H×W, the same shape. Not clipped.
    """
    h, w = x.shape[-2:]
    u = torch.fft.fftfreq(h, 1 / h, device=x.device)
    v = torch.fft.rfftfreq(w, 1 / w, device=x.device)
    low = u[:, None].square() + v.square() <= radius * abs(radius)  # a negative radius holds nothing
    spectrum, kept = torch.fft.rfft2(x), torch.fft.rfft2(reference)
    turn = (spectrum * kept.conj()).angle().clamp(-phase_slack, phase_slack)
    kept = kept * torch.polar(torch.ones_like(turn), turn)
    return torch.fft.irfft2(torch.where(low, kept, spectrum), s=(h, w))
