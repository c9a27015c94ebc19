"""FreqPure: rounds of DiffPure that keep the low frequencies, which a perturbation hardly touches.

In every reverse step, low frequencies of the estimate x̂0 get a reference's amplitude, and a phase within a
slack of the reference's.  (Pei et al., ICML 2025, arXiv 2505.01267)
From the authors' code (github.com/GaozhengPei/FreqPure): eight rounds of t = 50 and slack 0.3. The radius is
3 at 32 px and 10 at 256 px. The reference is a one-step denoise of the round's input at t = 20.
Our choice: every reverse step is run (theirs runs 5 of 50), with one reference per round. Phases keep their
slack. Estimates are neither clipped nor rounded before the exchange.
"""

from collections.abc import Iterator

import torch

from ..core.diffusion import add_noise, alpha_bars, predict, predict_eps, predict_x0, reverse_step
from ..core.images import as_file, from_model, to_model
from ..core.tiles import extract, merge
from ..runtime.checks import check_counts, check_number
from ..runtime.noise import image_generators
from ..runtime.pipelines import DDPMPipeline
from ..runtime.unet import sample_size
from .diffpure import PurifyState, begin_chain, tile_noise

T_REF = 20  # noise steps of the reference's one-step denoise
PHASE_SLACK = 0.3  # δ: how far a kept phase may turn, in radians


def freqpure(ddpm: DDPMPipeline, x: torch.Tensor, t: int = 50, rounds: int = 8, **options) -> torch.Tensor:
    """The last picture of `freqpure_steps` in 8 bits, in x's shape; all else as there (2505.01267)."""
    for state in freqpure_steps(ddpm, x, t, rounds, **options):
        purified = state.x
    return as_file(purified, x)


def freqpure_steps(
    ddpm: DDPMPipeline,
    x: torch.Tensor,  # 3×H×W or N×3×H×W in [0, 1], at least as large as a tile; rounded to 8 bits first
    t: int = 50,  # noise steps of each round
    rounds: int = 8,
    radius: float = 3,  # of the kept disc, in cycles per tile; math.inf keeps all, −1 nothing
    seed: int = 0,  # the noise of image i depends on seed and i
    batch: int | str | None = None,  # tiles per UNet call; None: all; "auto": what fits in memory
) -> Iterator[PurifyState]:
    """FreqPure, by round: DiffPures whose x̂0 keeps the low frequencies of what the round began with.

    (arXiv 2505.01267, eq. 12-16; reference and slack from the authors' code.) The states' iteration is 0.
    Raises ValueError for values outside their range.
    """
    check_counts(rounds=rounds)
    radius = check_number(radius, "radius", infinite=True)
    model, images = begin_chain(ddpm, x, t, batch)
    generators = image_generators(seed, len(images))

    @torch.no_grad()
    def run() -> Iterator[PurifyState]:
        x = images
        for r in range(rounds):
            x = _round(model, x, t, generators, radius)
            yield PurifyState(r, 0, x)

    return run()


def _round(ddpm, x, t, generators, radius):
    g, alpha_bar, noise = sample_size(ddpm), alpha_bars(ddpm.scheduler), tile_noise(ddpm, x, generators)
    x0 = to_model(extract(x, g))
    x_ref = add_noise(x0, noise(), T_REF - 1, alpha_bar)
    reference = from_model(predict_x0(x_ref, predict_eps(ddpm, x_ref, T_REF - 1), T_REF - 1, alpha_bar))

    x_t = add_noise(x0, noise(), t - 1, alpha_bar)
    for s in reversed(range(t)):
        eps, v = predict(ddpm, x_t, s)
        # Spectra are taken in [0, 1], where the mean is positive: around 0 its phase could flip the sign.
        estimate = (predict_x0(x_t, eps, s, alpha_bar) + 1) / 2
        x0_hat = to_model(keep_low_frequencies(estimate, reference, radius, PHASE_SLACK))
        a = alpha_bar[s]
        eps = (x_t - a.sqrt() * x0_hat) / (1 - a).sqrt()  # the noise that the new x̂0 implies
        x_t = reverse_step(x_t, eps, s, ddpm.scheduler, noise() if s > 0 else None, v)
    return merge(from_model(x_t), x.shape, g)


def keep_low_frequencies(
    x: torch.Tensor, reference: torch.Tensor, radius: float = 3, phase_slack: float = 0.0
) -> torch.Tensor:
    """x with the low frequencies of `reference`, those with √(u²+v²) ≤ radius cycles per image.

    (arXiv 2505.01267, eq. 12-16.) For the channels' Fourier transforms X and R: |X| ← |R| and
    ∠X ← ∠R + clip(∠X − ∠R, ±phase_slack), the difference in (−π, π]. x, reference: N×C×H×W. Not clipped.
    Raises ValueError for a radius or a slack that isn't a number.
    """
    radius = check_number(radius, "radius", infinite=True)
    phase_slack = check_number(phase_slack, "phase_slack", infinite=True)
    # float32 or float64 in rows: the transform takes no half precision, and MKL's not every layout.
    x, reference = (z.to(torch.promote_types(z.dtype, torch.float32)).contiguous() for z in (x, reference))
    h, w = x.shape[-2:]
    u = torch.fft.fftfreq(h, 1 / h, dtype=torch.float32, device=x.device)
    v = torch.fft.rfftfreq(w, 1 / w, dtype=torch.float32, device=x.device)
    low = u[:, None].square() + v.square() <= radius * abs(radius)  # a negative radius holds nothing
    spectrum, kept = torch.fft.rfft2(x), torch.fft.rfft2(reference)
    turn = (spectrum * kept.conj()).angle().clamp(-phase_slack, phase_slack)
    kept = kept * torch.polar(torch.ones_like(turn), turn)
    return torch.fft.irfft2(torch.where(low, kept, spectrum), s=(h, w))
