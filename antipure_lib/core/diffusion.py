"""DDPM in its own formulas: add noise, predict it, estimate x̂0, step back.  (Ho et al. 2020, 2006.11239)

Everything here is in the model's range [−1, 1]; timesteps are indices 0 … T−1, index 0 being the first noise
level.
"""

import torch

from ..runtime.checks import check_count, check_predicts_eps, check_reverse_step, check_timestep
from ..runtime.pipelines import DDPMPipeline, DDPMScheduler

Timestep = int | torch.Tensor


def alpha_bars(scheduler: "DDPMScheduler", device: torch.device | str = "cpu") -> torch.Tensor:
    """ᾱ_t for every t: a float32 tensor of T values falling from nearly 1 to nearly 0."""
    return scheduler.alphas_cumprod.to(device)


def add_noise(x0: torch.Tensor, eps: torch.Tensor, t: Timestep, alpha_bar: torch.Tensor) -> torch.Tensor:
    """x_t = √ᾱ_t·x0 + √(1−ᾱ_t)·ε.  (DDPM eq. 4)

    x0, eps: N×C×H×W. t: one index for all, or a LongTensor of N. alpha_bar: from `alpha_bars`.
    """
    a = _at(alpha_bar, t, x0)
    return a.sqrt() * x0 + (1 - a).sqrt() * eps


def predict_x0(x_t: torch.Tensor, eps: torch.Tensor, t: Timestep, alpha_bar: torch.Tensor) -> torch.Tensor:
    """x̂0 = (x_t − √(1−ᾱ_t)·ε) / √ᾱ_t, the clean image that x_t and a noise estimate imply; not clipped.

    x_t, eps: N×C×H×W. t: one index for all, or a LongTensor of N. alpha_bar: from `alpha_bars`.
    """
    a = _at(alpha_bar, t, x_t)
    return (x_t - (1 - a).sqrt() * eps) / a.sqrt()


def predict_eps(ddpm: "DDPMPipeline", x_t: torch.Tensor, t: Timestep) -> torch.Tensor:
    """ε_θ(x_t, t): the noise that the model sees in x_t.

    x_t: N×3×H×W. t: one index for all, or a LongTensor of N. Returns N×3×H×W.
    """
    return predict(ddpm, x_t, t)[0]


def predict(
    ddpm: "DDPMPipeline",  # anything with a .unet and a .scheduler like a DDPMPipeline's
    x_t: torch.Tensor,
    t: Timestep,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """One run of the UNet: (ε_θ, v). v is the variance head of a model with six output channels, else None.

    (v: Nichol and Dhariwal 2021, arXiv 2102.09672, eq. 15.) x_t: N×3×H×W. t: one index for all, or a
    LongTensor of N. Computes in the UNet's precision and returns x_t's. For a UNet that takes only a few
    images at a time see `runtime.micro_batch.in_parts`. Raises ValueError for another t, and if the model
    doesn't predict ε.
    """
    check_predicts_eps(ddpm.scheduler)
    t = check_timestep(t, len(ddpm.scheduler.alphas_cumprod))
    out = ddpm.unet(x_t.to(ddpm.unet.dtype), t).sample.to(x_t.dtype)
    eps, *v = out.split(x_t.shape[1], dim=1)
    return eps, v[0] if v else None


def reverse_step(
    x_t: torch.Tensor,
    eps: torch.Tensor,
    t: int,
    scheduler: "DDPMScheduler",
    noise: torch.Tensor | None = None,
    v: torch.Tensor | None = None,
) -> torch.Tensor:
    """One ancestral step x_t → x_{t−1}, equal to diffusers' `DDPMScheduler.step` under its configuration.

    x̂0 is clipped if the scheduler says so; then x_{t−1} = c0·x̂0 + ct·x_t + σ_t·noise  (DDPM eq. 7).
    σ_t²: β̃_t (`fixed_small`), β_t (`fixed_large`), or between by v (`learned_range`, 2102.09672 eq. 15).

    x_t, eps, noise, v: N×C×H×W. t: one index for all; at t=0 no noise is added and `noise` may be None.
    Raises ValueError for another t, for other variance types, for dynamic thresholding, and if
    `learned_range` gets no v.
    """
    check_reverse_step(scheduler)
    t = check_count(t, "t", 0, len(scheduler.alphas_cumprod) - 1)
    # float32 scalars as in diffusers: 1−ᾱ cancels at small t, and both must lose the same digits.
    a = scheduler.alphas_cumprod[t]
    a_prev = scheduler.alphas_cumprod[t - 1] if t > 0 else torch.ones_like(a)
    alpha = a / a_prev
    beta = 1 - alpha

    x0_hat = predict_x0(x_t, eps, t, scheduler.alphas_cumprod)
    if scheduler.config.clip_sample:
        x0_hat = x0_hat.clamp(-scheduler.config.clip_sample_range, scheduler.config.clip_sample_range)
    mean = a_prev.sqrt() * beta / (1 - a) * x0_hat + alpha.sqrt() * (1 - a_prev) / (1 - a) * x_t
    if t == 0:
        return mean

    beta_tilde = ((1 - a_prev) / (1 - a) * beta).clamp_min(1e-20)
    kind = scheduler.config.variance_type
    if kind == "learned_range":
        if v is None:
            raise ValueError(
                "variance_type 'learned_range' needs v, the model's variance head (see `predict`)"
            )
        share = (v + 1) / 2
        sigma = (0.5 * (share * beta.log() + (1 - share) * beta_tilde.log())).exp()
    elif kind in ("fixed_small", "fixed_small_log"):
        sigma = beta_tilde.sqrt()
    else:  # fixed_large
        sigma = beta.sqrt()
    return mean + sigma * noise


def _at(alpha_bar: torch.Tensor, t: Timestep, x: torch.Tensor) -> torch.Tensor:
    t = check_timestep(t, len(alpha_bar))
    if not isinstance(t, torch.Tensor):
        return alpha_bar[t]  # a scalar combines with any device without a copy
    return alpha_bar.to(x)[t].reshape(-1, *[1] * (x.ndim - 1))
