"""The training loop that customizations and attacked surrogates share.  (arXiv 2112.10752, eq. 3)"""

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch

from ..core.diffusion import alpha_bars
from ..runtime.checks import check_counts, check_finite, check_number, check_positive
from ..runtime.noise import randn, stratified
from ..runtime.pipelines import DDPMScheduler, StableDiffusionPipeline
from ..runtime.unet import autocast
from .latent_diffusion import check_prompt, check_size, denoising_error, text_embeddings


class CustomizeState(NamedTuple):
    """What `dreambooth_steps` and `lora_steps` yield after each step."""

    step: int  # steps done: 1 … steps
    loss: torch.Tensor  # scalar, before this step's update: instance + prior_weight · prior
    losses: dict[str, torch.Tensor]  # its parts: "instance" and, if there is a prior, "prior"
    pipe: StableDiffusionPipeline  # the copy in training: one object, changed by the next step


def train_steps(
    pipe: StableDiffusionPipeline,  # trained in place
    groups: dict[str, tuple[tuple[torch.Tensor, torch.Tensor], str]],  # name: (from `latents`, prompt)
    weights: dict[str, float],  # of the groups' losses; default 1 each
    steps: int,
    lr: float,
    batch: int,  # images of each group per step
    generator: torch.Generator,  # on the CPU, advanced by every step
    dtype: torch.dtype | None = None,
    decay: bool = False,  # the learning rates fall to 0 along a cosine
    text_lr: float | None = None,  # of the text encoder; None: lr
    snr_gamma: float | None = None,  # of `timestep_weights`; None: every timestep has weight 1
    warmup: int = 0,  # steps over which the learning rates rise to their value
) -> Iterator[CustomizeState]:
    """AdamW on what asks for gradients in `pipe`: the loop that all customizations and surrogates share.

    (arXiv 2112.10752, eq. 3.) A step has the same number of images of each group. Their timesteps are spread
    evenly over 0 … T−1 (see `stratified`).
    After the last step, raises RuntimeError if the loss or a weight is NaN or infinite.
    """
    steps = int(steps)  # a tensor's arithmetic would round the learning rate to float32
    scheduler, device = pipe.scheduler, pipe.unet.device
    alpha_bar, timesteps = alpha_bars(scheduler, device), scheduler.config.num_train_timesteps
    weight = timestep_weights(scheduler, alpha_bar, snr_gamma)
    weights = {name: float(of_group) for name, of_group in weights.items()}
    optimizer, schedule = _optimizer(pipe, lr, text_lr, steps, decay, warmup)
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    # float16's small gradients would vanish: the scaler enlarges the loss. Elsewhere it does nothing.
    scaler = torch.amp.GradScaler(device.type, enabled=dtype is torch.float16)
    text = text_embeddings(pipe, [prompt for _, prompt in groups.values()], dtype)

    @torch.enable_grad()
    def step() -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        z0 = torch.cat([_draw(mean, std, batch, generator) for (mean, std), _ in groups.values()])
        eps = randn(z0.shape, generator, device)
        t = (timesteps * stratified(batch, generator, device)).long().repeat(len(groups))
        with autocast(pipe, dtype):
            c = text().repeat_interleave(batch, dim=0)
            errors = weight[t] * denoising_error(pipe, z0, eps, t, c)
        losses = dict(zip(groups, errors.reshape(len(groups), -1).mean(dim=1), strict=True))
        loss = sum(weights.get(name, 1.0) * part for name, part in losses.items())
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        scaler.step(optimizer)
        scaler.update()
        schedule.step()
        optimizer.zero_grad()
        return loss.detach(), {name: part.detach() for name, part in losses.items()}

    finite = True
    for number in range(1, steps + 1):
        loss, losses = step()
        finite = finite & loss.isfinite()
        yield CustomizeState(number, loss, losses, pipe)
    if not (finite & torch.stack([p.isfinite().all() for p in parameters]).all()):
        raise RuntimeError(f"training diverged: the loss or the weights are NaN or infinite; lower lr={lr}")


def _optimizer(pipe, lr, text_lr, steps, decay, warmup):
    """AdamW with a learning rate per network, and the schedule of both rates."""
    unet, text = ([p for p in m.parameters() if p.requires_grad] for m in (pipe.unet, pipe.text_encoder))
    text_lr = lr if text_lr is None else text_lr
    learned = [{"params": unet, "lr": float(lr)}, {"params": text, "lr": float(text_lr)}]
    # fused: one pass over the weights instead of a dozen. On two cores a DreamBooth step takes a tenth less.
    optimizer = torch.optim.AdamW(learned, fused=True)

    def factor(k: int) -> float:
        fall = 0.5 * (1 + math.cos(math.pi * k / steps)) if decay else 1.0
        return fall * min(1.0, (k + 1) / max(warmup, 1))

    return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, factor)


def check_training(
    pipe: StableDiffusionPipeline,
    images: torch.Tensor,
    name: str,  # of the images' argument
    prompt: str,
    lr: float,
    snr_gamma: float | None,
    **counts: int,  # that must be at least 1
) -> torch.Tensor:
    """The images as N×3×H×W. Raises as `check_size`, `check_prompt`; RuntimeError in inference mode."""
    check_counts(**counts)
    check_finite(lr=lr)
    check_positive(lr=lr, snr_gamma=snr_gamma)
    if torch.is_inference_mode_enabled():
        raise RuntimeError("torch.inference_mode() forbids the gradients that training needs; leave it")
    images = check_size(pipe, images, name)
    check_prompt(pipe, prompt)
    return images


def check_prior(
    pipe: StableDiffusionPipeline, weight: float, images: torch.Tensor | None
) -> torch.Tensor | None:
    """The prior's images as N×3×H×W, if there are any. Raises ValueError for them, and for a bad weight."""
    if check_number(weight, "prior_weight") < 0:
        raise ValueError(f"prior_weight must not be negative, got {weight}; 0 leaves the prior out")
    return None if images is None else check_size(pipe, images, "prior_images")


def _draw(mean, std, batch, generator) -> torch.Tensor:
    """Latents of `batch` images: in one draw no image comes twice before every other has come once."""
    rounds = math.ceil(batch / len(mean))
    index = torch.cat([torch.randperm(len(mean), generator=generator) for _ in range(rounds)])[:batch]
    index = index.to(mean.device)
    return mean[index] + std[index] * randn((batch, *mean.shape[1:]), generator, mean.device)


def timestep_weights(
    scheduler: DDPMScheduler, alpha_bar: torch.Tensor, snr_gamma: float | None
) -> torch.Tensor:
    """Min-SNR weights min(SNR_t, γ)/SNR_t, SNR_t = ᾱ_t/(1−ᾱ_t).  (arXiv 2303.09556, section 3.4)

    A model that predicts v has the denominator SNR_t + 1. γ = None: 1. alpha_bar: ᾱ_t of each weight wanted.
    """
    if snr_gamma is None:
        return torch.ones_like(alpha_bar)
    snr = alpha_bar / (1 - alpha_bar)
    whole = snr + 1 if scheduler.config.prediction_type == "v_prediction" else snr
    return snr.clamp(max=float(snr_gamma)) / whole


def last_pipe(states: Iterator[CustomizeState]) -> StableDiffusionPipeline:
    """The pipeline after the last step."""
    pipe = None
    for state in states:
        pipe = state.pipe
    return pipe
