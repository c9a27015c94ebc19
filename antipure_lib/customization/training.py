"""What every customization and every attacked surrogate share: the training loop of a latent model.

The loss is E[ w_t·‖ε_θ(z_t,t,c) − ε‖² ] over latents z of a few images; the VAE is frozen.  (Rombach et al.
2022, arXiv 2112.10752, eq. 3, where w_t = 1; see `timestep_weights`)
"""

import math
from collections.abc import Iterator, Mapping
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
    pipe: "StableDiffusionPipeline"  # the copy in training: one object, changed by the next step


def train_steps(
    pipe: "StableDiffusionPipeline",  # trained in place
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

    (arXiv 2112.10752, eq. 3.) A step's images, the same number of each group, have timesteps spread evenly
    over 0 … T−1 (see `stratified`); one image has a uniform timestep. After the last step, raises
    RuntimeError if the loss or a weight is NaN or infinite.
    """
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
    def step() -> dict[str, torch.Tensor]:
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
        return {"loss": loss.detach()} | {name: part.detach() for name, part in losses.items()}

    finite = True
    for number in range(1, steps + 1):
        loss, losses = (found := step()).pop("loss"), found
        finite = finite & loss.isfinite()
        yield CustomizeState(number, loss, losses, pipe)
    if not (finite & torch.stack([p.isfinite().all() for p in parameters]).all()):
        raise RuntimeError(f"training diverged: the loss or the weights are NaN or infinite; lower lr={lr}")


def _optimizer(pipe, lr, text_lr, steps, decay, warmup):
    """AdamW with a learning rate per network, and the schedule of both rates."""
    rates = {pipe.unet: float(lr), pipe.text_encoder: float(lr if text_lr is None else text_lr)}
    learned = [
        {"params": [p for p in model.parameters() if p.requires_grad], "lr": rate}
        for model, rate in rates.items()
    ]
    # fused: one pass over the weights instead of a dozen. On two cores a DreamBooth step takes a tenth less.
    optimizer = torch.optim.AdamW(learned, fused=True)

    def factor(k: int) -> float:
        fall = 0.5 * (1 + math.cos(math.pi * k / steps)) if decay else 1.0
        return fall * min(1.0, (k + 1) / max(warmup, 1))

    return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, factor)


def check_training(
    pipe: "StableDiffusionPipeline",
    images: torch.Tensor,
    prompt: str,
    name: str,  # of the images' argument
    least: Mapping[str, int],  # counts that must be at least 1, by name
    positive: Mapping[str, float | None],  # by name, "lr" among them; None passes, but for lr
) -> torch.Tensor:
    """The images as N×3×H×W, after the checks that every training shares.

    Raises ValueError for values outside their range, for another size than the model's, and for a prompt that
    the model can't read whole; RuntimeError in `torch.inference_mode()`; TypeError for another model.
    """
    check_counts(**least)
    check_positive(**positive)
    check_finite(lr=positive["lr"])  # the others may be None
    if torch.is_inference_mode_enabled():
        raise RuntimeError("torch.inference_mode() forbids the gradients that training needs; leave it")
    images = check_size(pipe, images, name)
    check_prompt(pipe, prompt)
    return images


def check_prior(
    pipe: "StableDiffusionPipeline", weight: float, images: torch.Tensor | None
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
    scheduler: "DDPMScheduler", alpha_bar: torch.Tensor, snr_gamma: float | None
) -> torch.Tensor:
    """Min-SNR weights of the timesteps.  (Hang et al. 2023, arXiv 2303.09556, section 3.4)

    min(SNR_t, γ)/SNR_t for a model that predicts ε, min(SNR_t, γ)/(SNR_t + 1) for one that predicts v, with
    SNR_t = ᾱ_t/(1−ᾱ_t); 1 for γ = None. alpha_bar: ᾱ_t of each weight wanted. An error in ε at a small t
    hardly changes the image, and the plain loss counts it like one that does.
    """
    if snr_gamma is None:
        return torch.ones_like(alpha_bar)
    snr = alpha_bar / (1 - alpha_bar)
    whole = snr + 1 if scheduler.config.prediction_type == "v_prediction" else snr
    return snr.clamp(max=float(snr_gamma)) / whole


def last_pipe(states: Iterator[CustomizeState]) -> "StableDiffusionPipeline":
    """The pipeline after the last step."""
    pipe = None
    for state in states:
        pipe = state.pipe
    return pipe
